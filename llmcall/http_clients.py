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

from .clients.api_errors import failure, refuse_reported
from .clients.base import LLMClient
from .clients.sdk_transport import is_own_request
from .config.settings import Endpoint
from .errors import APIError, LLMCallError, RequestTimeoutError, ServiceError
from .models.capabilities import CHAT_PARAMETERS
from .replay import scopes
from .replay.recorded import acall_http, call_http
from .requests.parameters import KNOWN
from .responses.streaming import EventStreamDecoder

if TYPE_CHECKING:
    from types import ModuleType

    from .types import Request

__all__ = ["ProgramRequest", "async_http_client", "http_client", "patched"]

Actor = Callable[["ProgramRequest"], "str | None"] | str

CHAT = "/chat/completions"
EMBEDDINGS = "/embeddings"
KNOWN_PATHS = ("/responses", "/v1/messages", "/completions", "/models")
DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/")
# Headers of one connection or one body (RFC 9110, section 7.6.1), which the next request has of its own.
OF_THE_BODY = frozenset({"content-length", "transfer-encoding", "connection", "accept-encoding", "host"})
NOT_REPEATED = {"x-should-retry": "false"}  # the openai SDK keeps to it: the retries are llmcall's
ERROR_STATUS = 409  # of llmcall's own errors: the openai SDK makes an APIStatusError of it
NAME_CHARACTERS = 40  # of a system message in an actor's name
UNSAFE = re.compile(r"[^\w .-]+")


class ProgramRequest(NamedTuple):
    """Hold one request of a program, as ``actor=`` gets it.

    :param method: ``"POST"``, ``"GET"`` ….
    :param url: the whole address.
    :param headers: names in lower case.
    :param body: the parsed JSON body, or ``None`` where it is none.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: Any


class Sending(NamedTuple):
    """Hold what a request of the program is sent with: its own HTTP request, and the transport below."""

    http: ModuleType
    request: Any
    transport: Any


_sending: ContextVar[Sending | None] = ContextVar("llmcall request of a program", default=None)


def _log() -> logging.Logger:
    return logging.getLogger("llmcall")


# The client whose calls the program's requests become


class ProgramTransport:
    """Send a call to where the program's own request goes, with its credentials and headers."""

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return the response of the API."""
        sending = _in_hand()
        with _as_service_error(sending.http):
            response = sending.transport.handle_request(_http_request(sending, request, timeout))
            try:
                response.read()
            finally:
                response.close()
        return _parsed(response)

    async def asend(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return the response of the API."""
        sending = _in_hand()
        with _as_service_error(sending.http):
            response = await sending.transport.handle_async_request(_http_request(sending, request, timeout))
            try:
                await response.aread()
            finally:
                await response.aclose()
        return _parsed(response)

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a streamed answer."""
        sending, decoder = _in_hand(), EventStreamDecoder()
        with _as_service_error(sending.http):
            response = sending.transport.handle_request(_http_request(sending, request, timeout, stream=True))
            try:
                if not _is_stream(response):
                    response.read()
                    raise _refused(response)
                for data in response.iter_bytes():
                    yield from _chunks_in(decoder.feed(data))
                yield from _chunks_in(decoder.close())
            finally:
                response.close()

    async def astream(self, request: Request, timeout: float | None) -> AsyncIterator[dict[str, Any]]:
        """Yield the chunks of a streamed answer."""
        sending, decoder = _in_hand(), EventStreamDecoder()
        with _as_service_error(sending.http):
            response = await sending.transport.handle_async_request(
                _http_request(sending, request, timeout, stream=True)
            )
            try:
                if not _is_stream(response):
                    await response.aread()
                    raise _refused(response)
                async for data in response.aiter_bytes():
                    for chunk in _chunks_in(decoder.feed(data)):
                        yield chunk
                for chunk in _chunks_in(decoder.close()):
                    yield chunk
            finally:
                await response.aclose()


def _in_hand() -> Sending:
    sending = _sending.get()
    assert sending is not None, "a program's request is sent in its own context"
    return sending


def _http_request(sending: Sending, request: Request, timeout: float | None, *, stream: bool = False) -> Any:
    original = sending.request
    headers = [(name, value) for name, value in original.headers.raw if name.decode().lower() not in OF_THE_BODY]
    body = {**request.body, **({"stream": True} if stream else {})}
    seconds = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
    extensions = {**original.extensions, **({} if timeout is None else {"timeout": seconds})}
    made = sending.http.Request(
        original.method, original.url, headers=headers, content=json.dumps(body).encode(), extensions=extensions
    )
    made.headers["accept-encoding"] = "identity"
    return made


@contextlib.contextmanager
def _as_service_error(http: ModuleType) -> Iterator[None]:
    """Turn the HTTP library's errors into ours; the program gets the original one at the end."""
    try:
        yield
    except http.TimeoutException as error:
        raise RequestTimeoutError(f"the server did not answer in time: {error}") from error
    except http.TransportError as error:
        raise ServiceError(f"the connection failed: {error}") from error


def _is_stream(response: Any) -> bool:
    return bool(response.status_code == 200 and "text/event-stream" in response.headers.get("content-type", ""))


def _chunks_in(events: Iterator[dict[str, Any] | str]) -> Iterator[dict[str, Any]]:
    return (refuse_reported(event) for event in events if isinstance(event, dict))


def _parsed(response: Any) -> dict[str, Any]:
    if response.status_code != 200:
        raise _refused(response)
    try:
        data = response.json()
    except ValueError as error:
        raise ServiceError(f"the answer is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ServiceError("the answer is no JSON object")
    return data


def _refused(response: Any) -> APIError:
    try:
        body = response.json()
    except ValueError:
        body = response.text
    headers = {name.lower(): value for name, value in response.headers.items()}
    error = failure(response.status_code, body, headers=headers)
    error.http_response = (response.status_code, dict(response.headers), response.content)  # type: ignore[attr-defined]
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


# What a request of the program asks for


class Asked(NamedTuple):
    """Hold what a request of the program asks for.

    :param kind: ``"chat"``, ``"embedding"``, ``"http"``, or ``"pass"`` where it is none of ours.
    :param body: the parsed JSON body.
    """

    kind: str
    body: Any


def _asked(request: Any, content: bytes, hosts: Collection[str], *, every_post: bool) -> Asked:
    path = request.url.path.rstrip("/")
    known = path.endswith((CHAT, EMBEDDINGS, *KNOWN_PATHS))
    ours = known or every_post or request.url.host in hosts
    if request.method == "GET":
        return Asked("http" if ours else "pass", None)
    if request.method != "POST" or not ours:
        return Asked("pass", None)
    if "json" not in request.headers.get("content-type", ""):
        _log().info("llmcall: %s %s is no JSON request and is not recorded", request.method, request.url.path)
        return Asked("pass", None)
    try:
        body = json.loads(content)
    except ValueError:
        return Asked("pass", None)
    if isinstance(body, dict) and path.endswith(CHAT) and isinstance(body.get("messages"), list):
        return Asked("chat", body)
    if isinstance(body, dict) and path.endswith(EMBEDDINGS) and _is_text(body.get("input")):
        return Asked("embedding", body)
    return Asked("http", body)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _chat_arguments(body: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return the arguments of ``send_message`` that ask for the same."""
    given = {name: value for name, value in body.items() if name not in ("messages", "stream", "stream_options")}
    known = CHAT_PARAMETERS | KNOWN
    arguments = {name: value for name, value in given.items() if name in known and name != "extra_body"}
    beyond = {name: value for name, value in given.items() if name not in known}
    deployment = DEPLOYMENT.search(url)
    if "model" not in arguments and deployment:
        arguments["model"] = deployment[1]
    return {**arguments, **({"extra_body": beyond} if beyond else {}), "on_error": "raise"}


def _embedding_arguments(body: Mapping[str, Any], url: str) -> dict[str, Any]:
    deployment = DEPLOYMENT.search(url)
    given = {name: value for name, value in body.items() if name not in ("input", "encoding_format")}
    return {"model": deployment[1] if deployment else None, **given, "on_error": "raise"}


# What the program gets


def _events(response: Mapping[str, Any], pieces: list[str], *, usage: bool) -> Iterator[dict[str, Any]]:
    """Yield the chunks that remain of an answer when the text pieces of its first choice have been sent."""
    sent = "".join(pieces)
    for choice in response.get("choices", ()):
        message = choice.get("message") or {}
        content = message.get("content")
        if choice.get("index", 0) == 0 and isinstance(content, str) and content.startswith(sent):
            content = content[len(sent) :] or None
        delta = {name: value for name, value in message.items() if name not in ("role", "content", "tool_calls")}
        delta = {name: value for name, value in delta.items() if value is not None}
        if content is not None:
            delta["content"] = content
        if message.get("tool_calls"):
            delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(message["tool_calls"])]
        index = choice.get("index", 0)
        if delta:
            yield _chunk(response, [{"index": index, "delta": delta, "finish_reason": None}])
        yield _chunk(response, [{"index": index, "delta": {}, "finish_reason": choice.get("finish_reason")}])
    if usage and response.get("usage") is not None:
        yield {**_chunk(response, []), "usage": response["usage"]}


def _chunk(response: Mapping[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": response.get("id") or "chatcmpl-recorded",
        "object": "chat.completion.chunk",
        "created": response.get("created") or 0,
        "model": response.get("model") or "",
        "choices": choices,
    }


def _first_chunk(model: str) -> dict[str, Any]:
    delta = {"role": "assistant", "content": ""}
    return _chunk({"model": model}, [{"index": 0, "delta": delta, "finish_reason": None}])


def _piece_chunk(model: str, piece: str) -> dict[str, Any]:
    return _chunk({"model": model}, [{"index": 0, "delta": {"content": piece}, "finish_reason": None}])


def _event(chunk: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()


END = b"data: [DONE]\n\n"


def _embeddings(vectors: list[list[float]], body: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    def encoded(vector: list[float]) -> Any:
        """Return a vector as the program asked for it."""
        return (
            base64.b64encode(array("f", vector).tobytes()).decode()
            if body.get("encoding_format") == "base64"
            else vector
        )

    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encoded(vector)}
            for index, vector in enumerate(vectors)
        ],
        "model": body.get("model"),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _json_response(http: ModuleType, status: int, data: Any) -> Any:
    headers = {"content-type": "application/json", **NOT_REPEATED}
    return http.Response(status, headers=headers, content=json.dumps(data).encode())


def _event_headers() -> dict[str, str]:
    return {"content-type": "text/event-stream", **NOT_REPEATED}


def _wants_usage(body: Mapping[str, Any]) -> bool:
    return bool((body.get("stream_options") or {}).get("include_usage"))


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
        self._actor = _checked_actor(actor)
        self._overrides = dict(overrides)
        self._hosts = frozenset(hosts)
        self._every_post = every_post
        self._clients: dict[str, ProgramClient] = {}
        self._actors: dict[str, scopes.Scope] = {}
        self._lock = threading.Lock()
        self._around = scopes.current()
        self.first_error: LLMCallError | None = None

    def handle(self, http: ModuleType, request: Any, transport: Any) -> Any:
        """Return the response to a request of the program.

        :param http: the module ``httpx`` or ``httpx2``, whose request it is.
        :param transport: sends what is not recorded; it has ``handle_request``.
        """
        asked = _asked(request, request.read(), self._hosts, every_post=self._every_post)
        if asked.kind == "pass":
            return transport.handle_request(request)
        token = _sending.set(Sending(http, request, transport))
        try:
            with self._scope_of(request, asked):
                return self._answer(http, request, asked)
        except LLMCallError as error:
            return self._error_response(http, error)
        finally:
            _sending.reset(token)

    def _answer(self, http: ModuleType, request: Any, asked: Asked) -> Any:
        url, body = str(request.url), asked.body
        if asked.kind == "http":
            send = functools.partial(_send_raw, _in_hand())
            return _raw_response(http, call_http(*_exchange(request, body), send, self._client(request).settings))
        client = self._client(request)
        if asked.kind == "embedding":
            vectors = client.get_embedding(body["input"], **_embedding_arguments(body, url))
            return self._embeddings_response(http, client, body, vectors)
        if not body.get("stream"):
            return _json_response(http, 200, client.send_message(body["messages"], **_chat_arguments(body, url)).raw)
        stream = client.stream_message(body["messages"], **_chat_arguments(body, url))
        pieces = iter(stream)
        first = next(pieces, None)  # a failure before it is told as one
        return http.Response(
            200, headers=_event_headers(), stream=_byte_stream(http, _told(stream, pieces, first, body))
        )

    async def ahandle(self, http: ModuleType, request: Any, transport: Any) -> Any:
        """Return the response to a request of the program, as :meth:`handle`."""
        asked = _asked(request, await request.aread(), self._hosts, every_post=self._every_post)
        if asked.kind == "pass":
            return await transport.handle_async_request(request)
        token = _sending.set(Sending(http, request, transport))
        try:
            with self._scope_of(request, asked):
                return await self._aanswer(http, request, asked)
        except LLMCallError as error:
            return self._error_response(http, error)
        finally:
            _sending.reset(token)

    async def _aanswer(self, http: ModuleType, request: Any, asked: Asked) -> Any:
        url, body = str(request.url), asked.body
        if asked.kind == "http":
            send = functools.partial(_asend_raw, _in_hand())
            return _raw_response(
                http, await acall_http(*_exchange(request, body), send, self._client(request).settings)
            )
        client = self._client(request)
        if asked.kind == "embedding":
            vectors = await client.aget_embedding(body["input"], **_embedding_arguments(body, url))
            return self._embeddings_response(http, client, body, vectors)
        if not body.get("stream"):
            reply = await client.asend_message(body["messages"], **_chat_arguments(body, url))
            return _json_response(http, 200, reply.raw)
        stream = client.astream_message(body["messages"], **_chat_arguments(body, url))
        first = await anext(aiter(stream), None)
        return http.Response(200, headers=_event_headers(), stream=_abyte_stream(http, _atold(stream, first, body)))

    def _embeddings_response(self, http: ModuleType, client: LLMClient, body: Mapping[str, Any], vectors: Any) -> Any:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        found = [vectors] if isinstance(body["input"], str) else vectors
        tokens = sum(int(client.count_tokens(text, body.get("model"))) for text in texts)
        return _json_response(http, 200, _embeddings(found, body, tokens))

    def _client(self, request: Any) -> ProgramClient:
        url = request.url
        address = f"{url.scheme}://{url.netloc.decode()}{re.sub(r'/(chat/completions|embeddings)/?$', '', url.path)}"
        with self._lock:
            found = self._clients.get(address)
            if found is None:
                found = self._clients[address] = ProgramClient(address, url.host, **self._overrides)
        return found

    def _error_response(self, http: ModuleType, error: LLMCallError) -> Any:
        """Return what the program gets: an API's failure as it came, an error of ours as the SDK's own."""
        if isinstance(error, APIError):
            came = getattr(error, "http_response", None)
            if came is not None:
                status, headers, content = came
                kept = {name: value for name, value in headers.items() if name.lower() not in OF_THE_BODY}
                kept.pop("content-encoding", None)
                return http.Response(status, headers={**kept, **NOT_REPEATED}, content=content)
            if isinstance(error.__cause__, http.TransportError):
                raise error.__cause__
        with self._lock:
            self.first_error = self.first_error or error
        about = {"message": str(error), "type": "llmcall", "code": type(error).__name__, "param": None}
        return _json_response(http, ERROR_STATUS, {"error": about})

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


def _checked_actor(actor: Actor | None) -> Actor | None:
    if (
        actor is None
        or callable(actor)
        or actor == "system"
        or (isinstance(actor, str) and actor.startswith("header:"))
    ):
        return actor
    raise ValueError(f'actor is {actor!r}; it must be a function of the request, "system" or "header:NAME"')


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


# Streams


def _told(stream: Any, pieces: Iterator[str], first: str | None, body: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the events of a chat that is streamed."""
    model, sent = str(body.get("model") or ""), []
    try:
        yield _event(_first_chunk(model))
        piece = first
        while piece is not None:
            sent.append(piece)
            yield _event(_piece_chunk(model, piece))
            piece = next(pieces, None)
        yield from _rest(stream, sent, body)
    finally:
        stream.close()


async def _atold(stream: Any, first: str | None, body: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """Yield the events of a chat that is streamed."""
    model, sent = str(body.get("model") or ""), []
    try:
        yield _event(_first_chunk(model))
        piece = first
        while piece is not None:
            sent.append(piece)
            yield _event(_piece_chunk(model, piece))
            piece = await anext(stream, None)
        for event in _rest(stream, sent, body):
            yield event
    finally:
        await stream.aclose()


def _rest(stream: Any, sent: list[str], body: Mapping[str, Any]) -> Iterator[bytes]:
    yield from map(_event, _events(stream.reply.raw, sent, usage=_wants_usage(body)))
    yield END


def _byte_stream(http: ModuleType, events: Iterator[bytes]) -> Any:
    class Events(http.SyncByteStream):  # type: ignore[misc, name-defined]
        """Hand on events as they come."""

        def __iter__(self) -> Iterator[bytes]:
            yield from events

        def close(self) -> None:
            """Leave the rest."""
            events.close()  # type: ignore[attr-defined]

    return Events()


def _abyte_stream(http: ModuleType, events: AsyncIterator[bytes]) -> Any:
    class Events(http.AsyncByteStream):  # type: ignore[misc, name-defined]
        """Hand on events as they come."""

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for event in events:
                yield event

        async def aclose(self) -> None:
            """Leave the rest."""
            await events.aclose()  # type: ignore[attr-defined]

    return Events()


# Requests that are recorded as they are


def _exchange(request: Any, body: Any) -> tuple[str, str, Any]:
    url = request.url
    return request.method, url.path if request.method == "POST" else url.raw_path.decode(), body


def _send_raw(sending: Sending) -> dict[str, Any]:
    response = sending.transport.handle_request(sending.request)
    try:
        response.read()
    finally:
        response.close()
    return _recordable(response)


async def _asend_raw(sending: Sending) -> dict[str, Any]:
    response = await sending.transport.handle_async_request(sending.request)
    try:
        await response.aread()
    finally:
        await response.aclose()
    return _recordable(response)


def _recordable(response: Any) -> dict[str, Any]:
    """Return what is recorded of a response: its media type and its body.

    :raises APIError: with the response itself where it is a failure, which is not recorded.
    """
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if response.status_code != 200 or not (media_type.endswith("json") or media_type == "text/event-stream"):
        raise _refused(response)
    return {"content_type": media_type, "body": response.text}


def _raw_response(http: ModuleType, recorded: Mapping[str, Any]) -> Any:
    headers = {"content-type": recorded["content_type"], **NOT_REPEATED}
    return http.Response(200, headers=headers, content=recorded["body"].encode())


# The clients and the patch


@functools.lru_cache(maxsize=4)
def _transports(http: ModuleType) -> tuple[type, type]:
    """Return the two transports of a program's HTTP client, for httpx or httpx2."""

    class Transport(http.BaseTransport):  # type: ignore[misc, name-defined]
        """Take each request along llmcall's road; what is not recorded goes to the transport below."""

        def __init__(self, calls: ProgramCalls, below: Any) -> None:
            self._calls = calls
            self._below = below

        def handle_request(self, request: Any) -> Any:
            return self._calls.handle(http, request, self._below)

        def close(self) -> None:
            self._below.close()

    class AsyncTransport(http.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        """Take each request along llmcall's road; what is not recorded goes to the transport below."""

        def __init__(self, calls: ProgramCalls, below: Any) -> None:
            self._calls = calls
            self._below = below

        async def handle_async_request(self, request: Any) -> Any:
            return await self._calls.ahandle(http, request, self._below)

        async def aclose(self) -> None:
            await self._below.aclose()

    return Transport, AsyncTransport


def _library_of_the_sdk() -> ModuleType:
    """Return the HTTP library that the installed openai SDK uses: httpx for openai 2, httpx2 for openai 3."""
    import openai

    base = next(each for each in openai.DefaultHttpxClient.__mro__ if each.__name__ == "Client")
    return importlib.import_module(base.__module__.partition(".")[0])


def http_client(*, actor: Actor | None = None, transport: Any = None, **overrides: Any) -> Any:
    """Return an HTTP client for ``openai.OpenAI(http_client=…)`` whose requests take llmcall's road.

    :param actor: says who is asking: a function of a :class:`ProgramRequest` that returns a scope's name or ``None``,
        ``"system"`` (each system message is an actor) or ``"header:NAME"`` (the header's value is the actor's name).
    :param transport: sends what is not recorded; by default the HTTP library's own.
    :param overrides: settings by name, as of a client: ``cache_path=``, ``cache_mode=``, ….
    :returns: an ``httpx.Client``, or an ``httpx2.Client`` where the installed SDK uses that.

    Example::

        client = openai.OpenAI(http_client=llmcall.http_client())
    """
    http = _library_of_the_sdk()
    made = _transports(http)[0](_calls_of(actor, overrides), transport or http.HTTPTransport())
    return http.Client(transport=made)


def async_http_client(*, actor: Actor | None = None, transport: Any = None, **overrides: Any) -> Any:
    """Return an HTTP client for ``openai.AsyncOpenAI(http_client=…)``; arguments as of :func:`http_client`."""
    http = _library_of_the_sdk()
    made = _transports(http)[1](_calls_of(actor, overrides), transport or http.AsyncHTTPTransport())
    return http.AsyncClient(transport=made)


def _calls_of(actor: Actor | None, overrides: Mapping[str, Any]) -> ProgramCalls:
    return ProgramCalls(actor, overrides, every_post=True)


_patch_lock = threading.Lock()


class _Unpatched:
    """Send by a transport's own method, past the patch."""

    def __init__(self, transport: Any, method: Callable[..., Any]) -> None:
        self._transport = transport
        self._method = method

    def handle_request(self, request: Any) -> Any:
        """Send a request."""
        return self._method(self._transport, request)

    def handle_async_request(self, request: Any) -> Any:
        """Send a request."""
        return self._method(self._transport, request)


@contextlib.contextmanager
def patched(*, actor: Actor | None = None, hosts: Collection[str] = (), **overrides: Any) -> Iterator[None]:
    """Let the requests of every HTTP client of the process take llmcall's road, for a block.

    It holds for httpx and httpx2, for clients made before and inside the block, in any library. An error of llmcall's
    own reaches the program as an error of the SDK; the first one is raised again at the end of the block.

    :param actor: as of :func:`http_client`.
    :param hosts: whose JSON requests are recorded too, besides those to known APIs.
    :param overrides: settings by name, as of a client.
    :raises RuntimeError: inside another such block, in whatever thread.
    """
    if not _patch_lock.acquire(blocking=False):
        raise RuntimeError("llmcall.patched() holds already; leave the other block first: one at a time can")
    calls = ProgramCalls(actor, overrides, hosts)
    with contextlib.ExitStack() as undo:
        undo.callback(_patch_lock.release)
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
