"""The HTTP responses that a program gets: recorded answers, and refusals."""

from __future__ import annotations

import base64
import functools
import http.client
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from ..apis.bodies import read_object
from ..apis.chunks import EACH_CHUNK
from ..apis.message import object_in
from ..apis.shapes import as_chat
from ..clients.streams import AsyncStream, EndedAtExit, Stream
from ..core import loops, threads
from ..core.effects import Blocks
from ..core.kinds import unpacked_vector
from ..core.seams import OK
from ..errors import APIError, LLMCallError, RequestTimeoutError
from ..support.waits import as_async
from .interceptors import note_refusal
from .transport import CONTENT_TYPE, headers_to_copy, with_charset
from .whole_answers import EVENTS, AnswerEnd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    import httpx

    from ..core.calls import Call
    from ..keys.request import Data
    from ..stores.record import Record
    from .transport import ProgramTransport

    Piece = dict[str, Data] | bytes  # of a streamed answer: a chunk of a chat, else bytes

DONE = b"data: [DONE]\n\n"
# Tells the openai SDK not to retry a failure: llmcall did that.
NOT_REPEATED = (b"x-should-retry", b"false")
ERROR_STATUS = 409  # for llmcall's own errors: the openai SDK raises an APIStatusError for it
# Statuses of failures that are neither a response of the API nor its connection's.
NO_ANSWER = 503
NO_ANSWER_IN_TIME = 504  # by the call's deadline


async def respond(
    transport: ProgramTransport, call: Call, procedure: Coroutine[Any, Any, Any]
) -> httpx.Response:
    """Return the response that holds the answer to a program's request: the server's own if it was sent now,
    or one made of the record. A failure before its first piece is raised here.

    :param transport: has the request.
    :param call: the request's call, or its first one for embeddings.
    :param procedure: returns the answer: a chat's :class:`Reply`, the records of embeddings, or what is
        recorded of a response.
    """
    library, to_record, kind = transport.library, transport.to_record, call.request.kind
    if not to_record.requests_stream:
        answer = await procedure
    else:
        is_sync = await Blocks()
        stream: Stream | AsyncStream = (
            Stream(call, procedure, threads.Pieces)
            if is_sync
            else AsyncStream(call, procedure, loops.pieces)
        )
        pieces = as_async(stream.chunks())
        first = await anext(pieces, None)
        if kind == "chat" or first is not None:
            return _streamed(transport, call, stream, first, pieces)
        answer = stream.reply  # what is recorded has come as a whole
    came = transport.last_response
    if kind == "http":
        if came is not None and came.text == answer["body"]:
            return _as_it_came(transport, came)
        status, media_type = answer.get("status", OK), answer["content_type"]
        return _response(library, status, answer["body"], media_type, transport.headers)
    if kind == "embedding":
        data = _embeddings(to_record.body, answer)
        own = {} if came is None else read_object(came.content, "answer")
        # a replay has the vectors as they are recorded, rounded, and so has the recording
        if came is not None and _vectors(own) == _vectors(data):
            return _as_it_came(transport, came)
        usage = {**object_in(own.get("usage")), **data["usage"]}
        data = {**data, **own, "data": data["data"], "usage": usage}
        return _response(library, OK, data, headers=transport.headers)
    if came is not None and not answer.cached:
        return _as_it_came(transport, came)
    whole = _with_identifier(as_chat(answer.raw), call)
    return _response(library, OK, {"object": "chat.completion", **whole}, headers=transport.headers)


def connection_failure(library: ModuleType, error: Exception) -> Exception | None:
    """Return the HTTP library's exception for a connection that failed or timed out, or ``None``
    for any other failure, such as llmcall's own deadline: the SDK would retry it.
    """
    is_late = isinstance(error, APIError) and error.failure.is_late
    cause = error.__cause__
    return cause if isinstance(cause, library.RequestError) and not is_late else None


def refusal_response(
    library: ModuleType, error: Exception, transport: ProgramTransport | None
) -> httpx.Response:
    """Return the response that the program gets instead of an answer.

    A failure of the API is returned as it came; where llmcall has retried it, the SDK is told not to. From the
    response for an llmcall error, the SDK makes an error of its own.

    :param transport: has the last response; ``None`` if nothing was sent.
    """
    note_refusal(error)
    if not isinstance(error, APIError):
        return _response(library, ERROR_STATUS, error_body(error), headers=[NOT_REPEATED])
    came = error.failure.response
    if came is None and transport is not None:
        came = transport.last_response
    if came is not None:
        headers = headers_to_copy(came.headers)
        is_final = error.retryable and not error.failure.is_retried_by_program
        if is_final and not came.is_success:
            headers = [it for it in headers if it[0].lower() != NOT_REPEATED[0]] + [NOT_REPEATED]
        return _whole(library, came.status_code, headers, came.content)
    status = NO_ANSWER_IN_TIME if isinstance(error, RequestTimeoutError) else NO_ANSWER
    return _response(library, status, error_body(error), headers=[NOT_REPEATED])


@functools.cache
def body_class(library: ModuleType) -> Any:
    """Return a class of responses' bodies that come piece by piece, for a library."""

    class Body(EndedAtExit, library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc,name-defined]
        """A response's body that comes piece by piece.

        :param pieces: of the body.
        :param close: ends the reading.
        """

        def __init__(
            self,
            pieces: AsyncGenerator[bytes, None],
            close: Callable[[], Coroutine[Any, Any, None]],
        ) -> None:
            self._pieces = pieces
            self._blocking = threads.Each(pieces)
            self.aclose = close
            super().__init__()

        def __iter__(self) -> Iterator[bytes]:
            return self._blocking

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self._pieces

        def close(self) -> None:
            """End the reading."""
            if not self.has_exited:
                threads.run(self.aclose())

        def end_at_exit(self) -> None:
            """Leave the unread pieces."""
            self._blocking.close()

    return Body


def _streamed(
    transport: ProgramTransport,
    call: Call,
    stream: Stream | AsyncStream,
    first: Piece | None,
    rest: AsyncIterator[Piece],
) -> httpx.Response:
    """Return a response whose body passes the pieces of a streamed answer on.

    A chat's pieces are chunks: with each, what has come of the server's own answer is passed on; without one,
    the chunk becomes a server-sent event. An answer that is recorded as it is consists of bytes: an invalid one
    is found only at its end, and the program has read it by then.

    :param first: the first piece: a chunk of a chat, or bytes; ``None`` without any.
    :param rest: the pieces after it.
    """
    library, to_record = transport.library, transport.to_record
    is_chat = call.request.kind == "chat"
    ends_answer = AnswerEnd(to_record, is_chat=is_chat)
    wants_usage = is_chat and bool(
        (to_record.body.get("stream_options") or {}).get("include_usage")
    )

    def data_of(piece: Piece) -> bytes:
        if isinstance(piece, bytes):
            return piece
        if transport.has_opened:
            return transport.take()
        return _events(_with_identifier(piece, call), wants_usage=wants_usage)

    async def pieces() -> AsyncGenerator[bytes, None]:
        broken = None
        try:
            async for piece in _read_ahead(first, rest, ends_answer):
                yield data_of(piece)
            end = b"" if transport.has_opened or not is_chat else DONE
        except LLMCallError as error:
            note_refusal(error)
            broken = connection_failure(library, error)
            # One that the server reports, and a complete response that llmcall does not accept, such as a filtered
            # one, end as they came (the latter's error has the response's status).
            is_servers = isinstance(error, APIError) and (
                error.failure.event is not None or error.status_code == OK
            )
            # the SDK turns it into an error
            end = _event(error_body(error)) if is_chat and not is_servers else b""
        if broken is not None:
            raise broken
        if not end:
            end = transport.take()
        if end:
            yield end

    async def close() -> None:
        if isinstance(stream, AsyncStream):
            await stream.aclose()
        else:
            stream.close()

    headers = transport.headers or _headers(EVENTS if is_chat else "")
    body = body_class(library)(pieces(), close)
    response: httpx.Response = library.Response(
        transport.status, headers=headers, stream=body, extensions=_extensions(transport.status)
    )
    return response


async def _read_ahead(
    first: Piece | None, rest: AsyncIterator[Piece], ends_answer: Callable[[Piece], bool]
) -> AsyncGenerator[Piece, None]:
    """Yield the pieces of a stream. What follows the end of the answer is read before that is passed on: many
    programs read no further, or never close the response, and the record is to be whole.

    :param first: the first piece, or ``None``.
    """
    piece = first
    while piece is not None:
        if ends_answer(piece):
            break
        yield piece
        piece = await anext(rest, None)
    else:
        return
    pieces, error = [piece], None
    try:
        async for piece in rest:
            pieces.append(piece)
    except LLMCallError as late:
        error = late
    for piece in pieces:
        yield piece
    if error is not None:
        raise error


def _events(chunk: dict[str, Data], *, wants_usage: bool) -> bytes:
    """Return a record's chunk as an event. If the program requests the usage, it gets an event of its own, as in the
    API.
    """
    if not wants_usage or "usage" not in chunk:
        return _event(chunk)
    last = {name: chunk[name] for name in EACH_CHUNK if name in chunk}
    last |= {"choices": [], "usage": chunk["usage"]}
    return _event({name: chunk[name] for name in chunk if name != "usage"}) + _event(last)


def _event(data: Mapping[str, Data]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def _with_identifier(response: Mapping[str, Data], call: Call) -> dict[str, Data]:
    """Return a recorded response or chunk with an identifier and a date, which a cassette lacks and programs expect."""
    return {"id": f"chatcmpl-{call.request.cache_key[:29]}", "created": 0, **response}


def _vectors(response: Mapping[str, Data]) -> str:
    """Return the vectors of a response to an embeddings request, as JSON has them: 6 is not 6.0."""
    return json.dumps([item["embedding"] for item in response["data"]])


def _embeddings(body: Mapping[str, Data], records: Sequence[Record]) -> dict[str, Data]:
    """Return the response to an embeddings request, in the encoding that the program requested."""
    embeddings: list[str] | list[list[float]]
    if body.get("encoding_format") == "base64":
        embeddings = [base64.b64encode(record.response["embedding"]).decode() for record in records]
    else:
        embeddings = [unpacked_vector(record) for record in records]
    different = {record.cache_key: record for record in records}  # identical texts have one record
    tokens = sum(record.usage.input_tokens or 0 for record in different.values())
    return {
        "id": f"embd-{records[0].cache_key[:29]}",  # which Mistral's SDK expects
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": embedding}
            for i, embedding in enumerate(embeddings)
        ],
        "model": records[0].response.get("model") or body.get("model"),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _response(
    library: ModuleType,
    status: int,
    data: Data,
    media_type: str = "application/json",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> httpx.Response:
    """Return a response with a text, or with data as JSON, in UTF-8.

    :param headers: the further ones; a type of theirs does not count.
    """
    content = data if isinstance(data, str) else json.dumps(data)
    further = [(name, value) for name, value in headers if name.lower() != CONTENT_TYPE]
    return _whole(library, status, [*_headers(media_type), *further], content.encode())


def _as_it_came(transport: ProgramTransport, came: httpx.Response) -> httpx.Response:
    """Return the server's own response to the last attempt."""
    return _whole(transport.library, came.status_code, transport.headers, came.content)


def _whole(
    library: ModuleType, status: int, headers: list[tuple[bytes, bytes]], content: bytes
) -> httpx.Response:
    """Return a response whose body is there."""
    length = b"content-length", b"%d" % len(content)
    # a stream, also for iter_raw
    response: httpx.Response = library.Response(
        status,
        headers=[*headers, length],
        stream=library.ByteStream(content),
        extensions=_extensions(status),
    )
    return response


def _headers(media_type: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response in UTF-8."""
    return [(CONTENT_TYPE, with_charset(media_type.encode()))] if media_type else []


def _extensions(status: int) -> dict[str, bytes]:
    """Return what httpx notes of a response beside its headers."""
    reason = http.client.responses.get(status, "").encode()
    return {"http_version": b"HTTP/1.1", "reason_phrase": reason}


def error_body(error: BaseException) -> dict[str, Data]:
    """Return an llmcall error in the form of the API's errors."""
    return {
        "error": {
            "message": str(error),
            "type": "llmcall",
            "code": type(error).__name__,
            "param": None,
        }
    }
