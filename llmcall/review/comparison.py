"""Two recordings of one program compared: which calls came, went and changed, and where two runs part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..cassettes.format import VOLATILE
from .conversations import grouped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..types import Record
    from .conversations import Call, Group

__all__ = ["Change", "Comparison", "Parting", "compare", "same_answer", "settings_changes"]


class Change(NamedTuple):
    """Be one call that differs.

    :param kind: ``"came"``, ``"went"``, ``"answer"`` (the same request, answered differently) or ``"request"``.
    :param before: the call in the first file, or ``None``.
    :param after: the call in the second file, or ``None``.
    """

    kind: str
    before: Call | None
    after: Call | None


class Parting(NamedTuple):
    """Be what differs in one scope, and the call at which the two runs first part there.

    :param scope: its path; empty outside any scope.
    :param place: which call of the scope it is, from 1.
    :param calls: how many calls the scope has in the first and in the second file.
    :param first: the change there.
    :param changes: all changes of the scope, in the order of the calls.
    """

    scope: str
    place: int
    calls: tuple[int, int]
    first: Change
    changes: list[Change]


class Comparison(NamedTuple):
    """Be all that differs between two files.

    :param same: how many records are the same.
    :param settings: the settings in the headers that differ: name, before and after (``None`` where absent).
    :param partings: the scopes that differ; those of both files first, the earliest parting first.
    """

    same: int
    settings: list[tuple[str, Any, Any]]
    partings: list[Parting]

    @property
    def changes(self) -> list[Change]:
        """Return all changes."""
        return [change for parting in self.partings for change in parting.changes]


def same_answer(one: Record, other: Record) -> bool:
    """Tell whether two records hold the same answer, apart from what is new in each response."""
    return _lasting(one) == _lasting(other)


def _lasting(record: Record) -> dict[str, Any]:
    if record.kind == "function":
        return record.response
    return {name: value for name, value in record.response.items() if name not in VOLATILE}


def settings_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the settings that differ: name, before and after."""
    names = sorted({*before, *after})
    return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def compare(
    before: Iterable[Record],
    after: Iterable[Record],
    settings: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
) -> Comparison:
    """Compare the records of two files.

    :param settings: what stands in their headers.
    """
    first = {group.scope: group for group in grouped(before)}
    second = {group.scope: group for group in grouped(after)}
    partings = []
    changed = 0
    for scope in {**first, **second}:
        one, other = _calls(first.get(scope)), _calls(second.get(scope))
        changes = list(_changes(one, other))
        changed += sum(change.kind != "went" for change in changes)
        if changes:
            partings.append(_parting(scope, one, other, changes))
    partings.sort(key=lambda parting: (0 in parting.calls, parting.place))
    total = sum(len(group.calls) for group in second.values())
    return Comparison(total - changed, settings_changes(*settings), partings)


def _calls(group: Group | None) -> list[Call]:
    return group.calls if group else []


def _changes(before: list[Call], after: list[Call]) -> Iterator[Change]:
    """Yield what differs in one scope: calls of one key belong together, and others that stand at the same place."""
    from difflib import SequenceMatcher

    one, other = _keys(before), _keys(after)
    shared = set(one) & set(other)
    at = dict(zip(one, before, strict=True))
    for kind, i, i_end, j, j_end in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        gone = [call for call in before[i:i_end] if call.record.cache_key not in shared]
        if kind == "equal" or not gone:
            yield from _arrived(after[j:j_end], at)
            continue
        yield from _replaced(gone, after[j:j_end], at)


def _keys(calls: list[Call]) -> list[str]:
    return [call.record.cache_key for call in calls]


def _arrived(calls: Sequence[Call], at: Mapping[str, Call]) -> Iterator[Change]:
    for call in calls:
        earlier = at.get(call.record.cache_key)
        if earlier is None:
            yield Change("came", None, call)
        elif not same_answer(earlier.record, call.record):
            yield Change("answer", earlier, call)


def _replaced(gone: list[Call], calls: Sequence[Call], at: Mapping[str, Call]) -> Iterator[Change]:
    for call in calls:
        if call.record.cache_key not in at and gone and _alike(gone[0], call):
            yield Change("request", gone.pop(0), call)
        else:
            yield from _arrived([call], at)
    for call in gone:
        yield Change("went", call, None)


def _alike(one: Call, other: Call) -> bool:
    named = one.record.kind == "function"
    return one.record.kind == other.record.kind and (not named or one.title == other.title)


def _parting(scope: str, before: list[Call], after: list[Call], changes: list[Change]) -> Parting:
    """Return where the calls of a scope part: at the first of its changes."""
    standing = {id(call): place for calls in (before, after) for place, call in enumerate(calls, 1)}
    places = [min(standing[id(call)] for call in change[1:] if call is not None) for change in changes]
    place = min(places)
    return Parting(scope, place, (len(before), len(after)), changes[places.index(place)], changes)
