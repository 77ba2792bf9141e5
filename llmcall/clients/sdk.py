"""The only room that knows the openai SDK: sends through it, and maps its errors to the tree."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakKeyDictionary

from ..errors import APIError, RequestTimeoutError, ServiceError
from ..types import Response
from .bearer import abearer, bearer
from .events import EventDecoder
from .failures import answered, failure, request_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

    from ..types import Request

__all__ = ["SDKTransport", "failures", "fitting", "mapped_error", "raise_mapped"]

SHORTEST_SECRET = 6  # characters; masking a shorter key would blot out ordinary words
SHORTEST_READ = 0.001  # seconds; 0 would mean that a socket does not block


class SDKTransport:
    """Send requests through SDK clients: one shared by all threads, and one for each event loop.

    :param make: returns an ``openai.OpenAI`` or ``openai.AzureOpenAI``, or, where its argument is true, the
        asynchronous twin; the SDK is imported there.
    :param name: the endpoint's name, for errors.
    :param key: a function that gives a token for every attempt, or ``None``.
    """

    def __init__(self, make: Callable[[bool], Any], name: str, key: Callable[[], Any] | None = None) -> None:
        self._make = make
        self._name = name
        self._key = key
        self._lock = threading.Lock()
        self._sdk: Any = None
        self._sdks: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()

    @property
    def renewable(self) -> bool:
        """Return whether a refused key may be replaced by a fresh one: a function gives it."""
        return self._key is not None

    def send(self, request: Request, timeout: float | None) -> Response:
        """Return the response; the timeout bounds the attempt as a whole, the reading of the body included."""
        sdk = self._client()
        ends = None if timeout is None else time.monotonic() + timeout
        try:
            with _create(sdk, request, timeout, bearer(self._key)) as answer, _noting(answer):
                _bound_reads(answer, ends)
                return _response(answer, b"".join(_read(answer, ends)))
        except failures() as error:
            raise_mapped(error, self._name)

    async def asend(self, request: Request, timeout: float | None) -> Response:
        """Return the response, as :meth:`send`."""
        import asyncio

        sdk = await self._aclient()
        try:
            return await asyncio.wait_for(self._answer(sdk, request, timeout), timeout)
        except asyncio.TimeoutError:
            raise RequestTimeoutError("no answer within the timeout", endpoint=self._name) from None
        except failures() as error:
            raise_mapped(error, self._name)

    async def _answer(self, sdk: Any, request: Request, timeout: float | None) -> Response:
        async with _create(sdk, request, timeout, await abearer(self._key)) as answer:
            with _noting(answer):
                return _response(answer, b"".join([piece async for piece in answer.iter_bytes()]))

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a streamed answer; the timeout bounds the wait for each."""
        sdk, events = self._client(), EventDecoder()
        try:
            with _create(sdk, _streaming(request), timeout, bearer(self._key)) as answer:
                for data in answer.iter_bytes():
                    yield from events.feed(data)
                    if events.done:
                        return
            yield from events.close()
        except failures() as error:
            raise_mapped(error, self._name)

    async def astream(self, request: Request, timeout: float | None) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a streamed answer, as :meth:`stream`."""
        sdk, events = await self._aclient(), EventDecoder()
        try:
            async with _create(sdk, _streaming(request), timeout, await abearer(self._key)) as answer:
                async for data in answer.iter_bytes():
                    for chunk in events.feed(data):
                        yield chunk
                    if events.done:
                        return
            for chunk in events.close():
                yield chunk
        except failures() as error:
            raise_mapped(error, self._name)

    def models(self, timeout: float) -> list[str]:
        """Return the names of the models that the endpoint lists.

        :param timeout: seconds.
        """
        sdk = self._client()
        try:
            return [model.id for model in sdk.models.list(timeout=timeout, extra_headers=bearer(self._key) or None)]
        except failures() as error:
            raise_mapped(error, self._name)

    def _client(self) -> Any:
        if self._sdk is None:
            with self._lock:
                if self._sdk is None:
                    self._sdk = self._make(False)
        return self._sdk

    async def _aclient(self) -> Any:
        import asyncio

        loop = asyncio.get_running_loop()
        found = self._sdks.get(loop)
        if found is None:
            sdk = self._make(True)
            guard = _closing(sdk)
            await anext(guard)
            found = self._sdks.setdefault(loop, (sdk, guard))
        return found[0]

    def close(self) -> None:
        """Close the connections of the synchronous client."""
        with self._lock:
            sdk, self._sdk = self._sdk, None
        if sdk is not None:
            sdk.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop, and those of the synchronous client."""
        import asyncio

        self.close()
        found = self._sdks.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found[1].aclose()


async def _closing(sdk: Any) -> AsyncGenerator[None, None]:
    """Close an SDK client when its event loop ends: ``asyncio.run`` closes the generators that are left."""
    try:
        yield
    finally:
        await sdk.close()


def _streaming(request: Request) -> Request:
    return request._replace(body={**request.body, "stream": True})


def _create(sdk: Any, request: Request, timeout: float | None, headers: Mapping[str, str]) -> Any:
    """Begin a request of which the body is read by hand, so that no model of it is built and its reading can end.

    The body goes through ``extra_body``, so that what one version of the SDK does not know is sent all the same.
    """
    body = dict(request.body)
    extra = {**body, **(body.pop("extra_body", None) or {})}
    for name in ("extra_body", "extra_query", "model", "messages", "input"):
        extra.pop(name, None)
    options = {
        "model": body["model"],
        "extra_headers": {**request.headers, **headers} or None,
        "extra_query": body.get("extra_query"),
        "timeout": timeout,
        "extra_body": extra,
    }
    if request.kind == "embedding":
        encoding = extra.pop("encoding_format", "float")
        return sdk.embeddings.with_streaming_response.create(input=body["input"], encoding_format=encoding, **options)
    return sdk.chat.completions.with_streaming_response.create(messages=body["messages"], **options)


@contextmanager
def _noting(answer: Any) -> Iterator[None]:
    """Note in an error what the head of the response said."""
    try:
        yield
    except failures() as error:
        mapped = mapped_error(error)
        mapped.status_code, mapped.request_id = answer.status_code, request_id(answer.headers)
        _hide_key(mapped, answer.http_response.request)
        if mapped is error:
            raise
        raise mapped from error


def _bound_reads(answer: Any, ends: float | None) -> None:
    """Let no read of the body wait longer than what the attempt has left: the head took its share of it."""
    if ends is not None:
        # The request extension "timeout" of httpx; its transport looks at it when the body begins.
        answer.http_response.request.extensions["timeout"]["read"] = max(SHORTEST_READ, ends - time.monotonic())


def _read(answer: Any, ends: float | None) -> Iterator[bytes]:
    for piece in answer.iter_bytes():
        yield piece
        if ends is not None and time.monotonic() > ends:
            raise RequestTimeoutError("the answer was not read to its end within the timeout")


def _response(answer: Any, body: bytes) -> Response:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Response(answered(body, "answer"), request_id(headers), headers)


def failures() -> tuple[type[BaseException], ...]:
    """Return the exceptions that :func:`mapped_error` maps."""
    import openai

    return (openai.APIError, APIError, *_transport_errors("TransportError", "DecodingError"))


def mapped_error(error: BaseException) -> APIError:
    """Return the error of the tree for one of the SDK's or of its HTTP library's."""
    import openai

    if isinstance(error, APIError):
        return error
    if isinstance(error, openai.APIStatusError):
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        mapped = failure(error.status_code, _body(error), headers=headers)
    elif isinstance(error, (openai.APITimeoutError, *_transport_errors("TimeoutException"))):
        mapped = RequestTimeoutError(f"no answer within the timeout ({_words(error)})")
    else:
        mapped = ServiceError(f"the connection failed: {_words(error)}")
    _hide_key(mapped, getattr(error, "request", None))
    return mapped


def _hide_key(error: APIError, request: Any) -> None:
    """Take the key out of the words of a server that repeats it."""
    for name in ("authorization", "api-key"):
        secret = (request.headers.get(name) if request is not None else None) or ""
        secret = secret.removeprefix("Bearer ")
        if len(secret) >= SHORTEST_SECRET:
            error.args = tuple(word.replace(secret, "…") if isinstance(word, str) else word for word in error.args)


def raise_mapped(error: BaseException, endpoint: str) -> NoReturn:
    """Raise the error of the tree, with the SDK's as its cause."""
    mapped = mapped_error(error)
    mapped.endpoint = endpoint
    if mapped is error:
        raise mapped
    raise mapped from error


def _body(error: Any) -> object:
    if error.body is not None:
        return {"error": error.body} if isinstance(error.body, dict) and "error" not in error.body else error.body
    return error.response.text


def _transport_errors(*names: str) -> tuple[type[BaseException], ...]:
    """Return exception classes of the SDK's HTTP library: httpx of openai 2.x, httpx2 of 3.x, or a given client's."""
    libraries = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    return tuple(getattr(library, name) for library in libraries for name in names)


def _words(error: BaseException) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__


def fitting(http_client: Any, asynchronous: bool) -> Any:
    """Return the HTTP client that a user gave, where it is of the kind that is needed; else ``None``."""
    return http_client if http_client is not None and hasattr(http_client, "aclose") == asynchronous else None
