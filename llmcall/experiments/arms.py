"""Experiments with several arms: one function, run with different arguments on the same answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from .. import scopes
from ..config import resolve as config
from ..errors import ConfigError
from ..many.map import map as run_map
from ..many.options import checked_count
from ..many.tasks import job_of
from ..stores.cassettes.current import current_cassette
from ..support.arguments import checked
from .arm_results import ArmRun, Arms

if TYPE_CHECKING:
    from ..scopes import ScopedRecord


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
    process: bool = False,
) -> Arms:
    """Run a function in several arms, many at a time, so that equal requests get equal answers.

    Repeat ``r`` runs in the scope ``r`` below ``scope``, and each of its arms in a branch of that
    scope. If two arms of a repeat send the same request, they share one call and one answer, so
    their results differ only by what differs between the arms. It resumes, replays and stops like
    :func:`llmcall.map`.

    :param fn: a function; it gets an arm's keyword arguments.
    :param arms: the keyword arguments of each arm, by its name.
    :param scope: the name of the scope around all repeats.
    :param repeats: how often each arm runs.
    :param workers: how many arms run at once; see :func:`llmcall.map`.
    :param progress: whether to show a bar; see :func:`llmcall.map`.
    :param on_error: ``"raise"``, ``"none"`` or ``"return"``; see :func:`llmcall.map`.
    :param process: whether each arm applies to every thread that has no scope, for a program that
        starts threads itself; the arms then run one after the other.
    :returns: the results by arm and repeat.
    :raises TypeError: if an argument has a wrong type.
    :raises ValueError: if there is no arm or no repeat, or if a name is wrong.
    :raises ConfigError: if the cache's mode is ``off`` and no cassette is open, so that nothing can
        be shared.
    :raises KeyboardInterrupt: as :func:`llmcall.map` does. Every exception that leaves has
        ``.results``: those that finished, by arm and repeat.

    >>> def price(tax):
    ...     return 3 + tax
    >>> with llmcall.configured(cache_mode="auto"):
    ...     runs = llmcall.arms(price, {"free": {"tax": 0}, "taxed": {"tax": 1}}, scope="app", repeats=2)
    >>> runs["taxed", 1]
    4
    """
    job_of(fn)
    checked_count("repeats", repeats)
    arguments = {scopes.arm(name).name: kwargs for name, kwargs in arms.items()}
    if not len(arguments) == len(arms) > 0:
        raise ValueError(f"arms is {arms!r}; give at least one arm, and each its own name")
    if config.settings().cache_mode == "off" and current_cassette() is None:
        raise ConfigError(
            "the cache's mode is off and no cassette is open, so the arms cannot share answers: set MODE = auto in "
            "[Cache], or open a cassette around llmcall.arms(…)"
        )
    runs = [ArmRun(name, repeat) for repeat in range(repeats) for name in arguments]
    of_all = scopes.scope(scope)
    parent = scopes.here()
    draw_list = scopes.DrawList(parent.item.draws)
    finished: dict[ArmRun, object] = {}
    used_records: dict[ArmRun, deque[ScopedRecord]] = {run: deque() for run in runs}

    def play(run: ArmRun) -> object:
        """Run one arm of one repeat."""
        branch = scopes.arm(run.arm)
        branch.used_records = used_records[run]
        order = scopes.here().position.order
        parent_scope: AbstractContextManager[object] = nullcontext()
        if parent.opened_by != "default":
            position = parent.position._replace(order=order)
            parent_scope = parent.copy(
                generators=(), item=parent.item._replace(draws=draw_list), position=position
            )
        with parent_scope, of_all, scopes.scope(run.repeat, process=process), branch:
            finished[run] = fn(**arguments[run.arm])
        return finished[run]

    try:
        with scopes.scope(None):  # each run opens its own scopes
            results = run_map(
                play,
                runs,
                workers=1 if process else workers,
                progress=progress,
                on_error=on_error,
            )
    except BaseException as error:
        draw_list.retract()  # so that another start draws the same again
        error.results = dict(finished)  # type: ignore[attr-defined]
        raise
    by_run = dict(zip(runs, results, strict=True))
    arm_results = Arms(tuple(arguments), repeats, by_run, finished, used_records)
    arm_results.warn_if_nothing_shared()
    return arm_results
