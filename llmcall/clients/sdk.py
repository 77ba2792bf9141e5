"""Requests through the openai SDK; no other module sends with it."""

from __future__ import annotations

import contextlib
import re
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from operator import methodcaller
from typing import TYPE_CHECKING, Any, ClassVar

from ..apis.bodies import read_object
from ..apis.masking import mask, secrets_of
from ..config.values import check_credential, is_loopback
from ..core import threads
from ..core.callbacks import key_from
from ..core.effects import Blocks, Timed
from ..core.options import Deadline
from ..core.procedure_transport import ProcedureTransport
from ..core.seams import OK, Response
from ..errors import APIError, ConfigError, RequestTimeoutError, ServiceError
from ..keys.parameters import ESSENTIAL_FIELDS
from ..keys.request import Data, Request
from ..support.libraries import random_numbers_kept
from ..support.secrets import note_request
from ..support.waits import resolved
from ..traffic.gate import note_sent, note_sent_async
from . import chat, responses_api
from .api_errors import (
    add_likely_address,
    add_proxy,
    http_library,
    mapped_error,
    raise_reported,
    request_id,
)

if TYPE_CHECKING:
    import asyncio
    import ssl

    import httpx
    import openai


HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
# How openai 3.x's own methods for chat completions, embeddings and models authenticate.
SECURITY = {"bearer_auth": True}
LONGEST_TIMEOUT = 1e6  # seconds; sockets refuse much longer ones
# by the wire of a chat request
PATHS = {"chat": "/chat/completions", "responses": "/responses"}


def path_and_body(
    request: Request, deployment: str | None, *, stream: bool = False
) -> tuple[str, dict[str, Data]]:
    """Return the path and the body of a request.

    The SDK's ``post`` sends a body as it is, fields that the SDK does not know included. Its
    ``create`` would search the messages for something to change.

    :param deployment: the model's name at Azure, if that differs.
    """
    body = dict(request.body)
    extra_body = body.pop("extra_body", None)
    body.pop("extra_query", None)
    body.pop("extra_headers", None)
    path = PATHS[request.wire]
    if request.kind == "embedding":
        path = "/embeddings"
        body.setdefault("encoding_format", "float")
    elif request.wire == "responses":
        body = responses_api.body_from_chat(body)
        body["model"] = deployment or body["model"]
    if extra_body:
        essential = {name: body[name] for name in ESSENTIAL_FIELDS if name in body}
        body = {**body, **extra_body, **essential}
    if stream:
        body["stream"] = True
    return path, body


class SDKTransport(ProcedureTransport):
    """A transport to one endpoint through the SDK. Its SDK clients are made on demand: one per event loop,
    one per call under way in a thread.

    Threads that shared one would wait for one another: before each request, its pool of connections
    looks at the socket of every idle one, and holds a lock meanwhile (httpcore 1.0, httpcore2 2.16).

    :param sdk_class: the name of the SDK's synchronous class.
    :param arguments: its arguments.
    :param url: the endpoint's address, without credentials.
    :param token: a function, sync or async, that returns the token for an attempt. Tokens are never
        kept.
    :param http_client: the user's HTTP client, which the user closes.
    :param deployment: the model's name at Azure, if that differs.
    :ivar renewable: ``True`` if a function returns the key, so that it may replace a refused one.
    """

    trusts_environment: ClassVar[bool] = True  # its proxies are used

    def __init__(
        self,
        sdk_class: str,
        arguments: Mapping[str, object],
        url: str,
        *,
        token: Callable[[], object] | None = None,
        http_client: object = None,
        deployment: str | None = None,
    ) -> None:
        http_library()  # imports the SDK, which may take seconds, before an attempt's time runs
        self.url = url
        self.renewable = token is not None
        self._class = sdk_class
        self._arguments = arguments
        self._token = token
        self._deployment = deployment
        # by whether it is asynchronous
        self._user_clients = (
            {} if http_client is None else {hasattr(http_client, "aclose"): http_client}
        )
        self._lock = threading.Lock()
        self._ssl_context: ssl.SSLContext | None = None
        self._idle: list[openai.OpenAI] = []  # the clients of threads that no call uses
        if False not in self._user_clients:
            # An SDK client is a cycle: without this, pytest -W error reports its sockets.
            weakref.finalize(self, _close_all, self._idle).atexit = False
        self._loop_clients: dict[
            asyncio.AbstractEventLoop, tuple[openai.AsyncOpenAI, AsyncGenerator[None, None]]
        ] = {}

    @property
    def source(self) -> str:
        """The address."""
        return self.url

    async def response(
        self, request: Request, timeout: float | None, models_path: str | None = None
    ) -> Response:
        """Return the response.

        :param models_path: where to get the list of models, instead.
        """
        timed = Timed()
        timed.deadline = Deadline.after(timeout)
        body = bytearray()
        post = await self._prepare(request, timeout, models_path)
        async with self._sent(request, post) as (response, blocks):
            async for data in self._data(response, timed, blocks):
                body += data
            answer = raise_reported(read_object(bytes(body), "answer"))
            if request.wire == "responses":
                answer = responses_api.without_request(answer)
            return Response(answer, request_id(response.headers), status_code=OK)

    async def chunks(
        self, request: Request, timeout: float | None, timed: Timed
    ) -> AsyncGenerator[dict[str, Data], None]:
        """Yield the information in the headers, then the chunks of a streamed answer."""
        wire = responses_api if request.wire == "responses" else chat
        post = await self._prepare(request, timeout, stream=True)
        async with self._sent(request, post) as (response, blocks):
            yield Response({}, request_id(response.headers), status_code=OK)
            data = self._data(response, timed, blocks)
            read = chat.streamed_chunks(
                data, wire.chunks_of_event, wire.chunks_of_answer, wire.AT_DONE
            )
            async for chunk in read:
                yield chunk

    @contextlib.asynccontextmanager
    async def _sent(
        self, request: Request, post: Callable[[Any], Any]
    ) -> AsyncIterator[tuple[httpx.Response, bool]]:
        """Send a request by a client of the SDK; give a block the response before its body is read, and whether
        that blocks the thread.
        """
        blocks = await Blocks()
        client = await self._free_client(blocks=blocks)
        response: httpx.Response | None = None
        try:
            response = await resolved(post(client))
            note_request(response.request, is_local=is_loopback(str(response.request.url)))
            try:
                yield response, blocks
            finally:
                await resolved(response.close() if blocks else response.aclose())
        except BaseException as error:
            self._raise_mapped(error, request, response)
            raise
        finally:
            if blocks:
                self._idle.append(client)

    def list_models(self, timeout: float) -> list[str]:
        """Return the names of the models that the endpoint lists."""
        request = Request("chat", "", {}, {}, {}, None, "")
        response = threads.run(self.response(request, timeout, "/models"))
        models = response.get("data")
        if not isinstance(models, list) or not all(
            isinstance(model, dict) and "id" in model for model in models
        ):
            raise ServiceError("a malformed list of models")
        return [str(model["id"]) for model in models]

    async def _data(
        self, response: httpx.Response, timed: Timed, blocks: bool
    ) -> AsyncGenerator[bytes, None]:
        """Yield the data of a body until the deadline: the SDK's timeout bounds each read alone."""
        if not blocks:
            async for data in response.aiter_bytes():
                yield data
            return
        for data in response.iter_bytes():
            yield data
            if timed.deadline.is_over():  # a server may send comments for ever
                raise RequestTimeoutError(f"no complete answer from {self.url} within the timeout")

    async def _prepare(
        self,
        request: Request,
        timeout: float | None,
        models_path: str | None = None,
        *,
        stream: bool = False,
    ) -> Callable[[Any], Any]:
        """Return a function that sends a request with a client of the SDK.

        :param models_path: where to get the list of models, instead.
        """
        arguments = self._arguments_for(request, timeout)
        method, path = "get", models_path
        if path is None:
            method = "post"
            path, arguments["body"] = path_and_body(request, self._deployment, stream=stream)
        if self._token is not None:
            token = check_credential(
                await key_from(self._token),
                "what the api_key function returned",
                "a token: one word of text",
            )
            arguments["options"]["headers"]["Authorization"] = Hidden(f"Bearer {token}")
        return methodcaller(method, path, **arguments)

    def _raise_mapped(
        self, error: BaseException, request: Request, response: httpx.Response | None
    ) -> None:
        """Raise llmcall's error for an exception of the SDK or its HTTP library; complete one of
        llmcall's own.

        :param response: the one whose body was read, or ``None``.
        """
        from ..support.libraries import openai

        if not isinstance(error, (openai.APIError, APIError, http_library().RequestError)):
            return
        api_error = mapped_error(error, self.url)
        if response is not None:
            api_error.status_code = response.status_code
            api_error.request_id = request_id(response.headers)
            mask(api_error, secrets_of(response.request))
        if request.wire == "responses":
            api_error.param = responses_api.chat_name(api_error.param, request.body)
        if self._class == "OpenAI":  # the only class that BASE_URL is for
            add_likely_address(api_error, self.url)
        if self.trusts_environment:
            add_proxy(api_error, self.url)
        if api_error is not error:
            raise api_error from error

    def _arguments_for(self, request: Request, timeout: float | None) -> dict[str, Data]:
        """Return the arguments of the SDK's method that sends a request, apart from its body."""
        for name, text in request.headers.items():
            if not (
                HEADER_NAME.fullmatch(name) and str(text).isascii() and str(text).isprintable()
            ):
                raise ConfigError(
                    f"extra_headers[{name!r}]: an HTTP header cannot have this name or value"
                )
        options = {
            "headers": {name: str(text) for name, text in request.headers.items()},
            "params": request.body.get("extra_query") or {},
            "timeout": None if timeout is None else min(timeout, LONGEST_TIMEOUT),
            "security": SECURITY,
        }
        return {
            "cast_to": http_library().Response,
            "options": options,
            "stream": True,
            "stream_cls": None,
        }

    async def _free_client(self, *, blocks: bool) -> Any:
        """Return a client for one call: in a thread, one that no other call uses; else, the event loop's."""
        if blocks:
            with self._lock:
                return self._idle.pop() if self._idle else self._new_client(is_async=False)
        import asyncio

        loop = asyncio.get_running_loop()
        if loop not in self._loop_clients:
            for other_loop in list(self._loop_clients):
                # A loop that asyncio.run did not shut down left its generator open.
                if other_loop.is_closed():
                    self._loop_clients.pop(other_loop, None)
            client = self._new_client(is_async=True)
            closing = self._close_at_end(loop, client)
            await anext(closing)
            self._loop_clients.setdefault(loop, (client, closing))
        return self._loop_clients[loop][0]

    @random_numbers_kept()  # making the first one imports more
    def _new_client(self, *, is_async: bool) -> Any:
        library = http_library()
        from ..support.libraries import openai

        # The user's own HTTP client stays as it is.
        http_client = self._user_clients.get(is_async)
        if http_client is None and is_async:
            http_client = openai.DefaultAsyncHttpxClient(
                event_hooks={"request": [note_sent_async]}, trust_env=self.trusts_environment
            )
        elif http_client is None:
            self._ssl_context = self._ssl_context or library.create_ssl_context()  # takes 25 ms
            http_client = openai.DefaultHttpxClient(
                verify=self._ssl_context,
                trust_env=self.trusts_environment,
                event_hooks={"request": [note_sent]},
            )
        sdk_class = getattr(openai, f"Async{self._class}" if is_async else self._class)
        return sdk_class(**self._arguments, max_retries=0, http_client=http_client)

    async def _close_at_end(
        self, loop: asyncio.AbstractEventLoop, client: openai.AsyncOpenAI
    ) -> AsyncGenerator[None, None]:
        """Close a client when its event loop ends.

        This is a trick: ``asyncio.run`` closes the asynchronous generators that are still open, and this
        one stays open until then.
        """
        try:
            yield
        finally:
            self._loop_clients.pop(loop, None)
            if True not in self._user_clients:
                await client.close()

    def close(self) -> None:
        """Close the connections of the clients that no call uses; the next call makes another one."""
        if False not in self._user_clients:
            with self._lock:
                _close_all(self._idle)

    async def aclose(self) -> None:
        """Close the connections of the running event loop, and all that :meth:`close` closes."""
        import asyncio

        self.close()
        if (entry := self._loop_clients.pop(asyncio.get_running_loop(), None)) is not None:
            _, closing = entry
            await closing.aclose()


def _close_all(clients: list[openai.OpenAI]) -> None:
    while clients:
        clients.pop().close()


class Hidden(str):
    """A text with a repr that hides it: reports of failed tests may print local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"
