"""A program's request on its way to the server and back: the transport of the call that it becomes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..apis.bodies import read_object
from ..apis.masking import mask, secrets_of
from ..clients.api_errors import connection_error, failure, proxy_hint, raise_reported
from ..clients.chat import chunks_of_event, streamed_chunks
from ..config.values import is_loopback
from ..core.effects import Blocks, Timed
from ..core.kinds import check_embeddings, ordered_embeddings
from ..core.options import Deadline
from ..core.procedure_transport import ProcedureTransport
from ..core.seams import OK, Response
from ..errors import APIError, RequestTimeoutError, ServiceError
from ..support.failures import UnrecordedAnswer
from ..support.secrets import note_request
from ..support.waits import as_async, resolved
from .whole_answers import EVENTS, check_answer, checked_api

if TYPE_CHECKING:
    from types import ModuleType

    import httpx

    from ..keys.request import Data, Request
    from .interceptors import SendRequest
    from .requests import RequestToRecord

# Headers of one connection or one body (RFC 9110, section 7.6.1): each message has its own.
MESSAGE_HEADERS = frozenset(
    {
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
        b"connection",
        b"accept-encoding",
        b"host",
    }
)
CONTENT_TYPE = b"content-type"
# A line of a body, or the part of one that has come, with the line ends after it.
LINE = re.compile(rb"[^\r\n]*[\r\n]+|[^\r\n]+")


class ProgramTransport(ProcedureTransport):
    """A transport that sends a program's request, in all its attempts.

    :param library: ``httpx`` or ``httpx2``.
    :param to_record: the request.
    :param send_below: the program's own transport: sends an HTTP request and returns its response, or
        a coroutine that does.
    :param is_retried: ``True`` if llmcall retries the request, not the program's SDK.
    :ivar last_response: the response to the last attempt, or ``None`` without one.
    :ivar headers: the headers of the last response that the program gets, too, if it is an answer.
    :ivar status: of an answer that is passed on as it comes.
    :ivar has_opened: ``True`` if the server streams the answer to a chat.
    """

    def __init__(
        self,
        library: ModuleType,
        to_record: RequestToRecord,
        send_below: SendRequest,
        *,
        is_retried: bool = True,
    ) -> None:
        self.library = library
        self.to_record = to_record
        self._is_retried = is_retried and bool(to_record.http.content)  # others pass through
        self.last_response: httpx.Response | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.status = OK
        self._send_below = send_below
        self.has_opened = False
        self._passed_on = b""  # what came of an answer that is passed on
        self._untaken = b""  # of a streamed chat, what the program has not got
        note_request(to_record.http, is_local=is_loopback(str(to_record.http.url)))

    async def response(self, request: Request, timeout: float | None) -> Mapping[str, Data]:
        """Return the API's response; of a request recorded whole, what is recorded."""
        blocks = await Blocks()
        async with self._response(request, timeout, blocks) as received:
            await _read_body(received, blocks)
        self.last_response = received
        if request.kind == "http":
            return self._recordable(received)
        if received.status_code != OK:
            raise self._error(received)
        try:
            return self._answer(request, received.content)
        except ServiceError as error:
            # A failure that the server reports has a status. An answer that nobody can read was paid.
            error.retryable = error.status_code is not None
            raise

    def _answer(self, request: Request, content: bytes) -> Mapping[str, Data]:
        """Return the answer in a body; of embeddings, with a vector for each text of the request."""
        response = raise_reported(read_object(content, "answer"))
        if request.kind != "embedding":
            return Response(response)
        texts = _texts(self._body(request))
        check_embeddings(response, len(texts))
        vectors = dict(zip(texts, ordered_embeddings(response), strict=True))
        # The program may repeat a text; llmcall requests each once.
        data = [{**vectors[text], "index": i} for i, text in enumerate(request.body["input"])]
        return {**response, "data": data}

    def chunks(
        self, request: Request, timeout: float | None, timed: Timed
    ) -> AsyncGenerator[dict[str, Data] | bytes, None]:
        """Yield the status and chunks of a streamed chat. For a request recorded whole, yield the pieces of
        its answer, then what is recorded.
        """
        self._passed_on = self._untaken = b""
        self.has_opened = False
        # The generator itself: closing one that reads it would leave its response open.
        if request.kind == "http":
            return self._pieces(request, timeout)
        return self._chunks(request, timeout)

    async def _chunks(
        self, request: Request, timeout: float | None
    ) -> AsyncGenerator[dict[str, Data], None]:
        """Yield the status and the chunks of a streamed chat."""
        blocks = await Blocks()
        async with self._response(request, timeout, blocks) as response:
            if response.status_code != OK:
                await _read_body(response, blocks)
                raise self._error(response)
            yield Response({}, status_code=OK)
            self.has_opened = True
            try:
                async for chunk in streamed_chunks(self._lines(response, blocks), _chunks_of_event):
                    yield chunk
            except APIError as error:
                mask(error, secrets_of(self.to_record.http))
                error.note(response=self._as_it_came(response))
                raise

    def take(self) -> bytes:
        """Return what has come of a streamed chat since the last time, as the server sent it."""
        taken, self._untaken = self._untaken, b""
        return taken

    # What is sent

    def _attempt(self, request: Request, timeout: float | None) -> httpx.Request:
        """Return the HTTP request of an attempt: the program's own unless its body or timeouts have changed."""
        own = self.to_record.http
        content = own.content if request.kind == "http" else self._content(request)
        limits = seconds = own.extensions.get("timeout") or {}
        if timeout is not None:
            limits = {
                name: timeout if limit is None else min(limit, timeout)
                for name, limit in seconds.items()
            }
        if content == own.content and limits == seconds:
            return own
        attempt: httpx.Request = self.library.Request(
            own.method,
            own.url,
            headers=headers_to_copy(own.headers),
            content=content,
            extensions={**own.extensions, "timeout": limits},
        )
        return attempt

    def _content(self, request: Request) -> bytes:
        """Return the bytes of an attempt's body: the program's own unless a field has changed."""
        own: bytes = self.to_record.http.content
        body, original = self._body(request), self.to_record.body
        if body == original:
            return own
        # JSON is compact by the openai SDK and httpx from 0.28 on, and has spaces by older ones.
        has_spaces = json.dumps(original).encode() == own
        style: dict[str, Any] = {"ensure_ascii": False, "separators": (",", ":")}
        return json.dumps(body, **({} if has_spaces else style)).encode()

    def _body(self, request: Request) -> dict[str, Data]:
        """Return an attempt's body. If it requests all texts, these are written as the program wrote them."""
        body, original = dict(request.body), self.to_record.body
        if request.kind == "embedding" and set(body["input"]) == set(_texts(original)):
            body["input"] = original["input"]
        return body

    # What comes back

    @contextlib.asynccontextmanager
    async def _response(
        self, request: Request, timeout: float | None, blocks: bool
    ) -> AsyncIterator[httpx.Response]:
        """Send an attempt, and close its response at the end of the block.

        The HTTP library's errors become llmcall's, which are counted and not retried: the program gets
        the library's own, and its SDK retries.
        """
        self.last_response, self.headers = None, []
        deadline, http = Deadline.after(timeout), self._attempt(request, timeout)
        try:
            response = await resolved(self._send_below(http))
            if response.is_success:
                self.headers = [
                    (name, with_charset(value) if name.lower() == CONTENT_TYPE else value)
                    for name, value in headers_to_copy(response.headers)
                ]
            close = response.close if blocks else response.aclose
            try:
                yield response
            finally:
                await resolved(close())
        except self.library.RequestError as error:
            address = self.to_record.address
            if isinstance(error, self.library.TimeoutException):
                own_error: APIError = RequestTimeoutError(
                    f"no answer from {address} within the timeout"
                )
                own_error.note(is_late=deadline.is_over())  # the call's own deadline
            else:
                own_error = connection_error(error, address, f"{type(error).__name__}: {error}")
            own_error.remedy = proxy_hint(address).strip() or own_error.remedy
            own_error.retryable = False
            own_error.note(is_retried_by_program=not own_error.failure.is_late)
            raise own_error from error

    async def _pieces(
        self, request: Request, timeout: float | None
    ) -> AsyncGenerator[bytes | Response, None]:
        """Yield the pieces of an answer as they come, and last what is recorded of it.

        If its answers are not checked, an empty piece comes first, once the headers are there: the program may wait for
        these alone.
        """
        blocks = await Blocks()
        async with self._response(request, timeout, blocks) as response:
            self.status = response.status_code
            comes_in_pieces = _is_recordable(response)
            if comes_in_pieces:
                if checked_api(self.to_record) is None:
                    yield b""
                async for data in self._note_data(response, blocks):
                    yield data
            else:
                await _read_body(response, blocks)
        self.last_response = self._as_it_came(response) if comes_in_pieces else response
        yield Response(self._recordable(self.last_response))

    async def _note_data(
        self, response: httpx.Response, blocks: bool
    ) -> AsyncGenerator[bytes, None]:
        """Yield the data of a body, and note what came."""
        async for data in as_async(response.iter_bytes() if blocks else response.aiter_bytes()):
            self._passed_on += data
            yield data

    async def _lines(self, response: httpx.Response, blocks: bool) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a streamed chat one by one, so that no chunk is taken with an earlier one."""
        async for data in self._note_data(response, blocks):
            for line in LINE.findall(data):
                self._untaken += line
                yield line

    def _as_it_came(self, response: httpx.Response) -> httpx.Response:
        """Return a response with the part of the body that has arrived."""
        arrived: httpx.Response = self.library.Response(
            response.status_code, headers=headers_to_copy(response.headers), content=self._passed_on
        )
        return arrived

    def _error(self, response: httpx.Response) -> APIError:
        """Return the error for a response that is not an answer; the error keeps the response."""
        try:
            body = response.json()
        except ValueError:
            body = response.text
        error = failure(response.status_code, body, headers=dict(response.headers.items()))
        mask(error, secrets_of(self.to_record.http))  # which a server may repeat
        is_redirect = response.status_code < 400  # the program's client follows it
        is_programs = is_redirect or (error.retryable and not self._is_retried)
        error.note(response=response, is_retried_by_program=is_programs)
        return error

    def _recordable(self, response: httpx.Response) -> dict[str, Data]:
        """Return what is recorded of a response: its media type, its body and, if it is not 200, its status."""
        media_type, status = _media_type(response), response.status_code
        is_readable = _is_recordable(response)
        if not is_readable and (not response.is_success or checked_api(self.to_record)):
            raise self._error(response)
        try:
            if response.content and not is_readable:
                raise UnrecordedAnswer(media_type or "no content type", status_code=status)
            check_answer(self.to_record, response.content, media_type)
        except APIError as error:
            error.note(response=response)
            raise
        recorded = {"content_type": media_type, "body": response.text}
        return recorded if status == OK else {**recorded, "status": status}


def _chunks_of_event(event: dict[str, Data]) -> Iterator[dict[str, Data]]:
    """Yield the chunks that one event carries; an error keeps the event that reports it."""
    try:
        yield from chunks_of_event(event)
    except APIError as error:
        error.note(event=event)
        raise


def headers_to_copy(headers: httpx.Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers that hold for another message with the same content."""
    return [(name, value) for name, value in headers.raw if name.lower() not in MESSAGE_HEADERS]


def with_charset(media_type: bytes) -> bytes:
    """Return a response's type, with the charset of a text: without one, requests reads Latin-1. Recording
    and replay agree, in UTF-8.
    """
    is_unknown = media_type.startswith(b"text/") and b"charset" not in media_type
    return media_type + b"; charset=utf-8" if is_unknown else media_type


async def _read_body(response: httpx.Response, blocks: bool) -> None:
    await resolved(response.read() if blocks else response.aread())


def _texts(body: Data) -> list[str]:
    """Return the texts of a request for embeddings."""
    return [body["input"]] if isinstance(body["input"], str) else body["input"]


def _is_recordable(response: httpx.Response) -> bool:
    media_type = _media_type(response)
    return response.is_success and (media_type.endswith("json") or media_type == EVENTS)


def _media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "").partition(";")[0])
