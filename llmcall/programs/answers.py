"""Recorded answers as the HTTP responses that a program gets."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any

from ..blocking import each, iterate, run, value
from ..call.effects import END
from ..call.embeddings import vector_of
from ..cassettes.current import current_cassette
from ..errors import APIError, LLMCallError, RequestTimeoutError
from ..failures import note_refusal
from ..records.answers import VOLATILE
from ..values import as_chat
from ..values.chunks import EACH_CHUNK
from .calls import EVENTS, BegunStream, headers_to_copy

if TYPE_CHECKING:
    from types import ModuleType

    from ..values import Record
    from .calls import ProgramCall

DONE = b"data: [DONE]\n\n"
OK = 200  # the status of a complete response that is not an answer
# Tells the openai SDK not to retry: llmcall does that.
NOT_REPEATED = ((b"x-should-retry", b"false"),)


ERROR_STATUS = 409  # for llmcall's own errors: the openai SDK raises an APIStatusError for it
# Statuses of failures that are no response of the API.
NO_CONNECTION = 503
NO_ANSWER_IN_TIME = 504


def response_to(call: ProgramCall, answer: Any) -> Any:
    """Return the response that holds an answer.

    :param answer: of :meth:`ProgramCall.ask`.
    """
    method, body, _ = call.client_call
    on_cassette = current_cassette() is not None
    if isinstance(answer, BegunStream):
        media_type, events = call.stream_type, passing
        if answer.stream is not None:
            media_type, events = EVENTS, functools.partial(chat_events, on_cassette=on_cassette)
        return call.http.Response(200, headers=headers_of(media_type), stream=events(call, answer))
    if method == "http_call":
        return new_response(call.http, 200, answer["body"], answer["content_type"])
    if method == "get_embedding":
        return new_response(call.http, 200, embeddings_response(body, answer))
    whole = _with_identifier(as_chat(answer.raw), answer.cache_key, on_cassette)
    return new_response(call.http, 200, {"object": "chat.completion", **whole})


def refusal(http: ModuleType, error: Exception, call: ProgramCall | None) -> Any:
    """Return the response that the program gets instead of an answer.

    A failure of the API is returned as it came. From the response for one of llmcall's own errors,
    the SDK makes an error of its own.
    """
    note_refusal(error)
    if not isinstance(error, APIError):
        return new_response(http, ERROR_STATUS, error_body(error))
    last_response = None if call is None else call.last_response
    response = getattr(error, "http_response", last_response)
    if response is not None:
        headers = [*headers_to_copy(response.headers), *NOT_REPEATED]
        return http.Response(response.status_code, headers=headers, content=response.content)
    status = NO_ANSWER_IN_TIME if isinstance(error, RequestTimeoutError) else NO_CONNECTION
    return new_response(http, status, error_body(error))


@functools.cache
def derived(http: ModuleType, kind: type) -> Any:
    """Return a class that also derives from the HTTP library's classes named in ``kind.bases``."""
    return type(kind.__name__, (kind, *(getattr(http, base) for base in kind.bases)), {})  # type: ignore[attr-defined]


def _with_identifier(response: Mapping[str, Any], key: str, on_cassette: bool) -> dict[str, Any]:
    """Return a response or a chunk with an identifier and a date, which programs expect.

    A cassette leaves some fields out. If one is open, the program does not get these fields while
    recording either, so that a replay gives it the same.
    """
    left_out = VOLATILE if on_cassette else ()
    fields = {name: value for name, value in response.items() if name not in left_out}
    return {"id": f"chatcmpl-{key[:29]}", "created": 0, **fields}


class Events:
    """The body of a streamed answer.

    :param pieces: its bytes.
    :param close: closes the answer.
    """

    bases = "SyncByteStream", "AsyncByteStream"

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], close: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._pieces = pieces
        self.aclose = close

    def __iter__(self) -> Iterator[bytes]:
        return iterate(self._pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Close the answer."""
        run(self.aclose())


def chat_events(call: ProgramCall, answer: BegunStream, *, on_cassette: bool) -> Any:
    """Return a streamed chat as server-sent events that come as its chunks do.

    :param on_cassette: whether a cassette is open.
    """
    stream, chunks, first = answer
    wants_usage = bool((call.client_call.body.get("stream_options") or {}).get("include_usage"))

    def events_of(chunk: Mapping[str, Any]) -> bytes:
        """Return a chunk as an event. If the program asks for the usage, the usage gets an event of
        its own, as in the API.
        """
        data = _with_identifier(chunk, stream.request.cache_key, on_cassette)
        is_last = any(choice.get("finish_reason") for choice in data.get("choices") or ())
        if not (wants_usage and is_last and data.get("usage") is not None):
            return _event(data)
        usage = data.pop("usage")
        shared_fields = {name: data[name] for name in EACH_CHUNK if name in data}
        return _event(data) + _event({**shared_fields, "choices": [], "usage": usage})

    async def pieces() -> AsyncGenerator[bytes, None]:
        last = DONE
        try:
            if first is not END:
                yield events_of(first)
            async for chunk in each(chunks):
                yield events_of(chunk)
        except LLMCallError as error:
            note_refusal(error)
            # A complete response that llmcall does not accept, such as a filtered one, ends as it came.
            if not (isinstance(error, APIError) and error.status_code == OK):
                last = _event(error_body(error))  # the SDK turns it into an error
        yield last

    async def close() -> None:
        await value(stream.aclose() if call.is_async else stream.close())

    return derived(call.http, Events)(pieces(), close)


def passing(call: ProgramCall, answer: BegunStream) -> Any:
    """Return the pieces of a streamed answer that is recorded as it is. What is wrong with the whole is
    known at its end, and the program has it as it came.
    """
    _, rest, first = answer

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield first.chunk
        try:
            async for piece in each(rest):
                yield piece.chunk
        except LLMCallError as error:
            note_refusal(error)
            if isinstance(error.__cause__, call.http.TransportError):
                raise error.__cause__ from None  # the connection broke

    async def close() -> None:
        if call.has_last_event:  # the reader left at it, and its end is recorded
            async for _ in each(rest):
                pass
        await value(rest.aclose() if call.is_async else rest.close())

    return derived(call.http, Events)(pieces(), close)


def _event(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def embeddings_response(body: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """Return the response to an embeddings request, encoded as the program asked for it.

    :param records: the records of the texts, in order.
    """
    embeddings: list[Any] = [vector_of(record) for record in records]
    if body.get("encoding_format") == "base64":
        embeddings = [base64.b64encode(record.response["embedding"]).decode() for record in records]
    different = {record.cache_key: record for record in records}  # equal texts have one record
    tokens = sum(record.usage.input_tokens or 0 for record in different.values())
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": embedding}
            for i, embedding in enumerate(embeddings)
        ],
        "model": records[0].response.get("model") or body.get("model"),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def new_response(
    http: ModuleType, status: int, data: Any, media_type: str = "application/json"
) -> Any:
    """Return a response with a text, or with data as JSON, in UTF-8."""
    content = data if isinstance(data, str) else json.dumps(data)
    # a stream, also for iter_raw
    stream = http.ByteStream(content.encode())
    return http.Response(status, headers=headers_of(media_type), stream=stream)


def headers_of(media_type: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response in UTF-8."""
    if media_type.startswith("text/"):  # without a charset, requests reads a text as Latin-1
        media_type = f"{media_type}; charset=utf-8"
    return [(b"content-type", media_type.encode()), *NOT_REPEATED]


def error_body(error: BaseException) -> dict[str, Any]:
    return {
        "error": {
            "message": str(error),
            "type": "llmcall",
            "code": type(error).__name__,
            "param": None,
        }
    }
