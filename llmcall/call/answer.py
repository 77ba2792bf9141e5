"""The answer to a chat call that is not recorded: from its model, or from a fallback if the context
is too long.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ContextLengthError
from ..models.prices import tier_of
from ..notices import logger
from ..requests.plain_data import ordered
from ..responses.body import finite
from ..responses.checks import is_cut_by_context_window
from ..responses.chunks import chunks_of, text_in
from ..types import FROM_SERVER, Outcome, TokenUsage, record_of
from .answer_warnings import warn_of_cut_answers, warn_of_cut_prompt, warn_of_missing_answers
from .effects import Do, Emit, with_cache
from .exchange import Exchange
from .flights import share
from .lookup import check_fits, lookup
from .retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..types import Received, Record
    from .effects import Flow
    from .flights import Outcomes
    from .model_call import ModelCall

log = logger()


class _Rules(NamedTuple):
    """How models are asked.

    :param stream: emit the answer as it comes.
    :param must_fit_window: an answer that was cut where the context window ended is an error.
    """

    policy: RetryPolicy
    stream: bool
    must_fit_window: bool


def answer(
    call: ModelCall,
    *,
    stream: bool = False,
    fallback: bool = True,
    must_fit_window: bool = False,
    record_cut_by_window: Record | None = None,
) -> Flow[Outcome]:
    """Answer a chat call that is not recorded.

    :param stream: emit the answer as it comes.
    :param fallback: ask the models of ``[Fallbacks]``, one after the other, if the context is too
        long.
    :param must_fit_window: raise an error if even the last model's answer was cut where the context
        window ended.
    :param record_cut_by_window: the recorded answer, if the context window cut it: it is not asked
        for again.
    :raises ContextLengthError: if the context is too long, and no model is left to ask.
    """
    rules = _Rules(RetryPolicy.of(call.options, call.settings), stream, must_fit_window)
    fallbacks = _fallbacks(call) if fallback else []
    outcome = yield from _first_that_fits(call, record_cut_by_window, fallbacks, rules)
    check_fits(call, outcome.record)  # an equal call with another response_format may have got it
    if stream and outcome.received is None:
        yield from emit_recorded(outcome.record)
    return outcome


def emit_recorded(record: Record) -> Flow[None]:
    """Emit a recorded answer to the reader of a stream."""
    for chunk in chunks_of(record.response):
        yield Emit(text_in(chunk), chunk)


def _fallbacks(call: ModelCall) -> list[str]:
    """Return the models to ask if the context is too long for the call's own."""
    names = call.settings.fallbacks.get(call.request.model, ())
    return [call.client.model_named(name) for name in names]


def _first_that_fits(
    call: ModelCall, record_cut_by_window: Record | None, fallbacks: Sequence[str], rules: _Rules
) -> Flow[Outcome]:
    """Return the answer of the first model whose context window is large enough, kept on the
    cassette.

    If it is a fallback's, the record of the call points to that of the fallback.

    :param record_cut_by_window: the recorded answer of the call's own model, if the context window
        cut it.
    """
    current, record = call, record_cut_by_window
    for fallback in fallbacks:
        try:
            outcome = yield from _answer_of_model(
                current, record, rules._replace(must_fit_window=True)
            )
            break
        except ContextLengthError as error:
            log.warning(
                "%s: the context is too long (%s); asking %s instead",
                current.request.model,
                error,
                fallback,
            )
        current, record = yield from with_cache(call.cache, lookup, call.to_model(fallback))
    else:
        outcome = yield from _answer_of_model(current, record, rules)
    if current is not call:
        pointer = call.pointer_to(current.request.cache_key)
        yield Do(functools.partial(call.store_in_cache, pointer))
    # _store put a new answer there. This adds one that another call received or the cache had.
    if call.cassette is not None and outcome.is_recorded:
        return outcome._replace(record=call.put_on_cassette(outcome.record, outcome.source))
    return outcome


def _answer_of_model(call: ModelCall, record: Record | None, rules: _Rules) -> Flow[Outcome]:
    """Return one model's answer: the recorded one, or one that it is asked for.

    :raises ContextLengthError: if the context is too long for the model.
    """
    if record is None:
        ask = functools.partial(_ask, rules=rules)
        outcomes = yield from share([call], ask, rules.policy, stream=rules.stream)
        outcome = outcomes[call.request.cache_key]
    elif rules.must_fit_window and is_cut_by_context_window(record.response, call.request):
        raise ContextLengthError("the recorded answer was cut where the context window ended")
    else:
        outcome = Outcome(record)
    if outcome.received is None:
        call.count_hit(outcome.record.cost, outcome.record.served)
    return outcome


def _ask(calls: Sequence[ModelCall], rules: _Rules) -> Flow[Outcomes]:
    """Ask the model of one call, count what it used, and store the answer."""
    (call,) = calls
    # The reader of a stream has read one model's text: no other can replace it.
    must_fit_window = rules.must_fit_window and not rules.stream
    exchange = Exchange(call, rules.policy, stream=rules.stream, must_fit_window=must_fit_window)
    received = yield from exchange.send_until_answered()
    if must_fit_window and is_cut_by_context_window(received.response, call.request):
        _count(call, received.response, received.endpoint)
        raise ContextLengthError(
            "the answer was cut where the context window ended", endpoint=received.endpoint
        )
    outcome = yield Do(functools.partial(_store, call, received))
    return {call.request.cache_key: outcome}


def _store(call: ModelCall, received: Received) -> Outcome:
    """Count what an answer used, warn of what it lacks, and record it."""
    # As a cassette gives it back: a later prompt may quote it.
    response = ordered(finite(received.response))
    cost = _count(call, response, received.endpoint)
    warn_of_missing_answers(call, response)
    warn_of_cut_answers(call, response)
    warn_of_cut_prompt(call, TokenUsage.of(response).input_tokens)
    record = record_of(
        call.request, response, cost=cost, api_type=call.client.api_type, host=received.host
    )
    return Outcome(call.put_on_cassette(call.store_in_cache(record), FROM_SERVER), received)


def _count(call: ModelCall, response: Any, endpoint: str) -> float | None:
    """Count what an answer used, and return its cost in USD, or ``None`` if that is unknown."""
    return call.count_answer(
        TokenUsage.of(response),
        endpoint,
        served=response.get("model"),
        service_tier=tier_of(response),
    )
