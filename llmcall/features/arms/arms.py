"""Experiments with several arms: one function, run with different arguments on the same answers, and its results."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from ...apis.token_usage import total_cost
from ...config import resolve as config
from ...errors import ConfigError
from ...many.map import map as run_map
from ...many.map_options import checked_count
from ...many.tasks import job_of
from ...review.comparison import Comparison, compare
from ...review.runs import RecordedRun
from ...scopes.active import ScopedRecord, here
from ...scopes.arm_branches import arm as open_arm
from ...scopes.draws import DrawList
from ...scopes.scope import scope as open_scope
from ...stores.cassettes.current import open_current_cassette
from ...stores.differences import canonical_text
from ...stores.record import Record
from ...stores.records.answers import answer_parts
from ...support.arguments import checked
from ...support.display import counted, html_table, money, text_table
from ...support.frames import import_pandas
from ...support.notices import notice
from ..effects.effects import LEVEL, effect

if TYPE_CHECKING:
    import pandas


# The columns of an effect
EFFECT = ("estimate", "low", "high", "level", "n", "missing_treated", "missing_control")
FUNCTION = "function"  # the kind of recorded functions' records, which no model answered


class ArmRun(NamedTuple):
    """One arm of one repeat.

    :param arm: the arm's name.
    :param repeat: the repeat's number, from 0.
    """

    arm: str
    repeat: int


class Arms(Mapping[tuple[str, int], Any]):
    """The results of :func:`llmcall.arms`, by arm and repeat; ``str()`` gives a summary.

    :ivar names: the arms, in the order given.
    :ivar repeats: the number of repeats.
    :ivar calls: the number of different draws that all arms used together, including embeddings and
        draws with ``sample=``.
    :ivar shared: the number of calls that used one of these draws again, in another arm or the same.
    :ivar cost: USD that the draws cost when they were made, or ``None`` if it is unknown.

    >>> from llmcall.testing import ScriptedClient
    >>> client = ScriptedClient(lambda messages: "Good morning!", cache_mode="auto")
    >>> def play(name):
    ...     return client.send_message(f"Greet {name}.", temperature=1).content
    >>> arms = {"control": {"name": "Ann"}, "treated": {"name": "Ben"}, "placebo": {"name": "Ann"}}
    >>> with llmcall.configured(cache_mode="auto"):
    ...     runs = llmcall.arms(play, arms, scope="trial-1")
    >>> runs.calls, runs.shared
    (2, 1)
    >>> runs["placebo", 0]
    'Good morning!'
    """

    def __init__(
        self,
        names: tuple[str, ...],
        repeats: int,
        results: Mapping[ArmRun, object],
        finished: Mapping[ArmRun, object],
        used_records: Mapping[ArmRun, Sequence[ScopedRecord]],
    ) -> None:
        self.names = names
        self.repeats = repeats
        self._results = dict(results)
        self._failed = results.keys() - finished.keys()
        # In the cache's mode "refresh", each process calls anew, so a draw may have several answers.
        draws: dict[tuple[str, str], Record] = {}
        # Actor by actor, first outside any scope, as on a cassette: in whatever order threads called.
        self._records = {
            run: [
                draws.setdefault((record.cache_key, canonical_text(answer_parts(record))), record)
                for _, record in sorted(
                    records, key=lambda used: (used.record.sample is not None, used.path.split("/"))
                )
                if record.kind != FUNCTION
            ]
            for run, records in used_records.items()
        }
        self.calls = len(draws)
        self.shared = sum(map(len, self._records.values())) - self.calls
        self.cost = total_cost(record.cost for record in draws.values())

    def __getitem__(self, run: tuple[str, int]) -> object:
        return self._results[ArmRun(*run)]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    @checked
    def table(self, measure: Callable[[Any], object]) -> pandas.DataFrame:
        """Return a DataFrame with a row for each arm and repeat.

        :param measure: takes a result and returns its value, or a dict of values by column.
        :returns: the columns ``repeat``, ``arm``, and ``measure`` or the dicts' names. An arm that
            failed has no values.
        :raises ConfigError: if pandas is not installed.
        """
        rows = []
        for run, result in self._results.items():
            row = {"repeat": run.repeat, "arm": run.arm}
            value = {} if run in self._failed else measure(result)
            columns = value if isinstance(value, Mapping) else {"measure": value}
            rows.append({**row, **columns, **row})
        return import_pandas().DataFrame(rows)

    @checked
    def effect(
        self,
        measure: Callable[[Any], object],
        treated: str,
        control: str,
        *,
        level: float = LEVEL,
    ) -> pandas.DataFrame:
        """Estimate the effect of a treatment: the mean difference between two arms within each repeat.

        The unit is the repeat. People who share a simulated world are no independent units; see
        :func:`llmcall.effect`.

        :param measure: see :meth:`table`; its values are numbers or ``bool``.
        :param treated: an arm's name.
        :param control: the name of the arm that is subtracted.
        :param level: the share of studies whose interval contains the truth.
        :returns: a row for each column of the measure, with ``estimate``; ``low`` and ``high``, the ends of
            the interval; ``level``; ``n``, the repeats with a value in both arms; and ``missing_treated`` and
            ``missing_control``, the missing values of each arm: if it failed, or the value is not a number.
        :raises ConfigError: if pandas and scipy are not installed (the extra ``study``).
        :raises ValueError: for a name that no arm has, or if ``level`` is not between 0 and 1.

        >>> prices = iter([3, 5, 4, 4, 2, 5])
        >>> with llmcall.configured(cache_mode="auto"):
        ...     arms = {"free": {"tax": 0}, "taxed": {"tax": 1}}
        ...     runs = llmcall.arms(
        ...         lambda tax: next(prices) + tax, arms, scope="app", repeats=3, workers=1
        ...     )
        >>> runs.effect(lambda price: {"price": price}, "taxed", "free").round(2)
               estimate   low  high  level  n  missing_treated  missing_control
        price      2.67 -1.13  6.46   0.95  3                0                0
        """
        frame = self.table(measure)
        columns = [name for name in frame if name not in ("repeat", "arm")]
        found = effect(
            frame, columns, by="arm", treated=treated, control=control, unit="repeat", level=level
        )
        return found.rename(columns={"n_treated": "n"})[list(EFFECT)]

    def compare(self, one: str, other: str) -> Comparison:
        """Compare two arms over all repeats, by the records that each used.

        :param one: an arm's name.
        :param other: the other arm's name.
        :returns: the comparison: for each actor of each repeat, where the two arms diverge.
        :raises KeyError: for a name that no arm has; the message lists the known ones.
        """
        return compare(self._recorded_run(one), self._recorded_run(other))

    def _recorded_run(self, name: str) -> RecordedRun:
        """Return an arm's records as a run."""
        if name not in self.names:
            raise KeyError(f"there is no arm {name!r}; the arms are {', '.join(self.names)}")
        records = [record.with_arms((name,)) for record in self._records_of(name)]
        return RecordedRun(f"the arm {name!r}", records, {})

    def _records_of(self, name: str) -> list[Record]:
        return [
            record
            for run, records in self._records.items()
            if run.arm == name
            for record in records
        ]

    def warn_if_nothing_shared(self) -> None:
        """Warn if two arms of a repeat both made calls but shared no answer. Embeddings are the same
        for all, and show nothing.
        """
        answers = {
            run: {id(record) for record in records if record.kind != "embedding"}
            for run, records in self._records.items()
        }
        unshared: Counter[tuple[str, str]] = Counter()
        for repeat in range(self.repeats):
            for pair in itertools.combinations(self.names, 2):
                one, other = (answers[ArmRun(name, repeat)] for name in pair)
                unshared[pair] += bool(one and other and one.isdisjoint(other))
        for (first, second), repeats in unshared.items():
            # Not once per process: another study may have arms with these names, or a corrected prompt.
            if repeats:
                notice(
                    "the arms %r and %r shared no answer in %s, so their difference includes chance. Check whether "
                    "their prompts name the arm, or differ from the first call, and whether their calls have "
                    "cache=False or cache_mode='off'",
                    first,
                    second,
                    counted(repeats, "repeat"),
                )

    def __str__(self) -> str:
        return "\n".join([self._summary(), text_table(self._rows(), right=(1, 2))])

    def __repr__(self) -> str:
        return f"Arms({', '.join(self.names)}; {counted(self.repeats, 'repeat')})"

    def _repr_html_(self) -> str:
        return f"<p>{self._summary()}</p>{html_table(self._rows())}"

    def _summary(self) -> str:
        cost = "cost unknown" if self.cost is None else money(self.cost)
        failed = len(self._failed)
        failures = f"; {failed:,} of {counted(len(self), 'run')} failed" if failed else ""
        return (
            f"{counted(len(self.names), 'arm')}, {counted(self.repeats, 'repeat')}: "
            f"{counted(self.calls, 'different call')}, {self.shared:,} shared, {cost}{failures}"
        )

    def _rows(self) -> list[list[str]]:
        records = {name: self._records_of(name) for name in self.names}
        arm_counts = Counter(number for used in records.values() for number in {*map(id, used)})
        rows = [["arm", "calls", "not shared"]]
        for name, used in records.items():
            own = sum(arm_counts[number] == 1 for number in {*map(id, used)})
            rows.append([name, f"{len(used):,}", f"{own:,}"])
        return rows


@checked
def arms(
    fn: Callable[..., object],
    arms: Mapping[str, Mapping[str, object]],
    *,
    scope: str,
    repeats: int = 1,
    workers: int | None = None,
    progress: bool | None = None,
    on_error: str = "raise",
) -> Arms:
    """Run a function in several arms, many at a time; identical requests share their answers.

    Repeat ``r`` runs in the scope ``r`` below ``scope``, and each of its arms in a branch of that
    scope. If two arms of a repeat send the same request, they share one call and one answer, so
    their results differ only by what differs between the arms. It resumes, replays and stops like
    :func:`llmcall.map`.

    :param fn: a function; it gets an arm's keyword arguments.
    :param arms: the keyword arguments of each arm, by its name.
    :param scope: the name of the scope around all repeats.
    :param repeats: how often each arm runs.
    :param workers: how many arms run at once; see :func:`llmcall.map`.
    :param progress: ``True`` shows a bar; see :func:`llmcall.map`.
    :param on_error: ``"raise"``, ``"none"`` or ``"return"``; see :func:`llmcall.map`.
    :returns: the results by arm and repeat.
    :raises TypeError: if an argument has a wrong type.
    :raises ValueError: without an arm or a repeat, or for a wrong name.
    :raises ConfigError: if the cache's mode is ``off`` and no cassette is open, so that nothing can
        be shared.
    :raises KeyboardInterrupt: as :func:`llmcall.map` does. Every exception that it raises while it runs has
        ``.results``: the finished ones, by arm and repeat.

    >>> def price(tax):
    ...     return 3 + tax
    >>> with llmcall.configured(cache_mode="auto"):
    ...     runs = llmcall.arms(price, {"free": {"tax": 0}, "taxed": {"tax": 1}}, scope="app", repeats=2)
    >>> runs["taxed", 1]
    4
    """
    job_of(fn)
    checked_count("repeats", repeats)
    arguments = {open_arm(name).name: kwargs for name, kwargs in arms.items()}
    if not len(arguments) == len(arms) > 0:
        raise ValueError(f"arms is {arms!r}; give at least one arm, and each its own name")
    if config.settings().cache_mode == "off" and open_current_cassette() is None:
        raise ConfigError(
            "the cache's mode is off and no cassette is open, so the arms cannot share answers: set MODE = auto in "
            "[Cache], or open a cassette around llmcall.arms(…)"
        )
    runs = [ArmRun(name, repeat) for repeat in range(repeats) for name in arguments]
    of_all = open_scope(scope)
    parent = here()
    draw_list = DrawList(parent.item.draws)
    finished: dict[ArmRun, object] = {}
    used_records: dict[ArmRun, deque[ScopedRecord]] = {run: deque() for run in runs}

    def play(run: ArmRun) -> object:
        """Run one arm of one repeat."""
        branch = open_arm(run.arm)
        branch.used_records = used_records[run]
        order = here().position.order
        parent_scope: AbstractContextManager[object] = nullcontext()
        if parent.opened_by != "default":
            position = parent.position._replace(order=order)
            parent_scope = parent.copy(
                generators=(), item=parent.item._replace(draws=draw_list), position=position
            )
        with parent_scope, of_all, open_scope(run.repeat), branch:
            finished[run] = fn(**arguments[run.arm])
        return finished[run]

    try:
        with open_scope(None):  # each run opens its own scopes
            results = run_map(play, runs, workers=workers, progress=progress, on_error=on_error)
    except BaseException as error:
        draw_list.retract()  # so that another start draws the same again
        # Not by an assignment: the exception's class may refuse attributes.
        BaseException.__setattr__(error, "results", dict(finished))
        raise
    by_run = dict(zip(runs, results, strict=True))
    arm_results = Arms(tuple(arguments), repeats, by_run, finished, used_records)
    arm_results.warn_if_nothing_shared()
    return arm_results
