"""Any program on the OpenAI SDK, unchanged: HTTP clients whose calls are recorded and replayed.

Chat completions and embeddings are looked up, sent, tried again and recorded as the calls of
``send_message`` and ``get_embedding`` are, with the same keys. Other JSON requests of the SDKs are
recorded as they are, as kind "http".
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import importlib
import json
import re
import threading
from array import array
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from . import scopes
from .clients.api_errors import failure, http_library
from .clients.openai import OpenAIClient
from .clients.sdk_transport import ChunkReader, is_own_request
from .config import resolve as config
from .engine.drivers import END, adrive, drive
from .errors import APIError, LLMCallError, RequestTimeoutError, ServiceError
from .models.catalog import parameters_of
from .notices import warn_once
from .recorded_functions import http_call
from .responses import read_object

if TYPE_CHECKING:
    from types import ModuleType

    from .config.settings import Endpoint
    from .engine.drivers import Flow
    from .engine.prepare import Resolved
    from .types import Request

Actor = Callable[["ProgramRequest"], "str | None"] | str

CHAT = "/chat/completions"
EMBEDDINGS = "/embeddings"
KNOWN_PATHS = (CHAT, EMBEDDINGS, "/responses", "/v1/messages", "/completions", "/models")
SDK_HEADER = "x-stainless-lang"  # of each request by the openai SDK (3.51), and by anthropic's
DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/")
BELOW = re.compile(r"/(chat/completions|embeddings)/?$")
# Headers of one connection or one body (RFC 9110, section 7.6.1), which the next message has of its
# own.
OF_THE_BODY = frozenset(
    {
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "accept-encoding",
        "host",
    }
)
# the openai SDK keeps to it: the retries are llmcall's
NOT_REPEATED = ((b"x-should-retry", b"false"),)
ERROR_STATUS = 409  # of llmcall's own errors: the openai SDK makes an APIStatusError of it
NO_CONNECTION, NO_ANSWER_IN_TIME = 503, 504  # of what is no response of the API
ERRORS = (LLMCallError, TypeError, ValueError)  # of a call; the latter two are wrong arguments
EVENTS = "text/event-stream"
LIMIT = "max_completion_tokens"  # is sent by this name where the program calls it so
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


@dataclass
class ProgramCall:
    """Hold a request of the program on its way, and be the transport of the call that it becomes.

    It does not hold what the program gets: a streamed answer holds it, and generators in a circle
    may not be ended in any order by the garbage collector.

    :param http: the module ``httpx`` or ``httpx2``.
    :param request: the program's own HTTP request.
    :param below: sends a request, and returns its response, or a coroutine that does.
    :param client_at: gives the client of an address, which makes the call.
    :param method: of the client: ``"send_message"``, ``"stream_message"`` or ``"get_embedding"``;
        else ``"exchange"``.
    :param body: the parsed JSON body, or ``None``.
    :param arguments: of the method, by name.
    :ivar came: the last response, where the last attempt got one.
    """

    http: ModuleType
    request: Any
    below: Callable[[Any], Any]
    client_at: Callable[[str], ProgramClient]
    method: str
    body: Any
    arguments: dict[str, Any]
    came: Any = None

    @property
    def client(self) -> ProgramClient:
        """Return the client that makes the call.

        :raises ConfigError: where the request can be sent nowhere.
        """
        return self.client_at(BELOW.sub("", _address(self.request.url)))

    def ask(self) -> Any:
        """Return what is answered; of a stream, it and its first piece: a failure before that is
        told as one.
        """
        if self.method == "exchange":
            return drive(self._exchange(self.receive))
        found = getattr(self.client, self.method)(**self.arguments)
        return (found, next(found, END)) if self.method == "stream_message" else found

    async def aask(self) -> Any:
        """Return what is answered, as :meth:`ask`."""
        if self.method == "exchange":
            return await adrive(self._exchange(self.areceive))
        found = getattr(self.client, f"a{self.method}")(**self.arguments)
        return (found, await anext(found, END)) if self.method == "stream_message" else await found

    def _exchange(self, receive: Callable[..., Any]) -> Flow[Any]:
        send = functools.partial(receive, self.request, _recordable)
        return http_call(**self.arguments, send=send, settings=self.client.settings)

    def receive(self, request: Any, read: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Send a request, and return what is read of its response."""
        with self._api_errors(), contextlib.closing(self.below(request)) as response:
            response.read()
        self.came = response
        return read(response)

    async def areceive(self, request: Any, read: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Send a request, and return what is read of its response, as :meth:`receive`."""
        with self._api_errors():
            async with contextlib.aclosing(await self.below(request)) as response:
                await response.aread()
        self.came = response
        return read(response)

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return the response of the API."""
        return self.receive(self._attempt(request, timeout), _parsed)

    async def asend(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return the response of the API."""
        return await self.areceive(self._attempt(request, timeout), _parsed)

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a streamed answer."""
        chunks, attempt = ChunkReader(), self._attempt(request, timeout, stream=True)
        with self._api_errors(), contextlib.closing(self.below(attempt)) as response:
            if response.status_code != 200:
                response.read()
                raise _refused(response)
            for data in response.iter_bytes():
                yield from chunks.feed(data)
            yield from chunks.close()

    async def astream(
        self, request: Request, timeout: float | None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the chunks of a streamed answer."""
        chunks, attempt = ChunkReader(), self._attempt(request, timeout, stream=True)
        with self._api_errors():
            async with contextlib.aclosing(await self.below(attempt)) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _refused(response)
                async for data in response.aiter_bytes():
                    for chunk in chunks.feed(data):
                        yield chunk
                for chunk in chunks.close():
                    yield chunk

    @contextlib.contextmanager
    def _api_errors(self) -> Iterator[None]:
        """Turn the HTTP library's errors into ours, which are worth another attempt."""
        self.came, address = None, _address(self.request.url)
        try:
            yield
        except self.http.TimeoutException as error:
            raise RequestTimeoutError(f"no answer from {address} within the timeout") from error
        except self.http.TransportError as error:
            words = f"the connection to {address} failed: {type(error).__name__}: {error}"
            raise ServiceError(f"{words}. Does the server run, and is that its address?") from error

    def _attempt(self, request: Request, timeout: float | None, *, stream: bool = False) -> Any:
        """Return the HTTP request of an attempt: the program's own where it asks for the same,
        within the same time.
        """
        original = self.request
        body = {**request.body, **({"stream": True} if stream else {})}
        if LIMIT in self.body and "max_tokens" in body:
            body[LIMIT] = body.pop("max_tokens")
        seconds = original.extensions.get("timeout") or {}
        if body == self.body and timeout == seconds.get("read"):
            return original
        limits = {
            name: timeout if given is None else min(given, timeout or given)
            for name, given in seconds.items()
        }
        extensions = {**original.extensions, "timeout": limits}
        headers, content = _kept(original.headers), json.dumps(body).encode()
        return self.http.Request(
            original.method, original.url, headers=headers, content=content, extensions=extensions
        )


def _address(url: Any) -> str:
    return f"{url.scheme}://{url.netloc.decode()}{url.raw_path.decode().partition('?')[0]}"


def _kept(headers: Any) -> list[tuple[bytes, bytes]]:
    return [
        (name, value) for name, value in headers.raw if name.decode().lower() not in OF_THE_BODY
    ]


_in_hand: ContextVar[ProgramCall] = ContextVar("llmcall request of a program")


class ProgramClient(OpenAIClient):
    """Make the calls of a program to one address, with the credentials and headers of the request
    in hand.
    """

    def _resolve(self) -> Resolved:
        """Return what the settings come to; a program asks for what it asks for, and what code adds
        here.
        """
        resolved = super()._resolve()
        added = {
            name: value for name, value in resolved.defaults.items() if name in self._overrides
        }
        return resolved._replace(defaults=added)

    def transport_of(self, endpoint: Endpoint) -> ProgramCall:
        """Return the request in hand, which knows how it is sent."""
        return _in_hand.get()


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
    error = failure(response.status_code, body, headers=dict(response.headers.items()))
    # the program's client follows a redirect
    error.retryable = error.retryable and response.status_code >= 400
    error.http_response = response  # type: ignore[attr-defined]
    return error


def _recordable(response: Any) -> dict[str, Any]:
    """Return what is recorded of a response: its media type and its body.

    :raises APIError: where it is a failure, which is not recorded.
    """
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if response.status_code != 200 or not (media_type.endswith("json") or media_type == EVENTS):
        raise _refused(response)
    return {"content_type": media_type, "body": response.text}


# What a request of the program asks for


def _asked(
    request: Any, content: bytes, hosts: Collection[str] | None
) -> tuple[str, Any, dict[str, Any]] | None:
    """Return the method, the body and the arguments of the call that a request asks for; ``None``
    where it passes.

    :param hosts: whose requests are recorded besides the known ones; without it, those of all are.
    """
    url, headers = request.url, request.headers
    path = url.path.rstrip("/")
    if not (
        path.endswith(KNOWN_PATHS) or SDK_HEADER in headers or hosts is None or url.host in hosts
    ):
        return None
    if request.method == "GET":
        return (
            "exchange",
            None,
            {"method": request.method, "path": url.raw_path.decode(), "body": None},
        )
    body = None
    if request.method == "POST" and "json" in headers.get("content-type", ""):
        with contextlib.suppress(ValueError):
            body = json.loads(content)
    if body is None:
        warn_once(
            f"{request.method} {url.path} is sent and not recorded, since only GET and the POST of JSON are: a replay "
            "sends it, too"
        )
        return None
    if isinstance(body, dict) and path.endswith(CHAT) and isinstance(body.get("messages"), list):
        method = "stream_message" if body.get("stream") else "send_message"
        return (
            method,
            body,
            _arguments(request, path, _chat_parameters(body), current_messages=body["messages"]),
        )
    if isinstance(body, dict) and path.endswith(EMBEDDINGS) and _is_text(body.get("input")):
        parameters = {
            name: value for name, value in body.items() if name not in ("input", "encoding_format")
        }
        return "get_embedding", body, _arguments(request, path, parameters, text=body["input"])
    return "exchange", body, {"method": request.method, "path": url.path, "body": body}


def _arguments(request: Any, path: str, parameters: dict[str, Any], **asked: Any) -> dict[str, Any]:
    """Return the arguments of a call: also the model that the address names, and the client's own
    time.
    """
    deployment = DEPLOYMENT.search(path)
    named = {"model": deployment[1]} if deployment else {}
    seconds = (request.extensions.get("timeout") or {}).get("read")
    return {**named, **parameters, "timeout": seconds, "on_error": "raise", **asked}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(each, str) for each in value)
    )


def _chat_parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of ``send_message`` that ask for the same; unknown ones go beyond them."""
    parameters = {
        name: value
        for name, value in body.items()
        if name not in ("messages", "stream", "stream_options")
    }
    unknown = [
        name for name in parameters if name == "extra_body" or name not in parameters_of("chat")
    ]
    beyond = {name: parameters.pop(name) for name in unknown}
    return {**parameters, "extra_body": beyond} if beyond else parameters


# What the program gets


def _whole(reply: Any) -> dict[str, Any]:
    """Return a chat's whole response; programs check that what a cassette leaves out of it is
    there.
    """
    return {
        "id": f"chatcmpl-{reply.cache_key[:29]}",
        "object": "chat.completion",
        "created": 0,
        **reply.raw,
    }


class ChatEvents:
    """Hand on a streamed chat as server-sent events, as its pieces come, synchronously or
    asynchronously.

    :param calls: note its errors.
    :param body: what the program asked.
    :param stream: the answer.
    :param first: its first piece, or ``END``.
    """

    bases = "SyncByteStream", "AsyncByteStream"

    def __init__(
        self, calls: ProgramCalls, body: Mapping[str, Any], stream: Any, first: Any
    ) -> None:
        self._calls = calls
        self._begun = {"id": "chatcmpl-recorded", "created": 0, "model": body.get("model")}
        self._wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._stream = stream
        self._opening = _chunk(self._begun, {"role": "assistant", "content": ""})
        self._has_text = first is not END  # of the first choice, which is told by its pieces
        if self._has_text:
            self._opening += self._told(first)

    def __iter__(self) -> Iterator[bytes]:
        yield self._opening
        try:
            for piece in self._stream:
                yield self._told(piece)
            last = self._rest(_whole(self._stream.reply))
        except LLMCallError as error:
            last = self._failed(error)
        yield last

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._opening
        try:
            async for piece in self._stream:
                yield self._told(piece)
            last = self._rest(_whole(self._stream.reply))
        except LLMCallError as error:
            last = self._failed(error)
        yield last

    def _told(self, piece: str) -> bytes:
        return _chunk(self._begun, {"content": piece})

    def _failed(self, error: LLMCallError) -> bytes:
        """Return an event of which the SDK makes an error of its own."""
        self._calls.note(error)
        return _sent(_about_error(error))

    def _rest(self, response: Mapping[str, Any]) -> bytes:
        """Return the events of what remains of the whole answer when the text of its first choice
        has been sent.
        """
        events: list[bytes] = []
        for choice in response["choices"]:
            index, message = choice.get("index", 0), choice["message"]
            delta = {
                name: value
                for name, value in message.items()
                if name != "role" and value is not None
            }
            if index == 0 and self._has_text:
                delta.pop("content", None)
            if message.get("tool_calls"):
                delta["tool_calls"] = [
                    {"index": number, **call} for number, call in enumerate(message["tool_calls"])
                ]
            # As the API does: programs stop reading where they see the reason, and look no further
            # into that chunk.
            events += (
                _chunk(response, delta, index),
                _chunk(response, {}, index, choice.get("finish_reason")),
            )
        if self._wants_usage and response.get("usage") is not None:
            events.append(_event(response, choices=[], usage=response["usage"]))
        return b"".join([*events, b"data: [DONE]\n\n"])

    def close(self) -> None:
        """Leave the rest."""
        self._stream.close()

    async def aclose(self) -> None:
        """Leave the rest."""
        await self._stream.aclose()


def _chunk(
    response: Mapping[str, Any], delta: dict[str, Any], index: int = 0, finish_reason: Any = None
) -> bytes:
    return _event(
        response, choices=[{"index": index, "delta": delta, "finish_reason": finish_reason}]
    )


def _event(response: Mapping[str, Any], **fields: Any) -> bytes:
    about = {name: response.get(name) for name in ("id", "created", "model")}
    return _sent({**about, "object": "chat.completion.chunk", **fields})


def _sent(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def _embeddings(client: ProgramClient, body: Mapping[str, Any], found: Any) -> dict[str, Any]:
    """Return the response to an embeddings request, encoded as the program asked for it."""
    one = isinstance(body["input"], str)
    texts, vectors = ([body["input"]], [found]) if one else (body["input"], found)
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(array("f", vector).tobytes()).decode() for vector in vectors]
    tokens = sum(int(client.count_tokens(text, body.get("model"))) for text in texts)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": vector}
            for i, vector in enumerate(vectors)
        ],
        "model": body.get("model"),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _made(http: ModuleType, status: int, data: Any, media_type: str = "application/json") -> Any:
    """Return a response with a text, or with data as JSON."""
    content = data if isinstance(data, str) else json.dumps(data)
    headers = [(b"content-type", media_type.encode()), *NOT_REPEATED]
    # also for iter_raw
    return http.Response(status, headers=headers, stream=http.ByteStream(content.encode()))


def _about_error(error: BaseException) -> dict[str, Any]:
    return {
        "error": {
            "message": str(error),
            "type": "llmcall",
            "code": type(error).__name__,
            "param": None,
        }
    }


# A program's requests


class ProgramCalls:
    """Answer the requests of a program from the record, or let them be sent and record the answers.

    :param actor: says who is asking: a function, ``"system"`` or ``"header:NAME"``.
    :param overrides: settings by name.
    :param hosts: whose JSON requests are recorded as kind "http", besides the SDKs' own; ``None``
        means all.
    :param caller: the function that was given them, for messages.
    :raises ConfigError, TypeError: as of a client, for settings that are wrong.
    :ivar first_error: the first error of llmcall's own that the program got, or ``None``.
    """

    def __init__(
        self,
        actor: Actor | None,
        overrides: Mapping[str, Any],
        hosts: Collection[str] | None = None,
        *,
        caller: str,
    ) -> None:
        self._name_of = _naming(actor)
        # a wrong one fails here, and not in the program's first request
        config.settings_for(None, overrides, caller)
        self._client_at = functools.cache(
            lambda address: ProgramClient(**{**overrides, "base_url": address})
        )
        self._hosts = hosts
        self._actors: dict[str, scopes.Scope] = {}
        self._around = scopes.current()
        self.first_error: Exception | None = None

    def handle(self, http: ModuleType, send: Callable[[Any], Any], request: Any) -> Any:
        """Return the response to a request of the program.

        :param http: the module ``httpx`` or ``httpx2``, whose request it is.
        :param send: sends what is not recorded.
        """
        call = self._call(http, send, request, request.read())
        if call is None:
            return send(request)
        try:
            with self._standing(call):
                return self._response(call, call.ask())
        except ERRORS as error:
            return self._refusal(call, error)

    async def ahandle(self, http: ModuleType, send: Callable[[Any], Any], request: Any) -> Any:
        """Return the response to a request of the program, as :meth:`handle`."""
        call = self._call(http, send, request, await request.aread())
        if call is None:
            return await send(request)
        try:
            with self._standing(call):
                return self._response(call, await call.aask())
        except ERRORS as error:
            return self._refusal(call, error)

    def _call(
        self, http: ModuleType, send: Callable[[Any], Any], request: Any, content: bytes
    ) -> ProgramCall | None:
        asked = _asked(request, content, self._hosts)
        return None if asked is None else ProgramCall(http, request, send, self._client_at, *asked)

    @contextlib.contextmanager
    def _standing(self, call: ProgramCall) -> Iterator[None]:
        """Let a request be the one in hand, in its actor's scope."""
        token = _in_hand.set(call)
        try:
            with scopes.within(self._around), self._scope_of(call):
                yield
        finally:
            _in_hand.reset(token)

    def _response(self, call: ProgramCall, found: Any) -> Any:
        if call.method == "exchange":
            return _made(call.http, 200, found["body"], found["content_type"])
        if call.method == "get_embedding":
            return _made(call.http, 200, _embeddings(call.client, call.body, found))
        if call.method == "send_message":
            return _made(call.http, 200, _whole(found))
        headers = [(b"content-type", EVENTS.encode()), *NOT_REPEATED]
        return call.http.Response(
            200, headers=headers, stream=_derived(call.http, ChatEvents)(self, call.body, *found)
        )

    def _refusal(self, call: ProgramCall, error: Exception) -> Any:
        """Return what the program gets: what the API sent as it came, an error of ours as the SDK's
        own.
        """
        self.note(error)
        if not isinstance(error, APIError):
            return _made(call.http, ERROR_STATUS, _about_error(error))
        came = getattr(error, "http_response", call.came)
        if came is not None:
            headers = [*_kept(came.headers), *NOT_REPEATED]
            return call.http.Response(came.status_code, headers=headers, content=came.content)
        status = NO_ANSWER_IN_TIME if isinstance(error, RequestTimeoutError) else NO_CONNECTION
        return _made(call.http, status, _about_error(error))

    def note(self, error: Exception) -> None:
        """Keep an error that the program gets, if it is the first of llmcall's own."""
        if not isinstance(error, APIError):
            self.first_error = self.first_error or error

    # Who is asking

    def _scope_of(self, call: ProgramCall) -> contextlib.AbstractContextManager[Any]:
        if self._name_of is None:
            return contextlib.nullcontext()
        request, headers = call.request, dict(call.request.headers.items())
        name = self._name_of(ProgramRequest(request.method, str(request.url), headers, call.body))
        return (
            contextlib.nullcontext()
            if name is None
            else self._actors.setdefault(name, scopes.scope(name))
        )


def _naming(actor: Any) -> Callable[[ProgramRequest], str | None] | None:
    """Return the function that says who is asking, or ``None``."""
    if actor is None or callable(actor):
        return actor  # type: ignore[no-any-return]
    if actor == "system":
        return _system_name
    if isinstance(actor, str) and actor.startswith("header:"):
        name = actor.removeprefix("header:").lower()
        return lambda request: request.headers.get(name)
    raise ValueError(
        f'actor is {actor!r}; it must be a function of the request, "system" or "header:NAME"'
    )


def _system_name(request: ProgramRequest) -> str | None:
    """Return a name for a persona that is known by its system message: its beginning, and a digest
    of the whole.
    """
    body = request.body if isinstance(request.body, dict) else {}
    messages = [message for message in body.get("messages") or () if isinstance(message, dict)]
    told = [
        message.get("content")
        for message in messages
        if message.get("role") in ("system", "developer")
    ]
    text = next(filter(None, [body.get("system"), body.get("instructions"), *told]), None)
    if text is None:
        return None
    text = text if isinstance(text, str) else json.dumps(text, sort_keys=True)
    beginning = " ".join(UNSAFE.sub(" ", text[: 2 * NAME_CHARACTERS]).split())[
        :NAME_CHARACTERS
    ].strip()
    return f"{beginning}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


# The clients and the patch


class ProgramTransport:
    """Answer each request from the record; what is not recorded goes to the transport below.

    :param http: the module ``httpx`` or ``httpx2``.
    :param calls: what answers the requests.
    :param below: the transport below.
    """

    bases = "BaseTransport", "AsyncBaseTransport"

    def __init__(self, http: ModuleType, calls: ProgramCalls, below: Any) -> None:
        self._http = http
        self._calls = calls
        self._below = below

    def handle_request(self, request: Any) -> Any:
        """Return the response to a request of the program."""
        return self._calls.handle(self._http, self._below.handle_request, request)

    async def handle_async_request(self, request: Any) -> Any:
        """Return the response to a request of the program."""
        return await self._calls.ahandle(self._http, self._below.handle_async_request, request)

    def close(self) -> None:
        """Close the transport below."""
        self._below.close()

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._below.aclose()


@functools.lru_cache(maxsize=4)
def _derived(http: ModuleType, kind: type) -> Any:
    """Return a class of ours that the HTTP library takes for one of its own, synchronous and
    asynchronous.
    """
    return type(kind.__name__, (kind, *(getattr(http, base) for base in kind.bases)), {})  # type: ignore[attr-defined]


def http_client(*, actor: Actor | None = None, transport: Any = None, **overrides: Any) -> Any:
    """Return an HTTP client for ``openai.OpenAI(http_client=…)`` whose calls are recorded and
    replayed.

    A failure of the API that remains after llmcall's retries reaches the program as it came, a
    connection that fails as the status 503, a timeout as 504, and an error of llmcall's own as 409:
    an ``openai.APIStatusError`` that the SDK does not repeat.

    :param actor: says who is asking: a function of a :class:`ProgramRequest` that returns a scope's
        name or ``None``, ``"system"`` (each system message is an actor) or ``"header:NAME"`` (the
        header's value is the actor's name).
    :param transport: sends what is not recorded; by default the HTTP library's own.
    :param overrides: settings by name, as of a client: ``cache_path=``, ``cache_mode=``, ….
        Sampling parameters among them are added to requests that have none; those of files and
        environment are not.
    :returns: an ``httpx.Client``, or an ``httpx2.Client`` where the installed SDK uses that.

    >>> import openai
    >>> client = openai.OpenAI(api_key="none", http_client=llmcall.http_client())
    """
    http = http_library()
    return http.Client(
        transport=_recording(
            http, actor, overrides, transport or http.HTTPTransport(), "http_client()"
        )
    )


def async_http_client(
    *, actor: Actor | None = None, transport: Any = None, **overrides: Any
) -> Any:
    """Return an HTTP client for ``openai.AsyncOpenAI(http_client=…)``; arguments as of
    :func:`http_client`.

    >>> import openai
    >>> client = openai.AsyncOpenAI(api_key="none", http_client=llmcall.async_http_client())
    """
    http = http_library()
    below = transport or http.AsyncHTTPTransport()
    return http.AsyncClient(
        transport=_recording(http, actor, overrides, below, "async_http_client()")
    )


def _recording(
    http: ModuleType, actor: Actor | None, overrides: Mapping[str, Any], below: Any, caller: str
) -> Any:
    return _derived(http, ProgramTransport)(
        http, ProgramCalls(actor, overrides, caller=caller), below
    )


_patch_lock = threading.Lock()


@contextlib.contextmanager
def patched(
    actor: Actor | None = None, hosts: Collection[str] = (), **overrides: Any
) -> Iterator[None]:
    """Record and replay the requests of every HTTP client of the process, for a block.

    It holds for httpx and httpx2, for clients made before and inside the block, in any library. An
    error of llmcall's own reaches the program as an error of the SDK; the first one is raised again
    at the end of the block.

    :param actor: as of :func:`http_client`.
    :param hosts: whose JSON requests are recorded too, besides those of the openai and anthropic
        SDKs.
    :param overrides: settings by name, as of a client.
    :raises RuntimeError: inside another such block, in whatever thread.
    :raises ConfigError, TypeError: as of a client, for settings that are wrong.

    >>> def main():
    ...     "Stand for a program that calls models by the OpenAI SDK."
    >>> with llmcall.patched(actor="system"), llmcall.cassette("program.jsonl"):
    ...     main()
    """
    if not _patch_lock.acquire(blocking=False):
        raise RuntimeError(
            "llmcall.patched() holds already; leave the other block first: one at a time can"
        )
    with contextlib.ExitStack() as undo:
        undo.callback(_patch_lock.release)
        calls = ProgramCalls(actor, overrides, hosts, caller="patched()")
        for name in ("httpx", "httpx2"):
            with contextlib.suppress(ModuleNotFoundError):
                _patch(importlib.import_module(name), calls, undo)
        yield
    if calls.first_error is not None:
        raise calls.first_error


def _patch(http: ModuleType, calls: ProgramCalls, undo: contextlib.ExitStack) -> None:
    """Replace the method of both transports by one that hands on what it returns: a response, or a
    coroutine.
    """
    for kind, name, handle in (
        (http.HTTPTransport, "handle_request", calls.handle),
        (http.AsyncHTTPTransport, "handle_async_request", calls.ahandle),
    ):
        send = getattr(kind, name)
        setattr(
            kind, name, functools.partialmethod(_handled, functools.partial(handle, http), send)
        )
        undo.callback(setattr, kind, name, send)


def _handled(
    transport: Any, handle: Callable[..., Any], send: Callable[..., Any], request: Any
) -> Any:
    if _in_hand.get(None) is not None or is_own_request.get():
        return send(transport, request)
    return handle(functools.partial(send, transport), request)
