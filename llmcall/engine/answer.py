"""The answer of a chat call that is not recorded: of its model, or of a fallback if the context is
too long.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..errors import ContextLengthError
from ..models.tokens import count_tokens
from ..notices import logger, warn_once
from ..requests.keys import ordered
from ..responses.body import finite
from ..responses.checks import is_cut
from ..responses.chunks import chunks_of, text_in
from ..types import FROM_SERVER, Outcome, TokenUsage, record_of
from .effects import Do, Emit, with_cache
from .exchange import Exchange
from .flights import share
from .lookup import lookup
from .retry import RetryPolicy
from .service_tiers import tier_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..types import Record, Sent
    from .effects import Flow
    from .flights import Outcomes
    from .prepared_call import ModelCall

log = logger()


def answer(
    call: ModelCall,
    *,
    stream: bool = False,
    fallback: bool = True,
    whole: bool = False,
    cut: Record | None = None,
) -> Flow[Outcome]:
    """Answer a chat call that is not recorded.

    :param stream: emit its text as it comes.
    :param fallback: ask the next of ``[Fallbacks]`` if the context is too long; the record of the
        first model then points to that of the other.
    :param whole: raise an error if even the last model's answer was cut where the context window
        ended.
    :param cut: the recorded answer, if the context window cut it: it is not asked for again.
    :raises ContextLengthError: if the context is too long, and no model is left to ask.
    """
    policy = RetryPolicy.of(call.options, call.settings)
    names = call.settings.fallbacks.get(call.request.model, ()) if fallback else ()
    models = [call.client.model_named(name) for name in names]
    while True:
        outcome = yield from _first_that_fits(call, cut, models, policy, stream, whole)
        if call.cassette is not None and outcome.is_kept:
            outcome = outcome._replace(record=call.keep(outcome.record, outcome.source))
        if call.refuses(outcome.record):
            # An equal call with another response_format got it; there may be a further answer.
            call, record = yield from with_cache(call.cache, lookup, call)
            cut = None
            if record is None:
                continue
            call.count_hit(record.cost, record.served)
            outcome = Outcome(record)
        if stream and outcome.sent is None:
            yield from emit_recorded(outcome.record)
        return outcome


def emit_recorded(record: Record) -> Flow[None]:
    """Emit a recorded answer to the reader of a stream."""
    for chunk in chunks_of(record.response):
        yield Emit(text_in(chunk), chunk)


def _first_that_fits(
    call: ModelCall,
    cut: Record | None,
    fallbacks: Sequence[str],
    policy: RetryPolicy,
    stream: bool,
    whole: bool,
) -> Flow[Outcome]:
    """Return the answer of the first model whose context window is large enough."""
    current, record = call, cut
    left = list(fallbacks)
    while True:
        wants_room = bool(left) or whole
        try:
            outcome = yield from _answered(current, record, policy, stream, wants_room)
        except ContextLengthError as error:
            if not left:
                raise
            log.warning(
                "%s: the context is too long (%s); asking %s instead",
                current.request.model,
                error,
                left[0],
            )
        else:
            break
        current, record = yield from with_cache(call.cache, lookup, call.to_model(left.pop(0)))
    if outcome.sent is None:
        current.count_hit(outcome.record.cost, outcome.record.served)
    if current is not call:
        pointer = call.pointer_to(current.request.cache_key)
        yield Do(functools.partial(call.store, pointer))
    return outcome


def _answered(
    call: ModelCall,
    record: Record | None,
    policy: RetryPolicy,
    stream: bool,
    wants_room: bool,
) -> Flow[Outcome]:
    """Return one model's answer: the recorded one, or one that it is asked for.

    :param wants_room: an answer that the context window cut is an error.
    """
    if record is not None:
        if wants_room and is_cut(record.response, call.request):
            raise ContextLengthError("the recorded answer was cut where the context window ended")
        return Outcome(record)
    ask = functools.partial(
        _ask,
        policy=policy,
        stream=stream,
        # The reader of a stream has read one model's text: no other can replace it.
        wants_room=wants_room and not stream,
    )
    outcomes = yield from share([call], ask, policy, call.shared_store, stream=stream)
    return outcomes[call.request.cache_key]


def _ask(
    calls: Sequence[ModelCall], policy: RetryPolicy, stream: bool, wants_room: bool
) -> Flow[Outcomes]:
    """Ask the model of one call, count what it used, and store the answer."""
    (call,) = calls
    exchange = Exchange(call, policy, stream=stream, wants_room=wants_room)
    sent = yield from exchange.sent()
    if wants_room and is_cut(sent.response, call.request):
        call.count_answer(
            TokenUsage.of(sent.response),
            sent.endpoint,
            served=sent.response.get("model"),
            service_tier=tier_of(sent.response),
        )
        raise ContextLengthError(
            "the answer was cut where the context window ended", endpoint=sent.endpoint
        )
    outcome = yield Do(functools.partial(_store, call, sent))
    return {call.request.cache_key: outcome}


def _store(call: ModelCall, sent: Sent) -> Outcome:
    """Count what an answer used, warn of what it lacks, and record it."""
    # As a cassette gives it back: a later prompt may quote it.
    response = ordered(finite(sent.response))
    tokens = TokenUsage.of(response)
    cost = call.count_answer(
        tokens,
        sent.endpoint,
        served=response.get("model"),
        service_tier=tier_of(response),
    )
    _warn_of_missing_answers(call, response)
    _warn_of_cut_answers(call, response)
    if tokens.input_tokens:
        _warn_of_cut_prompt(call, tokens.input_tokens)
    record = record_of(
        call.request, response, cost=cost, api_type=call.client.api_type, host=sent.host
    )
    return Outcome(call.keep(call.store(record), FROM_SERVER), sent)


def _warn_of_missing_answers(call: ModelCall, response: Any) -> None:
    model = call.request.model
    wanted = call.request.asked.get("n", 1)
    given = len(response["choices"])
    if given != wanted:
        warn_once(
            f"{model} returned {given} of the {wanted} answers that n={wanted} asks for: "
            "its server ignores n",
            about=("n", model),
        )


def _warn_of_cut_answers(call: ModelCall, response: Any) -> None:
    model = call.request.model
    asked = call.request.asked
    if asked.get("logprobs") and asked.get("max_tokens") == 1:
        return  # one token was wanted, for its log probabilities
    if any(choice.get("finish_reason") == "length" for choice in response["choices"]):
        warn_once(
            f"{model}: an answer ended at its token limit (finish_reason 'length') and is kept as "
            "it is; if answers should be longer, set max_tokens higher",
            about=("length", model),
        )


def _warn_of_cut_prompt(call: ModelCall, reported: int) -> None:
    """Warn if a server reports less than half of the prompt tokens that are counted here.

    :param reported: how many tokens the prompt has, as the server counts.
    """
    model = call.request.model
    messages = call.request.body["messages"]
    contents = [message.get("content") for message in messages]
    text = "".join(content for content in contents if isinstance(content, str))
    # A token of English has about 4.5 bytes, one of other scripts 2 to 3. A shorter text cannot
    # have twice as many tokens, and need not be counted.
    bytes_per_token = 6 if text.isascii() else 3
    if len(text.encode()) <= reported * bytes_per_token:
        return
    encoding = call.client.pool(model).known.encoding
    counted = count_tokens(messages, model, encoding=encoding)
    if reported * 2 < counted:
        warn_once(
            f"{model}: the server reports {reported} prompt tokens, but llmcall counts {counted!r}. "
            "The server may have cut the prompt without an error, or it counts differently",
            about=("prompt tokens", model),
        )
