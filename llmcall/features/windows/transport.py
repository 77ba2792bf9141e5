"""Windows: a transport whose answers are made in the background, within hours and for less.

A response is noted in the cache's journal before the wait: a process that is killed and started again
waits for the same one. Once the answer is on the disk, the server's copy is deleted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from ...apis.token_usage import window_of
from ...clients.base import LLMClient
from ...clients.configured import ConfiguredClient as Client
from ...config.endpoints import Endpoint
from ...config.values import host_of
from ...core import loops, threads
from ...core.callbacks import acall_callback, call_callback
from ...core.calls import Call
from ...core.effects import Blocks, Do, Procedure, Wait
from ...core.procedure_transport import ProcedureTransport
from ...core.seams import OK, AlreadyRecorded, Background, Response
from ...errors import (
    APIError,
    CacheError,
    ConfigError,
    InvalidRequestError,
    RateLimitError,
    ServiceError,
)
from ...keys.request import Request
from ...support.display import counted
from ...support.loop_waits import in_time
from ...support.notices import logger, notice, warn_once
from .awaited import IDENTIFIER, Awaited, Journal

T = TypeVar("T")
# Seconds before the first look at a response that was just begun, and between any two looks at most.
FIRST_WAIT = 2.0
LONGEST_WAIT = 60.0
GROWTH = 1.5
UNDER_WAY = ("queued", "in_progress")
LATE = "the call's deadline passed while it waited in its window. Repeat the call: it waits for the same answer"

log = logger()


class WindowTransport(ProcedureTransport):
    """A transport that sends one chat request in the background, and waits for its answer.

    :param call: the call; its deadline bounds the wait, and its timeout each request to the server.
    :param endpoint: where its response begins, if none is awaited yet.
    """

    keeps_time = True

    def __init__(self, call: Call, endpoint: Endpoint) -> None:
        self._call = call
        self._endpoint = endpoint
        self._key = call.request.cache_key
        self._journal = call.cache.beside(Journal)

    async def response(self, request: Request, timeout: float | None) -> Response:
        """Return the answer, which the server keeps until it is released.

        :raises AlreadyRecorded: if another process recorded it meanwhile.
        :raises ConfigError: if it is awaited from an endpoint that the call does not use.
        :raises RequestTimeoutError: if the deadline passes; the response stays noted.
        """
        await _delete_leftovers(self._call)
        was_forgotten_before = False
        while True:
            copy, response = self._awaited_copy(), None
            if copy is None:
                copy, response = await self._begin(request, timeout)
            if copy is None:
                continue  # another process was faster, and noted its own response
            response = await self._wait_for(copy, response)
            if response is not None:
                break
            self._forget_unknown(copy.awaited, was_forgotten_before)
            was_forgotten_before = True
        try:
            answer = copy.server.answer_in(response)
            return Response(answer, response.request_id, copy, status_code=OK)
        except APIError:
            await copy.release(is_stored=False)
            raise

    def _awaited_copy(self) -> _Copy | None:
        """Return the response that an earlier call waited for, or ``None``."""
        awaited = self._journal.get(self._key)
        if awaited is None or awaited.id is None:
            return None
        copy = _find_copy(self._call, awaited, self._key)
        if copy is None:
            raise ConfigError(
                f"the answer to {self._call.label} is awaited from {awaited.url}, and the call goes elsewhere. Set "
                "BASE_URL to that address to wait for it, or run 'llmcall cache clear --awaited' to forget all awaited "
                "answers"
            )
        return copy

    async def _begin(
        self, request: Request, timeout: float | None
    ) -> tuple[_Copy | None, Response | None]:
        """Begin a response and note it; return its copy and the response itself, or twice ``None`` if
        another process noted one first.
        """
        journal, label = self._journal, self._call.label
        server = self._call.client.shared_transport(self._endpoint).background
        assert server is not None  # Window.check saw to it
        window = window_of(request.body) or ""
        unsent = Awaited(None, server.url, window, time.time(), self._endpoint.name)
        try:
            if journal.note(self._key, unsent).id is not None:
                return None, None
        except (OSError, CacheError) as error:
            raise CacheError(f"{label} cannot be noted, so it was not sent: {error}") from error
        # Another process may have recorded the answer, and deleted its note, since this call looked.
        if self._call.store.get(self._call.request) is not None:
            journal.remove(self._key, None)
            raise AlreadyRecorded

        async def send_and_note() -> tuple[Response, _Copy, bool]:
            """Send the request and note its response; return whether it was noted first."""
            response = await _fetch(server, request, timeout)
            identifier = response.get("id")
            if not (isinstance(identifier, str) and IDENTIFIER.fullmatch(identifier)):
                raise ServiceError(f"a response without a usable id: {response!r:.200}")
            awaited = unsent._replace(id=identifier)
            is_first = True
            try:
                is_first = journal.note(self._key, awaited) == awaited
            except (OSError, CacheError) as error:
                line = "%s cannot be noted; if this process ends, its answer is lost: %s"
                notice(line, label, error)
            return response, _Copy(self._call, self._endpoint, server, awaited, self._key), is_first

        try:
            # Shielded from cancellation and deadline: a request that was sent must be noted.
            response, copy, is_first = await _shielded(send_and_note)
        except (ConfigError, ValueError):  # what cannot be sent was not sent
            journal.remove(self._key, None)
            raise
        except APIError as error:
            journal.remove(self._key, None)
            if error.status_code is None and not error.failure.is_unreachable:
                warn_once(
                    f"{label} was sent, but {unsent.url} did not acknowledge it. You may pay twice if you send it "
                    "again, and the same holds for others that end like this",
                    about=("not acknowledged", unsent.url),
                )
            raise
        if is_first:
            return copy, response
        with suppress(APIError):
            await copy.call_server("post", "/cancel")
        await copy.delete()
        return None, None

    async def _wait_for(self, copy: _Copy, response: Response | None) -> Response | None:
        """Return a response once it is made, or ``None`` if the server no longer knows it.

        :param response: the response as it began, or ``None`` if it began earlier.
        """
        seconds = 0.0 if response is None else FIRST_WAIT
        while response is None or response.get("status") in UNDER_WAY:
            self._call.cache.disconnect()
            await Wait(None, self._call.deadline.time_for(seconds, LATE))
            seconds = min(max(FIRST_WAIT, seconds * GROWTH), LONGEST_WAIT)
            try:
                response = await copy.call_server("get")
            except InvalidRequestError as error:
                if error.status_code != 404:
                    raise
                return None
            except (RateLimitError, ServiceError) as error:
                log.debug("%s: the check for its answer failed: %s", self._call.label, error)
        return response

    def _forget_unknown(self, awaited: Awaited, was_forgotten_before: bool) -> None:
        """Forget a response that the server no longer knows, so that another one begins, once.

        :raises AlreadyRecorded: if the answer was recorded meanwhile.
        :raises InvalidRequestError: if the server forgot one before.
        """
        self._journal.remove(self._key, awaited.id)
        if self._call.store.get(self._call.request) is not None:
            raise AlreadyRecorded
        message = f"{awaited.url} no longer has the response {awaited.id}"
        if was_forgotten_before:
            raise InvalidRequestError(f"{message}, nor the one before", status_code=404)
        notice("%s: %s; it is sent again, and may be paid for twice", self._call.label, message)


class _Copy:
    """A server's copy of one response, held until it is released.

    :param call: the call that it answers, or that deletes what another call left.
    :param endpoint: the endpoint that makes it.
    :param server: the server at that endpoint.
    :param key: the key of the request that it answers.
    """

    def __init__(
        self, call: Call, endpoint: Endpoint, server: Background, awaited: Awaited, key: str
    ) -> None:
        self.awaited = awaited
        self.endpoint = endpoint
        self.server = server
        self.tier = awaited.window
        self._call = call
        self._key = key

    async def call_server(self, method: str, path: str = "") -> Response:
        """Look at it (``get``), delete it or, by the path ``/cancel``, cancel it, without another
        attempt.

        :returns: the server's response.
        """
        call = self._call
        timeout, seconds_left = call.options.timeout, call.deadline.time_left()
        if timeout and seconds_left and seconds_left > 0:
            timeout = min(timeout, seconds_left)
        return await _call_server(self.server, self.awaited, method, path, timeout, call.request)

    async def delete(self) -> bool:
        """Delete it; return whether the server no longer has it."""
        try:
            await self.call_server("delete")
        except InvalidRequestError:
            pass  # it was gone
        except APIError as error:
            log.debug("the response %s was not deleted: %s", self.awaited.id, error)
            return False
        return True

    async def release(self, *, is_stored: bool) -> None:
        """Delete it and its note. If a stored answer cannot be deleted, the first window call of
        another process does it.
        """
        cache = self._call.cache
        if is_stored and not cache.is_on_disk(self._key):
            return
        is_gone = await self.delete()
        if is_gone or not is_stored:
            cache.beside(Journal).remove(self._key, self.awaited.id)
        cache.disconnect()  # a thousand calls that wait have as many threads


async def _call_server(
    server: Background,
    awaited: Awaited,
    method: str,
    path: str,
    timeout: float | None,
    request: Request | None = None,
) -> Response:
    """Ask a server about one response.

    :param request: the one that it answers, whose headers are sent along.
    """
    headers = {} if request is None else request.headers
    about = Request("chat", "", {}, {}, headers, None, "", wire="responses")
    where = method, f"/responses/{awaited.id}{path}"
    return await _fetch(server, about, timeout, *where)


async def _fetch(
    server: Background, request: Request, timeout: float | None, *where: str
) -> Response:
    """Send one request about a response that a server keeps, and return the server's response.

    :param where: the method and the path; without them, the request begins a response.
    """
    return await Do[Response](
        lambda: call_callback(threads.run, server.fetch(request, timeout, *where)),
        lambda: in_time(
            acall_callback(lambda: loops.run(server.fetch(request, timeout, *where))),
            timeout,
            server.url,
        ),
    )


def _find_copy(call: Call, awaited: Awaited, key: str) -> _Copy | None:
    """Return the copy of a response at an endpoint of a call's model, or ``None`` if no endpoint makes it."""
    found = _endpoint_among(call.site.endpoints, call.client, awaited)
    return None if found is None else _Copy(call, *found, awaited, key)


def _endpoint_among(
    endpoints: Sequence[Endpoint], client: Client, awaited: Awaited
) -> tuple[Endpoint, Background] | None:
    """Return the endpoint that makes a response, and its server: the one with its name, else the first at
    its address.
    """
    servers = ((endpoint, client.shared_transport(endpoint).background) for endpoint in endpoints)
    found = [
        (endpoint, server)
        for endpoint, server in servers
        if server is not None and server.url == awaited.url
    ]
    named = ((endpoint, server) for endpoint, server in found if endpoint.name == awaited.endpoint)
    return next(named, found[0] if found else None)


async def _delete_leftovers(call: Call) -> None:
    """Delete the recorded responses that a killed process left at the server, and report the requests
    that it was sending.

    The first window call of a process does this.
    """
    journal = call.cache.beside(Journal)
    if journal.is_swept:
        return
    now = time.time()
    journal.is_swept = True
    unacknowledged = 0
    is_reached = True
    for key, awaited in list(journal.items()):
        if awaited.id is None and awaited.begun_at < now:
            unacknowledged += 1
            journal.remove(key, None)
        elif awaited.id is not None and is_reached and _is_recorded(call, key, awaited):
            copy = _find_copy(call, awaited, key)
            if copy is not None and (is_reached := await copy.delete()):
                journal.remove(key, awaited.id)
    if unacknowledged:
        notice(
            "%s not acknowledged by the server: an earlier run ended first, or another run is sending now. "
            "Requests that are sent again may be paid for twice",
            f"{counted(unacknowledged, 'request')} {'was' if unacknowledged == 1 else 'were'}",
        )


def _is_recorded(call: Call, key: str, awaited: Awaited) -> bool:
    """Return whether the answer of an awaited response is on the disk."""
    row = call.cache.storage.get(key)
    return row is not None and row[1] >= awaited.begun_at


def cancel_awaited(client: LLMClient, journal: Journal) -> Counter[str]:
    """Cancel and delete all awaited responses at the endpoints of a client, and forget all notes.

    :returns: how many there were at other addresses, which are compared and never contacted.
    :raises APIError: if a server fails; what it did not delete stays noted.
    """
    settings = client.resolved.settings
    listed = (model for endpoint in settings.endpoints for model in endpoint.models)
    models = dict.fromkeys((settings.model, *listed))  # in order: the first at an address counts
    endpoints = [it for model in models for it in client.endpoints(model)]
    with_windows = [endpoint for endpoint in endpoints if endpoint.api_type in (None, "openai")]
    others: Counter[str] = Counter()
    for key, awaited in list(journal.items()):
        # Only a server that is called needs its key.
        at_host = [
            endpoint for endpoint in with_windows if client.host(endpoint) == host_of(awaited.url)
        ]
        found = _endpoint_among(at_host, client, awaited)
        if awaited.id is not None and found is None:
            others[awaited.url] += 1
        elif awaited.id is not None and found is not None:
            _, server = found
            for method, path in (("post", "/cancel"), ("delete", "")):
                with suppress(InvalidRequestError):  # the server no longer has it
                    threads.run(_call_server(server, awaited, method, path, settings.timeout))
        journal.remove(key, awaited.id)
    return others


async def _shielded(step: Callable[[], Procedure[T]]) -> T:
    """Await a step that runs to its end even if the caller is cancelled, and return its result."""
    if await Blocks():
        return await step()
    import asyncio

    return await asyncio.shield(loops.run(step()))
