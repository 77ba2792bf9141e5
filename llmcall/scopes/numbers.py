"""The numbers of draws: which are taken, for each request in each scope, outside arms and in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# By scope path and request key: the lowest number that was never taken, and the free numbers
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
    :param key: the key of the request outside any scope.
    :param arm: the arm in which the scope stands, or ``None``.
    """

    path: str
    key: str
    arm: ArmPath | None = None


class DrawNumber(NamedTuple):
    """A number that a draw took.

    :param request: what is drawn.
    :param number: counts the request's draws in its scope, from 0.
    """

    request: ScopedRequest
    number: int


class TakenNumbers:
    """The numbers that are taken, by scope path and request.

    :param numbers: those that were taken before.
    """

    __slots__ = ("_free", "_next")

    def __init__(self, numbers: Numbers | None = None) -> None:
        # By path and key: the lowest number that was never taken.
        self._next: dict[str, dict[str, int]] = {}
        # By path and key: the numbers below it that are free.
        self._free: dict[tuple[str, str], set[int]] = {}
        for path, by_key in (numbers or {}).items():
            self._next[path] = {key: number for key, (number, _) in by_key.items()}
            for key, (_, free) in by_key.items():
                if free:
                    self._free[path, key] = set(free)

    def lowest_free(self, path: str, key: str) -> int:
        """Return the lowest free number."""
        free = self._free.get((path, key))
        return min(free) if free else self._unused(path, key)

    def is_free(self, path: str, key: str, number: int) -> bool:
        """Return whether a number is free."""
        if number >= self._unused(path, key):
            return True
        return number in self._free.get((path, key), ())

    def take(self, path: str, key: str, number: int) -> None:
        """Mark a number as taken; numbers below it that nobody took are free."""
        unused = self._unused(path, key)
        if number < unused:
            free = self._free.get((path, key), set())
            free.discard(number)
            if not free:
                self._free.pop((path, key), None)
            return
        self._next.setdefault(path, {})[key] = number + 1
        if number > unused:
            skipped = range(unused, number)
            self._free.setdefault((path, key), set()).update(skipped)

    def give_back(self, path: str, key: str, number: int) -> None:
        """Free a number."""
        self._free.setdefault((path, key), set()).add(number)

    def numbers(self) -> Numbers:
        """Return the numbers that are taken, as plain data."""
        return {
            path: {
                key: (number, tuple(sorted(self._free.get((path, key), ()))))
                for key, number in by_key.items()
            }
            for path, by_key in self._next.items()
        }

    def _unused(self, path: str, key: str) -> int:
        return self._next.get(path, {}).get(key, 0)


def split_counts(counts: Counts, path: str) -> dict[str, Counts]:
    """Return the counts below a scope path by the scopes directly in it.

    :param path: the scope path; draws directly in it are left out.
    """
    split: dict[str, dict[ArmPath | None, dict[str, Mapping[str, tuple[int, tuple[int, ...]]]]]]
    split = {}
    for arm, numbers in counts.items():
        for each, by_key in numbers.items():
            if each.startswith(f"{path}/"):
                name = each[len(path) + 1 :].partition("/")[0]
                split.setdefault(name, {}).setdefault(arm, {})[each] = by_key
    return dict(split)
