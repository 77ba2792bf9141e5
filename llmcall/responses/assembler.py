"""The chunks of a streamed answer, assembled into the response that the unstreamed call would give."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from ..errors import ServiceError
from ..types import is_content, text_of
from .body import check_no_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Grow = Callable[[Any, Any], Any]  # of what is known, or None, and the next piece
    Growing = Mapping[str, Grow]  # by the names of fields


# some servers date each chunk separately, and Azure's last ones are nameless
FIRST = (
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
OPTIONAL = (
    "tool_calls",
    "function_call",
    "audio",
)


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
        self._chunks = 0
        self.latest: dict[str, Any] = {}

    def add(self, chunk: Any) -> str:
        """Add the next chunk; return the new text of choice 0, or ``""``.

        :param chunk: a ``chat.completion.chunk`` as the API sends it.
        :raises ServiceError: if the chunk is malformed, or reports an error.
        """
        text = ""
        try:
            check_no_error(chunk)
            named = [name for name in FIRST if self._fields.get(name)]
            _merge(
                self._fields,
                {name: chunk[name] for name in chunk if name not in (*STREAMED_ONLY, *named)},
                {},
            )
            choices = []
            for position, choice in enumerate(chunk.get("choices") or ()):
                index = int(choice.get("index", position))
                known = self._choices.setdefault(index, {"delta": {}})
                delta = choice.get("delta")
                choices.append({**choice, "index": index, "delta": _grown(known["delta"], delta)})
                rest = {name: value for name, value in choice.items() if name != "delta"}
                _merge(known, rest, CHOICE)
                if index == 0:
                    text += text_of((delta or {}).get("content")) or ""
            self.latest = {**chunk, "choices": choices}
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ServiceError(f"a malformed chunk in the stream: {chunk!r:.200}") from error
        self._chunks += 1
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
            raise ServiceError(f"the stream broke off after {self._chunks} chunks: {missing}")
        return self.begun()

    def begun(self) -> dict[str, Any]:
        """Return as much of the response as has come."""
        choices = [_whole_choice(index, choice) for index, choice in sorted(self._choices.items())]
        return {**self._fields, "object": "chat.completion", "choices": choices}


def _whole_choice(index: int, choice: dict[str, Any]) -> dict[str, Any]:
    given = choice.get("delta") or {}
    message = {name: value for name, value in given.items() if value or name not in OPTIONAL}
    message = {
        "role": message.pop("role", None) or "assistant",
        "content": message.pop("content", None),
        **message,
    }
    # A stream opens with "" before it is known that no text will come.
    if message["content"] == "" and any(message.get(name) for name in ("refusal", *OPTIONAL)):
        message["content"] = None
    if "tool_calls" in message:
        message["tool_calls"] = [
            *map(_whole_call, sorted(message["tool_calls"], key=lambda call: call["place"]))
        ]
    return {
        **{name: value for name, value in choice.items() if name != "delta"},
        "index": index,
        "message": message,
    }


def _whole_call(call: dict[str, Any]) -> dict[str, Any]:
    whole = {name: value for name, value in call.items() if name not in ("index", "place")}
    function = whole.get("function")
    if function is not None:
        whole["function"] = {**function, "arguments": function.get("arguments") or ""}
        whole["type"] = whole.get("type") or "function"
    return whole


def _merge(
    known: dict[str, Any], piece: dict[str, Any], growing: Growing, beyond: Grow | None = None
) -> dict[str, Any]:
    """Take the next fields of an object in: some grow, of the others the last that is not empty
    counts.

    :param beyond: how the others grow, if they do.
    """
    for name, value in piece.items():
        if value is None:
            known.setdefault(name)
        elif name in growing:
            known[name] = growing[name](known.get(name), value)
        elif beyond is not None:
            known[name] = beyond(known.get(name), value)
        elif value or not known.get(name):
            known[name] = value
    return known


def _object(growing: Growing) -> Grow:
    return lambda known, piece: _merge(known or {}, piece, growing)


def _text(known: str | None, piece: str) -> str:
    return (known or "") + piece


def _list(known: list[Any] | None, piece: list[Any]) -> list[Any]:
    # the same list, not a longer copy for each of many pieces
    found = [] if known is None else known
    found.extend(piece)
    return found


def _base64(known: str | None, piece: str) -> str:
    """Join pieces, each of which was encoded by itself; of what is known, only padded characters
    change.
    """
    known = known or ""
    whole = len(known) - 4 if known.endswith("=") else len(known)
    data = base64.b64decode(known[whole:]) + base64.b64decode(piece, validate=True)
    return known[:whole] + base64.b64encode(data).decode()


def _content(known: Any, piece: Any) -> str | list[dict[str, Any]]:
    """Join texts, or the parts if a server sends lists of parts; texts that follow one another
    are one part.
    """
    if isinstance(known or "", str) and isinstance(piece, str):
        return _text(known, piece)
    if not is_content(piece):
        raise TypeError(piece)
    parts: list[dict[str, Any]] = []
    for part in (*_parts(known), *_parts(piece)):
        last = parts[-1] if parts else {}
        if part.keys() == last.keys() == {"type", "text"} and part["type"] == last["type"]:
            parts[-1] = {**part, "text": last["text"] + part["text"]}
        elif part.get("text") != "":
            parts.append(part)
    return parts


def _parts(content: Any) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else [{"type": "text", "text": content or ""}]


def _grown(known: dict[str, Any], delta: Mapping[str, Any] | None) -> dict[str, Any]:
    """Add a delta, and return what is new in it."""
    new = dict(delta or {})
    if known.get("role"):
        new.pop("role", None)
    pieces = new.pop("tool_calls", None)
    _merge(known, new, DELTA, beyond=_accumulated)
    if pieces is not None:
        known["tool_calls"] = known.get("tool_calls") or []
        new["tool_calls"] = [_placed(piece, known["tool_calls"]) for piece in pieces]
    return new


def _placed(piece: dict[str, Any], calls: list[dict[str, Any]]) -> dict[str, Any]:
    """Take a piece of a tool call in, and return it at the call's index, without what is known."""
    call = _call_of(piece, calls)
    if call is None:
        given = piece.get("index")
        next_index = max((each["index"] for each in calls), default=-1) + 1
        index = next_index if given is None else int(given)
        # some servers give the same index to every call
        is_taken = any(each["place"] == index for each in calls)
        next_place = max((each["place"] for each in calls), default=-1) + 1
        call = {"index": index, "place": next_place if is_taken else index}
        calls.append(call)
    dropped = ("index", "id") if call.get("id") else ("index",)
    rest = {name: value for name, value in piece.items() if name not in dropped}
    new = {name: value for name, value in rest.items() if name != "type" or not call.get("type")}
    for kind in ("function", "custom"):
        known, grown = call.get(kind), rest.get(kind)
        if isinstance(known, dict) and isinstance(grown, dict) and known.get("name"):
            new[kind] = {name: value for name, value in grown.items() if name != "name"}
    _merge(call, rest, TOOL_CALL)
    return {"index": call["place"], **new}


def _accumulated(known: Any, piece: Any) -> Any:
    """Join the values of an unknown field as the openai SDK does: texts and lists are joined."""
    if isinstance(known, str) and isinstance(piece, str):
        return known + piece
    if isinstance(known, list) and isinstance(piece, list):
        return known + piece
    if isinstance(known, dict) and isinstance(piece, dict):
        return _merge(dict(known), piece, {}, beyond=_accumulated)
    return piece if piece or not known else known


def _call_of(piece: dict[str, Any], calls: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the call that a piece continues, or ``None`` if it begins one.

    The index decides, unless the piece has another id and a name: some servers give every call the
    index 0. (Others give every piece a new id; the first one stays.) Without an index, the id
    decides. Without a known id, a piece with a name begins a call, and any other piece continues the
    last one.
    """
    index, identifier = piece.get("index"), piece.get("id")
    is_named = any(
        isinstance(piece.get(kind), dict) and piece[kind].get("name")
        for kind in ("function", "custom")
    )
    if index is None:
        last = None if is_named or not calls else calls[-1]
        return next((call for call in calls if identifier and call.get("id") == identifier), last)
    call = next((call for call in reversed(calls) if call["index"] == int(index)), None)
    is_another = (
        call is not None and is_named and identifier and call.get("id") and identifier != call["id"]
    )
    return None if is_another else call


# What grows in a chunk's choice (openai 3.51, ChatCompletionChunk; the reasoning is DeepSeek's and
# OpenRouter's).
TOOL_CALL: Growing = {
    "function": _object({"arguments": _text}),
    "custom": _object({"input": _text}),
}


DELTA: Growing = {
    "content": _content,
    "refusal": _text,
    "reasoning_content": _text,
    "reasoning": _text,
    "reasoning_details": _list,
    "annotations": _list,
    "function_call": _object({"arguments": _text}),
    "audio": _object({"transcript": _text, "data": _base64}),
}


CHOICE: Growing = {
    "logprobs": _object({"content": _list, "refusal": _list}),
}
