"""What calls used: counted by model and scope, for a client, for the process and for a block of code."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..types import TokenUsage

    UsageDelta = Mapping[str, float | str | None]

__all__ = ["Meter", "Usage", "cost_of", "count", "count_hit", "process_meter", "track", "watching"]

COLUMNS = ("calls", "cached_calls", "retries", "errors", "input_tokens", "output_tokens", "cost", "saved")
CACHED_CALLS, SAVED = COLUMNS.index("cached_calls"), COLUMNS.index("saved")
ITEM = r"/[0-9a-f]{16}(?:~\d+)?(?=/|$)"  # of fanout/items.py: a digest, and which of several equal items it is
TOKENS_PER_PRICE = 1_000_000  # prices are USD per million tokens


class Usage(NamedTuple):
    """Hold what calls used.

    :param calls: calls answered by a model; streams count whose reader left once the answer had begun.
    :param cached_calls: calls answered by a record, or by an identical call in flight.
    :param retries: attempts after the first.
    :param errors: calls that failed for good.
    :param input_tokens: prompt tokens that were billed; ``None`` where a server did not report them. Those of a stream
        whose reader left are counted here, as a budget counts them: servers report at the end.
    :param output_tokens: completion tokens that were billed, likewise.
    :param cost: USD of the billed tokens; ``None`` where a price is unknown.
    :param saved: USD that the cached calls cost when they were made, likewise.
    :param by_model: the same for each model.
    :param by_scope: the same for each scope path (``""`` outside any); the items of a map without a key, whose names
        are digests, count in the scope around them.
    :param priced_by: whose prices the cost is made of: ``"[Prices]"``, or the package, its version, and the day whose
        price it is.
    """

    calls: int = 0
    cached_calls: int = 0
    retries: int = 0
    errors: int = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cost: float | None = 0.0
    saved: float | None = 0.0
    by_model: Mapping[str, Usage] = {}
    by_scope: Mapping[str, Usage] = {}
    priced_by: tuple[str, ...] = ()

    def __str__(self) -> str:
        from .usage_tables import as_text

        return as_text(self, COLUMNS)

    def _repr_html_(self) -> str:
        from .usage_tables import as_html

        return as_html(self, COLUMNS)


def cost_of(tokens: TokenUsage, price: tuple[float, float] | None) -> float | None:
    """Return the USD of an answer's tokens, or ``None`` where tokens or price are unknown.

    :param price: USD per million prompt tokens and per million completion tokens.
    """
    if price is None or tokens.input_tokens is None:
        return None
    return (tokens.input_tokens * price[0] + (tokens.output_tokens or 0) * price[1]) / TOKENS_PER_PRICE


def named(scope: str) -> str:
    """Return a scope path as far as a user gave it its names: to the first item of a map that names none.

    What was counted for each of a million items would otherwise be kept as long as the process runs.
    """
    return _named(scope) if "/" in scope else scope


@lru_cache(maxsize=1024)
def _named(scope: str) -> str:
    import re

    return re.split(ITEM, scope, maxsplit=1)[0]


# One for all meters: it is never held for long. A stream that the garbage collector ends may count at any moment.
_lock = threading.RLock()


def _renew_lock() -> None:
    """Make a lock of a forked process's own: a thread that stayed behind may have held this one."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class Meter:
    """Add up what calls use, exactly, from any number of threads."""

    def __init__(self) -> None:
        # (model, scope) → one sum for each column, how many summands of it were unknown, and whose prices they were
        self._sums: dict[tuple[str, str], list[float]] = {}
        self._unknown: dict[tuple[str, str], list[int]] = {}
        self._priced_by: dict[tuple[str, str], tuple[str, ...]] = {}

    def add(self, model: str, scope: str, amounts: UsageDelta) -> None:
        """Add amounts, by the name of their column; ``None`` is unknown, and a text says whose price was taken."""
        scope = named(scope)
        with _lock:
            sums = self._sums.get((model, scope)) or self._begun((model, scope))
            for name, amount in amounts.items():
                if isinstance(amount, str):
                    known = self._priced_by.get((model, scope), ())
                    self._priced_by[model, scope] = known if amount in known else (*known, amount)
                elif amount is None:
                    self._unknown[model, scope][COLUMNS.index(name)] += 1
                else:
                    sums[COLUMNS.index(name)] += amount

    def _begun(self, place: tuple[str, str]) -> list[float]:
        """Return the sums of a place, which the garbage collector may have begun meanwhile."""
        sums, unknown = [0, 0, 0, 0, 0, 0, 0.0, 0.0], [0] * len(COLUMNS)
        self._unknown.setdefault(place, unknown)
        return self._sums.setdefault(place, sums)

    def usage(self) -> Usage:
        """Return what was used so far."""
        with _lock:
            rows = [
                (place, list(sums), list(self._unknown[place]), self._priced_by.get(place, ()))
                for place, sums in self._sums.copy().items()
            ]
        return _total(rows)._replace(by_model=_grouped(rows, 0), by_scope=_grouped(rows, 1))


_Row = tuple[tuple[str, str], list[float], list[int], tuple[str, ...]]


def _total(rows: list[_Row]) -> Usage:
    columns: list[Any] = []
    for column, name in enumerate(COLUMNS):
        value = sum(sums[column] for _, sums, _, _ in rows)
        unknown = any(counts[column] for _, _, counts, _ in rows)
        columns.append(None if unknown else float(value) if name in ("cost", "saved") else value)
    priced_by = {source for *_, sources in rows for source in sources}
    return Usage(*columns)._replace(priced_by=tuple(sorted(priced_by)))


def _grouped(rows: list[_Row], part: int) -> dict[str, Usage]:
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row[0][part], []).append(row)
    return {name: _total(groups[name]) for name in sorted(groups)}


process_meter = Meter()
_tracking: list[Any] = []


def count(own: Meter, model: str, scope: str, amounts: UsageDelta) -> None:
    """Add amounts to a client's meter, to the process's, and to those of the blocks being tracked."""
    own.add(model, scope, amounts)
    process_meter.add(model, scope, amounts)
    for meter in tuple(_tracking):
        meter.add(model, scope, amounts)


def count_hit(own: Meter, model: str, saved: float | None) -> None:
    """Count one call outside any scope that a record answered, as :func:`count` does.

    :param saved: the USD that it cost when it was made; ``None`` is unknown.
    """
    if _tracking:
        count(own, model, "", {"cached_calls": 1, "saved": saved})
        return
    place = (model, "")
    with _lock:
        for meter in (own, process_meter):
            sums = meter._sums.get(place) or meter._begun(place)
            sums[CACHED_CALLS] += 1
            if saved is None:
                meter._unknown[place][SAVED] += 1
            else:
                sums[SAVED] += saved


class Tracked:
    """Be the usage of a block: the attributes of :class:`Usage`, as they stand when asked."""

    def __init__(self) -> None:
        self.meter = Meter()

    def __getattr__(self, name: str) -> Any:
        if name == "meter":  # a copy under construction has none yet
            raise AttributeError(name)
        return getattr(self.meter.usage(), name)

    def __str__(self) -> str:
        return str(self.meter.usage())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.meter.usage()._repr_html_()


@contextmanager
def watching(meter: Any) -> Iterator[None]:
    """Let a meter, or whatever has its ``add``, count what the calls of a block use, from every thread and task."""
    _tracking.append(meter)
    try:
        yield
    finally:
        _tracking.remove(meter)


@contextmanager
def track() -> Iterator[Tracked]:
    """Count what the calls of a block use, from every thread and task of the process while it is open."""
    tracked = Tracked()
    with watching(tracked.meter):
        yield tracked
