"""The room that sends through the openai SDK; :mod:`llmcall.clients.sdk_errors` maps its errors to the tree."""

from __future__ import annotations

import sys
import threading
from contextlib import aclosing, closing, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakKeyDictionary, finalize

from ..engine.interrupts import limited
from ..errors import RequestTimeoutError, ServiceError
from ..types import Response
from .bearer import abearer, bearer
from .bodies import Body, bounding
from .echoes import EchoFilter
from .events import EventDecoder
from .failures import answered, request_id
from .heads import Head
from .posts import body_of, posted
from .redirects import at_home
from .sdk_errors import failures, hide_keys, mapped_error, raise_mapped, unmistakable_keys, without_keys

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from ..types import Request

__all__ = ["SDKTransport", "fitting"]


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
        self._heads: dict[tuple[str, ...], Head] = {}
        self._sdks: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()

    @property
    def renewable(self) -> bool:
        """Return whether a refused key may be replaced by a fresh one: a function gives it."""
        return self._key is not None

    def send(self, request: Request, timeout: float | None) -> Response:
        """Return the response; the timeout bounds the attempt as a whole, the reading of the body included."""
        sdk = self._client()
        with limited(timeout):
            try:
                answer = self._begun(sdk, request, timeout)
                try:
                    return _response(answer, _read(answer))
                except failures() as error:
                    _raise_noted(answer, error)
                finally:
                    answer.close()
            except failures() as error:
                raise_mapped(error, self._name)

    async def asend(self, request: Request, timeout: float | None) -> Response:
        """Return the response, as :meth:`send`."""
        import asyncio

        sdk = await self._aclient()
        try:
            if sys.version_info < (3, 11):
                return await asyncio.wait_for(self._answer(sdk, request, timeout), timeout)
            async with asyncio.timeout(timeout):  # takes no task of its own
                return await self._answer(sdk, request, timeout)
        except asyncio.TimeoutError:
            raise RequestTimeoutError("no answer within the timeout", endpoint=self._name) from None
        except failures() as error:
            raise_mapped(error, self._name)

    async def _answer(self, sdk: Any, request: Request, timeout: float | None) -> Response:
        answer = await self._abegun(sdk, request, timeout)
        try:
            body = Body()
            async for piece in answer.aiter_bytes():
                body.add(piece)
            return _response(answer, body.data)
        except failures() as error:
            _raise_noted(answer, error)
        finally:
            await answer.aclose()

    def _begun(self, sdk: Any, request: Request, timeout: float | None) -> Any:
        """Send a request and return the response, of which the body is not read yet."""
        place = self._place(request, "sync")
        head = self._heads.get(place)
        if head is not None:
            return head.send(sdk, body_of(request), timeout)
        answer = posted(sdk, request, timeout, bearer(self._key)).response
        self._learn(place, answer)
        return answer

    async def _abegun(self, sdk: Any, request: Request, timeout: float | None) -> Any:
        place = self._place(request, "async")
        head = self._heads.get(place)
        if head is not None:
            return await head.asend(sdk, body_of(request), timeout)
        answer = (await posted(sdk, request, timeout, await abearer(self._key), asynchronous=True)).response
        self._learn(place, answer)
        return answer

    def _place(self, request: Request, kind_of_client: str) -> tuple[str, ...]:
        """Return what requests have in common that have the same head; nothing where each has its own."""
        if self._key is not None or request.headers or "extra_query" in request.body:
            return ()
        return request.kind, request.body["model"], kind_of_client

    def _learn(self, place: tuple[str, ...], answer: Any) -> None:
        if place and not answer.history:  # a redirect's head is another one
            self._heads[place] = Head.of(answer.request)

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield what the head says and the chunks of a streamed answer; the timeout bounds the wait for each read."""
        sdk, events = self._client(), EventDecoder()
        with self._mapping():
            answer = posted(sdk, _streaming(request), timeout, bearer(self._key)).response
            with closing(answer), _noting(answer):
                events.hidden = unmistakable_keys(answer.request)
                echoes = _echoes_of(events)
                yield _opening(answer)
                for data in answer.iter_bytes():
                    yield from map(echoes.passed, events.feed(data))
                    if events.done:
                        break
                else:
                    yield from map(echoes.passed, events.close())
                yield from echoes.rest()

    async def astream(self, request: Request, timeout: float | None) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks of a streamed answer, as :meth:`stream`."""
        sdk, events = await self._aclient(), EventDecoder()
        with self._mapping():
            stream = await posted(sdk, _streaming(request), timeout, await abearer(self._key), asynchronous=True)
            async with aclosing(stream.response) as answer:
                with _noting(answer):
                    events.hidden = unmistakable_keys(answer.request)
                    echoes = _echoes_of(events)
                    yield _opening(answer)
                    async for data in answer.aiter_bytes():
                        for chunk in events.feed(data):
                            yield echoes.passed(chunk)
                        if events.done:
                            break
                    else:
                        for chunk in events.close():
                            yield echoes.passed(chunk)
                    for chunk in echoes.rest():
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
            _noting(answer.http_response),
        ):
            return _names(_response(answer.http_response, _read(answer)).get("data"))

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
                    self._sdk = bounding(at_home(self._make(False)))
                    if self._lent is None:
                        finalize(self, self._sdk.close).atexit = False  # connections of a client that was forgotten
        return self._sdk

    async def _aclient(self) -> Any:
        import asyncio

        loop = asyncio.get_running_loop()
        found = self._sdks.get(loop)
        if found is None:
            sdk = bounding(at_home(self._make(True), asynchronous=True), asynchronous=True)
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


@contextmanager
def _noting(answer: Any) -> Iterator[None]:
    """Note in an error what the head of the response said."""
    try:
        yield
    except failures() as error:
        _raise_noted(answer, error)


def _raise_noted(answer: Any, error: BaseException) -> NoReturn:
    mapped = mapped_error(error)
    mapped.status_code, mapped.request_id = answer.status_code, request_id(answer.headers)
    hide_keys(answer.request, mapped, error)
    if mapped is error:
        raise mapped
    raise mapped from error


def _read(answer: Any) -> bytearray:
    body = Body()
    for piece in answer.iter_bytes():
        body.add(piece)
    return body.data


def _opening(answer: Any) -> Response:
    """Return what the head of a stream says, before its first chunk."""
    return _told({}, answer)


def _echoes_of(events: EventDecoder) -> EchoFilter:
    """Return what finds the keys that a decoder hides also where the chunks cut them."""
    return EchoFilter(key.decode() for key in events.hidden)


def _response(answer: Any, body: bytearray) -> Response:
    return _told(answered(without_keys(body, answer.request), "answer"), answer)


def _told(data: dict[str, Any], answer: Any) -> Response:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Response(data, request_id(headers), headers)


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
