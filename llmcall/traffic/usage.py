"""Usage: calls counted by model and scope, for a client, for the process and for a block of code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..additions import additions
from ..scopes.position import path_before_items
from ..support.display import USD_COLUMNS, html_table, natural, printable, quantity, text_table
from ..support.failures import Counts
from ..support.frames import import_pandas
from ..support.notices import first, warn_once
from ..support.system import last_in, lock

if TYPE_CHECKING:
    import pandas

    from ..stores.cassettes.cassette import Cassette

UsageDelta = Mapping[str, float | str | None]
G = TypeVar("G", str, tuple[str, str])  # a group of usages
# The amounts of one model, scope and arm by column, as they are added up.
Row = dict[str, Any]


class UnderWay(NamedTuple):
    """The number of calls that run at an endpoint, and the most that may run there."""

    endpoint: str
    calls: int
    most: int


class Usage(NamedTuple):
    """The usage of calls: their numbers, tokens and costs.

    :param calls: calls answered by a model, including streams that were not read to their end if their
        answers had begun.
    :param cached_calls: calls answered by a record, or by an identical call in flight; embeddings of several texts
        count here only if none of them was requested.
    :param replayed_calls: the cached calls that a cassette answered; the cache answered the others.
    :param retries: requests after a call's first, including those to another endpoint or a fallback, with a fresh key
        or without an unsupported parameter.
    :param errors: calls that failed.
    :param input_tokens: prompt tokens that were billed; ``None`` if a server did not report them.
        If a stream broke off or was not read to its end, llmcall counts them itself, because servers
        report them at the end.
    :param cached_input_tokens: prompt tokens that the provider had cached, as above.
    :param output_tokens: completion tokens that were billed, as above.
    :param cost: USD of the billed tokens; ``None`` if a price is unknown.
    :param saved: USD that the cached calls cost when they were made, as above.
    :param by_model: the same for each model. A recorded function that was refused counts under its
        name, a map that was refused under ``"llmcall.map"``.
    :param by_scope: the same for each scope path, with all scopes inside it (``""``: outside any);
        the items of a map without ``key=`` count in the scope around them.
    :param by_arm: the same for each arm's name, over all scopes.
    :param priced_by: the price source: ``"[Prices]"``, or the package, its version, and the day
        whose price it is.
    :param parts: the same for each model and scope path, without the scopes inside it.
    :param served: the models that answered, by the names that servers gave: a snapshot's name
        is here, and the requested name in ``by_model``.
    :param under_way: for each endpoint that finds its own limit, its name, the number of calls that run there, and
        its present limit; only from :func:`llmcall.usage`.

    >>> with llmcall.track() as usage:
    ...     llmcall.client().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> usage.calls + usage.cached_calls, usage.errors
    (1, 0)
    """

    calls: int = 0
    cached_calls: int = 0
    replayed_calls: int = 0
    retries: int = 0
    errors: int = 0
    input_tokens: int | None = 0
    cached_input_tokens: int | None = 0
    output_tokens: int | None = 0
    cost: float | None = 0.0
    saved: float | None = 0.0
    by_model: Mapping[str, Usage] = {}
    by_scope: Mapping[str, Usage] = {}
    priced_by: tuple[str, ...] = ()
    parts: Mapping[tuple[str, str], Usage] = {}
    served: tuple[str, ...] = ()
    by_arm: Mapping[str, Usage] = {}
    under_way: tuple[UnderWay, ...] = ()

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame: a row for each model and scope path, without the scopes inside
        it. ``served`` has the names of the models that answered.
        """
        rows = [
            (model, scope, *usage[: len(COLUMNS)], ", ".join(usage.served))
            for (model, scope), usage in self.parts.items()
        ]
        return import_pandas().DataFrame(rows, columns=["model", "scope", *COLUMNS, "served"])

    def __str__(self) -> str:
        rows = [row for section in _sections(self) for row in section]
        return "\n".join([text_table(rows, right=range(1, len(rows[0]))), *_notes(self)])

    def _repr_html_(self) -> str:
        from html import escape

        tables = "".join(map(html_table, _sections(self)))
        return tables + "".join(f"<p>{escape(note)}</p>" for note in _notes(self))


COLUMNS = Usage._fields[: Usage._fields.index("by_model")]
# As in Counts; calls and errors show them.
OUTCOMES = ("asked", "recorded", "unsent", "refused", *additions("given").values())
TEXT_COLUMNS = ("priced_by", "served")  # texts that are collected
# In a row, the keys of programs' calls that failed: each is an error unless the program makes the call again.
FAILED, RECOVERED = "failed", "recovered"


def _sections(usage: Usage) -> list[list[list[str]]]:
    """Return rows for models and all scopes, and for arms if there are any, without columns of zeros."""
    amounts = usage._asdict()
    names = [name for name in COLUMNS if name == "calls" or amounts[name] != 0]
    if usage.cached_input_tokens is None:
        names.remove("cached_input_tokens")  # most servers do not report it
    models = list(usage.by_model.items())
    if len(models) != 1:
        models.append(("all", usage))
    if scopes := _scopes(usage):
        in_scopes = _sum(part for (_, scope), part in usage.parts.items() if scope)
        label = f"in {len(scopes):,} scopes" if len(scopes) > 1 else f"in {printable(scopes.pop())}"
        models.append((label, in_scopes))
    sections = [_section("model", names, models)]
    if usage.by_arm:
        sections.append(_section("arm", names, list(usage.by_arm.items())))
    return sections


def _section(title: str, names: list[str], usages: list[tuple[str, Usage]]) -> list[list[str]]:
    rows = [[title, *names]]
    for label, usage in usages:
        amounts = usage._asdict()
        rows.append([label, *(quantity(name, amounts[name]) for name in names)])
    return rows


def _scopes(usage: Usage) -> set[str]:
    return {scope for _, scope in usage.parts if scope}


def _notes(usage: Usage) -> list[str]:
    served = [
        f"{printable(model)} was answered by {', '.join(map(printable, model_usage.served))}"
        for model, model_usage in usage.by_model.items()
        if model_usage.served not in ((), (model,))
    ]
    priced = [f"priced by {', '.join(usage.priced_by)}"] if usage.priced_by else []
    further = ["to_frame() and by_scope list each scope"] if len(_scopes(usage)) > 1 else []
    running = [
        f"{printable(name)} takes up to {most:,} calls at a time; {calls:,} running now"
        for name, calls, most in usage.under_way
    ]
    return served + priced + running + further


def _sum(parts: Iterable[Usage]) -> Usage:
    """Return the sum of usages; an amount unknown in one is unknown in the sum."""
    usages = [usage._asdict() for usage in parts]
    sums: Row = {}
    for name in COLUMNS:
        amounts = [usage[name] for usage in usages]
        zero = 0.0 if name in USD_COLUMNS else 0
        sums[name] = None if None in amounts else sum(amounts, zero)
    for name in TEXT_COLUMNS:
        sums[name] = tuple(sorted({text for usage in usages for text in usage[name]}))
    return Usage(**sums)


class Meter:
    """An exact counter of what calls use, from any number of threads."""

    def __init__(self) -> None:
        # By model, scope and arm (empty outside any), and by column; a column that is left out is 0 or empty.
        self.sums: dict[tuple[str, str, str], Row] = {}

    def add(self, model: str, scope: str, amounts: UsageDelta, arm: str) -> None:
        """Add amounts, as :func:`count` takes them; the caller holds the lock."""
        sums = self.sums.setdefault((model, scope, arm), {})
        for name, amount in amounts.items():
            if amount is None:
                sums[name] = None
            elif isinstance(amount, str):
                if name == RECOVERED:
                    sums.get(FAILED, {}).pop(amount, None)
                else:
                    sums.setdefault(name, {})[amount] = None
            elif (earlier := sums.get(name, 0)) is not None:
                sums[name] = earlier + amount

    def usage(self) -> Usage:
        """Return the usage so far."""
        usages: dict[tuple[str, str, str], Usage] = {}
        with lock:
            rows = [(key, sums.copy()) for key, sums in self.sums.items()]
        for key, sums in sorted(rows):
            columns = {name: sum_ for name, sum_ in sums.items() if name not in OUTCOMES}
            if not columns:
                continue
            columns["errors"] = sums.get("errors", 0) + len(columns.pop(FAILED, ()))
            for name in TEXT_COLUMNS:
                columns[name] = tuple(sorted(sums.get(name, ())))
            usages[key] = Usage(**columns)
        return _sum(usages.values())._replace(
            by_model=_by(usages, lambda model, scope, arm: [model]),
            # each with the scopes around it
            by_scope=_by(
                usages, lambda _, scope, arm: accumulate(scope.split("/"), "{}/{}".format)
            ),
            by_arm=_by(usages, lambda model, scope, arm: [arm] if arm else []),
            parts=_by(usages, lambda model, scope, arm: [(model, scope)]),
        )


def _by(
    usages: Mapping[tuple[str, str, str], Usage], groups_of: Callable[..., Iterable[G]]
) -> dict[G, Usage]:
    """Return the sums of usages by group, from those by model, scope and arm."""
    groups: dict[G, list[Usage]] = {}
    for key, usage in usages.items():
        for group in groups_of(*key):
            groups.setdefault(group, []).append(usage)
    return {group: _sum(groups[group]) for group in sorted(groups, key=_natural_group)}


def _natural_group(group: str | tuple[str, ...]) -> list[object]:
    return [*natural(group)] if isinstance(group, str) else [*map(natural, group)]


process_meter = Meter()
# The meters of tracked blocks are added. In a worker of a map on another machine, what runs its tasks adds one: its
# ``add`` is called with what any call uses, in the call's thread, under the lock.
meters: list[Meter | Counts] = [process_meter]


def count(
    caller_meter: Meter | None,
    model: str,
    scope: str,
    amounts: UsageDelta,
    arm: str = "",
    cassette: Cassette | None = None,
) -> None:
    """Add amounts to a client's meter, to the process's, and to those of the tracked blocks and of a cassette.

    :param caller_meter: the client's meter, or ``None`` without a client.
    :param amounts: by the name of their column; ``None`` is unknown, and a text is one of the names
        that are collected: a price source, a model that answered, or the key of a call that failed.
    :param arm: the name of the arm that the scope is in; empty outside any.
    :param cassette: the cassette of the call, or ``None``.
    """
    if "~" in scope:
        # Items of a map have no rows of their own: a million would stay as long as the process.
        scope = path_before_items(scope)
    with lock:
        if caller_meter is not None:
            caller_meter.add(model, scope, amounts, arm)
        for meter in meters:
            meter.add(model, scope, amounts, arm)
        if cassette is not None:
            cassette.counts.add(model, scope, amounts, arm)
    if served := amounts.get("served"):
        _note_served(model, str(served))


def _note_served(model: str, served: str) -> None:
    """Warn once if two models answer under one name."""
    served_before = first(("first served", model), served)
    if served_before != served:
        several, columns = "models", "reply.model, or by a table's column served"
        if " via " in served + served_before:
            several, columns = (
                "providers",
                "reply.raw['provider'], or by the column provider of to_frame()",
            )
        warn_once(
            f"two {several} answered requests to {printable(model)}: {printable(served_before)} and "
            f"{printable(served)}. Tell their answers apart by {columns}",
            about=("served", model),
        )


def counted_here() -> Counts:
    """Return the counts of the process from now on."""
    counts = Counts()
    meters.append(counts)
    return counts


class Tracked(Meter):
    """The usage of a block, from :func:`llmcall.track`: the attributes of :class:`Usage`, up to when they are read."""

    def __getattr__(self, name: str) -> Any:
        if name == "sums":  # a copy under construction has none yet
            raise AttributeError(name)
        return getattr(self.usage(), name)

    def __str__(self) -> str:
        return str(self.usage())

    __repr__ = __str__


@contextmanager
def track() -> Iterator[Tracked]:
    """Count the usage of all the process's calls in a block, in every thread and task.

    >>> with llmcall.track() as usage:
    ...     llmcall.client().send_message("Good morning!", max_tokens=16).content
    'Good morning!'
    >>> usage.calls + usage.cached_calls
    1
    """
    tracked = Tracked()
    with last_in(meters, tracked):
        yield tracked
