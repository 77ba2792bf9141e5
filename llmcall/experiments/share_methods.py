"""The methods by which the shares of a closed question's options are estimated: decisions, log probabilities, draws."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

from ..apis.decisions import REFUSAL, probabilities
from ..apis.message import objects_in
from ..core.calls import OPTIONS
from ..errors import APIError, EmptyAnswerError, InvalidRequestError
from ..many.map import map as run_map
from ..stores.cassettes.current import open_current_cassette
from ..support.failures import process_failures
from ..support.notices import warn_once
from ..support.waits import run_blocking
from ..typed.corrections import GetReply, SendMessage
from ..typed.rows import RowJob, TableJob
from .choice_options import Respondent
from .choice_shares import COUNT_DRAWS, TOP_LOGPROBS, NoSharesError, letter_shares

if TYPE_CHECKING:
    from .choice import Choice

DECISIONS, LOGPROBS, DRAWS = "decisions", "logprobs", "draws"
METHODS = ("auto", DECISIONS, LOGPROBS, DRAWS)
DECISION_ARGUMENTS = OPTIONS | {"model", "extra_headers"}


class _Proof:
    """The proof that a model gives shares: the first answer of a job, or why it had none."""

    def __init__(self) -> None:
        self.is_given = False
        self.problem = ""
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[type[_Proof], tuple[()]]:
        return _Proof, ()  # another process requests its own

    def refuse(self, what: str, error: APIError) -> None:
        """Raise a ``NoSharesError`` for a failure that says that the server gives no shares, unless one has come.

        :param what: that the server does not have, in words.
        """
        if self.is_given:
            return
        # The request only checked the server's abilities; a replay does not send it.
        cassette = open_current_cassette()
        failures = process_failures if cassette is None else cassette.failures
        failures.take_back(ref(error))
        raise NoSharesError(f"{what} are not available here ({error}): {COUNT_DRAWS}") from error


@dataclass(frozen=True, eq=False)
class SharesJob(RowJob):
    """A job with a closed question for each row, once in each order; a repeat of the ``map`` is an
    order.

    The first call is made alone: if its answer has no shares, no second call is paid for.

    :param method: ``"decisions"`` or ``"logprobs"``.
    :param orders: the orders of its options.
    """

    method: str = ""
    orders: Sequence[tuple[int, ...]] = ()
    proof: _Proof = field(default_factory=_Proof)

    def run(self, item: object) -> list[float] | None:
        """Make a row's call in one order; return the share of each option, and of all other answers.

        :raises ConfigError: if the answer has no log probabilities, or comes after reasoning.
        :raises APIError: if the call failed after all retries.
        """
        proof = self.proof
        if not proof.is_given:
            with proof.lock:
                if proof.problem:
                    raise NoSharesError(proof.problem)
                if not proof.is_given:
                    try:
                        shares = run_blocking(self.conversation(item))
                    except NoSharesError as error:
                        proof.problem = str(error)
                        raise
                    proof.is_given = True
                    return shares
        return run_blocking(self.conversation(item))

    async def conversation(  # type: ignore[override]
        self, item: object, get_reply: GetReply = SendMessage.reply
    ) -> list[float] | None:
        """Make a row's call in one order."""
        order = self.orders[Respondent.current().repeat % len(self.orders)]
        question = cast("Choice", self.call_for(item))
        shares_by = SHARE_METHODS[self.method]
        found = await shares_by(question, self.variables(item), order, get_reply, self.proof)
        if found is None:
            return None
        shares = [0.0] * (len(order) + 1)
        for position, share in enumerate(found):
            shares[order[position]] = share
        shares[-1] = max(0.0, 1 - math.fsum(shares))
        return shares


async def _token_shares(
    question: Choice,
    variables: dict[str, Any],
    order: tuple[int, ...],
    get_reply: GetReply,
    proof: _Proof,
) -> Sequence[float] | None:
    """Request one token; return the share of each option's letter, at the temperature of the request.

    :param order: in which the options are read, and their shares returned.
    :returns: ``None`` for a failure that was logged.
    """
    params = question.model_params
    limit = {} if "max_completion_tokens" in params else {"max_tokens": 1}
    wanted = {**limit, **params, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
    prompt = question.prompt(variables, order)
    try:
        reply = await get_reply(question.request(prompt, wanted, variables))
    except (EmptyAnswerError, InvalidRequestError) as error:
        # The only token of a model that reasons first is empty.
        if isinstance(error, EmptyAnswerError) or "logprobs" in str(error):
            proof.refuse("log probabilities", error)
        raise
    defaults = question.client.resolved.defaults
    temperature = {**defaults, **wanted}.get("temperature")
    return None if reply is None else letter_shares(reply, len(order), temperature)


async def _decision_shares(
    question: Choice,
    variables: dict[str, Any],
    order: tuple[int, ...],
    get_reply: GetReply,
    proof: _Proof,
) -> Sequence[float] | None:
    """Request one decision; return the probability of each option, all 0 for a refusal.

    The question concerns the conversation that ends with it. Other parameters of a chat, such as a temperature,
    have no meaning there.

    :param order: as of :func:`_token_shares`.
    :returns: ``None`` for a failure that was logged.
    """
    messages = question.render(**variables)
    params = question.model_params
    texts = question.option_texts(variables, order)
    decision = {
        "type": "choice",
        "instructions": messages[-1]["content"],
        "choices": [{"value": text} for text in texts],
    }
    wanted = {
        **{name: params[name] for name in params if name in DECISION_ARGUMENTS},
        "window": "none",
        "extra_body": {"questions": [decision]},
    }
    try:
        reply = await get_reply(question.request(messages, wanted, variables))
    except InvalidRequestError as error:  # as of a server without this API
        proof.refuse("decisions", error)
        raise
    if reply is None:
        return None
    answers = objects_in(reply.raw.get("answers"))
    if len(answers) != 1 or answers[0].get("type") not in ("choice", REFUSAL):
        raise NoSharesError(
            f"the answer of the model {reply.model!r} is not a decision: {COUNT_DRAWS}"
        )
    shares = probabilities(answers[0])
    return [shares.get(text, 0.0) for text in texts]


SHARE_METHODS = {DECISIONS: _decision_shares, LOGPROBS: _token_shares}


def answer_with_shares(
    job: RowJob, rows: list[object], method: str, map_options: dict[str, object]
) -> tuple[str, Any]:
    """Return the method, and the answers for each row; for a dry run, the plan.

    ``"auto"`` takes the first method by which the model gives shares; if answers are recorded,
    the method by which it gave them, so that a replay requests nothing unrecorded.
    """
    methods = _methods(job, method, has_repeats="repeats" in map_options)
    if len(methods) > 1:
        recorded = (name for name in methods if _is_recorded(job, name, rows[:1], map_options))
        methods = [name] if (name := next(recorded, None)) else methods
    for name in methods[:-1]:
        try:
            return name, _answers_by(job, name, rows, map_options)
        except NoSharesError as error:
            if name == DECISIONS:
                warn_once(f"log probabilities or draws are read instead: {error}")
    return methods[-1], _answers_by(job, methods[-1], rows, map_options)


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
                f"by the table of models, {model!r} has no decisions with the client {client.api_type!r} "
                f"(if a server has them, set DECISIONS = yes under [Model {model}]): {COUNT_DRAWS}"
            )
    return methods


def _is_recorded(
    job: RowJob, method: str, rows: list[object], map_options: dict[str, object]
) -> bool:
    """Return whether the answers about some rows by a method are recorded, and have shares."""
    with suppress(NoSharesError):
        plan = _answers_by(job, method, rows, {**map_options, "dry_run": True})
        return bool(plan.hits) and not plan.misses
    return False


def _answers_by(
    job: RowJob, method: str, rows: list[object], map_options: dict[str, object]
) -> Any:
    """Return the answers for each row by one method; for a dry run, the plan."""
    is_plan = map_options.get("dry_run", False)
    question = cast("Choice", job.call)
    if method == DRAWS:
        row_job = _alternating(job)
        options, note = _in_all_orders(question, map_options)
        answers = run_map(row_job if is_plan else TableJob(**vars(row_job)), rows, **options)
        if is_plan:
            return answers._replace(notes=tuple(filter(None, (note,))))
        return _lists(answers, options["repeats"])
    orders = question.all_orders()
    settled = replace(job, is_named=False)  # the repeat decides the order
    shares_job = SharesJob(**vars(settled), method=method, orders=orders)
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
    """Return a list for each row, even for a single draw."""
    return answers if repeats > 1 else [[answer] for answer in answers]
