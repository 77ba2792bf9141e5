"""The answer of a call that is not recorded; another model's where the context is too long."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .. import responses
from ..errors import ContextLengthError
from ..models.tokens import count_tokens
from ..notices import logger, warn_once
from ..requests.keys import key_of, ordered
from ..types import Outcome, TokenUsage, record_of
from .drivers import Do, Emit, look
from .exchange import Exchange
from .flights import share
from .lookup import lookup
from .retry import RetryPolicy, repeated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..types import Record, Request, Sent
    from .drivers import Flow
    from .flights import Outcomes
    from .prepared_call import PreparedCall

log = logger()


def answer(
    call: PreparedCall,
    *,
    stream: bool = False,
    fallback: bool = True,
    whole: bool = False,
    cut: Record | None = None,
) -> Flow[Outcome]:
    """Answer a chat call that is not recorded, by another model where the context is too long.

    :param stream: whether its text is handed on as it comes.
    :param fallback: whether another model may be asked; the first one's record then points to that
        of the other.
    :param whole: whether an answer that the context window cut is an error even from the last
        model.
    :param cut: the recorded answer, which the context window cut; it is not asked for again.
    """
    policy = RetryPolicy.of(call.options, call.resolved.settings)
    named = call.resolved.settings.fallbacks.get(call.request.model, ()) if fallback else ()
    models = [call.client.model_named(name) for name in named]
    current, found, left = call, cut, models
    while True:
        wants_room = bool(left) or whole
        try:
            if found is None:
                # What a stream has told its reader cannot be told again by another model.
                ask = functools.partial(
                    _ask, policy=policy, stream=stream, wants_room=wants_room and not stream
                )
                outcomes = yield from share(
                    [current], ask, policy, current.shared_by, stream=stream
                )
                outcome = outcomes[current.request.cache_key]
            elif wants_room and responses.is_cut(found.response, current.request):
                raise ContextLengthError(
                    "the recorded answer was cut where the context window ended"
                )
            else:
                outcome = Outcome(found)
        except ContextLengthError as error:
            if not left:
                raise
            log.warning(
                "%s: the context is too long (%s); %s is asked instead",
                current.request.model,
                error,
                left[0],
            )
            current, left = call._replace(request=_asked_of(call.request, left[0])), left[1:]
            current, found = yield from look(call.resolved.cache, lookup, current)
            continue
        if outcome.sent is None:
            current.add_usage(cached_calls=1, saved=outcome.record.cost)
        if current is not call:
            pointer = record_of(call.request, {"fallback": current.request.cache_key})
            yield Do(functools.partial(call.store, pointer))
        if call.cassette is not None and outcome.is_kept:
            outcome = outcome._replace(record=call.keep(outcome.record, outcome.source))
        if call.request.expected is None or not call.refuses(outcome.record):
            if stream and outcome.sent is None:
                yield from told(outcome.record)
            return outcome
        # It is that of another caller, who reads it otherwise.
        call, found = yield from look(call.resolved.cache, lookup, call)
        if found is not None:
            call.add_usage(cached_calls=1, saved=found.cost)
            if stream:
                yield from told(found)
            return Outcome(found)
        current, left = call, models


def told(record: Record) -> Flow[None]:
    """Hand a recorded answer to the reader of a stream."""
    for chunk in responses.chunks_of(record.response):
        yield Emit(responses.text_in(chunk), chunk)


def _asked_of(request: Request, model: str) -> Request:
    """Return the same request to another model."""
    asked = {**request.asked, "model": model}
    key = key_of(request.kind, asked, request.sample)
    return request._replace(
        model=model, asked=asked, body={**request.body, "model": model}, cache_key=key
    )


def _ask(
    calls: Sequence[PreparedCall], policy: RetryPolicy, stream: bool, wants_room: bool
) -> Flow[Outcomes]:
    """Ask the model of one call, count and store."""
    (call,) = calls
    sent = yield from repeated(
        policy, call.name, Exchange(call, policy, stream, wants_room).attempt
    )
    if wants_room and responses.is_cut(sent.response, call.request):
        call.count_answer(TokenUsage.of(sent.response), sent.endpoint)
        raise ContextLengthError(
            "the answer was cut where the context window ended", endpoint=sent.endpoint
        )
    return {call.request.cache_key: (yield Do(functools.partial(_stored, call, sent)))}


def _stored(call: PreparedCall, sent: Sent) -> Outcome:
    response = ordered(sent.response)  # as a cassette gives it back: a prompt may quote it
    tokens = TokenUsage.of(response)
    cost = call.count_answer(tokens, sent.endpoint)
    _check_counts(call, response, tokens.input_tokens)
    record = record_of(
        call.request, response, cost=cost, api_type=call.client.api_type, host=sent.host
    )
    return Outcome(call.store(record), sent)


def _check_counts(call: PreparedCall, response: Any, reported: int | None) -> None:
    """Say so where an answer was cut, a server may have cut the prompt, or gave fewer answers than
    it was asked for.

    :param reported: how many tokens the prompt has by the server.
    """
    request = call.request
    wanted, given = request.asked.get("n", 1), len(response["choices"])
    if given != wanted:
        warn_once(
            f"{request.model} gives {given} of the {wanted} answers that n={wanted} asks for: its server ignores n",
            about=("n", request.model),
        )
    for choice in response["choices"]:
        if choice.get("finish_reason") == "length":
            warn_once(
                f"{request.model}: an answer ended at its token limit (finish_reason 'length') and is kept as it is; "
                "where it is to be longer, set max_tokens higher",
                about=("length", request.model),
            )
    if not reported:
        return
    messages = request.body["messages"]
    text = "".join(
        [message["content"] for message in messages if isinstance(message.get("content"), str)]
    )
    # An English token has about 4.5 bytes, one of other scripts 2 to 3: twice that is suspicious,
    # and worth counting.
    if len(text.encode()) <= reported * (6 if text.isascii() else 3):
        return
    counted = count_tokens(
        messages, request.model, encoding=call.client.capabilities(request.model).encoding
    )
    if reported * 2 < counted:
        warn_once(
            f"{request.model}: the server reports {reported} prompt tokens, and {counted!r} are counted here: the "
            "prompt may have been cut silently, or the server counts otherwise",
            about=("prompt tokens", request.model),
        )
