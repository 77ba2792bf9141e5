"""One request of a program, as the transport of the call that it becomes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from ..call.drivers import adrive, adrive_stream, drive, drive_stream
from ..call.effects import END
from ..call.embeddings import ordered_embeddings
from ..call.prepare import prepare_chat
from ..call.send import UnrecordedAnswer
from ..clients.api_errors import failure
from ..clients.chunk_reader import ChunkReader
from ..clients.openai import OpenAIClient
from ..clients.replies import reply_to
from ..clients.sdk_exceptions import connection_error
from ..clients.streams import AsyncStream, Stream
from ..errors import APIError, RequestTimeoutError
from ..notices import warn_once
from ..recorded_functions import http_call
from ..responses.body import read_object
from ..system import is_own_request
from .requests import GEMINI_MODEL, ClientCall, asks_model, http_call_of
from .whole_answers import check_answer, last_events_at

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from ..call.calls import Call
    from ..call.client import ResolvedSettings
    from ..call.effects import Flow
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
    :param client_at: returns the client that makes calls to an address.
    :param client_call: the call of llmcall's client that the request becomes.
    :ivar last_response: the response to the last attempt, or ``None`` if there is none.
    :ivar is_sent: whether an attempt was made.
    :ivar stream_type: the media type of a streamed answer that is passed on.
    :ivar passed_on: the part of it that came.
    """

    http: ModuleType
    request: Any
    send_below: Callable[[Any], Any]
    client_at: Callable[[str], ProgramClient]
    client_call: ClientCall
    last_response: Any = None
    is_sent: bool = False
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

    def ask(self) -> Any:
        """Return the answer; for a stream a :class:`BegunStream`, so that a failure before the
        first piece is raised here.
        """
        if self.client_call.method != "http_call":
            try:
                call, flow = self._chat_or_embedding()
                if call is None or self.client_call.method == "send_message":
                    return drive(flow)
                stream = Stream(call, flow, drive_stream)
                chunks = stream.chunks()
                return BegunStream(stream, chunks, next(chunks, END))
            except (TypeError, ValueError):
                self._record_as_it_is()
        values: list[Any] = []
        pieces = drive_stream(self._http_flow(self._pieces, self._receive_fields), values.append)
        first = next(pieces, END)
        return values[0] if first is END else BegunStream(None, pieces, first)

    async def aask(self) -> Any:
        """Return the answer; see :meth:`ask`."""
        if self.client_call.method != "http_call":
            try:
                call, flow = self._chat_or_embedding()
                if call is None or self.client_call.method == "send_message":
                    return await adrive(flow)
                stream = AsyncStream(call, flow, adrive_stream)
                chunks = stream.chunks()
                return BegunStream(stream, chunks, await anext(chunks, END))
            except (TypeError, ValueError):
                self._record_as_it_is()

        async def pieces_of() -> AsyncIterator[Any]:
            return self._apieces()

        values: list[Any] = []
        flow = self._http_flow(pieces_of, self._areceive_fields)
        pieces = adrive_stream(flow, values.append)
        first = await anext(pieces, END)
        return values[0] if first is END else BegunStream(None, pieces, first)

    def _chat_or_embedding(self) -> tuple[Call | None, Flow[Any]]:
        """Return the chat call that the request becomes, or ``None`` for embeddings, and the flow to its
        answer. This object is the call's transport.
        """
        method, _, given = self.client_call
        arguments = dict(given)
        if method == "get_embedding":
            text, model = arguments.pop("text"), arguments.pop("model", None)
            return None, self.client._embedding_flow(text, model, arguments, self)
        messages = arguments.pop("current_messages")
        call = replace(prepare_chat(self.client, messages, arguments), transport=self)
        return call, reply_to(call, stream=method == "stream_message")

    def _record_as_it_is(self) -> None:
        """Take a body that is no chat of llmcall's as the server takes it.

        :raises TypeError, ValueError: the current error, if the request was sent.
        """
        if self.is_sent or not asks_model(self.request.url.path.rstrip("/"), self.client_call.body):
            raise
        self.client_call = http_call_of(self.request, self.client_call.body)

    def _http_flow(
        self, pieces_of: Callable[[], Any], receive: Callable[[], Any]
    ) -> Flow[dict[str, Any]]:
        """Return the flow of a request that is recorded as it is.

        :param pieces_of: returns the pieces of a streamed answer, which are passed on.
        :param receive: returns what is recorded of an answer.
        """
        client = self.client
        path, body = self.request.url.path.rstrip("/"), self.client_call.body
        model, streams = None, False
        if asks_model(path, body):
            named = GEMINI_MODEL.search(path)
            model = named[1] if named else body.get("model")
            if not isinstance(model, str):
                model = ""
            streams = body.get("stream") is True or path.endswith(STREAMING)
        return http_call(
            **self.client_call.arguments,
            send=pieces_of if streams else receive,
            settings=client.settings,
            client=None if body is None else client,
            model=model,
        )

    def _receive_fields(self) -> dict[str, Any]:
        return self._receive(self.request, self._recorded_fields)

    async def _areceive_fields(self) -> dict[str, Any]:
        return await self._areceive(self.request, self._recorded_fields)

    def _pieces(self) -> Iterator[Any]:
        """Yield the pieces of a streamed answer as they come, and last what is recorded of it."""
        with self._response(self.request) as response:
            if self._begin(response):
                for data in response.iter_bytes():
                    self.passed_on += data
                    yield data
            else:
                self.passed_on = response.read()
        yield self._recorded_fields(self._whole(response))

    async def _apieces(self) -> AsyncIterator[Any]:
        """Yield the pieces of a streamed answer; see :meth:`_pieces`."""
        async with self._aresponse(self.request) as response:
            if self._begin(response):
                async for data in response.aiter_bytes():
                    self.passed_on += data
                    yield data
            else:
                self.passed_on = await response.aread()
        yield self._recorded_fields(self._whole(response))

    def _begin(self, response: Any) -> bool:
        """Return whether an answer is passed on as it comes."""
        self.passed_on, self.stream_type = b"", _media_type(response)
        return _is_recordable(response)

    def _whole(self, response: Any) -> Any:
        """Return a response with the whole body that came."""
        self.last_response = self.http.Response(
            response.status_code,
            headers=headers_to_copy(response.headers),
            content=self.passed_on,
        )
        return self.last_response

    @property
    def has_last_event(self) -> bool:
        """Return whether the event came that ends a streamed answer of a known API."""
        path, body = self.request.url.path, self.client_call.body
        try:
            check_answer(path, body, self.passed_on, is_stream=True)
        except APIError:
            return False
        return bool(last_events_at(path, body))

    def _recorded_fields(self, response: Any) -> dict[str, Any]:
        """Return what is recorded of a response: its media type and its body.

        :raises UnrecordedAnswer: if the response is neither JSON nor an event stream.
        :raises APIError: if the response is a failure, which is not recorded.
        """
        path, body = self.request.url.path, self.client_call.body
        if response.status_code != 200 or (
            not _is_recordable(response) and last_events_at(path, body)
        ):
            raise response_error(response)
        media_type = _media_type(response)
        try:
            if not _is_recordable(response):
                raise UnrecordedAnswer(media_type or "no content type", status_code=200)
            check_answer(path, body, response.content, is_stream=media_type == EVENTS)
        except APIError as error:
            error.http_response = response  # type: ignore[attr-defined]
            raise
        return {"content_type": media_type, "body": response.text}

    @contextlib.contextmanager
    def _response(self, request: Any) -> Iterator[Any]:
        """Send a request, and close its response at the end of the block."""
        self.is_sent = True
        with self._api_errors():
            token = is_own_request.set(True)
            try:
                response = self.send_below(request)
            finally:
                is_own_request.reset(token)
            with contextlib.closing(response):
                yield response

    @contextlib.asynccontextmanager
    async def _aresponse(self, request: Any) -> AsyncIterator[Any]:
        """Send a request, and close its response at the end of the block."""
        self.is_sent = True
        with self._api_errors():
            token = is_own_request.set(True)
            try:
                response = await self.send_below(request)
            finally:
                is_own_request.reset(token)
            async with contextlib.aclosing(response):
                yield response

    def _receive(self, request: Any, read: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Send a request, and return what ``read`` takes from its response."""
        with self._response(request) as response:
            response.read()
        self.last_response = response
        return read(response)

    async def _areceive(
        self, request: Any, read: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        """Send a request, and return what ``read`` takes from its response."""
        async with self._aresponse(request) as response:
            await response.aread()
        self.last_response = response
        return read(response)

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return the response of the API."""
        return self._with_repeated_texts(
            request, self._receive(self._attempt(request, timeout), _parsed_response)
        )

    async def asend(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return the response of the API."""
        response = await self._areceive(self._attempt(request, timeout), _parsed_response)
        return self._with_repeated_texts(request, response)

    def _with_repeated_texts(self, request: Request, response: dict[str, Any]) -> dict[str, Any]:
        """Return a response with one embedding for each text of a request for embeddings: the
        program's own request, which was sent, may repeat texts.
        """
        if request.kind != "embedding":
            return response
        program_texts = _texts(self.client_call.body)
        data = response.get("data")
        if not _are_objects(data) or len(data) != len(program_texts):
            return response
        vectors = dict(zip(program_texts, ordered_embeddings(response), strict=True))
        request_texts = request.body["input"]
        data = [{**vectors[text], "index": index} for index, text in enumerate(request_texts)]
        return {**response, "data": data}

    def sent(self, request: Request, capabilities: Capabilities, stream: bool) -> Request:
        """Return the request with the program's own body, and the fields that an alias, a fallback or an
        override changes. What is known about the model changes nothing.
        """
        client = self.client
        body = dict(self.client_call.body)
        if body.get("model") is not None or client.overrides("model"):
            body["model"] = request.model
        if request.kind == "embedding":
            return request._replace(body={**body, "input": request.body["input"]})
        for name, value in client.resolved.defaults.items():
            is_limited = name == "max_tokens" and body.get(LIMIT) is not None
            if body.get(name) is None and not is_limited:
                body[name] = value
        return request._replace(body=body)

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a streamed answer."""
        chunks, attempt = ChunkReader(), self._attempt(request, timeout)
        with self._response(attempt) as response:
            if response.status_code != 200:
                response.read()
                raise response_error(response)
            for data in response.iter_bytes():
                yield from chunks.feed(data)
            yield from chunks.close()

    async def astream(
        self, request: Request, timeout: float | None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the chunks of a streamed answer."""
        chunks, attempt = ChunkReader(), self._attempt(request, timeout)
        async with self._aresponse(attempt) as response:
            if response.status_code != 200:
                await response.aread()
                raise response_error(response)
            async for data in response.aiter_bytes():
                for chunk in chunks.feed(data):
                    yield chunk
            for chunk in chunks.close():
                yield chunk

    @contextlib.contextmanager
    def _api_errors(self) -> Iterator[None]:
        """Turn the HTTP library's errors into llmcall's, which are retried."""
        self.last_response = None
        address = _address(self.request.url)
        try:
            yield
        except self.http.TimeoutException as error:
            raise RequestTimeoutError(f"no answer from {address} within the timeout") from error
        except self.http.TransportError as error:
            raise connection_error(error, address, f"{type(error).__name__}: {error}") from error

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

    def _content(self, request: Request) -> bytes:
        """Return the bytes of an attempt's body: the program's own unless a field has changed."""
        body = {**request.body}
        if request.kind == "embedding" and set(body["input"]) == set(_texts(self.client_call.body)):
            body["input"] = self.client_call.body["input"]
        original: bytes = self.request.content
        if body == self.client_call.body:
            return original
        return _json_bytes(body, _style_of(original, self.client_call.body))


def _texts(body: Any) -> list[str]:
    """Return the texts of a program's request for embeddings."""
    return [body["input"]] if isinstance(body["input"], str) else body["input"]


def _are_objects(data: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(data, list) and all(isinstance(each, dict) for each in data)


# How JSON is written: compact by the openai SDK and httpx from 0.28 on, with spaces by older ones.
COMPACT: dict[str, Any] = {"ensure_ascii": False, "separators": (",", ":")}
WITH_SPACES: dict[str, Any] = {}


def _style_of(content: bytes, body: Any) -> dict[str, Any]:
    """Return the style in which a program's body is written."""
    return WITH_SPACES if _json_bytes(body, WITH_SPACES) == content else COMPACT


def _json_bytes(body: Any, style: dict[str, Any]) -> bytes:
    return json.dumps(body, **style).encode()


def _address(url: Any) -> str:
    return f"{url.scheme}://{url.netloc.decode()}{url.raw_path.decode().partition('?')[0]}"


def headers_to_copy(headers: Any) -> list[tuple[bytes, bytes]]:
    return [
        (name, value) for name, value in headers.raw if name.decode().lower() not in MESSAGE_HEADERS
    ]


SDK_TIMEOUT = 600.0  # seconds; DEFAULT_TIMEOUT of the openai SDK 2 and 3


class ProgramClient(OpenAIClient):
    """Makes a program's calls to one address, with the credentials and headers of each request."""

    sdk_timeout = SDK_TIMEOUT

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

    def overrides(self, name: str) -> bool:
        """Return whether code gave a setting for all of the program's calls."""
        return name in self._overrides

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


def _parsed_response(response: Any) -> dict[str, Any]:
    if response.status_code != 200:
        raise response_error(response)
    return read_object(response.content, "answer")


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
