"""Rounds that are a level of the scope: the calls of ``rep/round/agent`` belong to ``rep/agent``.

A level is known by its number in the path, or by the word that its names have in common, such as
``round`` in ``round-1`` and ``round-2``. Without being named, a level is the round if this word is one
of time, and an actor comes back in it. Repeats and agents are numbered as well, so numbers alone say
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..display.printable import printable

TIME_WORDS = frozenset(
    {
        "round",
        "turn",
        "step",
        "tick",
        "t",
        "time",
        "hour",
        "day",
        "week",
        "month",
        "year",
        "period",
        "wave",
        "phase",
        "stage",
        "session",
        "generation",
        "iteration",
    }
)
NAMES_SHOWN = 3
_NUMBERED = re.compile(r"(.*?)[\s_.:-]*(\d+)", re.DOTALL)


class Level(NamedTuple):
    """One level of the scope paths of a run.

    :param number: its number in a path, from 1.
    :param names: the scopes of this level, in their order: numbered ones by their numbers.
    :param word: the word that all numbered names have before their numbers; empty if they have
        none, or several.
    """

    number: int
    names: tuple[str, ...]
    word: str

    def __str__(self) -> str:
        first_names = ", ".join(printable(name) for name in self.names[:NAMES_SHOWN])
        more = len(self.names) - NAMES_SHOWN
        names = f"{first_names} and {more:,} more" if more > 0 else first_names
        return (
            f"{self.number} or {self.word!r} ({names})" if self.word else f"{self.number} ({names})"
        )


class Rounds(NamedTuple):
    """Which level of the scope paths is the round.

    :param depth: the level's number in a path, from 0.
    :param numbers: the number of each round, from 0, by its name.
    """

    depth: int
    numbers: Mapping[str, int]

    def split(self, scope: str) -> tuple[str, str]:
        """Return a scope path without its round, and the round; ``""`` if it has none."""
        names = scope.split("/")
        if len(names) <= self.depth or names[self.depth] not in self.numbers:
            return scope, ""
        name = names.pop(self.depth)
        return "/".join(names) or _word(name) or name, name

    def number(self, scope: str) -> int:
        """Return the number of a scope's round, from 0; -1 outside any round."""
        _, name = self.split(scope)
        return self.numbers.get(name, -1)


def levels(scopes: Iterable[str]) -> list[Level]:
    """Return the levels of some scope paths."""
    names_by_level: list[dict[str, None]] = []
    for scope in dict.fromkeys(scopes):
        for index, name in enumerate(scope.split("/") if scope else ()):
            if index == len(names_by_level):
                names_by_level.append({})
            names_by_level[index][name] = None
    return [_level(number, names) for number, names in enumerate(names_by_level, 1)]


def _level(number: int, names: Collection[str]) -> Level:
    words = {_word(name) for name in names} - {None}
    word = words.pop() if len(words) == 1 else None
    return Level(number, tuple(sorted(names, key=natural_order)), word or "")


def _word(name: str) -> str | None:
    """Return the word before the number that a name ends with; ``None`` if it has no number."""
    match = _NUMBERED.fullmatch(name)
    return match[1].casefold() if match else None


def natural_order(name: str) -> tuple[int, int, str]:
    """Return what sorts names: numbered ones by their numbers, behind the others."""
    match = _NUMBERED.fullmatch(name)
    return (1, int(match[2]), name) if match else (0, 0, name)


def find_rounds(
    runs: Sequence[Collection[str]], selector: str | int | None = None
) -> list[Rounds | None]:
    """Return which level of the scope paths of each run is the round; ``None`` if none is.

    :param runs: the scope paths of each run.
    :param selector: the level's number, from 1, or the word that its names have in common; ``None``
        finds it.
    :raises ValueError: if no run has such a level.
    """
    levels_by_run = [levels(scopes) for scopes in runs]
    if selector is None:
        selector = next(filter(None, map(_time_word, levels_by_run, runs)), None)
        if selector is None:
            return [None for _ in runs]
    matches = [_matching_level(each, str(selector)) for each in levels_by_run]
    if not any(matches):
        all_levels = levels(scope for scopes in runs for scope in scopes)
        known_levels = "; ".join(map(str, all_levels)) or "none, because no call is in a scope"
        raise ValueError(f"the scopes have no level {selector!r}; known levels: {known_levels}")
    return [None if level is None else _rounds(level) for level in matches]


def _time_word(run_levels: Iterable[Level], scopes: Collection[str]) -> str | None:
    """Return the word of time by which the rounds of a run are known; ``None`` if none is, or
    several are.
    """
    words = [
        level.word
        for level in run_levels
        if level.word in TIME_WORDS and _comes_back(_rounds(level), scopes)
    ]
    return words[0] if len(words) == 1 else None


def _matching_level(run_levels: Iterable[Level], selector: str) -> Level | None:
    for level in run_levels:
        if selector == str(level.number) or selector.casefold() == (level.word or None):
            return level
    return None


def _rounds(level: Level) -> Rounds:
    """Return a level as rounds: of one with a word, only the names that have it."""
    names = [name for name in level.names if not level.word or _word(name) == level.word]
    return Rounds(level.number - 1, {name: number for number, name in enumerate(names)})


def _comes_back(rounds: Rounds, scopes: Iterable[str]) -> bool:
    """Return whether an actor has calls in several rounds."""
    split = [rounds.split(scope) for scope in dict.fromkeys(scopes)]
    actors = [actor for actor, name in split if name]
    return len(set(actors)) < len(actors)
