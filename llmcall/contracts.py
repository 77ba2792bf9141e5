"""The contracts of the seams, as tests that every implementation passes; ``llmcall.testing`` shows them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from .apis.chunks import DONE, Assembler
from .clients.base import LLMClient
from .clients.own import as_transport
from .core.kinds import KINDS
from .core.membrane import Reading, aclose, close, next_chunk, open_stream, send
from .core.seams import Response
from .core.send import release_held
from .keys.request import Request
from .stores.cache.storages import Change
from .support.blocking import run_blocking
from .support.waits import set_may_block

if TYPE_CHECKING:
    from .core.seams import Sends
    from .stores.cache.storages import Storage

T = TypeVar("T")
THREADS = 4
LONGEST = 20.0  # seconds that a gate may keep somebody waiting
QUESTION: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def holds(subject: object, is_so: bool, rule: str) -> None:
    """Check a rule of a contract.

    :raises AssertionError: with the class of what breaks it.
    """
    if not is_so:
        raise AssertionError(f"{type(subject).__name__}: {rule}")


# Transports


def check_transport(make: Callable[[], Sends], request: Request | None = None) -> None:
    """Check that what sends keeps the contract of :class:`llmcall.types.Transport`: in threads and event loops,
    whole and streamed, left half-way, at once, and after it was closed.

    :param make: returns a new one, connected to something that answers.
    :param request: what it is asked; by default a chat.
    :raises AssertionError, LLMCallError: if it breaks a rule.

    >>> llmcall.testing.check_transport(lambda: llmcall.testing.ScriptedClient(lambda messages: "Yes."))
    """
    asked = request or Request("chat", "m", QUESTION, QUESTION, {}, None, "0" * 64)
    check = _TransportCheck(make, asked)
    check.whole()
    check.streamed()
    check.left()
    if asked.kind in ("chat", "embedding"):
        check.at_once()
    check.closed()


class _TransportCheck:
    def __init__(self, make: Callable[[], Sends], request: Request) -> None:
        self._request = request
        self._own = make()
        self._transport = as_transport(self._own, LLMClient())

    def whole(self) -> None:
        """An answer is whole, in a thread and in an event loop."""
        for run in (run_blocking, in_loop):
            self._accept(run(self._send()))

    def streamed(self) -> None:
        """The chunks of a stream are a whole answer, too."""
        for run in (run_blocking, in_loop):
            if (response := run(self._read())) is not None:
                self._accept(response)

    def left(self) -> None:
        """A stream that is left half-way is closed, and the next request is answered."""
        for run in (run_blocking, in_loop):
            run(self._read(most=1))
            self._accept(run(self._send()))

    def at_once(self) -> None:
        """Several threads, and several tasks, ask it at the same time."""

        async def together() -> list[Response]:
            return await asyncio.gather(*(self._send() for _ in range(THREADS)))

        with ThreadPoolExecutor(THREADS) as executor:
            for response in executor.map(lambda _: run_blocking(self._send()), range(THREADS)):
                self._accept(response)
        for response in in_loop(together()):
            self._accept(response)

    def closed(self) -> None:
        """It is closed as often as anybody likes, and the next request opens it again."""

        async def closed_in_loop() -> None:
            await self._send()
            await aclose(self._transport)

        close(self._transport)
        self._accept(run_blocking(self._send()))
        in_loop(closed_in_loop())
        close(self._transport)
        close(self._transport)

    async def _send(self) -> Response:
        response = await send(self._transport, self._sent(), LONGEST)
        await release_held(response, is_stored=False)
        return response

    async def _read(self, most: int | None = None) -> Response | None:
        chunks = open_stream(self._transport, self._sent(), LONGEST)
        if chunks is None:
            return None
        assembler, whole, count = Assembler(), None, 0
        async with Reading(chunks):
            while (chunk := await next_chunk(chunks, LONGEST)) is not None:
                holds(
                    self._own,
                    isinstance(chunk, (Mapping, bytes)),
                    f"stream yielded {chunk!r:.60}, not a dict",
                )
                if isinstance(chunk, Response):
                    whole = chunk or whole
                elif chunk is not DONE and not isinstance(chunk, bytes):
                    assembler.add(chunk)
                count += 1
                if count == most:
                    return None
        return whole or Response(assembler.response())

    def _sent(self) -> Request:
        return self._request._replace(
            body=dict(self._request.body), headers=dict(self._request.headers)
        )

    def _accept(self, response: Response) -> None:
        """Check that the road takes an answer as a complete one."""
        KINDS[self._request.kind].check(self._request, response, must_fit_window=False)


# Storages


def check_storage(make: Callable[[], Storage]) -> None:
    """Check that a storage keeps the contract of :class:`llmcall.types.Storage`.

    :param make: returns a new object for one place, which is empty at first.
    :raises AssertionError, LLMCallError: if it breaks a rule; the message names the class.

    >>> llmcall.testing.check_storage(lambda: llmcall.ResponseCache("checked").storage)
    """
    storage = make()
    _check_empty(storage)
    _check_first_counts(storage)
    _check_order(storage)
    _check_reading_while_writing(storage)
    _check_shared(storage, make())
    _check_threads(storage)
    before = len(storage)
    holds(storage, storage.clear() == before, "clear returns how many rows there were")
    _check_empty(storage)
    storage.close()


def _check_empty(storage: Storage) -> None:
    holds(storage, len(storage) == 0, "without rows its length is 0")
    holds(storage, list(storage.rows()) == [], "without rows, rows yields none")
    holds(storage, storage.get("a") is None, "get returns None for a key that it does not have")
    holds(storage, storage.write([Change("a", None)]) == 0, "deleting no row changes none")


def _check_first_counts(storage: Storage) -> None:
    now, every_byte = time.time(), bytes(range(256))
    holds(storage, storage.write([Change("a", every_byte)]) == 1, "write returns how many changed")
    row = storage.get("a")
    holds(
        storage, row is not None and row[0] == every_byte, "get returns the bytes that were stored"
    )
    assert row is not None
    holds(storage, abs(row[1] - now) < 60, "a row has the time of its storing, in seconds")
    count = storage.write([Change("a", b"second")])
    holds(storage, count == 0, "a key that has bytes is not changed without replaces")
    holds(storage, storage.get("a") == row, "the bytes that were stored first stay")
    count = storage.write([Change("a", b"third", True, 5.0)])
    holds(storage, count == 1, "replaces changes a key that has bytes")
    holds(storage, storage.get("a") == (b"third", 5.0), "replaces stores bytes and time")


def _check_order(storage: Storage) -> None:
    storage.write([Change("c", b"", stored_at=3.0), Change("b", b"B" * 2**20, stored_at=1.0)])
    storage.write([Change("a", b"A", True, 5.0)])
    rows = [("a", b"A", 5.0), ("c", b"", 3.0), ("b", b"B" * 2**20, 1.0)]
    holds(storage, list(storage.rows()) == rows, "rows yields all in the order of storing")
    holds(storage, len(storage) == 3, "its length is the number of rows")
    count = storage.write([Change("c", None), Change("none", None), Change("d", b"D")])
    holds(storage, count == 2, "write counts what changed: what was stored, and what was deleted")
    keys = [key for key, *_ in storage.rows()]
    holds(storage, keys == ["a", "b", "d"], "a deleted key is gone")


def _check_reading_while_writing(storage: Storage) -> None:
    storage.write(
        Change(key, (row[0] or b"") + b"!", True, row[1])
        for key in ("a", "d", "none")
        if (row := storage.get(key)) is not None
    )
    values = [(storage.get(key) or (None,))[0] for key in ("a", "d")]
    holds(storage, values == [b"A!", b"D!"], "changes may read a row while they are written")


def _check_shared(storage: Storage, other: Storage) -> None:
    holds(storage, list(other.rows()) == list(storage.rows()), "another object reads the same rows")
    other.write([Change("e", b"E")])
    holds(storage, storage.get("e") is not None, "what another object stored is there at once")
    other.close()
    storage.close()
    holds(
        storage, other.get("e") is not None, "a storage that was closed is opened by its next use"
    )


def _check_threads(storage: Storage) -> None:
    barrier = threading.Barrier(THREADS, timeout=LONGEST)

    def store(number: int) -> tuple[int, bytes | None]:
        barrier.wait()
        count = storage.write([Change("raced", b"%d" % number)])
        return count, (storage.get("raced") or (None,))[0]

    with ThreadPoolExecutor(THREADS) as executor:
        counts, values = zip(*executor.map(store, range(THREADS)), strict=True)
    holds(storage, sum(counts) == 1, "of threads that store one key at the same time, one does")
    holds(storage, len(set(values)) == 1, "all threads read what was stored first")


# Running


def in_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in an event loop, for some time at most."""

    async def bounded() -> T:
        set_may_block(False)
        return await asyncio.wait_for(coroutine, LONGEST)

    return asyncio.run(bounded())
