"""Windows: a request whose answer is made in the background, within hours and for less.

Its response is noted in the cache's journal before the wait: a process that is killed and started
again waits for the same one. Once the answer is on the disk, the server's copy is deleted.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..cache.awaited import IDENTIFIER, Awaited
from ..display.formatting import counted
from ..errors import (
    APIError,
    CacheError,
    ConfigError,
    InvalidRequestError,
    RateLimitError,
    ServiceError,
)
from ..interrupts import waiting_in_window
from ..models.prices import window_of
from ..notices import logger, notice, warn_once
from ..values import Request
from .drivers import drive
from .effects import send, to_the_end, wait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..cache.awaited import Journal
    from ..config.endpoints import Endpoint
    from ..values import Record
    from .calls import Call
    from .client import Client
    from .permit import Permit

HOURS = {"2h": 2.0, "8h": 8.0}
PATIENCE = 1.25  # windows that a call without a deadline waits
# Seconds before the first look at a response that was just begun, and between any two looks at most.
FIRST_WAIT = 2.0
LONGEST_WAIT = 60.0
GROWTH = 1.5
UNDER_WAY = ("queued", "in_progress")
LATE = "the call's deadline passed while it waited in its window; made again, it waits for the same answer"

log = logger()


class Background:
    """The response to one request in a window: begun or found in the journal, awaited, and deleted.

    :param call: the call that it answers.
    :ivar window: in which it is made.
    :ivar record: the answer, if another process has recorded it.
    """

    def __init__(self, call: Call) -> None:
        self.window = window_of(call.request.body) or ""
        self.record: Record | None = None
        self._call = call
        self._key = call.request.cache_key
        # A call that is recorded nowhere would not find its note again.
        self._journal = None if call.shared_store is None else call.cache.awaited
        self._copy: _Copy | None = None
        self._was_unknown = False

    async def begin(self) -> Endpoint | None:
        """Return the endpoint at which this request's response is awaited, or ``None`` if it has to be
        begun.

        :raises ConfigError: if it is none of the call's.
        """
        self._copy = None
        await sweep(self._call)
        if self._journal is None:
            return None
        awaited = self._journal.get(self._key)
        if awaited is None or awaited.id is None:
            return None
        self._copy = _copy_of(self._call, awaited)
        if self._copy is None:
            raise ConfigError(
                f"the answer to {self._call.label} is awaited from {awaited.url}, and the call goes elsewhere. Set "
                "BASE_URL to that address to wait for it, or run 'llmcall cache clear --awaited' to forget all awaited "
                "answers"
            )
        self.window = awaited.window
        return self._copy.endpoint

    async def response(self, endpoint: Endpoint, request: Request, permit: Permit) -> Any:
        """Return the response once it is made; ``None`` if the server does not know it any more, or
        another process began one before: then begin anew, unless there is a ``record``.

        :param endpoint: the one that makes it.
        :param request: what is sent, if it has to be begun.
        :raises RequestTimeoutError: if the deadline passes; the response is awaited further on.
        """
        response: Any = None
        seconds = 0.0
        if self._copy is None:
            response = await self._create(endpoint, request)
            if response is None or response.get("status") not in UNDER_WAY:
                return response
            seconds = FIRST_WAIT
        copy = self._copy
        assert copy is not None
        permit.give_place_back()
        with waiting_in_window():
            while response is None or response.get("status") in UNDER_WAY:
                self._call.cache.rest()
                await wait(Future(), self._call.time_for(seconds, LATE))
                seconds = min(max(FIRST_WAIT, seconds * GROWTH), LONGEST_WAIT)
                try:
                    response = await copy.tell("look")
                except InvalidRequestError as error:
                    if error.status_code != 404:
                        raise
                    return self._unknown(copy.awaited)
                except (RateLimitError, ServiceError) as error:
                    log.debug("%s: a look for its answer failed: %s", self._call.label, error)
        return response

    async def _create(self, endpoint: Endpoint, request: Request) -> Any:
        """Begin a response and note it; return it, or ``None`` if another process was faster: it began
        one, or there is a ``record``.
        """
        journal, label = self._journal, self._call.label
        transport = self._call.client.transport_of(endpoint)
        unsent = Awaited(None, transport.url, self.window, time.time(), endpoint.name)
        if journal is not None:
            try:
                if journal.note(self._key, unsent).id is not None:
                    return None
            except (OSError, CacheError) as error:
                raise CacheError(f"{label} cannot be noted, so it was not sent: {error}") from error
            # Another process may have recorded the answer, and deleted its note, since this call looked.
            self.record = self._call.store.get(self._call.request)
            if self.record is not None:
                journal.remove(self._key, None)
                return None

        async def sent_and_noted() -> tuple[Any, _Copy, bool]:
            """Send the request and note its response; return it, and whether it was noted first."""
            response = await send(transport, request, self._call.options.timeout)
            identifier = response.get("id")
            if not (isinstance(identifier, str) and IDENTIFIER.fullmatch(identifier)):
                raise ServiceError(f"a response without a usable id: {response!r:.200}")
            copy = _Copy(self._call, endpoint, unsent._replace(id=identifier))
            is_first = True
            if journal is not None:
                try:
                    is_first = journal.note(self._key, copy.awaited) == copy.awaited
                except (OSError, CacheError) as error:
                    line = "%s cannot be noted; if this process ends, its answer is lost: %s"
                    notice(line, label, error)
            return response, copy, is_first

        try:
            # Neither a cancellation nor the deadline parts them: what is sent is noted.
            response, copy, is_first = await to_the_end(sent_and_noted())
        except APIError as error:
            if journal is not None:
                journal.remove(self._key, None)
            if error.status_code is None and not error.is_loopback_unreachable:
                warn_once(
                    f"{label} was sent, and {unsent.url} did not acknowledge it; sent again, it may be paid for twice, "
                    "as may every other request that ends so",
                    about=("not acknowledged", unsent.url),
                )
            raise
        if is_first:
            self._copy = copy
            return response
        with suppress(APIError):
            await copy.tell("cancel")
        await copy.delete()
        return None

    def _unknown(self, awaited: Awaited) -> None:
        """Look for the answer in the cache, since the server knows the response no more.

        :raises InvalidRequestError: if that is so for the second time.
        """
        if self._journal is not None:
            self._journal.remove(self._key, awaited.id)
        self.record = self._call.store.get(self._call.request)
        if self.record is not None:
            return
        words = f"{awaited.url} knows the response {awaited.id} no more"
        if self._was_unknown:
            raise InvalidRequestError(f"{words}, as it did the one before", status_code=404)
        self._was_unknown = True
        notice("%s: %s; it is sent again, and may be paid for twice", self._call.label, words)

    async def delete(self, *, is_recorded: bool = False) -> None:
        """Delete the server's copy and the note.

        :param is_recorded: whether the note may stay if the server cannot be reached: the first call
            of another process deletes both.
        """
        assert self._copy is not None
        is_gone = await self._copy.delete()
        if self._journal is not None and (is_gone or not is_recorded):
            self._journal.remove(self._key, self._copy.awaited.id)

    async def finish(self) -> None:
        """Delete the server's copy and the note as soon as the answer is on the disk."""
        cassette, journal, copy = self._call.cassette, self._journal, self._copy
        if journal is None:
            await self.delete()
        elif self._call.settings.cache_mode == "off":
            assert cassette is not None
            assert copy is not None
            # All are marked before the first is deleted: whatever ends the process, the next one
            # deletes the others.
            identifier = copy.awaited.id
            cassette.after_write.insert(0, lambda: journal.mark_recorded(self._key, identifier))
            cassette.after_write.append(lambda: drive(self.delete(is_recorded=True)))
        elif self._call.cache.is_on_disk(self._key):
            await self.delete(is_recorded=True)
        self._call.cache.rest()  # a map that had a thousand calls wait has as many threads


async def sweep(call: Call) -> None:
    """Delete what a kill left at the server: the responses whose answers are recorded. Count the
    requests that were being sent. The first call in a window does this, once a process.
    """
    journal = call.cache.awaited
    if journal.is_swept or call.shared_store is None or not call.may_ask:
        return
    now = time.time()
    journal.is_swept = True
    unacknowledged = 0
    is_reached = True
    notes: list[tuple[str, Awaited]] = []
    with suppress(CacheError):  # a damaged journal keeps no recorded answer back
        notes = list(journal.items())
    for key, awaited in notes:
        if awaited.id is None and awaited.begun_at < now:
            unacknowledged += 1
            journal.remove(key, None)
        elif awaited.id is not None and is_reached and _is_recorded(call, key, awaited):
            with suppress(ConfigError):  # a recorded answer needs no key
                copy = _copy_of(call, awaited)
                if copy is None:
                    continue
                is_reached = await copy.delete()
                if is_reached:
                    journal.remove(key, awaited.id)
    if unacknowledged:
        notice(
            "%s not acknowledged by the server when an earlier run ended, or is being sent by another one; what is "
            "sent again may be paid for twice",
            f"{counted(unacknowledged, 'request')} {'was' if unacknowledged == 1 else 'were'}",
        )


def _is_recorded(call: Call, key: str, awaited: Awaited) -> bool:
    """Return whether the answer of an awaited response is on the disk."""
    cassette = call.cassette
    if awaited.is_recorded:
        return True
    if cassette is not None and cassette.stored.get(key):
        return True
    row = call.cache.storage.get(key)
    return row is not None and row[1] >= awaited.begun_at


class _Copy:
    """What a server keeps of one response.

    :param call: the one that is answered, or that deletes what another one left.
    :param endpoint: the one that makes it.
    """

    def __init__(self, call: Call, endpoint: Endpoint, awaited: Awaited) -> None:
        self.endpoint = endpoint
        self.awaited = awaited
        self._call = call
        self._transport = call.client.transport_of(endpoint)

    async def tell(self, operation: str) -> Any:
        """Look at the response, cancel or delete it; return what the server says.

        :param operation: a ``wire``.
        """
        call = self._call
        request = _request(operation, self.awaited)._replace(headers=call.request.headers)
        timeout, seconds_left = call.options.timeout, call.time_left()
        if timeout and seconds_left and seconds_left > 0:
            timeout = min(timeout, seconds_left)
        return await send(self._transport, request, timeout)

    async def delete(self) -> bool:
        """Delete it; return whether the server has it no more."""
        try:
            await self.tell("delete")
        except InvalidRequestError:
            pass  # it had it no more
        except APIError as error:
            log.debug("the response %s was not deleted: %s", self.awaited.id, error)
            return False
        return True


def _copy_of(call: Call, awaited: Awaited) -> _Copy | None:
    """Return the copy of a response at an endpoint of a call's model, or ``None`` if none makes it."""
    endpoints = call.client.pool(call.request.model).endpoints
    endpoint = _endpoint_among(endpoints, call.client, awaited)
    return None if endpoint is None else _Copy(call, endpoint, awaited)


def _endpoint_among(
    endpoints: Sequence[Endpoint], client: Client, awaited: Awaited
) -> Endpoint | None:
    """Return the endpoint that makes a response: the one of its name, else the first at its address."""
    found = [each for each in endpoints if client.transport_of(each).url == awaited.url]
    named = (each for each in found if each.name == awaited.endpoint)
    return next(named, found[0] if found else None)


def _request(operation: str, awaited: Awaited) -> Request:
    """Return the request to look at a response, to cancel or to delete it."""
    return Request("chat", "", {}, {"id": awaited.id}, {}, None, "", wire=operation)


def cancel_all(client: Client, journal: Journal) -> Counter[str]:
    """Cancel and delete all awaited responses at the endpoints of a client, and forget all notes.

    :returns: how many there were at other addresses, which are compared and never contacted.
    :raises APIError: if a server fails; what it was not told is noted further on.
    """
    settings = client.resolved.settings
    endpoints = [*client.endpoints(settings.model), *settings.endpoints]
    with_windows = [each for each in endpoints if each.api_type in (None, "openai")]
    others: Counter[str] = Counter()
    for key, awaited in list(journal.items()):
        endpoint = _endpoint_among(with_windows, client, awaited)
        if awaited.id is not None and endpoint is None:
            others[awaited.url] += 1
        elif awaited.id is not None and endpoint is not None:
            transport = client.transport_of(endpoint)
            for operation in ("cancel", "delete"):
                with suppress(InvalidRequestError):  # the server has it no more
                    transport.send(_request(operation, awaited), settings.timeout)
        journal.remove(key, awaited.id)
    return others
