"""Any program on the OpenAI SDK, recorded and replayed unchanged: HTTP clients whose requests take llmcall's road.

Chat completions and embeddings are looked up, sent, tried again and recorded as the calls of ``send_message`` and
``get_embedding`` are, with the same keys. Other JSON requests to known APIs are recorded as they are, as kind "http".
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import importlib
import json
import logging
import re
import threading
from array import array
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from .clients.api_errors import failure, http_library
from .clients.base import LLMClient
from .clients.sdk_transport import ChunkReader, is_own_request
from .config.settings import Endpoint
from .errors import APIError, LLMCallError, RequestTimeoutError, ServiceError
from .models.capabilities import CHAT_PARAMETERS
from .replay import scopes
from .replay.recorded import acall_http, call_http
from .requests.parameters import KNOWN
from .responses.streaming import read_object
from .types import text_of

if TYPE_CHECKING:
    from types import ModuleType

    from .types import Request

__all__ = ["ProgramRequest", "async_http_client", "http_client", "patched"]

Actor = Callable[["ProgramRequest"], "str | None"] | str

CHAT = "/chat/completions"
EMBEDDINGS = "/embeddings"
KNOWN_PATHS = (CHAT, EMBEDDINGS, "/responses", "/v1/messages", "/completions", "/models")
DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/")
BELOW = re.compile(r"/(chat/completions|embeddings)/?$")
# Headers of one connection or one body (RFC 9110, section 7.6.1), which the next message has of its own.
OF_THE_BODY = frozenset(
    {"content-length", "content-encoding", "transfer-encoding", "connection", "accept-encoding", "host"}
)
NOT_REPEATED = {"x-should-retry": "false"}  # the openai SDK keeps to it: the retries are llmcall's
ERROR_STATUS = 409  # of llmcall's own errors: the openai SDK makes an APIStatusError of it
NO_CONNECTION, NO_ANSWER_IN_TIME = 503, 504  # of what is no response of the API
ERRORS = (LLMCallError, TypeError, ValueError)  # of a call; the latter two are wrong arguments
PHASES = ("connect", "read", "write", "pool")  # each of which has a timeout
NAME_CHARACTERS = 40  # of a system message in an actor's name
UNSAFE = re.compile(r"[^\w .-]+")


class ProgramRequest(NamedTuple):
    """Hold one request of a program, as ``actor=`` gets it.

    :param method: ``"POST"``, ``"GET"`` ….
    :param url: the whole address.
    :param headers: names in lower case.
    :param body: the parsed JSON body, or ``None`` where it is none.

    >>> def who(request: llmcall.ProgramRequest) -> str | None:
    ...     return request.headers.get("x-actor") or request.body["messages"][0]["content"]
    >>> http_client = llmcall.http_client(actor=who)
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: Any


class Sending(NamedTuple):
    """Hold what a request of the program is sent with.

    :param http: the module ``httpx`` or ``httpx2``.
    :param request: the program's own HTTP request.
    :param body: its parsed JSON body.
    :param transport: the transport below.
    :param came: the last response, once there is one.
    """

    http: ModuleType
    request: Any
    body: Any
    transport: Any
    came: list[Any]


_sending: ContextVar[Sending | None] = ContextVar("llmcall request of a program", default=None)


def _in_hand() -> Sending:
    sending = _sending.get()
    assert sending is not None, "a program's request is sent in its own context"
    return sending


# The client whose calls the program's requests become


class ProgramTransport:
    """Send a call to where the program's own request goes, with its credentials and headers."""

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return the response of the API."""
        return _parsed(_received(_in_hand(), _http_request(request, timeout)))

    async def asend(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return the response of the API."""
        return _parsed(await _areceived(_in_hand(), _http_request(request, timeout)))

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a streamed answer."""
        sending, chunks = _in_hand(), ChunkReader()
        with _api_errors(sending):
            response = sending.transport.handle_request(_http_request(request, timeout, stream=True))
            try:
                if response.status_code != 200:
                    response.read()
                    raise _refused(response)
                for data in response.iter_bytes():
                    yield from chunks.feed(data)
                yield from chunks.close()
            finally:
                response.close()

    async def astream(self, request: Request, timeout: float | None) -> AsyncIterator[dict[str, Any]]:
        """Yield the chunks of a streamed answer."""
        sending, chunks = _in_hand(), ChunkReader()
        with _api_errors(sending):
            response = await sending.transport.handle_async_request(_http_request(request, timeout, stream=True))
            try:
                if response.status_code != 200:
                    await response.aread()
                    raise _refused(response)
                async for data in response.aiter_bytes():
                    for chunk in chunks.feed(data):
                        yield chunk
                for chunk in chunks.close():
                    yield chunk
            finally:
                await response.aclose()


def _http_request(request: Request, timeout: float | None, *, stream: bool = False) -> Any:
    """Return the HTTP request of an attempt: the program's own where it asks for the same, within the same time."""
    http, original, asked, _, _ = _in_hand()
    body = {**request.body, **({"stream": True} if stream else {})}
    seconds = original.extensions.get("timeout") or {}
    if body == asked and timeout == seconds.get("read"):
        return original
    headers = [(name, value) for name, value in original.headers.raw if name.decode().lower() not in OF_THE_BODY]
    limits = {name: timeout if given is None else min(given, timeout or given) for name, given in seconds.items()}
    extensions = {**original.extensions, "timeout": limits or dict.fromkeys(PHASES, timeout)}
    content = json.dumps(body).encode()
    return http.Request(original.method, original.url, headers=headers, content=content, extensions=extensions)


def _received(sending: Sending, request: Any) -> Any:
    """Send a request, and return its response, read to the end."""
    with _api_errors(sending):
        response = sending.transport.handle_request(request)
        try:
            response.read()
        finally:
            response.close()
    sending.came.append(response)
    return response


async def _areceived(sending: Sending, request: Any) -> Any:
    """Send a request, and return its response, as :func:`_received`."""
    with _api_errors(sending):
        response = await sending.transport.handle_async_request(request)
        try:
            await response.aread()
        finally:
            await response.aclose()
    sending.came.append(response)
    return response


@contextlib.contextmanager
def _api_errors(sending: Sending) -> Iterator[None]:
    """Turn the HTTP library's errors into ours, which are worth another attempt."""
    sending.came.clear()
    try:
        yield
    except sending.http.TimeoutException as error:
        raise RequestTimeoutError(f"no answer from {_address(sending.request)} within the timeout") from error
    except sending.http.TransportError as error:
        words = f"the connection to {_address(sending.request)} failed: {type(error).__name__}: {error}"
        raise ServiceError(f"{words}. Does the server run, and is that its address?") from error


def _address(request: Any) -> str:
    url = request.url
    return f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}{url.path}"


def _parsed(response: Any) -> dict[str, Any]:
    if response.status_code != 200:
        raise _refused(response)
    return read_object(response.content, "answer")


def _refused(response: Any) -> APIError:
    """Return the error of a response that is none of an answer; the response itself is kept in it."""
    try:
        body = response.json()
    except ValueError:
        body = response.text
    headers = {name.lower(): value for name, value in response.headers.items()}
    error = failure(response.status_code, body, headers=headers)
    error.retryable = error.retryable and response.status_code >= 400  # the program's client follows a redirect
    error.http_response = response  # type: ignore[attr-defined]
    return error


class ProgramClient(LLMClient):
    """Make the calls of a program to one address.

    :param address: scheme, host and path before ``/chat/completions``.
    :param host: as it is recorded.
    :param overrides: settings by name.
    """

    api_type = "openai"

    def __init__(self, address: str, host: str, **overrides: Any) -> None:
        self._address = address
        self._host_name = host
        super().__init__(transport=ProgramTransport(), **overrides)

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the program's own address."""
        return [Endpoint(name=self._host_name, models=(model,), api_type=self.api_type, base_url=self._address)]

    def host(self, endpoint: Endpoint) -> str:
        """Return the host of the program's own address."""
        return self._host_name

    def exchange(self, method: str, path: str, body: Any) -> Any:
        """Return what is recorded of another request, or its response."""
        sending = _in_hand()
        return call_http(method, path, body, lambda: _recordable(_received(sending, sending.request)), self.settings)

    async def aexchange(self, method: str, path: str, body: Any) -> Any:
        """Return what is recorded of another request, or its response."""
        sending = _in_hand()

        async def send() -> dict[str, Any]:
            """Send it."""
            return _recordable(await _areceived(sending, sending.request))

        return await acall_http(method, path, body, send, self.settings)


def _recordable(response: Any) -> dict[str, Any]:
    """Return what is recorded of a response: its media type and its body.

    :raises APIError: where it is a failure, which is not recorded.
    """
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if response.status_code != 200 or not (media_type.endswith("json") or media_type == "text/event-stream"):
        raise _refused(response)
    return {"content_type": media_type, "body": response.text}


# What a request of the program asks for


class Asked(NamedTuple):
    """Hold what a request of the program asks for.

    :param method: of the client: ``"send_message"``, ``"stream_message"``, ``"get_embedding"`` or ``"exchange"``.
    :param body: the parsed JSON body, or ``None``.
    :param arguments: of the method, and ``options``, by name.
    """

    method: str
    body: Any
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = {}


def _asked(request: Any, content: bytes, hosts: Collection[str], *, every_post: bool) -> Asked | None:
    """Return what a request asks for, or ``None`` where it is none of ours."""
    url, method = request.url, request.method
    path = url.path.rstrip("/")
    ours = path.endswith(KNOWN_PATHS) or every_post or url.host in hosts
    if not ours or method not in ("GET", "POST"):
        return None
    if method == "GET":
        return Asked("exchange", None, (method, url.raw_path.decode(), None))
    if "json" not in request.headers.get("content-type", ""):
        logging.getLogger("llmcall").info("llmcall: %s %s is no JSON request and is not recorded", method, url.path)
        return None
    try:
        body = json.loads(content)
    except ValueError:
        return None
    if isinstance(body, dict) and path.endswith(CHAT) and isinstance(body.get("messages"), list):
        options = {**_chat_options(body, path), **_timeout(request)}
        return Asked("stream_message" if body.get("stream") else "send_message", body, (body["messages"],), options)
    if isinstance(body, dict) and path.endswith(EMBEDDINGS) and _is_text(body.get("input")):
        options = {name: value for name, value in body.items() if name not in ("input", "encoding_format")}
        return Asked("get_embedding", body, (body["input"],), {**_complete(options, path), **_timeout(request)})
    return Asked("exchange", body, (method, url.path, body))


def _timeout(request: Any) -> dict[str, float]:
    """Return, as an option, the time that the program's own client gives to an attempt."""
    seconds = (request.extensions.get("timeout") or {}).get("read")
    return {"timeout": seconds} if seconds else {}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _chat_options(body: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the arguments of ``send_message`` that ask for the same."""
    options: dict[str, Any] = {}
    beyond: dict[str, Any] = {}
    for name, value in body.items():
        if name not in ("messages", "stream", "stream_options"):
            known = name != "extra_body" and (name in KNOWN or name in CHAT_PARAMETERS)
            (options if known else beyond)[name] = value
    return _complete({**options, "extra_body": beyond} if beyond else options, path)


def _complete(options: dict[str, Any], path: str) -> dict[str, Any]:
    deployment = None if "model" in options else DEPLOYMENT.search(path)
    return {**options, **({"model": deployment[1]} if deployment else {}), "on_error": "raise"}


# What the program gets


def _response(reply: Any) -> dict[str, Any]:
    """Return a chat's whole response; programs check that what a cassette leaves out of it is there."""
    return {"id": f"chatcmpl-{reply.cache_key[:29]}", "object": "chat.completion", "created": 0, **reply.raw}


class EventWriter:
    """Write the events of a streamed chat.

    :param body: what the program asked.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._model = str(body.get("model") or "")
        self._wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._sent: list[str] = []

    def first(self) -> bytes:
        """Return the event that opens the answer."""
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> bytes:
        """Return the event of a piece of the text."""
        self._sent.append(text)
        return self._chunk({"content": text})

    def rest(self, response: Mapping[str, Any]) -> bytes:
        """Return the events of what remains of the whole answer when the pieces of its first choice have been sent."""
        sent, events = "".join(self._sent), []
        for choice in response.get("choices", ()):
            index, message = choice.get("index", 0), choice.get("message") or {}
            delta = {name: value for name, value in message.items() if name != "role" and value is not None}
            if index == 0 and sent and text_of(message.get("content")) == sent:
                delta.pop("content", None)
            if message.get("tool_calls"):
                delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(message["tool_calls"])]
            if delta:
                events.append(self._chunk(delta, index, response))
            events.append(self._chunk({}, index, response, choice.get("finish_reason")))
        if self._wants_usage and response.get("usage") is not None:
            events.append(_event({**_about(response), "choices": [], "usage": response["usage"]}))
        return b"".join([*events, b"data: [DONE]\n\n"])

    def _chunk(
        self,
        delta: dict[str, Any],
        index: int = 0,
        response: Mapping[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
        return _event({**_about(response or {"model": self._model}), "choices": [choice]})


def _about(response: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": response.get("id") or "chatcmpl-recorded",
        "object": "chat.completion.chunk",
        "created": response.get("created") or 0,
        "model": response.get("model") or "",
    }


def _event(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def _embeddings(client: LLMClient, body: Mapping[str, Any], found: Any) -> dict[str, Any]:
    """Return the response to an embeddings request, encoded as the program asked for it."""
    one = isinstance(body["input"], str)
    texts, vectors = ([body["input"]], [found]) if one else (body["input"], found)
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(array("f", vector).tobytes()).decode() for vector in vectors]
    tokens = sum(int(client.count_tokens(text, body.get("model"))) for text in texts)
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)],
        "model": body.get("model"),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _json_response(http: ModuleType, status: int, data: Any) -> Any:
    headers = {"content-type": "application/json", **NOT_REPEATED}
    return http.Response(status, headers=headers, content=json.dumps(data).encode())


def _as_it_came(http: ModuleType, response: Any) -> Any:
    kept = {name: value for name, value in response.headers.items() if name.lower() not in OF_THE_BODY}
    return http.Response(response.status_code, headers={**kept, **NOT_REPEATED}, content=response.content)


def _about_error(error: BaseException) -> dict[str, Any]:
    return {"error": {"message": str(error), "type": "llmcall", "code": type(error).__name__, "param": None}}


# The road of a program's requests


class ProgramCalls:
    """Take the requests of a program along llmcall's road.

    :param actor: says who is asking: a function, ``"system"`` or ``"header:NAME"``.
    :param hosts: whose JSON requests are recorded as kind "http", besides the known APIs' own.
    :param every_post: whether all JSON requests are, whatever their address.
    :param overrides: settings by name.
    :ivar first_error: the first error of llmcall's own that the program got, or ``None``.
    """

    def __init__(
        self,
        actor: Actor | None,
        overrides: Mapping[str, Any],
        hosts: Collection[str] = (),
        *,
        every_post: bool = False,
    ) -> None:
        named = isinstance(actor, str) and (actor == "system" or actor.startswith("header:"))
        if not (actor is None or callable(actor) or named):
            raise ValueError(f'actor is {actor!r}; it must be a function of the request, "system" or "header:NAME"')
        self._actor = actor
        self._overrides = dict(overrides)
        self._hosts = frozenset(hosts)
        self._every_post = every_post
        self._clients: dict[str, ProgramClient] = {}
        self._actors: dict[str, scopes.Scope] = {}
        self._lock = threading.Lock()
        self._around = scopes.current()
        self.first_error: Exception | None = None

    def handle(self, http: ModuleType, request: Any, transport: Any) -> Any:
        """Return the response to a request of the program.

        :param http: the module ``httpx`` or ``httpx2``, whose request it is.
        :param transport: sends what is not recorded; it has ``handle_request``.
        """
        asked = _asked(request, request.read(), self._hosts, every_post=self._every_post)
        if asked is None:
            return transport.handle_request(request)
        sending, client = Sending(http, request, asked.body, transport, []), self._client(request)
        token = _sending.set(sending)
        try:
            with self._scope_of(request, asked):
                found = getattr(client, asked.method)(*asked.arguments, **asked.options)
                if asked.method != "stream_message":
                    return self._response(http, client, asked, found)
                return self._streamed(http, asked, found, next(found, None))  # a failure before it is told as one
        except ERRORS as error:
            return self._error_response(sending, error)
        finally:
            _sending.reset(token)

    async def ahandle(self, http: ModuleType, request: Any, transport: Any) -> Any:
        """Return the response to a request of the program, as :meth:`handle`."""
        asked = _asked(request, await request.aread(), self._hosts, every_post=self._every_post)
        if asked is None:
            return await transport.handle_async_request(request)
        sending, client = Sending(http, request, asked.body, transport, []), self._client(request)
        token = _sending.set(sending)
        try:
            with self._scope_of(request, asked):
                found = getattr(client, f"a{asked.method}")(*asked.arguments, **asked.options)
                if asked.method != "stream_message":
                    return self._response(http, client, asked, await found)
                return self._streamed(http, asked, found, await anext(found, None))
        except ERRORS as error:
            return self._error_response(sending, error)
        finally:
            _sending.reset(token)

    def _response(self, http: ModuleType, client: LLMClient, asked: Asked, found: Any) -> Any:
        if asked.method == "exchange":
            headers = {"content-type": found["content_type"], **NOT_REPEATED}
            return http.Response(200, headers=headers, content=found["body"].encode())
        data = _response(found) if asked.method == "send_message" else _embeddings(client, asked.body, found)
        return _json_response(http, 200, data)

    def _streamed(self, http: ModuleType, asked: Asked, stream: Any, first: str | None) -> Any:
        headers = {"content-type": "text/event-stream", **NOT_REPEATED}
        return http.Response(200, headers=headers, stream=_classes(http).EventStream(self, asked.body, stream, first))

    def note(self, error: Exception) -> None:
        """Keep an error that the program gets, if it is the first of llmcall's own."""
        if not isinstance(error, APIError):
            with self._lock:
                self.first_error = self.first_error or error

    def _error_response(self, sending: Sending, error: Exception) -> Any:
        """Return what the program gets: what the API sent as it came, an error of ours as the SDK's own."""
        self.note(error)
        came = getattr(error, "http_response", None) or (sending.came[-1] if sending.came else None)
        if not isinstance(error, APIError):
            return _json_response(sending.http, ERROR_STATUS, _about_error(error))
        if came is not None:
            return _as_it_came(sending.http, came)
        status = NO_ANSWER_IN_TIME if isinstance(error, RequestTimeoutError) else NO_CONNECTION
        return _json_response(sending.http, status, _about_error(error))

    def _client(self, request: Any) -> ProgramClient:
        url = request.url
        address = f"{url.scheme}://{url.netloc.decode()}{BELOW.sub('', url.path)}"
        with self._lock:
            found = self._clients.get(address)
            if found is None:
                found = self._clients[address] = ProgramClient(address, url.host, **self._overrides)
        return found

    # Who is asking

    def _scope_of(self, request: Any, asked: Asked) -> contextlib.AbstractContextManager[Any]:
        name = self._name_of(request, asked)
        around = scopes.within(self._around)
        if name is None:
            return around
        with self._lock:
            actor = self._actors.setdefault(name, scopes.scope(name))
        both = contextlib.ExitStack()
        both.enter_context(around)
        both.enter_context(actor)
        return both

    def _name_of(self, request: Any, asked: Asked) -> str | None:
        if self._actor is None:
            return None
        if callable(self._actor):
            headers = {name.lower(): value for name, value in request.headers.items()}
            return self._actor(ProgramRequest(request.method, str(request.url), headers, asked.body))
        if self._actor == "system":
            return _system_name(asked.body)
        name: str | None = request.headers.get(self._actor.partition(":")[2])
        return name


def _system_name(body: Any) -> str | None:
    """Return a name for a persona that is known by its system message: its beginning, and a digest of the whole."""
    if not isinstance(body, dict):
        return None
    texts = [body.get("system"), body.get("instructions")]
    texts += [
        message.get("content")
        for message in body.get("messages") or ()
        if isinstance(message, dict) and message.get("role") in ("system", "developer")
    ]
    text = next((text for text in texts if text), None)
    if text is None:
        return None
    text = text if isinstance(text, str) else json.dumps(text, sort_keys=True)
    beginning = " ".join(UNSAFE.sub(" ", text[: 2 * NAME_CHARACTERS]).split())[:NAME_CHARACTERS].strip()
    return f"{beginning}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


# The clients and the patch


class Classes(NamedTuple):
    """Hold what is derived from the classes of httpx or httpx2."""

    Transport: type
    EventStream: type


@functools.lru_cache(maxsize=4)
def _classes(http: ModuleType) -> Classes:
    class Transport(http.BaseTransport, http.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        """Take each request along llmcall's road; what is not recorded goes to the transport below."""

        def __init__(self, calls: ProgramCalls, below: Any) -> None:
            self._calls = calls
            self._below = below

        def handle_request(self, request: Any) -> Any:
            """Answer a request."""
            return self._calls.handle(http, request, self._below)

        async def handle_async_request(self, request: Any) -> Any:
            """Answer a request."""
            return await self._calls.ahandle(http, request, self._below)

        def close(self) -> None:
            """Close the transport below."""
            self._below.close()

        async def aclose(self) -> None:
            """Close the transport below."""
            await self._below.aclose()

    class EventStream(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[misc, name-defined]
        """Hand on a streamed chat as events, as its pieces come, synchronously or asynchronously."""

        def __init__(self, calls: ProgramCalls, body: Mapping[str, Any], stream: Any, first: str | None) -> None:
            self._calls = calls
            self._events = EventWriter(body)
            self._stream = stream
            self._next = first

        def __iter__(self) -> Iterator[bytes]:
            yield self._events.first()
            try:
                while self._next is not None:
                    yield self._events.piece(self._next)
                    self._next = next(self._stream, None)
                yield self._events.rest(_response(self._stream.reply))
            except LLMCallError as error:
                yield self._failed(error)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield self._events.first()
            try:
                while self._next is not None:
                    yield self._events.piece(self._next)
                    self._next = await anext(self._stream, None)
                yield self._events.rest(_response(self._stream.reply))
            except LLMCallError as error:
                yield self._failed(error)

        def _failed(self, error: LLMCallError) -> bytes:
            """Return an event of which the SDK makes an error of its own."""
            self._calls.note(error)
            return _event(_about_error(error))

        def close(self) -> None:
            """Leave the rest."""
            self._stream.close()

        async def aclose(self) -> None:
            """Leave the rest."""
            await self._stream.aclose()

    return Classes(Transport, EventStream)


def http_client(*, actor: Actor | None = None, transport: Any = None, **overrides: Any) -> Any:
    """Return an HTTP client for ``openai.OpenAI(http_client=…)`` whose requests take llmcall's road.

    A failure of the API that remains after llmcall's retries reaches the program as it came, a connection that fails as
    the status 503, a timeout as 504, and an error of llmcall's own as 409: an ``openai.APIStatusError`` that the SDK
    does not repeat.

    :param actor: says who is asking: a function of a :class:`ProgramRequest` that returns a scope's name or ``None``,
        ``"system"`` (each system message is an actor) or ``"header:NAME"`` (the header's value is the actor's name).
    :param transport: sends what is not recorded; by default the HTTP library's own.
    :param overrides: settings by name, as of a client: ``cache_path=``, ``cache_mode=``, ….
    :returns: an ``httpx.Client``, or an ``httpx2.Client`` where the installed SDK uses that.

    >>> import openai
    >>> client = openai.OpenAI(api_key="none", http_client=llmcall.http_client())
    """
    http = http_library()
    calls = ProgramCalls(actor, overrides, every_post=True)
    return http.Client(transport=_classes(http).Transport(calls, transport or http.HTTPTransport()))


def async_http_client(*, actor: Actor | None = None, transport: Any = None, **overrides: Any) -> Any:
    """Return an HTTP client for ``openai.AsyncOpenAI(http_client=…)``; arguments as of :func:`http_client`.

    >>> import openai
    >>> client = openai.AsyncOpenAI(api_key="none", http_client=llmcall.async_http_client())
    """
    http = http_library()
    calls = ProgramCalls(actor, overrides, every_post=True)
    return http.AsyncClient(transport=_classes(http).Transport(calls, transport or http.AsyncHTTPTransport()))


_patch_lock = threading.Lock()


class _Unpatched:
    """Send by a transport's own method, past the patch."""

    def __init__(self, transport: Any, method: Callable[..., Any]) -> None:
        self.handle_request = self.handle_async_request = functools.partial(method, transport)


@contextlib.contextmanager
def patched(*, actor: Actor | None = None, hosts: Collection[str] = (), **overrides: Any) -> Iterator[None]:
    """Let the requests of every HTTP client of the process take llmcall's road, for a block.

    It holds for httpx and httpx2, for clients made before and inside the block, in any library. An error of llmcall's
    own reaches the program as an error of the SDK; the first one is raised again at the end of the block.

    :param actor: as of :func:`http_client`.
    :param hosts: whose JSON requests are recorded too, besides those to known APIs.
    :param overrides: settings by name, as of a client.
    :raises RuntimeError: inside another such block, in whatever thread.

    >>> def main():
    ...     "Stand for a program that calls models by the OpenAI SDK."
    >>> with llmcall.patched(actor="system"), llmcall.cassette("program.jsonl"):
    ...     main()
    """
    if not _patch_lock.acquire(blocking=False):
        raise RuntimeError("llmcall.patched() holds already; leave the other block first: one at a time can")
    with contextlib.ExitStack() as undo:
        undo.callback(_patch_lock.release)
        calls = ProgramCalls(actor, overrides, hosts)
        for name in ("httpx", "httpx2"):
            with contextlib.suppress(ModuleNotFoundError):
                _patch(importlib.import_module(name), calls, undo)
        yield
    if calls.first_error is not None:
        raise calls.first_error


def _patch(http: ModuleType, calls: ProgramCalls, undo: contextlib.ExitStack) -> None:
    send, asend = http.HTTPTransport.handle_request, http.AsyncHTTPTransport.handle_async_request

    def handle_request(self: Any, request: Any) -> Any:
        if _sending.get() is not None or is_own_request.get():
            return send(self, request)
        return calls.handle(http, request, _Unpatched(self, send))

    async def handle_async_request(self: Any, request: Any) -> Any:
        if _sending.get() is not None or is_own_request.get():
            return await asend(self, request)
        return await calls.ahandle(http, request, _Unpatched(self, asend))

    http.HTTPTransport.handle_request = handle_request
    undo.callback(setattr, http.HTTPTransport, "handle_request", send)
    http.AsyncHTTPTransport.handle_async_request = handle_async_request
    undo.callback(setattr, http.AsyncHTTPTransport, "handle_async_request", asend)
