"""The shares of a closed question's options: by decisions, or by the log probabilities of an answer's first token; and
which method a question allows."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from weakref import ref

from ..apis.decisions import REFUSAL, probabilities
from ..apis.message import objects_in
from ..apis.shapes import choices_of
from ..core.calls import OPTIONS
from ..errors import ConfigError, EmptyAnswerError, InvalidRequestError
from ..many.map import map as run_map
from ..stores.cassettes.current import current_cassette
from ..support.failures import process_failures
from ..support.notices import warn_once
from ..support.waits import run_blocking
from ..typed.corrections import GetReply, SendMessage
from ..typed.rows import RowJob, TableJob
from .choice_options import Respondent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..core.reply import Reply
    from .choice import Choice

TOP_LOGPROBS = 20  # the most tokens whose log probabilities the API gives
DECISION_ARGUMENTS = OPTIONS | {"model", "extra_headers"}
COUNT_DRAWS = "give repeats=, and method='draws', to count draws instead"
THOUGHTS = "<think"
# "▁" and "Ġ" are the blank of SentencePiece and of byte-level BPE.
_BEFORE_WORDS = " \t\r\n\u2581\u0120"


class NoSharesError(ConfigError):
    """The failure of a method by which a model gives no shares."""


class _Proof:
    """The proof that a model gives shares: the first answer of a job, or why it had none."""

    def __init__(self) -> None:
        self.is_given = False
        self.problem = ""
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[type[_Proof], tuple[()]]:
        return _Proof, ()  # another process requests its own


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
        method = SHARE_METHODS[self.method]
        request = method.request(question, self.variables(item), order)
        try:
            reply = await get_reply(request)
        except (EmptyAnswerError, InvalidRequestError) as error:
            if self.proof.is_given or not method.is_unavailable(error):
                raise
            # The request only checked the server's abilities; a replay does not send it.
            cassette = current_cassette()
            failures = process_failures if cassette is None else cassette.failures
            failures.recover(ref(error))
            raise NoSharesError(
                f"{method.what} are not available here ({error}): {COUNT_DRAWS}"
            ) from error
        if reply is None:
            return None
        shares = [0.0] * (len(order) + 1)
        for position, share in enumerate(method.shares(reply, request, len(order))):
            shares[order[position]] = share
        shares[-1] = max(0.0, 1 - math.fsum(shares))
        return shares


class ShareMethod(NamedTuple):
    """A method of requesting shares.

    :param what: that the model gives, in words.
    :param request: returns the request for the shares of a row, by its variables, in an order of the options.
    :param is_unavailable: returns whether the first call's failure says that there are no shares by this method.
    :param shares: returns the share of each option in the order that was read; or raises a ``NoSharesError``.
    """

    what: str
    request: Callable[[Choice, dict[str, object], tuple[int, ...]], SendMessage]
    is_unavailable: Callable[[Exception], bool]
    shares: Callable[[Reply, SendMessage, int], list[float]]


def _token_request(
    question: Choice, variables: dict[str, object], order: tuple[int, ...]
) -> SendMessage:
    """Return the request for one token."""
    params = question.model_params
    limit = {} if "max_completion_tokens" in params else {"max_tokens": 1}
    wanted = {**limit, **params, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
    prompt = question.prompt(variables, order)
    return SendMessage(question.client, prompt, wanted, partial(question.form, variables))


def _has_no_logprobs(error: Exception) -> bool:
    """Return whether there are no log probabilities: the only token of a model that reasons first is empty."""
    return isinstance(error, EmptyAnswerError) or "logprobs" in str(error)


def _token_shares(reply: Reply, request: SendMessage, count: int) -> list[float]:
    """Return the shares of the letters, at the temperature of the request."""
    params = {**request.client.resolved.defaults, **request.params}
    return letter_shares(reply, count, params.get("temperature"))


def _decision_request(
    question: Choice, variables: dict[str, object], order: tuple[int, ...]
) -> SendMessage:
    """Return the request for one decision: the question concerns the conversation that ends with it.

    Other parameters of a chat, such as a temperature, have no meaning there.
    """
    messages = question.render(**variables)
    params = question.model_params
    decision = {
        "type": "choice",
        "instructions": messages[-1]["content"],
        "choices": [{"value": text} for text in question.option_texts(variables, order)],
    }
    wanted = {
        **{name: params[name] for name in params if name in DECISION_ARGUMENTS},
        "window": "none",
        "extra_body": {"questions": [decision]},
    }
    return SendMessage(question.client, messages, wanted, partial(question.form, variables))


def _has_no_decisions(error: Exception) -> bool:
    """Return whether the server refuses the request, as a server without this API does."""
    return isinstance(error, InvalidRequestError)


def _decision_shares(reply: Reply, request: SendMessage, count: int) -> list[float]:
    """Return the probabilities of the options; all 0 for a refusal."""
    (decision,) = request.params["extra_body"]["questions"]
    answers = objects_in(reply.raw.get("answers"))
    if len(answers) != 1 or answers[0].get("type") not in ("choice", REFUSAL):
        raise NoSharesError(
            f"the answer of the model {reply.model!r} is not a decision: {COUNT_DRAWS}"
        )
    shares = probabilities(answers[0])
    return [shares.get(choice["value"], 0.0) for choice in decision["choices"]]


def letter_shares(reply: Reply, count: int, temperature: float | None = None) -> list[float]:
    """Return the probability of each letter from A on, with or without a space before it, in upper
    or lower case.

    Servers give the probabilities at the temperature 1. At another one, each is raised to the power
    ``1 / temperature``; tokens below those listed count as if each were as likely as the last one.

    :param count: the number of letters.
    :param temperature: at which answers are drawn; ``None`` is the API's default, 1.
    :raises ConfigError: if the answer has no log probabilities, or comes after reasoning.
    """
    chances = [(token, math.exp(logprob)) for token, logprob in _first_token_logprobs(reply)]
    chances = [
        (token, chance) for token, chance in chances if chance
    ]  # some servers list impossible ones
    unlisted = max(0.0, 1 - math.fsum(chance for _, chance in chances))
    if temperature == 0:
        highest = max((chance for _, chance in chances), default=1.0)
        weights = [(token, float(chance == highest)) for token, chance in chances]
        unlisted = 0.0
    else:
        power = 1 / (1 if temperature is None else temperature)
        weights = [(token, chance**power) for token, chance in chances]
        unlisted *= min((chance for _, chance in chances), default=1.0) ** (power - 1)
    total = math.fsum([unlisted, *(weight for _, weight in weights)])
    shares = [0.0] * count
    for token, weight in weights:
        letter = token.lstrip(_BEFORE_WORDS).upper()
        position = ascii_uppercase.find(letter) if len(letter) == 1 else -1
        if 0 <= position < count:
            shares[position] += weight / total
    return shares


def _first_token_logprobs(reply: Reply) -> list[tuple[str, float]]:
    """Return the log probabilities of the first token: the likeliest tokens, and the sampled one.

    Several tokens may have the same text: vLLM gives "A" for SentencePiece's "A" and "▁A".
    """
    model = reply.model
    message = choices_of(reply.raw)[0]["message"]
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    content = (reply.logprobs or {}).get("content") or []
    if not content or not content[0].get("top_logprobs"):
        raise NoSharesError(
            f"the server of the model {model!r} gives no log probabilities (logprobs=True, "
            f"top_logprobs={TOP_LOGPROBS}): {COUNT_DRAWS}"
        )
    first = content[0]
    if thoughts or reply.usage.reasoning_tokens or first["token"].lstrip().startswith(THOUGHTS):
        raise NoSharesError(
            f"the model {model!r} reasons before it answers, so its first token shows little about "
            f"its answers: {COUNT_DRAWS}"
        )
    # Two equal entries are one token.
    pairs = dict.fromkeys((entry["token"], entry["logprob"]) for entry in first["top_logprobs"])
    logprobs = list(pairs)
    sampled = first["token"], first["logprob"]
    if sampled[0] not in dict(logprobs):
        logprobs.append(sampled)
    # Some servers give null for an impossible token: JSON has no minus infinity.
    return [(token, logprob) for token, logprob in logprobs if logprob is not None]


DECISIONS, LOGPROBS, DRAWS = "decisions", "logprobs", "draws"
METHODS = ("auto", DECISIONS, LOGPROBS, DRAWS)
SHARE_METHODS = {
    DECISIONS: ShareMethod("decisions", _decision_request, _has_no_decisions, _decision_shares),
    LOGPROBS: ShareMethod("log probabilities", _token_request, _has_no_logprobs, _token_shares),
}


def answer_with_shares(
    question: Choice, job: RowJob, rows: list[object], method: str, map_options: dict[str, object]
) -> tuple[str, Any]:
    """Return the method, and the answers for each row; for a dry run, the plan.

    ``"auto"`` takes the first method by which the model gives shares; if answers are recorded,
    the method by which it gave them, so that a replay requests nothing unrecorded.
    """
    methods = _methods(job, method, has_repeats="repeats" in map_options)
    if len(methods) > 1:
        recorded = (
            name for name in methods if _is_recorded(question, job, name, rows[:1], map_options)
        )
        methods = [name] if (name := next(recorded, None)) else methods
    for name in methods[:-1]:
        try:
            return name, _answers_by(question, job, name, rows, map_options)
        except NoSharesError as error:
            if name == DECISIONS:
                warn_once(f"log probabilities or draws are read instead: {error}")
    return methods[-1], _answers_by(question, job, methods[-1], rows, map_options)


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
        plan = _answers_by(question, job, method, rows, {**map_options, "dry_run": True})
        return bool(plan.hits) and not plan.misses
    return False


def _answers_by(
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
