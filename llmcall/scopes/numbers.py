"""The numbers of draws: which are taken, for each request in each scope, outside arms and in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# By scope path and request digest: the lowest number that was never taken, and the free numbers
# below it. Plain data, which is sent to other processes.
Numbers = Mapping[str, Mapping[str, tuple[int, tuple[int, ...]]]]


class ArmPath(NamedTuple):
    """Where an arm stands, and its name.

    :param path: the path of the scope that it forks.
    :param name: the arm's name.
    """

    path: str
    name: str


# What was drawn outside any arm (``None``), and in each arm.
Counts = Mapping[ArmPath | None, Numbers]


class ScopedRequest(NamedTuple):
    """A request as it is drawn in a scope.

    :param path: the scope path.
    :param digest: the whole digest of the request, without a sample.
    :param arm: the arm in which the scope stands, or ``None``.
    """

    path: str
    digest: str
    arm: ArmPath | None = None


class Number(NamedTuple):
    """A draw's number, with what is drawn."""

    request: ScopedRequest
    number: int


class TakenNumbers:
    """The numbers that are taken, by scope path and request.

    :param numbers: those that were taken before.
    """

    __slots__ = ("_free", "_next")

    def __init__(self, numbers: Numbers | None = None) -> None:
        # By path and digest: the lowest number that was never taken.
        self._next: dict[str, dict[str, int]] = {}
        # By path and digest: the numbers below it that are free.
        self._free: dict[tuple[str, str], set[int]] = {}
        for path, by_digest in (numbers or {}).items():
            self._next[path] = {digest: number for digest, (number, _) in by_digest.items()}
            for digest, (_, free) in by_digest.items():
                if free:
                    self._free[path, digest] = set(free)

    def lowest_free(self, path: str, digest: str) -> int:
        """Return the lowest free number."""
        free = self._free.get((path, digest))
        return min(free) if free else self._unused(path, digest)

    def is_free(self, path: str, digest: str, number: int) -> bool:
        """Return whether a number is free."""
        if number >= self._unused(path, digest):
            return True
        return number in self._free.get((path, digest), ())

    def take(self, path: str, digest: str, number: int) -> None:
        """Mark a number as taken; numbers below it that nobody took are free."""
        unused = self._unused(path, digest)
        if number < unused:
            free = self._free.get((path, digest), set())
            free.discard(number)
            if not free:
                self._free.pop((path, digest), None)
            return
        self._next.setdefault(path, {})[digest] = number + 1
        if number > unused:
            skipped = range(unused, number)
            self._free.setdefault((path, digest), set()).update(skipped)

    def give_back(self, path: str, digest: str, number: int) -> None:
        """Free a number."""
        self._free.setdefault((path, digest), set()).add(number)

    def numbers(self) -> Numbers:
        """Return the numbers that are taken, as plain data."""
        return {
            path: {
                digest: (number, tuple(sorted(self._free.get((path, digest), ()))))
                for digest, number in by_digest.items()
            }
            for path, by_digest in self._next.items()
        }

    def _unused(self, path: str, digest: str) -> int:
        return self._next.get(path, {}).get(digest, 0)


def counts_within(counts: Counts, path: str) -> Counts:
    """Return the counts of a scope path and of those below it."""
    return {
        arm: {
            each: by_digest
            for each, by_digest in numbers.items()
            if each == path or each.startswith(f"{path}/")
        }
        for arm, numbers in counts.items()
    }


def split_counts(counts: Counts, path: str) -> dict[str, Counts]:
    """Return the counts below a scope path by the scopes directly in it.

    :param path: the scope path; draws directly in it are left out.
    """
    split: dict[str, dict[ArmPath | None, dict[str, Mapping[str, tuple[int, tuple[int, ...]]]]]]
    split = {}
    for arm, numbers in counts.items():
        for each, by_digest in numbers.items():
            if each.startswith(f"{path}/"):
                name = each[len(path) + 1 :].partition("/")[0]
                split.setdefault(name, {}).setdefault(arm, {})[each] = by_digest
    return dict(split)
