"""The ways to the shares of a closed question's options: which to try, and the calls of each."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ..many.map import map as run_map
from ..support.notices import warn_once
from ..typed.rows import TableJob
from .share_jobs import COUNT_DRAWS, DecisionsJob, LogprobsJob, NoSharesError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..typed.rows import RowJob
    from .choice import Choice

DECISIONS, LOGPROBS, DRAWS = "decisions", "logprobs", "draws"
METHODS = ("auto", DECISIONS, LOGPROBS, DRAWS)


def ask_for_shares(
    question: Choice, job: RowJob, rows: list[object], method: str, map_options: dict[str, object]
) -> tuple[str, Any]:
    """Return the method, and the answers for each row; for a dry run, the plan.

    ``"auto"`` takes the first method by which the model gives shares; if answers are recorded,
    the method by which it gave them, so that a replay asks for nothing that was not recorded.
    """
    methods = _methods(job, method, has_repeats="repeats" in map_options)
    if len(methods) > 1:
        recorded = (
            name for name in methods if _is_recorded(question, job, name, rows[:1], map_options)
        )
        methods = [name] if (name := next(recorded, None)) else methods
    for name in methods[:-1]:
        try:
            return name, _ask_by(question, job, name, rows, map_options)
        except NoSharesError as error:
            if name == DECISIONS:
                warn_once(f"log probabilities or draws are read instead: {error}")
    return methods[-1], _ask_by(question, job, methods[-1], rows, map_options)


def _methods(job: RowJob, method: str, *, has_repeats: bool) -> list[str]:
    """Return the methods of shares to try, in turn."""
    questions = cast("list[Choice]", [*job.calls.values()] or [job.call])
    client = job.client
    takes_logprobs = all(question.takes_logprobs() for question in questions)
    if method == "auto":
        has_decisions = all(client.has_decisions(question.model) for question in questions)
        methods = [DECISIONS] if has_decisions else []
        if has_repeats:
            return [*methods, *([LOGPROBS] if takes_logprobs else []), DRAWS]
        if not methods or takes_logprobs:
            methods.append(LOGPROBS)
    else:
        methods = [method]
    for question in questions:
        model = question.model
        if methods == [LOGPROBS] and not question.takes_logprobs():
            raise NoSharesError(
                f"the model {model!r} takes no logprobs, like other models that reason before they "
                f"answer: {COUNT_DRAWS}"
            )
        if methods == [DECISIONS] and not client.has_decisions(model, is_known=False):
            raise NoSharesError(
                f"the table of models has no decisions of {model!r} by the client {client.api_type!r} "
                f"([Model {model}] with DECISIONS = yes says that a server has them): {COUNT_DRAWS}"
            )
    return methods


def _is_recorded(
    question: Choice, job: RowJob, method: str, rows: list[object], map_options: dict[str, object]
) -> bool:
    """Return whether the answers about some rows by a method are recorded, and have shares."""
    with suppress(NoSharesError):
        plan = _ask_by(question, job, method, rows, {**map_options, "dry_run": True})
        return bool(plan.hits) and not plan.misses
    return False


def _ask_by(
    question: Choice, job: RowJob, method: str, rows: list[object], map_options: dict[str, object]
) -> Any:
    """Return the answers for each row by one method; for a dry run, the plan."""
    is_plan = map_options.get("dry_run", False)
    if method == DRAWS:
        row_job = _alternating(job)
        options, note = _in_all_orders(question, map_options)
        answers = run_map(row_job if is_plan else TableJob(**vars(row_job)), rows, **options)
        if is_plan:
            return answers._replace(notes=tuple(filter(None, (note,))))
        return _lists(answers, options["repeats"])
    orders = question.all_orders()
    shares_job = (DecisionsJob if method == DECISIONS else LogprobsJob)(
        **vars(replace(job, is_named=False)),  # the repeat decides the order
        orders=orders,
    )
    options = {name: map_options[name] for name in map_options if name != "repeats"}
    answers = run_map(shares_job, rows, **options, repeats=len(orders))
    return answers if is_plan else _lists(answers, len(orders))


def _in_all_orders(question: Choice, map_options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the options of a ``map`` that reads each order equally often, and a note on added repeats."""
    repeats = map_options.get("repeats")
    if type(repeats) is not int or question.order not in ("reverse", "rotate"):
        return map_options, ""
    orders = len(question.all_orders())
    rounded = math.ceil(repeats / orders) * orders
    note = (
        "" if rounded == repeats else f"repeats {repeats} rounded up to {rounded} ({orders} orders)"
    )
    return {**map_options, "repeats": rounded}, note


def _alternating(job: RowJob) -> RowJob:
    """Return the job whose questions change their direction with each repeat, where their order is "reverse"."""
    questions = cast("Mapping[tuple[object, ...], Choice]", job.calls)
    return replace(
        job,
        call=cast("Choice", job.call).alternating(),
        calls={labels: question.alternating() for labels, question in questions.items()},
    )


def _lists(answers: Any, repeats: int) -> object:
    """Return a list for each row, even if it was asked once."""
    return answers if repeats > 1 else [[answer] for answer in answers]
