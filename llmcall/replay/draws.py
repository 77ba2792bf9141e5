"""The draws of one outermost scope, counted by scope path and request."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    Key = tuple[str, bytes]  # a scope path, and the digest of a request
    Counts = Mapping[Key, tuple[int, list[int]]]  # the next number, and the free ones below it

__all__ = ["Draws"]

# One for all that is counted here: it is never held for long. A generator that the garbage collector closes meanwhile
# may give a draw back.
_lock = threading.RLock()


def _renew_lock() -> None:
    """Make a lock of a forked process's own: a thread that stayed behind may have held this one."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class Draws:
    """Count the draws of one outermost scope, by scope path and request."""

    __slots__ = ("_free", "_next", "_under_way")

    def __init__(self, counts: Counts | None = None) -> None:
        self._next: dict[Key, int] = {}
        self._free: dict[Key, list[int]] = {}
        self._under_way: dict[Key, int] = {}  # the thread that took the last draw, until its call ends
        self.put(counts or {})

    def take(self, key: Key) -> int:
        """Return the lowest number not taken yet; warn where another thread's call for the same is under way."""
        thread = threading.get_ident()
        with _lock:
            other = self._under_way.get(key, thread)
            self._under_way[key] = thread
            number = self._take(key)
        if other != thread:
            from ..notices import warn_once

            warn_once(
                f"the same request is under way from two threads in the scope {key[0]!r}: which of them gets which "
                "draw is left to chance, and a replay may exchange their answers. Give each thread a scope of its own"
            )
        return number

    def _take(self, key: Key) -> int:
        free = self._free.get(key)
        if free:
            from heapq import heappop

            return heappop(free)
        number = self._next.get(key, 0)
        self._next[key] = number + 1
        return number

    def end(self, key: Key) -> None:
        """Note that the call of the last draw has ended."""
        with _lock:
            self._under_way.pop(key, None)

    def give_back(self, key: Key, number: int) -> None:
        """Make a number free again: its call failed."""
        from heapq import heappush

        with _lock:
            self._under_way.pop(key, None)
            heappush(self._free.setdefault(key, []), number)

    def counts(self) -> dict[Key, tuple[int, list[int]]]:
        """Return what is counted, for another process to go on from."""
        with _lock:
            return {key: (number, list(self._free.get(key, ()))) for key, number in self._next.items()}

    def put(self, counts: Counts) -> None:
        """Let counts stand in place of those of the same paths and requests."""
        with _lock:
            for key, (number, free) in counts.items():
                self._next[key] = number
                self._free.pop(key, None)
                if free:
                    self._free[key] = list(free)
