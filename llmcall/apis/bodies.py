"""Bodies of answers as servers send them: JSON objects, and event streams of JSON objects."""

from __future__ import annotations

import json
import math
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress

from ..errors import ServiceError
from ..support.data import Data
from ..support.lazy_names import pattern
from ..support.notices import warn_once
from .interactions import streamed_steps
from .message import object_in, objects_in

SURROGATE_ESCAPE = pattern(r"\\u[dD][89a-fA-F]")
LINE_END = re.compile(rb"[\r\n]+")
PIECES = ("choices", "candidates")  # the fields that come in pieces, one in each event of a stream
# The fields of an event that hold an answer, or a part of it.
HOLDERS = ("response", "message", "interaction", "delta")
NOT_DATA = (":", "event:", "id:", "retry:")  # comments, and the fields that carry no data


class EventStream:
    """A reader of server-sent events (HTML standard, section 9.2). The APIs of models write each event's data
    as a JSON object in one line.

    :ivar done: ``True`` if ``[DONE]`` arrived; anything after it is ignored.
    """

    def __init__(self) -> None:
        self.done = False
        self._rest: list[bytes] = []  # the pieces of a line that has not ended

    def feed(self, data: bytes) -> Iterator[dict[str, object] | str]:
        """Yield the events that end in this data, and any other lines, since a server may send an error as
        plain text. A final line end completes the last event of a stream.

        :raises ServiceError: if an event is not a JSON object.
        """
        self._rest.append(data)
        if not LINE_END.search(data):  # joined only at its end: a line may be long
            return
        *lines, rest = LINE_END.split(b"".join(self._rest))
        self._rest = [rest]
        for line in lines:
            text = line.decode(errors="replace")
            event = text.removeprefix("data:").strip()
            if not text.startswith("data:"):
                if text and not text.startswith(NOT_DATA):
                    yield text
            elif event.lower() == "[done]":
                self.done = True
                return
            elif event:
                yield read_object(event, "chunk in the stream")


async def events_in(
    data: AsyncIterator[bytes], stream: EventStream
) -> AsyncGenerator[dict[str, Data] | str, None]:
    """Yield the events of a stream as they arrive, and other lines as they are.

    :param stream: reads the data.
    :raises ServiceError: if an event is not a JSON object.
    """
    async for piece in data:
        for event in stream.feed(piece):
            yield event
        if stream.done:
            return
    for event in stream.feed(b"\n"):
        yield event


def parse_events(body: bytes) -> Iterator[dict[str, object]]:
    """Yield the events of a whole stream, without its other lines.

    :raises ServiceError: if an event is not a JSON object.
    """
    return (event for event in EventStream().feed(body + b"\n") if isinstance(event, dict))


def parse_objects(body: str) -> Iterator[dict[str, object]]:
    """Yield the JSON object in a body, or the objects of its lines or events."""
    with suppress(ValueError):
        data = json.loads(body)
        yield from objects_in(data if isinstance(data, list) else [data])
        return
    with suppress(ValueError):  # lines of JSON, as of Ollama's own API
        yield from objects_in([json.loads(line) for line in body.split("\n") if line.strip()])
        return
    with suppress(ServiceError):  # not JSON: it holds no answer
        yield from parse_events(body.encode())


def answer_in(body: str) -> dict[str, object]:
    """Return the answer in a body in its API's unstreamed form if possible, always with a
    ``usage``. The pieces of a choice stay apart.

    :param body: JSON, or an event stream.
    """
    events = list(parse_objects(body))
    holders = [
        holder
        for event in events
        for holder in (event, *(event.get(name) for name in HOLDERS))
        if isinstance(holder, dict)
    ]
    # A stream reports the output repeatedly, and the input once.
    usage = _merged(holder["usage"] for holder in holders if isinstance(holder.get("usage"), dict))
    answer = {**_merged(holders), "usage": usage}
    for name in PIECES:
        if pieces := [piece for holder in holders for piece in objects_in(holder.get(name))]:
            answer[name] = pieces
    if not answer.get("content") and (blocks := _streamed_blocks(events)):
        answer["content"] = blocks
    if not answer.get("steps") and (steps := streamed_steps(events)):
        answer["steps"] = steps
    if "done" in answer and len(events) > 1:
        answer |= _joined_lines(events)
    return answer


def _merged(objects: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """Return the fields of several objects; the last known value of each counts."""
    return {name: fields[name] for fields in objects for name in fields if fields[name] is not None}


def _joined_lines(events: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return what a stream of Ollama's own API has in pieces, one in each line."""
    messages = [object_in(event.get("message")) for event in events]
    calls = [call for message in messages for call in objects_in(message.get("tool_calls"))]
    message = {"content": _joined("content", messages), "tool_calls": calls}
    return {"message": message, "response": _joined("response", events)}


def _joined(field: str, objects: Iterable[Mapping[str, object]]) -> str:
    return "".join(str(fields.get(field) or "") for fields in objects)


def _streamed_blocks(events: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return the blocks of a content from the events of the Messages API; each piece of a text becomes a
    block.
    """
    blocks: list[dict[str, Data]] = []
    for event in events:
        block, delta = event.get("content_block"), event.get("delta")
        if isinstance(block, dict):
            blocks.append({**block})
        elif isinstance(delta, dict) and delta.get("type") == "text_delta":
            blocks.append({"type": "text", "text": delta.get("text")})
        elif isinstance(delta, dict) and "partial_json" in delta and blocks:
            so_far = blocks[-1].get("arguments", "")
            blocks[-1]["arguments"] = so_far + str(delta["partial_json"])
    return blocks


def read_object(body: str | bytes, name: str) -> dict[str, object]:
    """Return the JSON object that a server sent.

    U+FFFD replaces lone surrogates, which are not text. ``None`` replaces NaN and the infinities, which
    JSON lacks.

    :param name: its name in the error: ``"answer"``, ``"chunk in the stream"``.
    :raises ServiceError: if it is not a JSON object.
    """
    try:
        text = body if isinstance(body, str) else body.decode()
        data = _decode(text)
        if SURROGATE_ESCAPE.search(text):
            plain = json.dumps(data, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
            data = json.loads(plain.decode("utf-16-le", "replace"))
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"a malformed {name}, not JSON: {body[:200]!r}") from error
    if not isinstance(data, dict):
        raise ServiceError(f"a malformed {name}, not a JSON object: {body[:200]!r}")
    return data


def nan_as_none(data: object) -> object:
    """Return a copy of plain data with ``None`` for NaN and the infinities."""
    if isinstance(data, dict):
        return {name: nan_as_none(item) for name, item in data.items()}
    if isinstance(data, list):
        return [nan_as_none(item) for item in data]
    is_number = not isinstance(data, float) or math.isfinite(data)
    return data if is_number else _no_number(str(data))


def _finite(text: str) -> object:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _no_number(name: str) -> object:
    """Warn once of NaN or an infinity, such as the log probability of an impossible token; return
    ``None``.
    """
    warn_once(
        f"a response has the number {name}, which JSON cannot represent: llmcall returns and records None "
        "instead",
        about=_no_number,
    )
    return None


_decode = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite).decode


def check_no_error(event: dict[str, object]) -> None:
    """Raise the error that an event of a stream reports; OpenRouter's error events also hold the text so
    far.
    """
    if error := event.get("error"):
        details = error if isinstance(error, dict) else {"message": error}
        service_error = ServiceError(
            f"the server sent an error inside the stream: {details.get('message') or error}"
        )
        service_error.code = details.get("code")
        raise service_error
