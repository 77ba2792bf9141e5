"""The chunks of a stream: assembled to an answer, and made from one."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping

from ..errors import ServiceError
from ..support.data import Data
from ..support.lazy_names import pattern
from .bodies import check_no_error
from .message import content_text
from .shapes import as_chat

WORDS = pattern(r"\s*\S+|\s+")  # each word with the blanks before it; joined they are the text
# The fields that every chunk repeats.
EACH_CHUNK = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
# Some servers date each chunk separately, and Azure's last ones are nameless.
KEEP_FIRST = ("id", "created", "model")
# The last is random padding against eavesdroppers (OpenAI).
STREAMED_ONLY = ("choices", "object", "obfuscation")
# An unstreamed message has these fields only if they are not empty.
OPTIONAL_FIELDS = ("tool_calls", "function_call", "audio", "images")
# Texts that a model writes before its answer (DeepSeek and vLLM; OpenRouter).
REASONING_FIELDS = ("reasoning_content", "reasoning")

# Follows the last chunk if the server marks the stream as complete.
DONE: dict[str, Data] = {}


class Assembler:
    """An assembler of a chat completion's chunks into the response of an unstreamed call.

    The texts, lists and objects in deltas are joined as the openai SDK joins them. Of any other field,
    the last value that is not empty counts.

    :ivar is_done: ``True`` if the server marked the stream as complete; some servers then send no
        ``finish_reason`` (Snowflake Cortex, OpenRouter's Novita, older Ollama).
    :ivar chunk_count: how many chunks were added.
    """

    def __init__(self) -> None:
        self._fields: dict[str, Data] = {}
        self._choices: dict[int, dict[str, Data]] = {}
        self.chunk_count = 0
        self.is_done = False

    def add(self, chunk: Data) -> str:
        """Add the next chunk; return the new text of choice 0, or ``""``.

        :param chunk: a ``chat.completion.chunk`` as the API sends it.
        :raises ServiceError: if the chunk is malformed, or reports an error.
        """
        try:
            check_no_error(chunk)
            for name, value in chunk.items():
                is_kept = name in KEEP_FIRST and self._fields.get(name)
                if name not in STREAMED_ONLY and not is_kept:
                    _set(self._fields, name, value)
            for position, choice in enumerate(chunk.get("choices") or ()):
                whole = self._choices.setdefault(int(choice.get("index", position)), {"delta": {}})
                for name, value in choice.items():
                    if name == "delta":
                        _add_delta(whole["delta"], value or {})
                    elif name == "logprobs":
                        whole[name] = _joined(whole.get(name), value)
                    else:
                        _set(whole, name, value)
            text = chunk_text(chunk)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ServiceError(f"a malformed chunk in the stream: {chunk!r:.200}") from error
        self.chunk_count += 1
        return text

    def response(self) -> dict[str, Data]:
        """Return the response: ``{"id", "object": "chat.completion", "created", "model", "choices",
        "usage", …}``.

        :raises ServiceError: if the stream broke off.
        """
        unfinished = sorted(
            index for index, choice in self._choices.items() if not choice.get("finish_reason")
        )
        if self.is_done and len(unfinished) == len(self._choices):
            unfinished = []
        if unfinished or 0 not in self._choices:
            names = ", ".join(map(str, unfinished))
            missing = (
                f"no finish_reason for choice {names}"
                if unfinished
                else "no choice 0 in any of them"
            )
            raise ServiceError(f"the stream broke off after {self.chunk_count} chunks: {missing}")
        return self.partial_response()

    def partial_response(self) -> dict[str, object]:
        """Return the part of the response that has arrived."""
        choices = [_whole_choice(index, choice) for index, choice in sorted(self._choices.items())]
        return {**self._fields, "object": "chat.completion", "choices": choices}


def _whole_choice(index: int, choice: dict[str, Data]) -> dict[str, object]:
    delta = choice["delta"]
    message = {
        "role": delta.get("role") or "assistant",
        "content": delta.get("content"),
        **{
            name: value
            for name, value in delta.items()
            if name not in ("role", "content") and (value or name not in OPTIONAL_FIELDS)
        },
    }
    if "tool_calls" in message:
        calls = sorted(message["tool_calls"], key=lambda call: call["index"])
        message["tool_calls"] = [*map(_whole_call, calls)]
    audio = message.get("audio")
    if audio and audio.get("data"):
        message["audio"] = {**audio, "data": base64.b64encode(b"".join(audio["data"])).decode()}
    rest = {name: value for name, value in choice.items() if name != "delta"}
    return {**rest, "index": index, "message": message}


def _whole_call(call: dict[str, Data]) -> dict[str, object]:
    tool_call = {name: value for name, value in call.items() if name != "index"}
    if "function" in tool_call:
        tool_call["function"] = {"arguments": "", **tool_call["function"]}
        tool_call["type"] = tool_call.get("type") or "function"
    return tool_call


def _set(fields: dict[str, object], name: str, value: object) -> None:
    """Set a field, unless it has a value and the new one is empty."""
    if value or not fields.get(name):
        fields[name] = value


def _joined(value: Data, piece: Data) -> object:
    """Join texts, lists and objects; of anything else, return the last value that is not empty."""
    if piece is None or (value is not None and not piece):
        return value
    if isinstance(piece, dict):
        so_far = value if isinstance(value, dict) else {}
        return so_far | {name: _joined(so_far.get(name), item) for name, item in piece.items()}
    if isinstance(piece, list):
        items = value if isinstance(value, list) else []  # not the chunk's own: it grows here
        items += piece
        return items
    return value + piece if isinstance(value, str) and isinstance(piece, str) else piece


def _add_delta(message: dict[str, Data], delta: Mapping[str, Data]) -> None:
    """Add a delta to the message so far."""
    for name, piece in delta.items():
        value = message.get(name)
        if name == "role":
            message[name] = value or piece
        elif name == "tool_calls":
            calls = message[name] = value or []
            for call_piece in piece or ():
                _add_tool_call(call_piece, calls)
        elif name == "content" and list in (type(value), type(piece)):
            message[name] = _joined_parts(value, piece)
        elif name == "audio" and piece and piece.get("data"):  # each piece is encoded separately
            data = [base64.b64decode(piece["data"], validate=True)]
            message[name] = _joined(value, {**piece, "data": data})
        else:
            message[name] = _joined(value, piece)


def _joined_parts(value: object, piece: object) -> list[dict[str, object]]:
    """Join the parts of a content (Mistral's thinking models); consecutive texts become one part."""
    parts, further = (value, [piece]) if isinstance(value, list) else ([], [value, piece])
    for content in further:
        text = [{"type": "text", "text": content or ""}]
        for part in content if isinstance(content, list) else text:
            if part["type"] == "text" and parts and parts[-1]["type"] == "text":
                parts[-1] = {**part, "text": parts[-1]["text"] + part["text"]}
            elif part.get("text") != "":
                parts.append(part)
    return parts


def _add_tool_call(piece: dict[str, Data], calls: list[dict[str, object]]) -> None:
    """Add a piece of a tool call to the calls so far."""
    call = _continued_call(piece, calls)
    if call is None:
        index = piece.get("index")
        call = {"index": len(calls) if index is None else int(index)}
        calls.append(call)
    for name, value in piece.items():
        if name in ("function", "custom"):
            tool = call.setdefault(name, {})
            for field, text in (value or {}).items():
                if field in ("arguments", "input"):
                    tool[field] = (tool.get(field) or "") + (text or "")
                else:
                    _set(tool, field, text)
        elif name not in ("index", "id") or not call.get(name, name == "index"):
            _set(call, name, value)


def _continued_call(
    piece: dict[str, Data], calls: list[dict[str, object]]
) -> dict[str, Data] | None:
    """Return the call that a piece continues, or ``None`` if it begins one.

    The index decides, unless the piece has another id and a name, since some servers give every call
    the index 0. (Others, such as vLLM, give every piece a new id; the first one stays.) Without an
    index, as from Gemini, the id decides. Without a known id, a piece with a name begins a call, and any
    other piece continues the last one.
    """
    index, identifier = piece.get("index"), piece.get("id")
    tools = [piece.get("function"), piece.get("custom")]
    is_named = any(tool.get("name") for tool in tools if tool)
    if index is None:
        last = None if is_named or not calls else calls[-1]
        return next((call for call in calls if identifier and call.get("id") == identifier), last)
    call = next((call for call in reversed(calls) if call["index"] == int(index)), None)
    known = call.get("id") if call is not None else None
    is_another = is_named and identifier and known and identifier != known
    return None if is_another else call


def chunks_of(response: Mapping[str, Data]) -> Iterator[dict[str, object]]:
    """Yield the chunks of a replayed stream. :class:`Assembler` and the SDK assemble them to the recorded
    response again.

    Texts come word by word, the model's reasoning first; a text with log probabilities comes token by
    token.
    """
    response = as_chat(response)
    fields = {name: response[name] for name in response if name not in ("choices", "usage")}
    first_fields = {**fields, "object": "chat.completion.chunk"}
    chunk_fields = {name: first_fields[name] for name in EACH_CHUNK if name in first_fields}
    for number, choice in enumerate(response["choices"]):
        position = {
            "index": choice.get("index", number),
            # The SDK keeps the first chunk's fields, even a null.
            **({"logprobs": None} if "logprobs" in choice else {}),
        }
        own = {name: choice[name] for name in choice if name not in ("message", "logprobs")}
        ending = {**own, **position, "delta": {}, "finish_reason": choice.get("finish_reason")}
        tokens = _tokens_of(choice)
        first, *further = _deltas(choice["message"], [token["token"] for token in tokens])
        yield {**first_fields, "choices": [{**ending, "delta": first, "finish_reason": None}]}
        logprobs = iter(tokens)
        for delta in further:
            piece = {**position, "delta": delta, "finish_reason": None}
            if tokens and "content" in delta:
                piece["logprobs"] = {**choice["logprobs"], "content": [next(logprobs)]}
            yield {**chunk_fields, "choices": [piece]}
        if choice.get("logprobs") is not None and not tokens:
            piece = {**position, "delta": {}, "logprobs": choice["logprobs"], "finish_reason": None}
            yield {**chunk_fields, "choices": [piece]}
        # The reason comes in an empty chunk, as from the API: programs stop reading where they see it, and
        # ignore the rest of that chunk.
        last = {**chunk_fields, "choices": [ending]}
        if number == len(response["choices"]) - 1 and response.get("usage") is not None:
            last["usage"] = response["usage"]
        yield last


def _tokens_of(choice: Mapping[str, Data]) -> list[dict[str, Data]]:
    """Return the tokens of a choice's text with their log probabilities, if they cover the whole text."""
    logprobs = choice.get("logprobs") or {}
    tokens: list[dict[str, Data]] = logprobs.get("content") or []
    is_text = "".join(token["token"] for token in tokens) == choice["message"].get("content")
    return tokens if is_text and not logprobs.get("refusal") else []


def _deltas(message: Mapping[str, Data], tokens: list[str]) -> Iterator[dict[str, Data]]:
    """Yield the deltas of a message. Each tool call gets separate deltas, its name before its arguments,
    because programs read only the first call of a delta.

    :param tokens: the pieces of its text; if empty, the text comes word by word.
    """
    texts = {
        name: message[name]
        for name in (*REASONING_FIELDS, "content")
        if isinstance(message.get(name), str)
    }
    first: dict[str, Data] = {name: value for name, value in message.items() if value is None}
    first["role"] = message.get("role") or "assistant"
    if "content" in texts:
        first["content"] = ""
    yield first
    for name, text in texts.items():
        pieces = tokens if tokens and name == "content" else WORDS.findall(text)
        yield from ({name: piece} for piece in pieces)
    done = {*first, *texts, "tool_calls"}
    if rest := {name: value for name, value in message.items() if name not in done}:
        yield rest
    for number, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function")
        if not isinstance(function, dict):
            yield {"tool_calls": [{**call, "index": number}]}
            continue
        arguments = {"arguments": function.get("arguments") or ""}
        yield {"tool_calls": [{**call, "index": number, "function": {**function, "arguments": ""}}]}
        yield {"tool_calls": [{"index": number, "function": arguments}]}


def chunk_text(chunk: Mapping[str, Data]) -> str:
    """Return the text of the first choice in a chunk."""
    choices = enumerate(chunk.get("choices") or ())
    deltas = [
        choice.get("delta") or {}
        for position, choice in choices
        if choice.get("index", position) == 0
    ]
    return "".join(content_text(delta.get("content")) or "" for delta in deltas)


def says_something(chunk: Mapping[str, Data]) -> bool:
    """Return whether a chunk holds a part of an answer beyond its role."""
    deltas = [choice.get("delta") or {} for choice in chunk.get("choices") or ()]
    return any(value for delta in deltas for name, value in delta.items() if name != "role")
