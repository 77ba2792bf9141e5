"""The contract of storages."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..stores.cache.storages import Change
from .rules import LONGEST, THREADS, holds, made

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..stores.cache.storages import Storage


ROWS = 10  # that each thread writes


def check_storage(make: Callable[[], Storage]) -> None:
    """Check that a storage keeps the contract of :class:`llmcall.types.Storage`.

    :param make: returns a new object for one place, which is empty at first.
    :raises AssertionError, LLMCallError: if it breaks a rule; the message names the class.

    >>> llmcall.testing.check_storage(lambda: llmcall.ResponseCache("checked").storage)
    """
    storage = made(make)
    _check_empty(storage)
    _check_first_counts(storage)
    _check_order(storage)
    _check_reading_while_writing(storage)
    _check_shared(storage, make())
    _check_threads(storage, make())
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


def _check_threads(storage: Storage, other: Storage) -> None:
    barrier = threading.Barrier(THREADS, timeout=LONGEST)

    def store(number: int) -> tuple[int, bytes | None]:
        own = (storage, other)[number % 2]
        barrier.wait()
        count = own.write([Change("raced", b"%d" % number)])
        for place in range(ROWS):
            own.write([Change(f"{number}-{place}", b"")])
        return count, (own.get("raced") or (None,))[0]

    with ThreadPoolExecutor(THREADS) as executor:
        counts, values = zip(*executor.map(store, range(THREADS)), strict=True)
    holds(storage, sum(counts) == 1, "of threads that store one key at the same time, one does")
    holds(storage, len(set(values)) == 1, "all threads read what was stored first")
    kept = sum(key.partition("-")[1] == "-" for key, *_ in storage.rows())
    rule = "what threads and objects write at the same time is all kept"
    holds(storage, kept == THREADS * ROWS, rule)
    other.close()
