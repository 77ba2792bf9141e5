"""The contract of storages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ..stores.cache.storages import Change, Storage
from .rule_checks import LONGEST, THREADS, Watch, holds, in_thread, keeping, made

ROWS = 10  # that each thread writes


def check_storage(make: Callable[[], Storage]) -> None:
    """Check that a storage keeps the contract of :class:`llmcall.types.Storage`.

    :param make: returns a new object for one place, which is empty at first.
    :raises AssertionError, LLMCallError: if it breaks a rule, or a method takes longer than 20 s; the message names
        the class.

    >>> llmcall.testing.check_storage(lambda: llmcall.ResponseCache("checked").storage)
    """
    watch = Watch()
    storage = _Watched(made(make), watch)
    watch.run(lambda: _check_all(storage, lambda: _Watched(make(), watch)))


class _Watched:
    """A storage each of whose methods is watched."""

    def __init__(self, own: Storage, watch: Watch) -> None:
        self._own = own
        self.name = type(own).__name__
        self._watch = watch

    def holds(self, is_so: bool, rule: str) -> None:
        """Check a rule of the contract."""
        holds(self._own, is_so, rule)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def watched(*args: object) -> Any:
            with self._watch.over(f"{self.name}.{method}"):
                returned = getattr(self._own, method)(*args)
                return list(returned) if method == "rows" else returned

        return watched

    def __len__(self) -> int:
        with self._watch.over(f"{self.name}.__len__"):
            return len(self._own)


def _check_all(storage: _Watched, another: Callable[[], _Watched]) -> None:
    _check_empty(storage)
    _check_first_counts(storage)
    _check_order(storage)
    _check_reading_while_writing(storage)
    _check_shared(storage, another())
    _check_threads(storage, another())
    before = len(storage)
    storage.holds(storage.clear() == before, "clear returns how many rows there were")
    _check_empty(storage)
    storage.close()


def _check_empty(storage: _Watched) -> None:
    storage.holds(storage.rows() == [], "without rows, rows yields none")
    storage.holds(len(storage) == 0, "without rows its length is 0")
    storage.holds(storage.get("a") is None, "get returns None for a key that it does not have")
    storage.holds(storage.write([Change("a", None)]) == 0, "deleting no row changes none")


def _check_first_counts(storage: _Watched) -> None:
    now, every_byte = time.time(), bytes(range(256))
    storage.holds(storage.write([Change("a", every_byte)]) == 1, "write returns how many changed")
    row = storage.get("a")
    storage.holds(
        row is not None and row[0] == every_byte, "get returns the bytes that were stored"
    )
    assert row is not None
    storage.holds(abs(row[1] - now) < 60, "a row has the time at which it was stored, in seconds")
    count = storage.write([Change("a", b"second")])
    storage.holds(count == 0, "a key that has bytes is not changed without replaces")
    storage.holds(storage.get("a") == row, "the bytes that were stored first stay")
    count = storage.write([Change("a", b"third", True, 5.0)])
    storage.holds(count == 1, "replaces changes a key that has bytes")
    storage.holds(storage.get("a") == (b"third", 5.0), "replaces stores bytes and time")


def _check_order(storage: _Watched) -> None:
    storage.write([Change("c", b"", stored_at=3.0), Change("b", b"B" * 2**20, stored_at=1.0)])
    storage.write([Change("a", b"A", True, 5.0)])
    rows = [("a", b"A", 5.0), ("c", b"", 3.0), ("b", b"B" * 2**20, 1.0)]
    storage.holds(storage.rows() == rows, "rows yields every row in the order of storing")
    storage.holds(len(storage) == 3, "its length is the number of rows")
    count = storage.write([Change("c", None), Change("none", None), Change("d", b"D")])
    storage.holds(count == 2, "write counts what changed: what was stored, and what was deleted")
    keys = [key for key, *_ in storage.rows()]
    storage.holds(keys == ["a", "b", "d"], "a deleted key is gone")


def _check_reading_while_writing(storage: _Watched) -> None:
    storage.write(
        Change(key, (row[0] or b"") + b"!", True, row[1])
        for key in ("a", "d", "none")
        if (row := storage.get(key)) is not None
    )
    values = [(storage.get(key) or (None,))[0] for key in ("a", "d")]
    storage.holds(values == [b"A!", b"D!"], "changes may read a row while they are written")


def _check_shared(storage: _Watched, other: _Watched) -> None:
    storage.holds(other.rows() == storage.rows(), "another object reads the same rows")
    other.write([Change("e", b"E")])
    storage.holds(storage.get("e") is not None, "what another object stored is there at once")
    other.close()
    storage.close()
    rule = "the next use of a closed storage opens it"
    with keeping(f"{other.name}: {rule}"):
        row = other.get("e")
    storage.holds(row is not None, rule)


def _check_threads(storage: _Watched, other: _Watched) -> None:
    barrier = threading.Barrier(THREADS, timeout=LONGEST)

    def store(number: int) -> tuple[int, bytes | None]:
        own = (storage, other)[number % 2]
        barrier.wait()
        count = own.write([Change("raced", b"%d" % number)])
        for place in range(ROWS):
            own.write([Change(f"{number}-{place}", b"")])
        return count, (own.get("raced") or (None,))[0]

    stored = [in_thread(partial(store, number)) for number in range(THREADS)]
    counts, values = zip(*(outcome.result() for outcome in stored), strict=True)
    storage.holds(
        sum(counts) == 1, "of threads that store one key at the same time, only one succeeds"
    )
    storage.holds(len(set(values)) == 1, "all threads read what was stored first")
    kept = sum(key.partition("-")[1] == "-" for key, *_ in storage.rows())
    rule = "everything that threads and objects write at the same time is kept"
    storage.holds(kept == THREADS * ROWS, rule)
    other.close()
