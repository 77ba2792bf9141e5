"""The chunks of a streamed answer, assembled into the response that the unstreamed call would give."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from ..errors import ServiceError
from .bodies import check_no_error
from .message import is_content, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Joiner = Callable[[Any, Any], Any]  # of the value so far, or None, and the next piece
    Joiners = Mapping[str, Joiner]  # by the names of fields


# some servers date each chunk separately, and Azure's last ones are nameless
KEEP_FIRST = (
    "id",
    "created",
    "model",
)


# the last is random padding against eavesdroppers (OpenAI)
STREAMED_ONLY = (
    "choices",
    "object",
    "obfuscation",
)


# an unstreamed message has these only where there are some
OPTIONAL_FIELDS = (
    "tool_calls",
    "function_call",
    "audio",
)


# the field of a tool call's position, under a name that no server gives to a field of its own
POSITION = "llmcall position"


class Assembler:
    """Put the chunks of one chat completion together.

    Texts (``content``, which may come in parts, ``refusal``, ``reasoning_content``, ``reasoning``,
    the arguments of calls) and lists (logprobs, ``annotations``, ``reasoning_details``) are joined.
    For ``id``, ``created`` and ``model``, the first value that is not empty counts; for any other
    field, the last one. Unknown fields of a delta are joined as the openai SDK joins them. Audio
    data is joined as bytes.

    :ivar latest: the last chunk, without what its deltas repeat, such as the role: readers of chunks
        take each text for a further piece.
    """

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._chunk_count = 0
        self.latest: dict[str, Any] = {}

    def add(self, chunk: Any) -> str:
        """Add the next chunk; return the new text of choice 0, or ``""``.

        :param chunk: a ``chat.completion.chunk`` as the API sends it.
        :raises ServiceError: if the chunk is malformed, or reports an error.
        """
        text = ""
        try:
            check_no_error(chunk)
            already_set = [name for name in KEEP_FIRST if self._fields.get(name)]
            _merge(
                self._fields,
                {name: chunk[name] for name in chunk if name not in (*STREAMED_ONLY, *already_set)},
                {},
            )
            choices = []
            for position, choice in enumerate(chunk.get("choices") or ()):
                index = int(choice.get("index", position))
                accumulated = self._choices.setdefault(index, {"delta": {}})
                delta = choice.get("delta")
                choices.append(
                    {**choice, "index": index, "delta": _add_delta(accumulated["delta"], delta)}
                )
                rest = {name: value for name, value in choice.items() if name != "delta"}
                _merge(accumulated, rest, CHOICE)
                if index == 0:
                    text += text_of((delta or {}).get("content")) or ""
            self.latest = {**chunk, "choices": choices}
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ServiceError(f"a malformed chunk in the stream: {chunk!r:.200}") from error
        self._chunk_count += 1
        return text

    def response(self) -> dict[str, Any]:
        """Return the response: ``{"id", "object": "chat.completion", "created", "model", "choices",
        "usage", …}``.

        :raises ServiceError: if the stream broke off.
        """
        unfinished = sorted(
            index for index, choice in self._choices.items() if not choice.get("finish_reason")
        )
        if unfinished or 0 not in self._choices:
            names = ", ".join(map(str, unfinished))
            missing = (
                f"no finish_reason for choice {names}"
                if unfinished
                else "no choice 0 in any of them"
            )
            raise ServiceError(f"the stream broke off after {self._chunk_count} chunks: {missing}")
        return self.partial_response()

    def partial_response(self) -> dict[str, Any]:
        """Return as much of the response as has come."""
        choices = [_whole_choice(index, choice) for index, choice in sorted(self._choices.items())]
        return {**self._fields, "object": "chat.completion", "choices": choices}


def _whole_choice(index: int, choice: dict[str, Any]) -> dict[str, Any]:
    delta = choice.get("delta") or {}
    message = {name: value for name, value in delta.items() if value or name not in OPTIONAL_FIELDS}
    message = {
        "role": message.pop("role", None) or "assistant",
        "content": message.pop("content", None),
        **message,
    }
    if "tool_calls" in message:
        message["tool_calls"] = [
            *map(_whole_call, sorted(message["tool_calls"], key=lambda call: call[POSITION]))
        ]
    return {
        **{name: value for name, value in choice.items() if name != "delta"},
        "index": index,
        "message": message,
    }


def _whole_call(call: dict[str, Any]) -> dict[str, Any]:
    tool_call = {name: value for name, value in call.items() if name not in ("index", POSITION)}
    function = tool_call.get("function")
    if function is not None:
        tool_call["function"] = {**function, "arguments": function.get("arguments") or ""}
        tool_call["type"] = tool_call.get("type") or "function"
    return tool_call


def _merge(
    accumulated: dict[str, Any],
    piece: dict[str, Any],
    joiners: Joiners,
    default: Joiner | None = None,
) -> dict[str, Any]:
    """Add the next fields of an object. Some are joined; of the others, the last value that is not
    empty counts.

    :param default: joins the fields that have no joiner of their own, if anything does.
    """
    for name, value in piece.items():
        if value is None:
            accumulated.setdefault(name)
        elif name in joiners:
            accumulated[name] = joiners[name](accumulated.get(name), value)
        elif default is not None:
            accumulated[name] = default(accumulated.get(name), value)
        elif value or not accumulated.get(name):
            accumulated[name] = value
    return accumulated


def _object(joiners: Joiners) -> Joiner:
    return lambda accumulated, piece: _merge(accumulated or {}, piece, joiners)


def _text(accumulated: str | None, piece: str) -> str:
    return (accumulated or "") + piece


def _list(accumulated: list[Any] | None, piece: list[Any]) -> list[Any]:
    # the same list, not a longer copy for each of many pieces
    items = [] if accumulated is None else accumulated
    items.extend(piece)
    return items


def _base64(accumulated: str | None, piece: str) -> str:
    """Join pieces, each of which was encoded by itself. Of the characters so far, only padded ones
    change.
    """
    accumulated = accumulated or ""
    unchanged = len(accumulated) - 4 if accumulated.endswith("=") else len(accumulated)
    data = base64.b64decode(accumulated[unchanged:]) + base64.b64decode(piece, validate=True)
    return accumulated[:unchanged] + base64.b64encode(data).decode()


def _content(accumulated: Any, piece: Any) -> str | list[dict[str, Any]]:
    """Join texts, or the parts if a server sends lists of parts; texts that follow one another
    are one part.
    """
    if isinstance(accumulated or "", str) and isinstance(piece, str):
        return _text(accumulated, piece)
    if not is_content(piece):
        raise TypeError(piece)
    parts: list[dict[str, Any]] = []
    for part in (*_parts(accumulated), *_parts(piece)):
        last = parts[-1] if parts else {}
        if part.keys() == last.keys() == {"type", "text"} and part["type"] == last["type"]:
            parts[-1] = {**part, "text": last["text"] + part["text"]}
        elif part.get("text") != "":
            parts.append(part)
    return parts


def _parts(content: Any) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else [{"type": "text", "text": content or ""}]


def _add_delta(accumulated: dict[str, Any], delta: Mapping[str, Any] | None) -> dict[str, Any]:
    """Add a delta to the message so far, and return what is new in it."""
    new = dict(delta or {})
    if accumulated.get("role"):
        new.pop("role", None)
    pieces = new.pop("tool_calls", None)
    _merge(accumulated, new, DELTA, default=_unknown_field)
    if pieces is not None:
        accumulated["tool_calls"] = accumulated.get("tool_calls") or []
        new["tool_calls"] = [_add_tool_call(piece, accumulated["tool_calls"]) for piece in pieces]
    return new


def _add_tool_call(piece: dict[str, Any], calls: list[dict[str, Any]]) -> dict[str, Any]:
    """Add a piece of a tool call to the calls so far.

    :returns: the piece at the call's position, without what earlier pieces said.
    """
    call = _call_of(piece, calls)
    if call is None:
        piece_index = piece.get("index")
        next_index = max((each["index"] for each in calls), default=-1) + 1
        index = next_index if piece_index is None else int(piece_index)
        # some servers give the same index to every call
        is_taken = any(each[POSITION] == index for each in calls)
        next_position = max((each[POSITION] for each in calls), default=-1) + 1
        call = {"index": index, POSITION: next_position if is_taken else index}
        calls.append(call)
    ignored = ("index", "id") if call.get("id") else ("index",)
    rest = {name: value for name, value in piece.items() if name not in ignored}
    new = {name: value for name, value in rest.items() if name != "type" or not call.get("type")}
    for call_type in ("function", "custom"):
        accumulated = call.get(call_type)
        addition = rest.get(call_type)
        if isinstance(accumulated, dict) and isinstance(addition, dict) and accumulated.get("name"):
            new[call_type] = {name: value for name, value in addition.items() if name != "name"}
    _merge(call, rest, TOOL_CALL)
    return {"index": call[POSITION], **new}


def _unknown_field(accumulated: Any, piece: Any) -> Any:
    """Join the values of an unknown field as the openai SDK does: texts, lists and objects."""
    if isinstance(accumulated, str) and isinstance(piece, str):
        return accumulated + piece
    if isinstance(accumulated, list) and isinstance(piece, list):
        return accumulated + piece
    if isinstance(accumulated, dict) and isinstance(piece, dict):
        return _merge(dict(accumulated), piece, {}, default=_unknown_field)
    return piece if piece or not accumulated else accumulated


def _call_of(piece: dict[str, Any], calls: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the call that a piece continues, or ``None`` if it begins one.

    The index decides, unless the piece has another id and a name: some servers give every call the
    index 0. (Others give every piece a new id; the first one stays.) Without an index, the id
    decides. Without a known id, a piece with a name begins a call, and any other piece continues the
    last one.
    """
    index = piece.get("index")
    identifier = piece.get("id")
    is_named = any(
        isinstance(piece.get(call_type), dict) and piece[call_type].get("name")
        for call_type in ("function", "custom")
    )
    if index is None:
        last = None if is_named or not calls else calls[-1]
        return next((call for call in calls if identifier and call.get("id") == identifier), last)
    call = next((call for call in reversed(calls) if call["index"] == int(index)), None)
    is_another = (
        call is not None and is_named and identifier and call.get("id") and identifier != call["id"]
    )
    return None if is_another else call


# What is joined in a chunk's choice (openai 3.51, ChatCompletionChunk; the reasoning is DeepSeek's and
# OpenRouter's).
TOOL_CALL: Joiners = {
    "function": _object({"arguments": _text}),
    "custom": _object({"input": _text}),
}


DELTA: Joiners = {
    "content": _content,
    "refusal": _text,
    "reasoning_content": _text,
    "reasoning": _text,
    "reasoning_details": _list,
    "annotations": _list,
    "function_call": _object({"arguments": _text}),
    "audio": _object({"transcript": _text, "data": _base64}),
}


CHOICE: Joiners = {
    "logprobs": _object({"content": _list, "refusal": _list}),
}
