"""What counts as an answer, and event streams as the response that the unstreamed call would have
been.

An answer is complete, neither filtered nor empty. Anything else is an error of the tree.
"""

from __future__ import annotations

import base64
import codecs
import io
import json
import math
import re
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from .display.formatting import shortened
from .errors import APIError, ContentFilterError, EmptyAnswerError, OutputError, ServiceError
from .types import Response, TokenUsage, is_part, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .types import Request

    Grow = Callable[[Any, Any], Any]  # of what is known, or None, and the next piece
    Growing = Mapping[str, Grow]  # by the names of fields

# Fields of a message that hold an answer beside its text (openai 3.51, ChatCompletionMessage).
ANSWERS = ("tool_calls", "refusal", "function_call", "audio")
SHOWN = 200  # characters of an answer in a message
OK = 200  # the SDK raises for any status from 300 on


def check_chat(response: Any) -> None:
    """Refuse a chat response that holds no complete answer.

    :raises ServiceError: where it is malformed, or broke off.
    :raises ContentFilterError: where the provider filtered the answer.
    :raises EmptyAnswerError: where there is neither text nor a tool call.
    """
    choices = _list_in(response, "choices")
    for choice in choices:
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            _refuse(
                ServiceError,
                f"a malformed answer: a choice without a message ({_brief(choice)})",
                response,
            )
        if not is_content(message.get("content")):
            _refuse(
                ServiceError,
                f"a malformed answer: a content that is no text ({_brief(message)})",
                response,
            )
        # OpenRouter reports a provider that failed halfway like this, with the half that came.
        if choice.get("finish_reason") == "error" or choice.get("error"):
            _refuse(
                ServiceError,
                f"the answer broke off: {_brief(choice.get('error') or choice)}",
                response,
            )
    if any(choice.get("finish_reason") == "content_filter" for choice in choices):
        _refuse(
            ContentFilterError,
            "the provider filtered the answer (finish_reason content_filter)",
            response,
        )
    messages = [choice["message"] for choice in choices]
    if not any(text_of(each.get("content")) or any(map(each.get, ANSWERS)) for each in messages):
        _refuse(EmptyAnswerError, _why_empty(choices[0], response), response)


def is_content(content: Any) -> bool:
    """Return whether something can be the content of a message: a text, a list of parts, or
    nothing.
    """
    return (
        all(map(is_part, content))
        if isinstance(content, list)
        else content is None or isinstance(content, str)
    )


def _why_empty(choice: Mapping[str, Any], response: Mapping[str, Any]) -> str:
    reason = choice.get("finish_reason")
    spent = TokenUsage.of(response).reasoning_tokens
    if reason == "length":
        thought = f" ({spent} of them on reasoning)" if spent else ""
        return f"the answer is empty: the token limit was used up{thought} before any text; raise max_tokens"
    return f"the answer is empty: neither text nor a tool call (finish_reason {reason})"


def check_fits(request: Request, response: Mapping[str, Any]) -> None:
    """Refuse an answer that does not fit its own ``response_format``, so that it is asked for again
    and not stored.

    :param response: what :func:`check_chat` passed. What the context window cut is for the
        fallbacks to judge first.
    :raises ServiceError: saying where it does not fit. It is worth another attempt.
    """
    if request.expected is None:
        return
    for choice in response["choices"]:
        message = choice["message"]
        text = None if message.get("refusal") else text_of(message.get("content"))
        problem = _misfit(text, request.expected) if text else None  # a refusal, or a tool call
        if problem is not None:
            cut = (
                "; it was cut at the token limit: raise max_tokens"
                if choice.get("finish_reason") == "length"
                else ""
            )
            _refuse(
                ServiceError,
                f"the answer does not fit its response_format: {problem}{cut}",
                response,
            )


def fits(request: Request, response: Mapping[str, Any]) -> bool:
    """Return whether a recorded answer fits the request's ``response_format``; so does what is no
    answer at all.
    """
    try:
        check_fits(request, response)
    except ServiceError:
        return False
    except (LookupError, TypeError, AttributeError):
        pass
    return True


@lru_cache(maxsize=10_000)  # a recorded answer is looked at each time that it is given
def _misfit(text: str, expected: Any) -> str | None:
    """Return where an answer does not fit a class, which reads it, or a JSON schema, whose user
    does.
    """
    if not isinstance(expected, str):
        from .outputs import read

        try:
            read(text, expected, structured=True)
        except OutputError as error:
            return str(error)
        return None
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import UnknownType, best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # With a registry of its own, nothing that a schema refers to is fetched from the network.
    validator = Draft202012Validator(json.loads(expected), registry=Registry())
    try:
        found = best_match(validator.iter_errors(json.loads(text)))
    except (UnknownType, Unresolvable, re.error):  # a schema that says what no validator here knows
        return None
    except ValueError as error:
        return f"it is no JSON ({error})"
    except RecursionError:
        return "it is nested too deeply"
    return None if found is None else f"{found.json_path}: {_brief(found.message)}"


def check_embeddings(response: Any, count: int) -> None:
    """Refuse an embeddings response that does not hold one vector of finite numbers a text.

    :param count: how many texts were sent.
    :raises ServiceError: where it is malformed.
    """
    data = _list_in(response, "data")
    if len(data) != count:
        _refuse(
            ServiceError, f"a malformed answer: {len(data)} embeddings for {count} texts", response
        )
    for item in data:
        try:
            packed_vector(item["embedding"])
        except (LookupError, TypeError, ValueError, OverflowError, struct.error):
            _refuse(
                ServiceError,
                f"a malformed answer: an embedding that is no vector ({_brief(item)})",
                response,
            )


def packed_vector(embedding: Any) -> bytes:
    """Return a vector as little-endian float32, whether it came as numbers or as base64 of the
    same.

    :raises TypeError, ValueError, OverflowError, struct.error: for what is none, or holds NaN or an
        infinity.
    """
    if isinstance(embedding, str):
        packed = base64.b64decode(embedding, validate=True)
    else:
        packed = struct.pack(f"<{len(embedding)}f", *embedding)
    if not packed or not math.isfinite(sum(struct.unpack(f"<{len(packed) // 4}f", packed))):
        raise ValueError("no finite numbers")
    return packed


def is_cut(response: Mapping[str, Any], request: Request) -> bool:
    """Return whether an answer ended at a limit that is not the caller's own."""
    if all(choice.get("finish_reason") != "length" for choice in response["choices"]):
        return False
    max_tokens, written = request.asked.get("max_tokens"), TokenUsage.of(response).output_tokens
    return max_tokens is None or (written is not None and written < max_tokens)


def _list_in(response: Any, name: str) -> list[Any]:
    """Return the list of that name in a response; refuse one that has none."""
    if not isinstance(response, dict):
        _refuse(ServiceError, f"a malformed answer: {_brief(response)}", response)
    found = response.get(name)
    if not isinstance(found, list) or not found:
        message = f"a malformed answer without {name}: {_brief(response.get('error') or response)}"
        _refuse(ServiceError, message, response)
    return found


def _refuse(kind: type[APIError], message: str, response: Any) -> NoReturn:
    sent = isinstance(response, Response)
    raise kind(
        message, status_code=OK if sent else None, request_id=response.request_id if sent else None
    )


def _brief(value: object) -> str:
    return shortened(value if isinstance(value, str) else repr(value), SHOWN)


# Bytes of an answer, after the decoding of gzip: 2,048 embeddings of 3,072 numbers, the most that
# OpenAI gives at once, have about half of it.
LARGEST = 256 * 2**20
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
NOT_DATA = (":", "event:", "id:", "retry:")  # comments, and the fields that carry no data

# some servers date every chunk anew, and Azure's last ones are nameless
FIRST = (
    "id",
    "created",
    "model",
)
WORDS = re.compile(r"\s*\S+|\s+")  # each with the blanks before it; together they are the text
# the last is random padding against eavesdroppers (OpenAI)
STREAMED_ONLY = (
    "choices",
    "object",
    "obfuscation",
)
# what every chunk says, and what none of the first does
EACH_CHUNK = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
CHUNK = {"object": "chat.completion.chunk"}
ENDING = ("choices", "usage")
WHOLE_CHOICE = ("index", "message", "finish_reason", "logprobs")
# texts that a model writes before its answer (DeepSeek and vLLM; OpenRouter)
REASONING = ("reasoning_content", "reasoning")
# an unstreamed message has these only where there are some
OPTIONAL = (
    "tool_calls",
    "function_call",
    "audio",
)


def append(body: bytearray, data: bytes) -> None:
    """Put the next piece of a body behind those that came before.

    :raises ServiceError: where it makes the body larger than ``LARGEST``; asking again would not
        help.
    """
    body += data
    _check_size(len(body))


def _check_size(size: int) -> None:
    if size > LARGEST:
        error = ServiceError(
            f"the answer is larger than {LARGEST >> 20} MiB, and was read no further"
        )
        error.retryable = False
        raise error


def read_object(text: str | bytes | bytearray, what: str) -> dict[str, Any]:
    """Return the JSON object that a server sent, with U+FFFD for each lone surrogate, which is no
    text.

    :param what: what it is, for the error: ``"answer"``, ``"chunk in the stream"``.
    :raises ServiceError: where it is none.
    """
    start = text[:200] if isinstance(text, str) else bytes(text[:200])
    try:
        text = text if isinstance(text, str) else text.decode()
        found = json.loads(text)
        if SURROGATE_ESCAPE.search(text):
            whole = json.dumps(found, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
            found = json.loads(whole.decode("utf-16-le", "replace"))
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"a malformed {what}, not JSON: {start!r}") from error
    if not isinstance(found, dict):
        raise ServiceError(f"a malformed {what}, no JSON object: {start!r}")
    return found


def check_no_error(event: dict[str, Any]) -> None:
    """Raise what an event of a stream tells of an error, as OpenRouter's do beside what has come so
    far.
    """
    error = event.get("error")
    if error:
        told = error if isinstance(error, dict) else {"message": error}
        made = ServiceError(
            f"the server sent an error inside the stream: {told.get('message') or error}"
        )
        made.code = told.get("code")
        raise made


class EventStreamDecoder:
    """Decode server-sent events (HTML standard, section 9.2) whose data are JSON objects, one to a
    line.

    A ``data:`` line counts at once, without the blank line that ends an event, which some servers
    leave out. A line that belongs to no event is handed on as it is: some send an answer, or an
    error, as a whole.

    :ivar done: whether ``[DONE]`` has come; whatever follows it is ignored.
    """

    def __init__(self) -> None:
        self.done = False
        self._newlines = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder("utf-8-sig")("replace"), True
        )
        self._line: list[str] = []  # the pieces of the last line, which has not ended
        self._size = 0

    def feed(self, data: bytes) -> Iterator[dict[str, Any] | str]:
        """Yield the events, and the other lines that are not empty, that are complete with this
        data.

        :raises ServiceError: where an event is no JSON object, or the stream is larger than
            ``LARGEST``.
        """
        self._size += len(data)
        _check_size(self._size)
        return self._events(self._newlines.decode(data))

    def close(self) -> Iterator[dict[str, Any] | str]:
        """Yield what the end of the stream completes, as :meth:`feed`."""
        return self._events(self._newlines.decode(b"", final=True) + "\n")

    def _events(self, text: str) -> Iterator[dict[str, Any] | str]:
        first, *others = text.split("\n")
        self._line.append(first)
        for following in others:
            line, self._line = "".join(self._line), [following]
            if self.done or not line or line.startswith(NOT_DATA):
                continue
            data = line.removeprefix("data:")
            self.done = data != line and data.strip().lower() == "[done]"
            if data == line:
                yield line
            elif data.strip() and not self.done:
                yield read_object(data, "chunk in the stream")


class Assembler:
    """Put the chunks of one chat completion together.

    Texts (``content``, which may come as parts, ``refusal``, ``reasoning_content``, ``reasoning``,
    the arguments of calls) and lists (logprobs, ``annotations``, ``reasoning_details``) grow; of
    ``id``, ``created`` and ``model`` the first value that is not empty counts; of any other field,
    known or not, the last one that is not empty. An unknown field of a delta grows as the openai
    SDK lets it grow. Audio data is joined as bytes.

    :ivar latest: the last chunk, without what its deltas say again, such as the role: who reads
        the chunks takes each text for a further piece.
    """

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._chunks = 0
        self.latest: dict[str, Any] = {}

    def add(self, chunk: Any) -> str:
        """Take the next chunk in; return the new text of choice 0, ``""`` where there is none.

        :param chunk: a ``chat.completion.chunk`` as the API sends it.
        :raises ServiceError: where the chunk is malformed, or tells of an error.
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

        :raises ServiceError: where the stream broke off.
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


def chunks_of(response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the chunks in which a replayed stream gives a recorded response; put together, by
    :class:`Assembler` or by the SDK, they are the response again.

    Texts come word by word, the model's reasoning first.
    """
    head = {**{name: response[name] for name in response if name not in ENDING}, **CHUNK}
    about = {name: head[name] for name in EACH_CHUNK if name in head}
    usage = {name: response[name] for name in ("usage",) if response.get(name) is not None}
    for number, choice in enumerate(response["choices"], 1):
        place = {"index": choice.get("index", 0)}
        rest = {name: choice[name] for name in choice if name not in WHOLE_CHOICE}
        begun, pieces = _deltas(choice["message"])
        yield {**head, "choices": [{**place, **rest, "delta": begun, "finish_reason": None}]}
        for delta in pieces:
            yield {**about, "choices": [{**place, "delta": delta, "finish_reason": None}]}
        if choice.get("logprobs"):
            given = {"delta": {}, "logprobs": choice["logprobs"], "finish_reason": None}
            yield {**about, "choices": [{**place, **given}]}
        # As the API does: programs stop reading where they see the reason, and look no further
        # into that chunk.
        last = {**place, **rest, "delta": {}, "finish_reason": choice.get("finish_reason")}
        ending = usage if number == len(response["choices"]) else {}
        yield {**about, "choices": [last], **ending}


def _deltas(message: Mapping[str, Any]) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Return the first delta of a message, and those that follow."""
    content = message.get("content")
    begun: dict[str, Any] = {name: value for name, value in message.items() if value is None}
    begun["role"] = message.get("role") or "assistant"
    if isinstance(content, str):
        begun["content"] = ""
    rest = {name: value for name, value in message.items() if name not in begun}
    rest.pop("content", None)
    return begun, _further_deltas(message, rest)


def _further_deltas(message: Mapping[str, Any], rest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in (*REASONING, "content"):
        value = message.get(name)
        if isinstance(value, str):
            rest.pop(name, None)
            yield from ({name: word} for word in WORDS.findall(value))
        elif value is not None and name == "content":
            yield {name: value}
    if isinstance(rest.get("tool_calls"), list):
        calls = enumerate(rest["tool_calls"])
        rest["tool_calls"] = [{**call, "index": number} for number, call in calls]
    if rest:
        yield rest


def text_in(chunk: Mapping[str, Any]) -> str:
    """Return the text of the first choice in a chunk."""
    deltas = [each["delta"] for each in chunk["choices"] if each["index"] == 0]
    return "".join(text_of(delta.get("content")) or "" for delta in deltas)


def says_something(chunk: Mapping[str, Any]) -> bool:
    """Return whether a chunk holds a part of an answer, more than its role."""
    deltas = [choice["delta"] for choice in chunk["choices"]]
    return any(value for delta in deltas for name, value in delta.items() if name != "role")


def text_pieces(response: Mapping[str, Any]) -> list[str]:
    """Return the text of a recorded response in the pieces in which a replayed stream yields it:
    word by word.

    How the network cut the text when it was recorded is no part of the record.
    """
    return WORDS.findall(text_of(response["choices"][0]["message"].get("content")) or "")


def _whole_choice(index: int, choice: dict[str, Any]) -> dict[str, Any]:
    given = choice.get("delta") or {}
    message = {name: value for name, value in given.items() if value or name not in OPTIONAL}
    message = {
        "role": message.pop("role", None) or "assistant",
        "content": message.pop("content", None),
        **message,
    }
    if message["content"] == "" and any(message.get(name) for name in ("refusal", *OPTIONAL)):
        message["content"] = (
            None  # a stream opens with "" before it is known that no text will come
        )
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

    :param beyond: how the others grow, where they do.
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
    """Join texts, or, where a server sends lists of parts, the parts; texts that follow one another
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
    """Take a delta in, and return what of it is new."""
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
    """Let a field that nobody knows grow as the openai SDK does: texts are joined, and lists."""
    if isinstance(known, str) and isinstance(piece, str):
        return known + piece
    if isinstance(known, list) and isinstance(piece, list):
        return known + piece
    if isinstance(known, dict) and isinstance(piece, dict):
        return _merge(dict(known), piece, {}, beyond=_accumulated)
    return piece if piece or not known else known


def _call_of(piece: dict[str, Any], calls: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the call that a piece goes on with, or ``None`` where it begins one.

    It is that of its index, unless the piece brings another id and a name: some servers give the
    index 0 to every call (and others a fresh id to every piece, of which the first stays). Without
    an index it is the call of its id; without a known id, a name begins a call, and anything else
    goes on with the last one.
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
