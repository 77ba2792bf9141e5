"""Requests through the openai SDK, which no other module uses to send."""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from ..call.effects import time_left, time_limit
from ..config.values import check_credential
from ..errors import APIError, ConfigError, RequestTimeoutError, ServiceError
from ..keys.parameters import ESSENTIAL_FIELDS
from ..responses.body import append, read_object
from ..system import is_own_request
from ..values import Response
from .api_errors import parsed_response, refuse_reported, request_id
from .chunk_reader import ChunkReader
from .masking import mask, secrets_of
from .meant_addresses import guess_address
from .responses import EventReader, answer_in, body_of, chat_name, without_request
from .sdk_clients import SDKClients
from .sdk_exceptions import http_errors, http_library, mapped_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

    from ..values import Request

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
        sdk = self._clients.of_threads()
        with self._open_response(
            self._post(sdk, request, timeout, self._headers()), request
        ) as http_response:
            return _answer(http_response, request, self._body(http_response))

    def _body(self, http_response: Any) -> bytearray:
        body = bytearray()
        for data in http_response.iter_bytes():
            append(body, data)
            self._check_time()
        return body

    async def asend(self, request: Request, timeout: float | None) -> Response:
        """Return the response, as :meth:`send` does."""
        headers = await self._aheaders()
        sdk = await self._clients.of_running_loop()
        async with self._open_response(
            self._post(sdk, request, timeout, headers), request
        ) as http_response:
            body = bytearray()
            async for data in http_response.aiter_bytes():
                append(body, data)
            return _answer(http_response, request, body)

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield the information in the headers, then the chunks of a streamed answer.

        The current context's time limit applies to the wait for each chunk.
        """
        sdk = self._clients.of_threads()
        with self._open_response(
            self._post(sdk, request, timeout, self._headers(), stream=True), request
        ) as http_response:
            yield _response(http_response)
            chunks = _reader(request)
            for data in http_response.iter_bytes():
                yield from chunks.feed(data)
                if chunks.done:
                    return
                self._check_time()  # comments alone are not an answer
            yield from chunks.close()

    async def astream(
        self, request: Request, timeout: float | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a streamed answer, as :meth:`stream` does."""
        headers = await self._aheaders()
        sdk = await self._clients.of_running_loop()
        async with self._open_response(
            self._post(sdk, request, timeout, headers, stream=True), request
        ) as http_response:
            yield _response(http_response)
            chunks = _reader(request)
            async for data in http_response.aiter_bytes():
                for chunk in chunks.feed(data):
                    yield chunk
                if chunks.done:
                    return
            for chunk in chunks.close():
                yield chunk

    def models(self, timeout: float) -> list[str]:
        """Return the names of the models that the endpoint lists.

        :param timeout: seconds.
        """
        sdk = self._clients.of_threads()
        with time_limit(timeout):
            options = {"headers": self._headers(), "timeout": timeout, "security": SECURITY}
            send = partial(sdk.get, "/models", options=options, **_raw_response_arguments())
            with self._open_response(send) as http_response:
                body = refuse_reported(read_object(self._body(http_response), "list of models"))
                models = body.get("data")
                if not isinstance(models, list) or not all(
                    isinstance(model, dict) and "id" in model for model in models
                ):
                    raise ServiceError("a malformed list of models")
        return [str(model["id"]) for model in models]

    def _headers(self) -> dict[str, str]:
        """Return the header with a fresh token, if a function returns tokens."""
        if self._token is None:
            return {}
        token = self._token()
        return _bearer(_run(token) if isawaitable(token) else token)

    async def _aheaders(self) -> dict[str, str]:
        """Return the header with a fresh token, in the running event loop; see :meth:`_headers`."""
        if self._token is None:
            return {}
        token = self._token()
        return _bearer(await token if isawaitable(token) else token)

    def _check_time(self) -> None:
        """Enforce the time limit, even if the user's HTTP client does not."""
        seconds_left = time_left()
        if seconds_left is not None and seconds_left <= 0:
            raise RequestTimeoutError(f"no complete answer from {self.url} within the timeout")

    def _open_response(
        self, send: Callable[[], Any], request: Request | None = None
    ) -> _OpenResponse:
        return _OpenResponse(send, self.url, self._suggests_base_url, request)

    def _post(
        self,
        sdk: Any,
        request: Request,
        timeout: float | None,
        headers: dict[str, str],
        stream: bool = False,
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
        elif request.wire != "chat":
            body = body_of(body)
            body["model"] = self._deployment or body["model"]
        if extra_body:
            essential = {name: body[name] for name in ESSENTIAL_FIELDS if name in body}
            body = {**body, **extra_body, **essential}
        for name, value in request.headers.items():
            if not (
                HEADER_NAME.fullmatch(name) and str(value).isascii() and str(value).isprintable()
            ):
                raise ConfigError(
                    f"extra_headers[{name!r}]: an HTTP header cannot have this name or value"
                )
            headers[name] = str(value)
        options = {
            "headers": headers,
            "params": query or {},
            "timeout": None if timeout is None else min(timeout, LONGEST_TIMEOUT),
            "security": SECURITY,
        }
        if stream:
            body["stream"] = True
        arguments = _raw_response_arguments()
        if method == "delete":  # the SDK reads its answer at once
            arguments = {"cast_to": arguments["cast_to"]}
        elif method == "post":
            arguments["body"] = body
        return partial(getattr(sdk, method), path, options=options, **arguments)

    def close(self) -> None:
        """Close the connections that no call uses, but those of event loops."""
        self._clients.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop, and all that :meth:`close` closes."""
        await self._clients.aclose()


def _reader(request: Request) -> ChunkReader:
    return EventReader() if request.wire == "responses" else ChunkReader()


def _answer(http_response: Any, request: Request, body: bytearray) -> Response:
    """Return the answer that a body is; of the background, the response, finished or not."""
    if request.wire in ("cancel", "delete"):
        return _response(http_response)
    if request.wire in ("background", "look"):
        return _response(http_response, read_object(body, "response"))
    data = parsed_response(body)
    return _response(http_response, without_request(data) if request.wire == "responses" else data)


def _raw_response_arguments() -> dict[str, Any]:
    """Return the arguments with which the SDK returns the response of its HTTP library, not read."""
    return {"cast_to": http_library().Response, "stream": True, "stream_cls": None}


class _OpenResponse:
    """Send a request and yield the response. :func:`llmcall.patched` does not intercept it.

    Exceptions of the SDK and its HTTP library are raised as llmcall's own.

    :param send: sends the request and returns the response, or an awaitable of it.
    :param url: the address, for errors.
    :param suggests_base_url: see :class:`SDKTransport`.
    :param request: what is sent, or ``None``.
    """

    def __init__(
        self, send: Callable[[], Any], url: str, suggests_base_url: bool, request: Request | None
    ) -> None:
        self._send = send
        self._request = request
        self._url = url
        self._suggests_base_url = suggests_base_url
        self._http_response: Any = None

    def __enter__(self) -> Any:
        with self._sending():
            self._http_response = self._send()
        return self._http_response

    async def __aenter__(self) -> Any:
        with self._sending():
            self._http_response = await self._send()
        return self._http_response

    @contextmanager
    def _sending(self) -> Iterator[None]:
        token = is_own_request.set(True)
        try:
            yield
        except _failures() as error:
            self._raise_mapped(error)
        finally:
            is_own_request.reset(token)

    def __exit__(self, error_type: Any, error: Any, traceback: Any) -> None:
        self._http_response.close()
        self._raise_mapped(error)

    async def __aexit__(self, error_type: Any, error: Any, traceback: Any) -> None:
        await self._http_response.aclose()
        self._raise_mapped(error)

    def _raise_mapped(self, error: BaseException | None) -> None:
        """Raise llmcall's error for an exception of a failed call."""
        if not isinstance(error, _failures()):
            return
        api_error = mapped_error(error, self._url)
        http_response = self._http_response
        if http_response is not None:
            api_error.status_code = http_response.status_code
            api_error.request_id = _response(http_response).request_id
            mask(api_error, secrets_of(http_response.request))
        if self._request is not None and self._request.wire in ("responses", "background"):
            api_error.param = chat_name(api_error.param, self._request.body)
        if self._suggests_base_url:
            guess_address(api_error, self._url)
        if api_error is not error:
            raise api_error from error


def _failures() -> tuple[type[BaseException], ...]:
    import openai

    return (openai.APIError, APIError, *http_errors("RequestError"))


def _response(http_response: Any, data: Mapping[str, Any] = {}) -> Response:
    """Return a response with the information in its headers. Without data, it is what a stream
    yields before its first chunk.
    """
    headers = {name.lower(): value for name, value in http_response.headers.items()}
    return Response(data, request_id(headers))


class Hidden(str):
    """A text with a repr that hides it: reports of failed tests may print local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def _bearer(token: Any) -> dict[str, str]:
    checked_token = check_credential(
        token, "what the api_key function returned", "a token: one word of text"
    )
    return {"Authorization": Hidden(f"Bearer {checked_token}")}


def _run(awaitable: Any) -> Any:
    """Await in a new event loop in a new thread: this thread may already run a loop."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def awaited() -> Any:
        """Await it in a new event loop."""
        return await awaitable

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, awaited()).result()
