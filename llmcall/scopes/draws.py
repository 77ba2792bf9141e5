"""Draws: which numbers are taken for each request in each scope.

One object counts the draws of an outermost scope, by scope path and request, so that a changed or
added call changes no other draw. Paths and digests are kept whole: draws of different requests or
scopes never share a count.

The garbage collector may end a stream, and so give back its number, at any moment and in any thread.
That takes no lock: it puts the number into a queue, which the next draw empties.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..askers import current as current_asker
from ..notices import warn_once
from ..system import current_task, process_lock, this_process
from ..types import Record
from .equal_requests import EqualRequests, Recorded, from_lowest

# By scope path and request digest: the lowest number that was never taken, and the free numbers
# below it. Plain data, which is sent to other processes.
Counts = Mapping[str, Mapping[str, tuple[int, tuple[int, ...]]]]

# Held for microseconds only, and never while a caller's code runs.
_lock = process_lock(__name__)


class Number(NamedTuple):
    """A draw's number, with its scope and request."""

    path: str
    digest: str
    number: int


class Draws:
    """Count the draws of one outermost scope.

    :param counts: earlier draws.
    :param since: when another process opened the scope, in seconds since the epoch: its draws are
        counted from 0 again here. ``None`` if this process opens it now.
    """

    __slots__ = ("_equal", "_free", "_next", "_process", "_returned", "_under_way", "since")

    def __init__(self, counts: Counts | None = None, since: float | None = None) -> None:
        self._process = this_process() if since is None else None
        self.since = time.time() if since is None else since
        # By path and digest: the lowest number that was never taken.
        self._next: dict[str, dict[str, int]] = {}
        # By path and digest: the numbers below it that are free.
        self._free: dict[tuple[str, str], set[int]] = {}
        # Numbers that were given back and are not among the free ones yet.
        self._returned: deque[Number] = deque()
        # By path and digest: thread, task and asker of the last draw, until its call ends.
        self._under_way: dict[tuple[str, str], tuple[int, int, str | None]] = {}
        # By path and digest, if askers have names.
        self._equal: dict[tuple[str, str], EqualRequests] = {}
        for path, by_digest in (counts or {}).items():
            self._next[path] = {digest: number for digest, (number, _) in by_digest.items()}
            for digest, (_, free) in by_digest.items():
                if free:
                    self._free[path, digest] = set(free)

    def equal(
        self, path: str, digest: str, source: object, recorded: Callable[[], Recorded]
    ) -> EqualRequests:
        """Return the equal requests of a scope.

        :param path: the scope path.
        :param digest: the whole digest of the request.
        :param source: the cassette or cache that holds their records.
        :param recorded: reads what it says about them.
        """
        known = self._equal.get((path, digest))
        if known is None or known.source is not source:
            # Reads records, so the lock is not held here.
            made = EqualRequests(source, recorded())
            with _lock:
                known = self._equal.get((path, digest))
                if known is None or known.source is not source:
                    self._equal[path, digest] = known = made
        return known

    def take(
        self,
        path: str,
        digest: str,
        asker: str | None = None,
        equal: EqualRequests | None = None,
    ) -> int:
        """Take a number for a draw and return it.

        It is the lowest free number that was recorded for the asker, or else the lowest free number.
        Warns if another thread or task makes the same request at the same time, unless their askers
        differ.

        :param path: the scope path.
        :param digest: the whole digest of the request.
        :param asker: who asks, if askers have names.
        :param equal: the equal requests of the scope, if askers have names.
        """
        caller = threading.get_ident(), id(current_task()), asker
        with _lock:
            self._accept_returned()
            number = self._free_number(path, digest, asker, equal)
            self._mark(path, digest, number)
            other = self._under_way.get((path, digest), caller)
            self._under_way[path, digest] = caller
        if equal is not None and other[2] != asker:
            equal.were_at_once = True
        if other != caller and other[2] == asker:
            who = "threads" if other[0] != caller[0] else "tasks"
            warn_once(
                f"two {who} in the scope {path!r} make the same request at the same time: timing decides which of "
                f"them gets which draw, and a replay may swap their answers. Give each {who[:-1]} its own scope"
            )
        return number

    def claim(self, path: str, digest: str, number: int) -> None:
        """Take a certain number, which was taken elsewhere, such as in a worker process."""
        with _lock:
            self._accept_returned()
            self._mark(path, digest, number)

    def give_back(self, path: str, digest: str, number: int) -> None:
        """Free a number. Call this once for each time that the number was taken."""
        self._under_way.pop((path, digest), None)
        self._returned.append(Number(path, digest, number))

    def end(self, path: str, digest: str, stored_at: float | None) -> None:
        """Note that a call has its answer.

        Warns if two processes that count the scope's draws separately made the same draw.

        :param stored_at: when the answer was recorded, or ``None`` if this call recorded it.
        """
        self._under_way.pop((path, digest), None)
        is_own = self._process is this_process()
        if is_own or stored_at is None or stored_at < self.since:
            return
        warn_once(
            f"two processes made the same draw in the scope {path!r} and share its answer, because each counts "
            "draws separately, from 0 or from the fork on. Run the function with llmcall.map(…, executor=…), which "
            "counts them together, or give each task its own scope"
        )

    def counts(self) -> Counts:
        """Return the counts, for another process to continue."""
        with _lock:
            self._accept_returned()
            return {
                path: {
                    digest: (number, tuple(sorted(self._free.get((path, digest), ()))))
                    for digest, number in by_digest.items()
                }
                for path, by_digest in self._next.items()
            }

    def _free_number(
        self, path: str, digest: str, asker: str | None, equal: EqualRequests | None
    ) -> int:
        free = self._free.get((path, digest), set())
        unused = self._next_of(path, digest)
        if equal is None or asker is None:
            return min(free) if free else unused
        equal.askers.add(asker)
        own = equal.own_number(asker, lambda number: number in free or number >= unused)
        if own is not None:
            return own
        return next(each for each in from_lowest(free, unused) if not equal.is_kept(each))

    def _next_of(self, path: str, digest: str) -> int:
        return self._next.get(path, {}).get(digest, 0)

    def _mark(self, path: str, digest: str, number: int) -> None:
        """Mark a number as taken; numbers below it that nobody took are free."""
        first_unused = self._next_of(path, digest)
        if number < first_unused:
            free = self._free.get((path, digest), set())
            free.discard(number)
            if not free:
                self._free.pop((path, digest), None)
            return
        self._next.setdefault(path, {})[digest] = number + 1
        if number > first_unused:
            skipped = range(first_unused, number)
            self._free.setdefault((path, digest), set()).update(skipped)

    def _accept_returned(self) -> None:
        while self._returned:
            path, digest, number = self._returned.popleft()
            self._free.setdefault((path, digest), set()).add(number)
            if equal := self._equal.get((path, digest)):
                equal.give_back(number)


def split_counts(counts: Counts, path: str) -> dict[str, Counts]:
    """Return the counts below a scope path by the scopes directly in it.

    :param path: the scope path; draws directly in it are left out.
    """
    split: dict[str, dict[str, Mapping[str, tuple[int, tuple[int, ...]]]]] = {}
    for each, by_digest in counts.items():
        if each.startswith(f"{path}/"):
            name = each[len(path) + 1 :].partition("/")[0]
            split.setdefault(name, {})[each] = by_digest
    return dict(split)


class Draw:
    """One draw: its sample, which stays taken or is given back.

    Any thread may call its methods, and more than once: only the first call counts.

    :param draws: counts it.
    :param path: the scope path.
    :param digest: the whole digest of the request.
    :param source: the cassette or cache that holds records.
    :param recorded: reads what it says about equal requests of the scope.
    :ivar sample: scope path and number, ``"trial/lisa#0"``.
    :ivar asker: the asker's name, or ``None`` if askers have no names.
    :ivar equal: the equal requests of the scope, or ``None`` if askers have no names.
    """

    __slots__ = ("_draws", "_number", "_pending", "asker", "equal", "sample")

    def __init__(
        self,
        draws: Draws,
        path: str,
        digest: str,
        source: object = None,
        recorded: Callable[[], Recorded] = Recorded,
    ) -> None:
        asker = current_asker()
        self.asker = None if asker is None else asker.name
        self.equal = None if asker is None else draws.equal(path, digest, source, recorded)
        self._draws = draws
        self._number = Number(path, digest, draws.take(path, digest, self.asker, self.equal))
        self.sample = f"{path}#{self._number.number}"
        # The first call that settles the draw pops it, which is atomic.
        self._pending = [True]

    @property
    def path(self) -> str:
        """Return the scope path."""
        return self._number.path

    @property
    def digest(self) -> str:
        """Return the digest of the request."""
        return self._number.digest

    def end(self, answer: Record | None = None) -> None:
        """Note that its call has an answer; the number stays taken.

        :param answer: the record, or ``None`` if this call recorded it.
        """
        if self._settle():
            stored_at = None if answer is None else answer.stored_at
            self._draws.end(self._number.path, self._number.digest, stored_at)

    def note_found(self, recorded: str | None) -> None:
        """Note that a record answers it.

        :param recorded: the asker in the record, or ``None`` if that is unknown.
        """
        if self.asker is not None and self.equal is not None:
            self.equal.note_found(self._number.number, self.asker, recorded)

    def give_back(self) -> None:
        """Free its number, unless its call has an answer."""
        if self._settle():
            self._draws.give_back(*self._number)

    def _settle(self) -> bool:
        """Settle the draw; return whether this is the first call to do so."""
        try:
            return self._pending.pop()
        except IndexError:
            return False
