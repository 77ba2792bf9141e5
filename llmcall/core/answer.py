"""The answer to a chat call that is not recorded: from its model, or from a fallback if the context
is too long.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..apis.bodies import finite
from ..apis.chunks import chunks_of, text_in
from ..errors import ContextLengthError
from ..keys.plain_data import ordered
from ..stores.record import record_of
from ..support.listeners import listeners
from ..support.notices import logger
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
    """Record an answer."""
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
    for listener in listeners:
        listener.stored(call, record)
    return stored
