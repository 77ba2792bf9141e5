"""Recorded answers as the HTTP responses that a program gets."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..call.effects import END
from ..call.embeddings import vector_of
from ..errors import APIError, LLMCallError
from ..failures import note_refusal
from ..records.answers import VOLATILE
from ..responses.chunks import EACH_CHUNK
from ..values import as_chat

if TYPE_CHECKING:
    from types import ModuleType

    from ..values import Record
    from .calls import BegunStream, ProgramCall, ProgramClient

DONE = b"data: [DONE]\n\n"
OK = 200  # the status of a complete response that is not an answer
# Tells the openai SDK not to retry: llmcall does that.
NOT_REPEATED = ((b"x-should-retry", b"false"),)


@functools.cache
def derived(http: ModuleType, kind: type) -> Any:
    """Return a class that also derives from the HTTP library's classes named in ``kind.bases``."""
    return type(kind.__name__, (kind, *(getattr(http, base) for base in kind.bases)), {})  # type: ignore[attr-defined]


def whole_response(reply: Any, *, on_cassette: bool) -> dict[str, Any]:
    """Return a chat's whole response."""
    return {
        "object": "chat.completion",
        **_with_identifier(as_chat(reply.raw), reply.cache_key, on_cassette),
    }


def _with_identifier(response: Mapping[str, Any], key: str, on_cassette: bool) -> dict[str, Any]:
    """Return a response or a chunk with an identifier and a date, which programs expect.

    A cassette leaves some fields out. If one is open, the program does not get these fields while
    recording either, so that a replay gives it the same.
    """
    left_out = VOLATILE if on_cassette else ()
    fields = {name: value for name, value in response.items() if name not in left_out}
    return {"id": f"chatcmpl-{key[:29]}", "created": 0, **fields}


class ChatEvents:
    """Yields a streamed chat as server-sent events as its chunks arrive.

    :param body: the body of the program's request.
    :param answer: the streamed answer.
    :param on_cassette: whether a cassette is open.
    """

    bases = "SyncByteStream", "AsyncByteStream"

    def __init__(
        self,
        body: Mapping[str, Any],
        answer: BegunStream,
        *,
        on_cassette: bool,
    ) -> None:
        self._wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._stream, self._chunks, self._first = answer
        self._on_cassette = on_cassette

    def __iter__(self) -> Iterator[bytes]:
        if self._first is not END:
            yield self._events_of(self._first)
        last = DONE
        try:
            for chunk in self._chunks:
                yield self._events_of(chunk)
        except LLMCallError as error:
            last = self._error_event(error)
        yield last

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._first is not END:
            yield self._events_of(self._first)
        last = DONE
        try:
            async for chunk in self._chunks:
                yield self._events_of(chunk)
        except LLMCallError as error:
            last = self._error_event(error)
        yield last

    def _events_of(self, chunk: Mapping[str, Any]) -> bytes:
        """Return a chunk as an event. If the program asks for the usage, the usage gets an event of
        its own, as in the API.
        """
        data = _with_identifier(chunk, self._stream.request.cache_key, self._on_cassette)
        is_last = any(choice.get("finish_reason") for choice in data.get("choices") or ())
        if not (self._wants_usage and is_last and data.get("usage") is not None):
            return _event(data)
        usage = data.pop("usage")
        shared_fields = {name: data[name] for name in EACH_CHUNK if name in data}
        return _event(data) + _event({**shared_fields, "choices": [], "usage": usage})

    def _error_event(self, error: LLMCallError) -> bytes:
        """Return an event that the SDK turns into an error.

        A complete response that llmcall does not accept, such as a filtered one, ends as it came.
        """
        note_refusal(error)
        if isinstance(error, APIError) and error.status_code == OK:
            return DONE
        return _event(error_body(error))

    def close(self) -> None:
        """Close the answer."""
        self._stream.close()

    async def aclose(self) -> None:
        """Close the answer."""
        await self._stream.aclose()


class Passing:
    """Passes the pieces of a streamed answer on that is recorded as it is.

    What is wrong with the whole is known at its end, and the program has it as it came.

    :param call: the program's.
    :param answer: the answer whose first piece has come.
    """

    bases = "SyncByteStream", "AsyncByteStream"

    def __init__(self, call: ProgramCall, answer: BegunStream) -> None:
        self._call = call
        _, self._pieces, self._first = answer

    def __iter__(self) -> Iterator[bytes]:
        yield self._first.chunk
        try:
            for piece in self._pieces:
                yield piece.chunk
        except LLMCallError as error:
            self._end(error)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first.chunk
        try:
            async for piece in self._pieces:
                yield piece.chunk
        except LLMCallError as error:
            self._end(error)

    def _end(self, error: LLMCallError) -> None:
        """Take note of what went wrong.

        :raises Exception: the HTTP library's own error, if the connection broke.
        """
        note_refusal(error)
        if isinstance(error.__cause__, self._call.http.TransportError):
            raise error.__cause__

    def close(self) -> None:
        """Close the answer; if the reader left at its last event, its end is recorded."""
        if self._call.has_last_event:
            for _ in self._pieces:
                pass
        self._pieces.close()

    async def aclose(self) -> None:
        """Close the answer; see :meth:`close`."""
        if self._call.has_last_event:
            async for _ in self._pieces:
                pass
        await self._pieces.aclose()


def _event(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def embeddings_response(
    client: ProgramClient, body: Mapping[str, Any], records: Sequence[Record]
) -> dict[str, Any]:
    """Return the response to an embeddings request, encoded as the program asked for it.

    :param records: the records of the texts, in order.
    """
    embeddings: list[Any] = [vector_of(record) for record in records]
    if body.get("encoding_format") == "base64":
        embeddings = [base64.b64encode(record.response["embedding"]).decode() for record in records]
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    # equal texts have one record
    token_counts = [
        record.usage.input_tokens for record in {each.cache_key: each for each in records}.values()
    ]
    if None in token_counts:
        token_counts = [int(client.count_tokens(text, body.get("model"))) for text in texts]
    tokens = sum(count or 0 for count in token_counts)
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
