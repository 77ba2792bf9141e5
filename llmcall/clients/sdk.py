"""The room that sends through the openai SDK; :mod:`llmcall.clients.sdk_errors` maps its errors to the tree."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, finalize

from ..errors import RequestTimeoutError, ServiceError
from ..road.time_limits import limited
from ..types import Response
from .bearer import abearer, bearer
from .bodies import Body
from .events import EventDecoder
from .failures import answered, request_id
from .redirects import at_home
from .sdk_errors import MASK, failures, hide_keys, mapped_error, raise_mapped, unmistakable_keys

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

    from ..types import Request

__all__ = ["SDKTransport", "fitting"]

CONNECTING = 0.8  # the share of an attempt's time in which the connection must be there


class SDKTransport:
    """Send requests through SDK clients: one shared by all threads, and one for each event loop.

    :param make: returns an ``openai.OpenAI`` or ``openai.AzureOpenAI``, or, where its argument is true, the
        asynchronous twin; the SDK is imported there.
    :param name: the endpoint's name, for errors.
    :param key: a function that gives a token for every attempt, or ``None``.
    :param lent: the HTTP client that a user gave, and will close.
    """

    def __init__(
        self, make: Callable[[bool], Any], name: str, key: Callable[[], Any] | None = None, *, lent: Any = None
    ) -> None:
        self._make = make
        self._name = name
        self._key = key
        self._lent = lent
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
        with (
            limited(timeout),
            self._mapping(),
            _create(sdk, request, timeout, bearer(self._key)) as answer,
            _noting(answer),
        ):
            return _response(answer, _read(answer))

    async def asend(self, request: Request, timeout: float | None) -> Response:
        """Return the response, as :meth:`send`."""
        import asyncio

        sdk = await self._aclient()
        try:
            with self._mapping():
                return await asyncio.wait_for(self._answer(sdk, request, timeout), timeout)
        except asyncio.TimeoutError:
            raise RequestTimeoutError("no answer within the timeout", endpoint=self._name) from None

    async def _answer(self, sdk: Any, request: Request, timeout: float | None) -> Response:
        async with _create(sdk, request, timeout, await abearer(self._key)) as answer:
            with _noting(answer):
                body = Body()
                async for piece in answer.iter_bytes():
                    body.add(piece)
                return _response(answer, body.data)

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a streamed answer; the timeout bounds the wait for each read."""
        sdk, events = self._client(), EventDecoder()
        with (
            self._mapping(),
            _create(sdk, _streaming(request), timeout, bearer(self._key)) as answer,
            _noting(answer),
        ):
            events.hidden = unmistakable_keys(answer.http_response.request)
            for data in answer.iter_bytes():
                yield from events.feed(data)
                if events.done:
                    return
            yield from events.close()

    async def astream(self, request: Request, timeout: float | None) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a streamed answer, as :meth:`stream`."""
        sdk, events = await self._aclient(), EventDecoder()
        with self._mapping():
            async with _create(sdk, _streaming(request), timeout, await abearer(self._key)) as answer:
                with _noting(answer):
                    events.hidden = unmistakable_keys(answer.http_response.request)
                    async for data in answer.iter_bytes():
                        for chunk in events.feed(data):
                            yield chunk
                        if events.done:
                            return
                    for chunk in events.close():
                        yield chunk

    def models(self, timeout: float) -> list[str]:
        """Return the names of the models that the endpoint lists.

        :param timeout: seconds.
        """
        models = self._client().models.with_streaming_response
        headers = bearer(self._key) or None
        with (
            limited(timeout),
            self._mapping(),
            models.list(timeout=timeout, extra_headers=headers) as answer,
            _noting(answer),
        ):
            return _names(_response(answer, _read(answer)).get("data"))

    @contextmanager
    def _mapping(self) -> Iterator[None]:
        try:
            yield
        except failures() as error:
            raise_mapped(error, self._name)

    def _client(self) -> Any:
        if self._sdk is None:
            with self._lock:
                if self._sdk is None:
                    self._sdk = at_home(self._make(False))
                    if self._lent is None:
                        finalize(self, self._sdk.close).atexit = False  # connections of a client that was forgotten
        return self._sdk

    async def _aclient(self) -> Any:
        import asyncio

        loop = asyncio.get_running_loop()
        found = self._sdks.get(loop)
        if found is None:
            sdk = at_home(self._make(True), asynchronous=True)
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

    The body goes through ``extra_body``, so that what one version of the SDK does not know is sent all the same, and so
    that it does not walk through the messages in search of what it would change: a third of the time of a call.
    """
    body = dict(request.body)
    extra = {**body, **(body.pop("extra_body", None) or {})}
    for name in ("extra_body", "extra_query", "model", "input"):
        extra.pop(name, None)
    options = {
        "model": body["model"],
        "extra_headers": {**request.headers, **headers} or None,
        "extra_query": body.get("extra_query"),
        "timeout": _timeouts(timeout),
        "extra_body": extra,
    }
    if request.kind == "embedding":
        encoding = extra.pop("encoding_format", "float")
        return sdk.embeddings.with_streaming_response.create(input=body["input"], encoding_format=encoding, **options)
    extra["messages"] = body["messages"]
    return sdk.chat.completions.with_streaming_response.create(messages=[], **options)


@lru_cache(maxsize=64)
def _timeouts(seconds: float | None) -> Any:
    """Return the SDK's timeouts: a connection that is not there in time is given up before its task is cancelled.

    Cancelled in the middle of TLS's handshake, the asynchronous libraries forget to close it (anyio 4.9, httpcore 1.0).
    """
    import openai

    return seconds if seconds is None else openai.Timeout(seconds, connect=CONNECTING * seconds)


@contextmanager
def _noting(answer: Any) -> Iterator[None]:
    """Note in an error what the head of the response said."""
    try:
        yield
    except failures() as error:
        mapped = mapped_error(error)
        mapped.status_code, mapped.request_id = answer.status_code, request_id(answer.headers)
        hide_keys(answer.http_response.request, mapped, error)
        if mapped is error:
            raise
        raise mapped from error


def _read(answer: Any) -> bytearray:
    body = Body()
    for piece in answer.iter_bytes():
        body.add(piece)
    return body.data


def _response(answer: Any, body: bytearray) -> Response:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    for key in unmistakable_keys(answer.http_response.request):
        body = body.replace(key, MASK.encode())
    return Response(answered(body, "answer"), request_id(headers), headers)


def _names(listed: Any) -> list[str]:
    """Return the names of the models in a list of them.

    :raises ServiceError: where it is none.
    """
    if not isinstance(listed, list) or not all(isinstance(model, dict) and "id" in model for model in listed):
        raise ServiceError("a malformed list of models")
    return [str(model["id"]) for model in listed]


def fitting(http_client: Any, asynchronous: bool) -> Any:
    """Return the HTTP client that a user gave, where it is of the kind that is needed; else ``None``."""
    return http_client if http_client is not None and hasattr(http_client, "aclose") == asynchronous else None
