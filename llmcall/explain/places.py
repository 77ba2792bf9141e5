"""Why a request is not recorded although its question is: it stands in another scope, or is another draw."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from .similarity import split_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..types import Record

__all__ = ["cause_of_sample", "cause_of_scope", "scope_words"]

LISTED = 4  # scopes that a message names
MISSPELT = 0.75


def scope_words(sample: str | None) -> str:
    """Return a sample in words."""
    path, draw = split_sample(sample)
    if path is None:
        return "outside any scope"
    number = f"draw {draw}" if draw.isdecimal() else f"sample {draw!r}"
    return f"{path or 'outside any scope'}, {number}"


def cause_of_sample(sample: str | None, same: Sequence[Record]) -> str:
    """Say how a sample differs from those under which the very same request is recorded.

    :param same: the records of the request, whatever their sample.
    """
    path, draw = split_sample(sample)
    samples = [split_sample(record.sample) for record in same]
    here = sorted((found for other, found in samples if other == path), key=_as_number)
    if here:
        return _of_draws(path or "", draw, here)
    paths = sorted({other for other, _ in samples if other}, key=lambda other: -_alike(path or "", other))
    if not path:
        return _of_no_scope(path, draw, paths, [found for other, found in samples if other == ""])
    if not paths:
        return (
            f"the call is made in the scope {path!r}, and the same request is recorded outside any scope: what is "
            "asked in a scope is a draw of its own"
        )
    where = f"{_listed(paths)}{_how(path, paths[0])}"
    return f"the call is made in the scope {path!r}, and the same request is recorded in {where}"


def _of_draws(path: str, draw: str, recorded: list[str]) -> str:
    where = f"in the scope {path!r}" if path else "outside any scope"
    numbers = [found for found in recorded if found.isdecimal()]
    if not draw:
        return "the request is recorded under another key: 'llmcall cache rekey' makes the keys anew"
    if draw.isdecimal() and len(numbers) == len(recorded):
        return (
            f"draw {draw} of this request {where} is asked for, and {len(recorded)} "
            f"{'is' if len(recorded) == 1 else 'are'} recorded ({_range(numbers)}): the same request is made more "
            "often than when it was recorded"
        )
    return (
        f"draw {draw!r} of this request {where} is asked for, and recorded {'is' if len(recorded) == 1 else 'are'} "
        f"{', '.join(map(repr, recorded[:LISTED]))}: sample= is given in one run and not, or otherwise, in the other"
    )


def _range(numbers: list[str]) -> str:
    return f"draw {numbers[0]}" if len(numbers) == 1 else f"draws {numbers[0]} to {numbers[-1]}"


def _of_no_scope(path: str | None, draw: str, paths: list[str], given: list[str]) -> str:
    if path is None and given:
        return f"no sample is given, and the same request is recorded with sample={given[0]!r}"
    if not paths:
        return f"sample={draw!r} is given, and the same request is recorded without: leave it out"
    opened = ", ".join(f"llmcall.scope({name!r})" for name in paths[0].split("/"))
    return (
        f"the call is made outside any scope, and the same request is recorded in {_listed(paths)}: "
        f"a scope is missing; open it by 'with {opened}:'"
    )


def _how(path: str, nearest: str) -> str:
    levels, others = path.split("/"), nearest.split("/")
    if sorted(levels) == sorted(others):
        return ": its levels are nested in another order"
    if set(levels) < set(others) or set(others) < set(levels):
        return ": a level of the scope is missing in one of them"
    if re.sub(r"\d+", "0", path) == re.sub(r"\d+", "0", nearest):
        return ": rounds or actors come in another order, or are numbered otherwise"
    if _alike(path, nearest) >= MISSPELT:
        return ": is the name spelt in another way?"
    return ": the scope has another name, or the actors or rounds come in another order"


def _alike(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def _as_number(draw: str) -> tuple[int, str]:
    return (int(draw) if draw.isdecimal() else -1), draw


def _listed(paths: Sequence[str]) -> str:
    more = ", …" if len(paths) > LISTED else ""
    return ", ".join(map(repr, paths[:LISTED])) + more


def cause_of_scope(sample: str | None, records: Sequence[Record]) -> str:
    """Say that nothing at all is recorded in a request's scope, and which scopes there are beside it."""
    path, _ = split_sample(sample)
    others = {other for record in records if (other := split_sample(record.sample)[0])} - {path}
    beside = sorted(others, key=lambda other: (-_alike(path or "", other), other))
    recorded = f"; there are records in {_listed(beside)}" if beside else ""
    return (
        f"nothing at all is recorded in the scope {path!r}{recorded}: the actor was added since, or its name is "
        "spelt in another way"
    )
