"""The draws of one outermost scope, counted by scope path and request."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    Counts = Mapping[bytes, tuple[int, list[int]]]  # by key: the next number, and the free ones below it

__all__ = ["Draw", "Draws", "key_of", "path_of"]

DIGEST_BYTES = 8  # of a request's SHA-256; among a million requests in one scope, two share them once in 40 million

# One for all that is counted here: it is never held for long. A generator that the garbage collector closes meanwhile
# may give a draw back.
_lock = threading.RLock()


def _renew_lock() -> None:
    """Make a lock of a forked process's own: a thread that stayed behind may have held this one."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def key_of(path: str, identified: bytes) -> bytes:
    """Return what a request's draws in a scope are counted by, as small as can be: it stays as long as the scope.

    :param path: the scope's.
    :param identified: what :func:`llmcall.requests.keys.identity` returned.
    """
    from hashlib import sha256

    return path.encode("utf-8", "surrogatepass") + sha256(identified).digest()[:DIGEST_BYTES]


def path_of(key: bytes) -> str:
    """Return the scope path of a key."""
    return key[:-DIGEST_BYTES].decode("utf-8", "surrogatepass")


class Draws:
    """Count the draws of one outermost scope, by scope path and request: see :func:`key_of`."""

    __slots__ = ("_free", "_next", "_under_way")

    def __init__(self, counts: Counts | None = None) -> None:
        self._next: dict[bytes, int] = {}
        self._free: dict[bytes, list[int]] = {}
        self._under_way: dict[bytes, int] = {}  # the thread that took the last draw, until its call ends
        if counts:
            self.put(counts)

    def take(self, key: bytes) -> int:
        """Return the lowest number not taken yet; warn where another thread's call for the same is under way."""
        thread = threading.get_ident()
        with _lock:
            other = self._under_way.get(key, thread)
            self._under_way[key] = thread
            number = self._take(key)
        if other != thread:
            from ..notices import warn_once

            warn_once(
                f"the same request is under way from two threads in the scope {path_of(key)!r}: "
                "which of them gets which draw is left to chance, and a replay may exchange their answers. "
                "Give each thread a scope of its own"
            )
        return number

    def _take(self, key: bytes) -> int:
        free = self._free.get(key)
        if free:
            from heapq import heappop

            return heappop(free)
        number = self._next.get(key, 0)
        self._next[key] = number + 1
        return number

    def end(self, key: bytes) -> None:
        """Note that the call of the last draw has ended."""
        with _lock:
            self._under_way.pop(key, None)

    def give_back(self, key: bytes, number: int) -> None:
        """Make a number free again: its call failed."""
        from heapq import heappush

        with _lock:
            self._under_way.pop(key, None)
            heappush(self._free.setdefault(key, []), number)

    def counts(self) -> dict[bytes, tuple[int, list[int]]]:
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


class Draw(NamedTuple):
    """Be one draw: its sample, and the way to give its number back."""

    sample: str
    draws: Draws
    key: bytes
    number: int

    def give_back(self) -> None:
        """Make the draw's number free again."""
        self.draws.give_back(self.key, self.number)

    def end(self) -> None:
        """Note that its call has ended."""
        self.draws.end(self.key)
