"""The answer to a chat call that is not recorded: from its model, or from a fallback if the context
is too long.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..apis.bodies import finite
from ..apis.chunks import chunks_of, text_in
from ..apis.shapes import choices_of
from ..apis.usage import TokenUsage
from ..errors import ContextLengthError
from ..keys.plain_data import ordered
from ..models.tokens import count_tokens
from ..stores.record import record_of
from ..support.notices import logger, warn_once
from .effects import Piece, do, emit
from .lookup import refuse_misfit
from .retry import retry
from .send import Exchange, release
from .share import share
from .transport import AlreadyRecorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..stores.record import Received, Record
    from .calls import Call


log = logger()


async def answer(call: Call, *, stream: bool = False) -> Record:
    """Answer a chat call that is not recorded.

    :param stream: emit the answer as it comes.
    :raises ContextLengthError: if the context is too long, and no model is left to ask.
    """
    call = call.begun()
    records = await share([call], functools.partial(_ask, stream=stream), stream=stream)
    record = records[call.request.cache_key]
    if record.is_hit:
        call.count_hit(record)
    refuse_misfit(call, record)  # an equal call with another response_format may have got it
    if stream and record.is_hit:
        await emit_recorded(record)
    return record


async def emit_recorded(record: Record) -> None:
    """Emit a recorded answer to the reader of a stream."""
    for chunk in chunks_of(record.response):
        await emit(Piece(text_in(chunk), chunk))


async def _ask(calls: Sequence[Call], *, stream: bool) -> dict[str, Record]:
    """Ask the model of one call or, if the context is too long, its fallbacks; store the answer."""
    (call,) = calls
    models = [call.client.model_named(model) for model in call.fallbacks]
    while True:
        exchange = Exchange(
            call,
            functools.partial(_store, call),
            stream=stream,
            # The reader of a stream has read one model's text: no other can replace it.
            must_fit_window=bool(models) and not stream,
        )
        try:
            record = await retry(call, exchange.attempt)
            break
        except AlreadyRecorded:
            found = await do(call.store.get, call.request)
            return {} if found is None else {call.request.cache_key: found}
        except ContextLengthError as error:
            if not models:
                raise
            model = models.pop(0)
            log.warning(
                "%s: the context is too long (%s); asking %s instead",
                call.request.model,
                error,
                model,
            )
            call = call.to_model(model)
    await exchange.emit_held_back()
    await release(exchange.response, is_stored=True)
    return {call.request.cache_key: record}


def _store(call: Call, response: Any, received: Received) -> Record:
    """Record an answer, and warn of what it lacks."""
    # As a cassette gives it back: a later prompt may quote it.
    response = ordered(finite(response))
    if call.request.model != call.request.asked["model"]:  # a fallback's: it says who answered
        response = {**response, "model": response.get("model") or call.request.model}
    record = record_of(
        call.request,
        response,
        cost=received.cost,
        api_type=call.client.api_type,
        host=received.host,
    )
    stored = call.store.add(record).replace(received=received)
    _warn_of_cut_answer(call, response)
    _warn_of_cut_prompt(call, TokenUsage.of(response).input_tokens)
    return stored


def _warn_of_cut_answer(call: Call, response: Any) -> None:
    """Warn if an answer ended at its token limit."""
    model = call.request.model
    parameters = call.request.asked
    if parameters.get("logprobs") and parameters.get("max_tokens") == 1:
        return  # one token was wanted, for its log probabilities
    if any(choice.get("finish_reason") == "length" for choice in choices_of(response)):
        warn_once(
            f"{model}: an answer ended at its token limit (finish_reason 'length') and is "
            "recorded as it is; if answers should be longer, set max_tokens higher",
            about=("length", model),
        )


def _warn_of_cut_prompt(call: Call, reported: int | None) -> None:
    """Warn if a server reports less than half of the prompt tokens that are counted here.

    :param reported: the prompt tokens that the server counted, if it says so.
    """
    if not reported:
        return
    model = call.request.model
    messages = call.request.body["messages"]
    contents = [message.get("content") for message in messages]
    text = "".join(content for content in contents if isinstance(content, str))
    # A token of English has about 4.5 bytes, one of other scripts 2 to 3. A shorter text cannot
    # have twice as many tokens, and need not be counted.
    bytes_per_token = 6 if text.isascii() else 3
    if len(text.encode()) <= reported * bytes_per_token:
        return
    encoding = call.client.pool(model).capabilities.encoding
    counted = count_tokens(messages, model, encoding=encoding)
    if reported * 2 < counted:
        warn_once(
            f"{model}: the server reports {reported} prompt tokens, but llmcall counts {counted!r}. "
            "The server may have cut the prompt without an error, or it counts differently",
            about=("prompt tokens", model),
        )
