"""Requests through the openai SDK, which no other module uses to send."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from ..blocking import each, iterate, run, value
from ..call.effects import time_left, time_limit
from ..config.values import check_credential
from ..errors import APIError, ConfigError, RequestTimeoutError, ServiceError
from ..keys.parameters import ESSENTIAL_FIELDS
from ..system import is_own_request
from ..values import Request, Response, append, read_object
from .api_errors import parsed_response, request_id
from .chunk_reader import ChunkReader
from .masking import mask, secrets_of
from .meant_addresses import guess_address
from .responses import EventReader, answer_in, body_of, chat_name, without_request
from .sdk_clients import SDKClients
from .sdk_exceptions import http_errors, http_library, mapped_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
# Of openai 3.x: what its own methods for chat completions, embeddings and models authenticate with.
SECURITY = {"bearer_auth": True}
LONGEST_TIMEOUT = 1e6  # seconds; sockets refuse what is much longer
# By the wire of a request: its method and its path.
ROUTES = {
    "chat": ("post", "/chat/completions"),
    "responses": ("post", "/responses"),
    "background": ("post", "/responses"),
    "look": ("get", "/responses/{id}"),
    "models": ("get", "/models"),
    "cancel": ("post", "/responses/{id}/cancel"),
    "delete": ("delete", "/responses/{id}"),
}


class SDKTransport:
    """Send requests through SDK clients.

    :param make: see :class:`~llmcall.clients.sdk_clients.SDKClients`.
    :param url: the endpoint's address, without credentials.
    :param token: a function, sync or async, that returns the token for an attempt. Tokens are never
        kept.
    :param http_client: the user's HTTP client, which the user closes.
    :param suggests_base_url: whether the error of a 404 suggests the ``BASE_URL`` that was probably
        meant.
    :param deployment: the model's name at Azure, if it has another one there.
    :ivar renewable: whether a function returns the key, so that it may replace a refused one.
    :ivar answer_in: returns the answer that a response in the background is.
    """

    answer_in = staticmethod(answer_in)

    def __init__(
        self,
        make: Callable[[bool], Any],
        url: str,
        *,
        token: Callable[[], Any] | None = None,
        http_client: Any = None,
        suggests_base_url: bool = True,
        deployment: str | None = None,
    ) -> None:
        self._clients = SDKClients(make, http_client)
        self.url = url
        self._token = token
        self._suggests_base_url = suggests_base_url
        self._deployment = deployment
        self.renewable = token is not None

    def send(self, request: Request, timeout: float | None) -> Response:
        """Return the response.

        The timeout applies to each read; the current context's time limit, to the whole attempt.
        """
        return run(self._send(request, timeout, is_async=False))

    async def asend(self, request: Request, timeout: float | None) -> Response:
        """Return the response, as :meth:`send` does."""
        return await self._send(request, timeout, is_async=True)

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield the information in the headers, then the chunks of a streamed answer.

        The current context's time limit applies to the wait for each chunk.
        """
        return iterate(self._stream(request, timeout, is_async=False))

    def astream(
        self, request: Request, timeout: float | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a streamed answer, as :meth:`stream` does."""
        return self._stream(request, timeout, is_async=True)

    def models(self, timeout: float) -> list[str]:
        """Return the names of the models that the endpoint lists.

        :param timeout: seconds.
        """
        request = Request("chat", "", {}, {}, {}, None, "", wire="models")
        with time_limit(timeout):
            models = self.send(request, timeout).get("data")
        if not isinstance(models, list) or not all(
            isinstance(model, dict) and "id" in model for model in models
        ):
            raise ServiceError("a malformed list of models")
        return [str(model["id"]) for model in models]

    async def _send(self, request: Request, timeout: float | None, *, is_async: bool) -> Response:
        body = bytearray()
        async with self._opened(request, timeout, is_async=is_async) as response:
            async for data in self._data(response, is_async=is_async):
                append(body, data)
            return _answer(response, request, body)

    async def _stream(
        self, request: Request, timeout: float | None, *, is_async: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        async with self._opened(request, timeout, is_async=is_async, stream=True) as response:
            yield _response(response)
            chunks = EventReader() if request.wire == "responses" else ChunkReader()
            async for data in self._data(response, is_async=is_async):
                for chunk in chunks.feed(data):
                    yield chunk
                if chunks.done:
                    return
            for chunk in chunks.close():
                yield chunk

    async def _data(self, response: Any, *, is_async: bool) -> AsyncGenerator[bytes, None]:
        """Yield the data of a body; enforce the time limit, even if the user's HTTP client does not."""
        async for data in each(response.aiter_bytes() if is_async else response.iter_bytes()):
            yield data
            seconds_left = time_left()  # comments alone are not an answer
            if seconds_left is not None and seconds_left <= 0:
                raise RequestTimeoutError(f"no complete answer from {self.url} within the timeout")

    @asynccontextmanager
    async def _opened(
        self, request: Request, timeout: float | None, *, is_async: bool, stream: bool = False
    ) -> AsyncIterator[Any]:
        """Send a request, and yield the response of the SDK's HTTP library before its body is read.
        :func:`llmcall.patched` does not intercept it.

        :raises APIError: for an exception of the SDK or its HTTP library.
        """
        headers = await self._headers(is_async=is_async)
        clients = self._clients
        sdk = await clients.of_running_loop() if is_async else clients.of_threads()
        send = self._sending(sdk, request, timeout, headers, stream)
        response: Any = None
        try:
            token = is_own_request.set(True)
            try:
                response = await value(send())
            finally:
                is_own_request.reset(token)
            try:
                yield response
            finally:
                await value(response.aclose() if is_async else response.close())
        except _failures() as error:
            api_error = self._mapped(error, response, request)
            if api_error is error:
                raise
            raise api_error from error

    def _mapped(self, error: BaseException, response: Any, request: Request) -> APIError:
        """Return llmcall's error for an exception of a failed call."""
        api_error = mapped_error(error, self.url)
        if response is not None:
            api_error.status_code = response.status_code
            api_error.request_id = _response(response).request_id
            mask(api_error, secrets_of(response.request))
        if request.wire in ("responses", "background"):
            api_error.param = chat_name(api_error.param, request.body)
        if self._suggests_base_url:
            guess_address(api_error, self.url)
        return api_error

    async def _headers(self, *, is_async: bool) -> dict[str, str]:
        """Return the header with a fresh token, if a function returns tokens."""
        if self._token is None:
            return {}
        token = self._token()
        if isawaitable(token):
            token = await token if is_async else _run(token)
        token = check_credential(
            token, "what the api_key function returned", "a token: one word of text"
        )
        return {"Authorization": Hidden(f"Bearer {token}")}

    def _sending(
        self,
        sdk: Any,
        request: Request,
        timeout: float | None,
        headers: dict[str, str],
        stream: bool,
    ) -> Callable[[], Any]:
        """Return a function that sends a request through the SDK, and returns the response of its
        HTTP library before the body is read.

        The SDK's ``post`` sends a body as it is, fields that the SDK does not know included. Its
        ``create`` would search the messages for something to change.
        """
        body = dict(request.body)
        extra_body = body.pop("extra_body", None)
        query = body.pop("extra_query", None)
        body.pop("extra_headers", None)
        method, path = ROUTES[request.wire]
        if request.kind == "embedding":
            path = "/embeddings"
            body.setdefault("encoding_format", "float")
        elif "id" in body:
            path = path.format(id=body.pop("id"))
        elif request.wire in ("responses", "background"):
            body = body_of(body)
            body["model"] = self._deployment or body["model"]
        if extra_body:
            essential = {name: body[name] for name in ESSENTIAL_FIELDS if name in body}
            body = {**body, **extra_body, **essential}
        for name, text in request.headers.items():
            if not (
                HEADER_NAME.fullmatch(name) and str(text).isascii() and str(text).isprintable()
            ):
                raise ConfigError(
                    f"extra_headers[{name!r}]: an HTTP header cannot have this name or value"
                )
            headers[name] = str(text)
        options = {
            "headers": headers,
            "params": query or {},
            "timeout": None if timeout is None else min(timeout, LONGEST_TIMEOUT),
            "security": SECURITY,
        }
        if stream:
            body["stream"] = True
        arguments: dict[str, Any] = {"cast_to": http_library().Response, "options": options}
        if method != "delete":  # whose answer the SDK reads at once
            arguments |= {"stream": True, "stream_cls": None}
        if method == "post":
            arguments["body"] = body
        return partial(getattr(sdk, method), path, **arguments)

    def close(self) -> None:
        """Close the connections that no call uses, but those of event loops."""
        self._clients.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop, and all that :meth:`close` closes."""
        await self._clients.aclose()


def _answer(http_response: Any, request: Request, body: bytearray) -> Response:
    """Return the answer that a body is; of the background, the response, finished or not."""
    if request.wire in ("cancel", "delete"):
        return _response(http_response)
    if request.wire in ("background", "look"):
        return _response(http_response, read_object(body, "response"))
    data = parsed_response(body)
    return _response(http_response, without_request(data) if request.wire == "responses" else data)


def _failures() -> tuple[type[BaseException], ...]:
    import openai

    return (openai.APIError, APIError, *http_errors("RequestError"))


def _response(http_response: Any, data: Mapping[str, Any] = {}) -> Response:
    """Return a response with the request's identifier. Without data, it is what a stream yields
    before its first chunk.
    """
    headers = {name.lower(): value for name, value in http_response.headers.items()}
    return Response(data, request_id(headers))


class Hidden(str):
    """A text with a repr that hides it: reports of failed tests may print local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def _run(awaitable: Any) -> Any:
    """Await in a new event loop in a new thread: this thread may already run a loop."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def awaited() -> Any:
        """Await it in a new event loop."""
        return await awaitable

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, awaited()).result()
