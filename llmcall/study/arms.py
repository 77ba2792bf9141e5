"""Experiments of several arms: the same function run with different arguments, on equal answers."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import scopes
from ..cassettes.current import current_cassette
from ..config import resolve as config
from ..display.data_frames import import_pandas
from ..display.formatting import counted, money
from ..display.notebook import html_table
from ..display.tables import table
from ..errors import ConfigError
from ..notices import notice
from ..parallel.map import map as run_map
from ..parallel.options import checked_count
from ..records.answers import same_answer
from ..review.comparison import Comparison, compare
from ..review.runs import RecordedRun
from ..values import total_cost

if TYPE_CHECKING:
    import pandas

    from ..scopes import ScopedRecord
    from ..values import Record

MOST_RUNS = 5  # that failed, and are named
FUNCTION = "function"  # the kind of a recorded function's records, which no model answers


class ArmRun(NamedTuple):
    """One arm of one repeat.

    :param arm: the arm's name.
    :param repeat: the repeat's number, from 0.
    """

    arm: str
    repeat: int


class Arms(Mapping[tuple[str, int], Any]):
    """The results of :func:`llmcall.arms`, by arm and repeat; ``str()`` of it is a summary.

    :ivar names: the arms, as they were given.
    :ivar repeats: how many repeats there are.
    :ivar calls: how many different draws all arms used together, including embeddings and draws with
        ``sample=``.
    :ivar shared: how many further uses these draws had: calls that another arm had made already.
    :ivar cost: USD that the draws cost when they were made, or ``None`` if that is not known.

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
        results: Mapping[ArmRun, Any],
        finished: Mapping[ArmRun, Any],
        used_records: Mapping[ArmRun, Sequence[ScopedRecord]],
    ) -> None:
        self.names = names
        self.repeats = repeats
        self._results = dict(results)
        self._finished = frozenset(finished)
        draws = _Draws()
        # Each run's records, actor by actor, as on a cassette: when the threads of several actors
        # called decides nothing. Equal ones are one object.
        self._used_records = {
            run: [
                draws.first_equal(record)
                for _, record in sorted(records, key=_actor_sort_key)
                if record.kind != FUNCTION
            ]
            for run, records in used_records.items()
        }
        uses = sum(map(len, self._used_records.values()))
        own_records = list(draws.records())
        self.calls = len(own_records)
        self.shared = uses - self.calls
        self.cost = total_cost(record.cost for record in own_records)

    def __getitem__(self, run: tuple[str, int]) -> Any:
        run = _as_named(run)
        if run not in self._results:
            raise KeyError(
                f"there is no run {run!r}; give an arm and a repeat: the arms are {', '.join(self.names)}, the "
                f"repeats 0 to {self.repeats - 1}"
            )
        return self._results[run]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def table(self, measure: Callable[[Any], Any]) -> pandas.DataFrame:
        """Return a DataFrame with a row for each arm and repeat.

        :param measure: takes a result and returns its value, or a dict of values by column.
        :returns: the columns ``repeat``, ``arm``, and ``measure`` or those of the dicts. An arm that
            failed has no values.
        :raises ConfigError: if pandas is not installed.
        :raises ValueError: if a dict has a column ``repeat`` or ``arm``.
        """
        rows = []
        for run, result in self._results.items():
            row = {"repeat": run.repeat, "arm": run.arm}
            if run in self._finished:
                value = measure(result)
                columns = value if isinstance(value, Mapping) else {"measure": value}
                clashes = [name for name in row if name in columns]
                if clashes:
                    raise ValueError(
                        f"measure returned a dict with {clashes[0]!r}, which is a column of the table "
                        "already: rename it"
                    )
                row |= columns
            rows.append(row)
        if failed := self._failed():
            notice(
                "%s: these rows of the table have no values, and the arms are not paired there",
                failed,
            )
        return import_pandas().DataFrame(rows)

    def compare(self, one: str, other: str) -> Comparison:
        """Compare two arms over all repeats, by the records that each of them used.

        :param one: an arm's name.
        :param other: the other arm's name.
        :returns: the comparison: for each actor of each repeat, where the two arms diverge.
        :raises KeyError: for a name that no arm has; the message lists the known ones.
        """
        return compare(self._run(one), self._run(other))

    def warn_of_nothing_shared(self) -> None:
        """Warn if two arms of a repeat both made calls, and shared no answer."""
        unshared_repeats: dict[tuple[str, str], int] = {}
        for repeat in range(self.repeats):
            answers = {
                name: {id(record) for record in self._used_records[ArmRun(name, repeat)]}
                for name in self.names
            }
            for one, other in itertools.combinations(self.names, 2):
                if answers[one] and answers[other] and answers[one].isdisjoint(answers[other]):
                    unshared_repeats[one, other] = unshared_repeats.get((one, other), 0) + 1
        for (one, other), repeats in unshared_repeats.items():
            # Each time: another study may have arms of the same names, or a mended prompt.
            notice(
                "the arms %r and %r shared no answer in %s, so their difference includes chance. Check whether their "
                "prompts name the arm, or differ from the first call on",
                one,
                other,
                counted(repeats, "repeat"),
            )

    def _run(self, name: str) -> RecordedRun:
        """Return the records that an arm used, as a run."""
        if str(name) not in self.names:
            raise KeyError(f"there is no arm {name!r}; the arms are {', '.join(self.names)}")
        records = [
            record
            for run, run_records in self._used_records.items()
            if run.arm == str(name)
            for record in run_records
        ]
        return RecordedRun(f"the arm {str(name)!r}", records, {})

    def __str__(self) -> str:
        return "\n".join([self._summary(), table(self._rows(), right=(1, 2))])

    def __repr__(self) -> str:
        return f"Arms({', '.join(self.names)}; {counted(self.repeats, 'repeat')})"

    def _repr_html_(self) -> str:
        return f"<p>{self._summary()}</p>{html_table(self._rows())}"

    def _summary(self) -> str:
        cost = "cost unknown" if self.cost is None else money(self.cost)
        summary = (
            f"{counted(len(self.names), 'arm')}, {counted(self.repeats, 'repeat')}: "
            f"{counted(self.calls, 'different call')}, {self.shared:,} shared, {cost}"
        )
        failed = self._failed()
        return f"{summary}; {failed}" if failed else summary

    def _failed(self) -> str:
        """Return in words how many runs failed; empty if none did."""
        failed = sorted(self._results.keys() - self._finished)
        if not failed:
            return ""
        shown = ", ".join(f"{name} {repeat}" for name, repeat in failed[:MOST_RUNS])
        more = ", …" if len(failed) > MOST_RUNS else ""
        return f"{len(failed):,} of {counted(len(self._results), 'run')} failed ({shown}{more})"

    def _rows(self) -> list[list[str]]:
        uses = dict.fromkeys(self.names, 0)
        record_ids: dict[str, set[int]] = {name: set() for name in self.names}
        for run, records in self._used_records.items():
            uses[run.arm] += len(records)
            record_ids[run.arm].update(map(id, records))
        rows = [["arm", "calls", "not shared"]]
        for name in self.names:
            other_ids = set().union(*(ids for other, ids in record_ids.items() if other != name))
            rows.append([name, f"{uses[name]:,}", f"{len(record_ids[name] - other_ids):,}"])
        return rows


class _Draws:
    """The draws that the arms used, each as one record.

    In the cache's mode ``refresh``, each process asks once for an answer, so a draw may have several.
    """

    def __init__(self) -> None:
        self._answers: dict[str, list[Record]] = {}  # by key

    def first_equal(self, record: Record) -> Record:
        """Return the record of the same draw with the same answer that was the first one."""
        answers = self._answers.setdefault(record.cache_key, [])
        for answer in answers:
            if answer is record or same_answer(answer, record):
                return answer
        answers.append(record)
        return record

    def records(self) -> Iterator[Record]:
        """Yield the records, each once."""
        return itertools.chain.from_iterable(self._answers.values())


def _as_named(run: Any) -> Any:
    """Return an arm and a repeat as they stand in the results: an arm's name may be a number."""
    if isinstance(run, tuple) and len(run) == 2:
        name, repeat = run
        return (str(name), repeat)
    return run


def _actor_sort_key(scoped_record: ScopedRecord) -> tuple[bool, list[str]]:
    """Return what sorts records by actor; those outside scopes come first, as on a cassette."""
    return scoped_record.record.sample is not None, scoped_record.path.split("/")


def arms(
    fn: Callable[..., Any],
    arms: Mapping[str, Mapping[str, Any]],
    *,
    scope: str,
    repeats: int = 1,
    workers: int | None = None,
    progress: bool | None = None,
    on_error: str = "raise",
    process: bool = False,
) -> Arms:
    """Run a function in several arms, many at a time, so that equal requests get equal answers.

    Repeat ``r`` runs in the scope ``r`` below ``scope``, and each of its arms in a fork of that
    scope. If two arms of a repeat send the same request, they share one call and one answer, so
    their results differ only because of what differs between the arms. You can resume, replay and
    interrupt it like :func:`llmcall.map`.

    :param fn: a function; it gets an arm's keyword arguments.
    :param arms: the keyword arguments of each arm, by its name.
    :param scope: the name of the scope around all repeats.
    :param repeats: how often each arm runs.
    :param workers: how many arms run at once, as of :func:`llmcall.map`.
    :param progress: whether to show a bar, as of :func:`llmcall.map`.
    :param on_error: as of :func:`llmcall.map`: ``"raise"``, ``"none"`` or ``"return"``.
    :param process: whether each arm applies to every thread that has no scope, for a program that
        starts threads itself; the arms then run one after the other.
    :returns: the results by arm and repeat.
    :raises TypeError: if an argument has a wrong type.
    :raises ValueError: if there is no arm or no repeat, or if a name is wrong.
    :raises ConfigError: if the cache's mode is ``off`` and no cassette is open: nothing could be
        shared.
    :raises KeyboardInterrupt: as of :func:`llmcall.map`; like every exception that leaves, it has
        ``.results``: what finished, by arm and repeat.

    >>> def price(tax):
    ...     return 3 + tax
    >>> with llmcall.configured(cache_mode="auto"):
    ...     runs = llmcall.arms(price, {"free": {"tax": 0}, "taxed": {"tax": 1}}, scope="app", repeats=2)
    >>> runs["taxed", 1]
    4
    """
    _check_function(fn)
    arms = _arguments_by_arm(arms, repeats)
    names = tuple(arms)
    if scope is None:
        raise TypeError("scope is None; the arms need a scope around them: give it a name")
    if config.settings().cache_mode == "off" and current_cassette() is None:
        raise ConfigError(
            "the cache's mode is off and no cassette is open, so the arms could share no answer: set MODE = auto in "
            "[Cache], or open a cassette around llmcall.arms(…)"
        )
    runs = [ArmRun(name, repeat) for repeat in range(repeats) for name in names]
    study = _Study(fn, arms, runs, scopes.scope(scope), process=process)
    try:
        with scopes.scope(None):  # each run opens its scopes itself, so this thread needs none
            results = run_map(
                study.run,
                runs,
                workers=1 if process else workers,
                progress=progress,
                on_error=on_error,
            )
    except BaseException as error:
        study.give_draws_back()
        error.results = dict(study.finished)  # type: ignore[attr-defined]
        raise
    arm_results = Arms(
        names, repeats, dict(zip(runs, results, strict=True)), study.finished, study.used_records
    )
    arm_results.warn_of_nothing_shared()
    return arm_results


def _check_function(fn: Any) -> None:
    """Check that a function can run an arm.

    :raises TypeError: if it cannot be called, or is asynchronous.
    """
    from inspect import iscoroutinefunction

    if not callable(fn):
        raise TypeError(f"fn is {fn!r}; it must be a function of an arm's arguments")
    if iscoroutinefunction(fn):
        raise TypeError(
            f"{fn.__qualname__} is asynchronous; pass a function that runs it: "
            f"lambda **arguments: asyncio.run({fn.__name__}(**arguments))"
        )


def _arguments_by_arm(
    arms: Mapping[str, Mapping[str, Any]], repeats: int
) -> dict[str, Mapping[str, Any]]:
    """Return the keyword arguments of each arm, by its name as a text.

    :raises ValueError: for no arm, no repeat, or a name that no arm can have.
    :raises TypeError: if an arm has no keyword arguments, or ``repeats`` is no whole number.
    """
    checked_count("repeats", repeats)
    if not arms:
        raise ValueError("arms is empty; give at least one arm, with its keyword arguments")
    arguments_by_arm: dict[str, Mapping[str, Any]] = {}
    for key, arguments in arms.items():
        name = scopes.arm(key).name
        if name in arguments_by_arm:
            raise ValueError(f"two arms have the name {name!r}; give each a name of its own")
        if not isinstance(arguments, Mapping):
            raise TypeError(
                f"arms[{key!r}] is {type(arguments).__name__}; it must be a dict of keyword arguments"
            )
        arguments_by_arm[name] = arguments
    return arguments_by_arm


class _Study:
    """Runs the arms of :func:`arms`.

    :param fn: runs one arm.
    :param arms: the keyword arguments of each arm.
    :param runs: what is to run, in order.
    :param scope: the scope around all repeats, which count together in it.
    :ivar finished: the results so far.
    :ivar used_records: the records that each run used.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        arms: Mapping[str, Mapping[str, Any]],
        runs: Sequence[ArmRun],
        scope: scopes.Scope,
        *,
        process: bool,
    ) -> None:
        self._fn = fn
        self._arms = arms
        self._scope = scope
        self._process = process
        self._outer_scope = scopes.scope_around()
        outer_journal = None if self._outer_scope is None else self._outer_scope.journal
        self._journal = scopes.Journal(
            outer_journal
        )  # can give back the draws in the scope around all
        self.finished: dict[ArmRun, Any] = {}
        self.used_records: dict[ArmRun, deque[ScopedRecord]] = {run: deque() for run in runs}

    def give_draws_back(self) -> None:
        """Free what was drawn in the scope around all repeats, so that another start draws it
        again.
        """
        self._journal.undo()

    def run(self, run: ArmRun) -> Any:
        """Run one arm of one repeat, and return its result."""
        fork = scopes.arm(run.arm)
        fork.used_records = self.used_records[run]
        with ExitStack() as stack:
            if self._outer_scope is not None:
                scope_around = self._outer_scope.copy(
                    journal=self._journal, order=scopes.current_order()
                )
                stack.enter_context(scope_around)
            stack.enter_context(self._scope)
            stack.enter_context(scopes.scope(run.repeat, process=self._process))
            stack.enter_context(fork)
            result = self._fn(**self._arms[run.arm])
        self.finished[run] = result
        return result
