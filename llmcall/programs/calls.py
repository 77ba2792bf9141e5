"""One request of a program, as the transport of the call that it becomes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..blocking import each, iterate, may_block, run, value
from ..call.drivers import adrive_stream, drive_stream
from ..call.effects import END
from ..call.embeddings import ordered_embeddings
from ..call.prepare import prepare_chat, prepare_embeddings
from ..clients.api_errors import connection_error, failure
from ..clients.chat import streamed_chunks
from ..clients.openai import OpenAIClient
from ..clients.replies import reply_to
from ..clients.streams import AsyncStream, Stream
from ..errors import APIError, RequestTimeoutError
from ..failures import UnrecordedAnswer
from ..notices import warn_once
from ..recorded_functions import http_call
from ..system import is_own_request
from ..values import read_object
from ..values.checks import check_embeddings
from .requests import GEMINI_MODEL, ClientCall, asks_model, http_call_of, path_of
from .whole_answers import check_answer, last_events_at

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from ..call.calls import Call
    from ..call.client import ResolvedSettings
    from ..models.catalog import Capabilities
    from ..values import Record, Request

API_PATH = re.compile(r"/(chat/completions|completions|embeddings|responses|messages)/?$")
# Headers of one connection or one body (RFC 9110, section 7.6.1): each message has its own.
MESSAGE_HEADERS = frozenset(
    {
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "accept-encoding",
        "host",
    }
)
EVENTS = "text/event-stream"
LIMIT = "max_completion_tokens"  # another name for max_tokens
STREAMING = ":streamGenerateContent"  # the end of a path of Gemini's API
SDK_TIMEOUT = 600.0  # seconds; DEFAULT_TIMEOUT of the openai SDK 2 and 3


class BegunStream(NamedTuple):
    """A streamed answer whose first piece has come.

    :param stream: the stream of llmcall's client; ``None`` if the answer is recorded as it is.
    :param pieces: the pieces after the first, as an iterator or asynchronous iterator.
    :param first: the first piece, or ``END`` if there is none.
    """

    stream: Any
    pieces: Any
    first: Any


@dataclass
class ProgramCall:
    """A program's request, which sends itself: the transport of the call that it becomes.

    :param http: the module ``httpx`` or ``httpx2``.
    :param request: the program's own HTTP request.
    :param send_below: sends a request and returns its response, or a coroutine that does.
    :param is_async: whether it is a coroutine.
    :param client_at: returns the client that makes calls to an address.
    :param client_call: the call of llmcall's client that the request becomes.
    :ivar last_response: the response to the last attempt, or ``None`` if there is none.
    :ivar stream_type: the media type of a streamed answer that is passed on.
    :ivar passed_on: the part of it that came.
    """

    http: ModuleType
    request: Any
    send_below: Callable[[Any], Any]
    is_async: bool
    client_at: Callable[[str], ProgramClient]
    client_call: ClientCall
    last_response: Any = None
    stream_type: str = ""
    passed_on: bytes = b""

    @property
    def client(self) -> ProgramClient:
        """Return the client that makes this call.

        :raises ConfigError: if the address is wrong.
        """
        address = _address(self.request.url)
        if not API_PATH.search(address):  # one client for all other paths of a host
            address = f"{self.request.url.scheme}://{self.request.url.netloc.decode()}"
        return self.client_at(API_PATH.sub("", address))

    async def ask(self) -> Any:
        """Return the answer; for a stream a :class:`BegunStream`, so that a failure before the
        first piece is raised here.
        """
        may_block.set(not self.is_async)
        if self.client_call.kind != "http_call":
            try:
                call, flow = self._chat_or_embedding()
            except (TypeError, ValueError):
                body = self.client_call.body
                if not asks_model(path_of(self.request), body):
                    raise
                # no chat of llmcall's, but the server may take it
                self.client_call = http_call_of(self.request, body)
            else:
                if call is None or self.client_call.kind == "send_message":
                    return await flow
                stream = (
                    AsyncStream(call, flow, adrive_stream)
                    if self.is_async
                    else Stream(call, flow, drive_stream)
                )
                chunks = stream.chunks()
                return BegunStream(stream, chunks, await self._first(chunks))
        values: list[Any] = []
        flow = self._http_flow()
        pieces: Any = (adrive_stream if self.is_async else drive_stream)(flow, values.append)
        first = await self._first(pieces)
        return values[0] if first is END else BegunStream(None, pieces, first)

    def _chat_or_embedding(self) -> tuple[Call | None, Coroutine[Any, Any, Any]]:
        """Return the chat call that the request becomes, or ``None`` for embeddings, and the flow to its
        answer. This object is the call's transport.
        """
        kind, _, given = self.client_call
        arguments = dict(given)
        if kind == "get_embedding":
            text, model = arguments.pop("text"), arguments.pop("model", None)
            calls = prepare_embeddings(self.client, text, model, arguments, self)
            return None, self.client._embedding_flow(calls, is_one=False)
        messages = arguments.pop("current_messages")
        call = prepare_chat(self.client, messages, arguments)._replace(transport=self)
        return call, reply_to(call, stream=kind == "stream_message")

    async def _first(self, pieces: Any) -> Any:
        return await anext(pieces, END) if self.is_async else next(pieces, END)

    def _http_flow(self) -> Coroutine[Any, Any, dict[str, Any]]:
        """Return the flow of a request that is recorded as it is."""
        model, body, path = None, self.client_call.body, path_of(self.request)
        if asks_model(path, body):
            named = GEMINI_MODEL.search(path)
            model = named[1] if named else body.get("model")
            if not isinstance(model, str):
                model = ""
        return http_call(
            **self.client_call.arguments, transport=self, client=self.client, model=model
        )

    async def _pieces(self) -> AsyncGenerator[Any, None]:
        """Yield the pieces of a streamed answer as they come, and last what is recorded of it."""
        self.passed_on = b""
        async with self._response(self.request) as response:
            self.stream_type = _media_type(response)
            if _is_recordable(response):
                async for data in self._data_of(response):
                    self.passed_on += data
                    yield data
            else:
                self.passed_on = await self._read(response)
        headers = headers_to_copy(response.headers)
        self.last_response = self.http.Response(
            response.status_code, headers=headers, content=self.passed_on
        )
        yield self._fields(self.last_response)

    @property
    def has_last_event(self) -> bool:
        """Return whether the event came that ends a streamed answer of a known API."""
        try:
            check_answer(
                path_of(self.request), self.client_call.body, self.passed_on, is_stream=True
            )
        except APIError:
            return False
        return bool(last_events_at(path_of(self.request), self.client_call.body))

    def _fields(self, response: Any) -> dict[str, Any]:
        """Return what is recorded of a response: its media type and its body.

        :raises UnrecordedAnswer: if the response is neither JSON nor an event stream.
        :raises APIError: if the response is a failure, which is not recorded.
        """
        body, media_type = self.client_call.body, _media_type(response)
        if not _is_recordable(response) and (
            response.status_code != 200 or last_events_at(path_of(self.request), body)
        ):
            raise response_error(response)
        try:
            if not _is_recordable(response):
                raise UnrecordedAnswer(media_type or "no content type", status_code=200)
            check_answer(
                path_of(self.request), body, response.content, is_stream=media_type == EVENTS
            )
        except APIError as error:
            error.http_response = response  # type: ignore[attr-defined]
            raise
        return {"content_type": media_type, "body": response.text}

    # As a transport

    @contextlib.asynccontextmanager
    async def _response(self, request: Any) -> AsyncIterator[Any]:
        """Send a request, and close its response at the end of the block. The HTTP library's errors
        become llmcall's, which are retried.
        """
        self.last_response = None
        address = _address(self.request.url)
        try:
            token = is_own_request.set(True)
            try:
                response = await value(self.send_below(request))
            finally:
                is_own_request.reset(token)
            try:
                yield response
            finally:
                await value(response.aclose() if self.is_async else response.close())
        except self.http.TimeoutException as error:
            raise RequestTimeoutError(f"no answer from {address} within the timeout") from error
        except self.http.TransportError as error:
            raise connection_error(error, address, f"{type(error).__name__}: {error}") from error

    async def _read(self, response: Any) -> bytes:
        content: bytes = await value(response.aread() if self.is_async else response.read())
        return content

    def _data_of(self, response: Any) -> AsyncIterator[bytes]:
        return each(response.aiter_bytes() if self.is_async else response.iter_bytes())

    async def _received(self, request: Any) -> Any:
        """Send a request, and return its response, which is read."""
        async with self._response(request) as response:
            await self._read(response)
        self.last_response = response
        return response

    def send(self, request: Request, timeout: float | None) -> Any:
        """Return what :meth:`asend` does; the pieces one by one."""
        answer = run(self.asend(request, timeout))
        return answer if isinstance(answer, dict) else iterate(answer)

    async def asend(self, request: Request, timeout: float | None) -> Any:
        """Return the response of the API; the pieces of a streamed answer that is recorded as it is,
        and last what is recorded of it.
        """
        if request.kind == "http":
            path, body = path_of(self.request), self.client_call.body
            if asks_model(path, body) and (path.endswith(STREAMING) or body.get("stream") is True):
                return self._pieces()
            return self._fields(await self._received(self.request))
        received = await self._received(self._attempt(request, timeout))
        if received.status_code != 200:
            raise response_error(received)
        response = read_object(received.content, "answer")
        if request.kind != "embedding":
            return response
        texts = _texts(self._body(request))
        check_embeddings(response, len(texts))
        vectors = dict(zip(texts, ordered_embeddings(response), strict=True))
        # The program may repeat a text; llmcall asks for each once.
        data = [{**vectors[text], "index": i} for i, text in enumerate(request.body["input"])]
        return {**response, "data": data}

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a streamed answer."""
        return iterate(self.astream(request, timeout))

    async def astream(
        self, request: Request, timeout: float | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a streamed answer."""
        async with self._response(self._attempt(request, timeout)) as response:
            if response.status_code != 200:
                await self._read(response)
                raise response_error(response)
            async for chunk in streamed_chunks(self._data_of(response)):
                yield chunk

    def _attempt(self, request: Request, timeout: float | None) -> Any:
        """Return the HTTP request of an attempt: the program's own if neither the body nor the
        timeout has changed.
        """
        original = self.request
        content = self._content(request)
        seconds = original.extensions.get("timeout") or {}
        if content == original.content and timeout == seconds.get("read"):
            return original
        limits = {
            name: timeout if limit in (None, SDK_TIMEOUT) else min(limit, timeout or limit)
            for name, limit in seconds.items()
        }
        extensions = {**original.extensions, "timeout": limits}
        headers = headers_to_copy(original.headers)
        return self.http.Request(
            original.method, original.url, headers=headers, content=content, extensions=extensions
        )

    def _body(self, request: Request) -> dict[str, Any]:
        """Return an attempt's body: texts that are asked for are written as the program wrote them."""
        asked = self.client_call.body
        if request.kind == "embedding" and set(request.body["input"]) == set(_texts(asked)):
            return {**request.body, "input": asked["input"]}
        return {**request.body}

    def _content(self, request: Request) -> bytes:
        """Return the bytes of an attempt's body: the program's own unless a field has changed."""
        body, asked = self._body(request), self.client_call.body
        original: bytes = self.request.content
        if body == asked:
            return original
        # JSON is compact by the openai SDK and httpx from 0.28 on, and has spaces by older ones.
        has_spaces = json.dumps(asked).encode() == original
        style: dict[str, Any] = {"ensure_ascii": False, "separators": (",", ":")}
        return json.dumps(body, **({} if has_spaces else style)).encode()

    def sent(self, request: Request, capabilities: Capabilities, stream: bool) -> Request:
        """Return the request with the program's own body, and the fields that an alias, a fallback or an
        override changes. What is known about the model changes nothing.
        """
        client = self.client
        body = dict(self.client_call.body)
        if body.get("model") is not None or "model" in client._overrides:
            body["model"] = request.model
        if request.kind == "embedding":
            return request._replace(body={**body, "input": request.body["input"]})
        for name, default in client.resolved.defaults.items():
            is_limited = name == "max_tokens" and body.get(LIMIT) is not None
            if body.get(name) is None and not is_limited:
                body[name] = default
        return request._replace(body=body)


def _texts(body: Mapping[str, Any]) -> list[str]:
    """Return the texts of a request for embeddings."""
    return [body["input"]] if isinstance(body["input"], str) else body["input"]


def _address(url: Any) -> str:
    return f"{url.scheme}://{url.netloc.decode()}{url.raw_path.decode().partition('?')[0]}"


def headers_to_copy(headers: Any) -> list[tuple[bytes, bytes]]:
    return [
        (name, value) for name, value in headers.raw if name.decode().lower() not in MESSAGE_HEADERS
    ]


class ProgramClient(OpenAIClient):
    """Makes a program's calls to one address, with the credentials and headers of each request."""

    def _resolve(self) -> ResolvedSettings:
        """Return the resolved settings. Of the default parameters, only those given in code apply:
        the program's requests stay its own, without a window.
        """
        resolved = super()._resolve()
        if resolved.settings.window != "none":
            window = resolved.settings.window
            warn_once(f"WINDOW = {window}: a program's calls are sent without a window")
            resolved = resolved._replace(settings=resolved.settings.replace(window="none"))
        overridden = {
            name: value for name, value in resolved.defaults.items() if name in self._overrides
        }
        return resolved._replace(defaults=overridden)

    def with_effort(self, model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields: a program that names no effort is sent none, so its record names none."""
        return dict(fields)

    def _embeddings(self, records: Sequence[Record], *, is_one: bool) -> Sequence[Record]:
        """Return the records, which hold the model and the usage that the program gets."""
        return records


def _is_recordable(response: Any) -> bool:
    media_type = _media_type(response)
    return response.status_code == 200 and (media_type.endswith("json") or media_type == EVENTS)


def _media_type(response: Any) -> str:
    return str(response.headers.get("content-type", "").partition(";")[0])


def response_error(response: Any) -> APIError:
    """Return the error for a response that is not an answer; the error keeps the response."""
    try:
        body = response.json()
    except ValueError:
        body = response.text
    error = failure(response.status_code, body, headers=dict(response.headers.items()))
    # the program's client follows a redirect
    error.retryable = error.retryable and response.status_code >= 400
    error.http_response = response  # type: ignore[attr-defined]
    return error
