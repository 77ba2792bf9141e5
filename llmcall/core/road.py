"""The road of a chat call, from top to bottom: look up, share, retry, attempt, check, store, finish.

Each step adds one thing to the one below it. A recorded answer takes the first and the last alone. Steps
that have to wait are coroutines, written once for threads and event loops (``effects.py``). Embeddings,
recorded functions and requests that are recorded as they are take the same steps; what differs is how
they are sent, checked and stored.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..apis.bodies import finite
from ..config.values import without_password
from ..errors import APIError, CacheCorruptError, CacheMissError, ContextLengthError
from ..keys.keys import short_key
from ..keys.plain_data import ordered
from ..stores.record import record_of
from ..support.failures import is_abandoned
from ..support.listeners import listeners
from ..support.notices import first, is_new, logger
from ..support.tracebacks import hide_own_frames
from .effects import Piece, do, emit, with_cache
from .reply import Reply
from .seams import AlreadyRecorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..stores.record import Received, Record
    from .calls import Call

NOT_RECORDED = object()
log = logger()


def replay(call: Call) -> Any:
    """Answer a chat call from its record in this thread, where nothing has to wait.

    :returns: what its caller gets, as :func:`reply_to` returns it; ``NOT_RECORDED`` if it has to be
        asked.
    """
    try:
        record = look_up(call)
        if record is None:
            return NOT_RECORDED
        call.count_hit(record)
        return _finish(call, record)
    except BaseException as error:
        note_failure(error, call)
        raise


async def reply_to(
    call: Call,
    *,
    stream: bool = False,
    looks_up: bool = True,
) -> Any:
    """Answer a chat call, from the record or by its model.

    :param stream: emit the answer, piece by piece.
    :param looks_up: whether to look for a recorded answer first; the caller may have looked.
    :returns: the reply, or what ``response_format`` parses. If the call failed after all retries and its
        caller does not want the error raised: the error or ``None``, as ``on_error`` says.
    :raises APIError: if the call failed after all retries, and its caller wants the error raised.
    """
    token = None
    is_early = False
    try:
        record = await with_cache(call.cache, look_up, call) if looks_up else None
        if record is None:
            if stream:
                failures = call.failures
                token = failures.begin(call.scope, call.label)
            record = await _answer(call, stream=stream)
            return _finish(call, record)
        if stream:
            await _emit_recorded(record)
        call.count_hit(record)
        return _finish(call, record)
    except BaseException as error:  # noqa: BLE001 - handle_failure raises all but an APIError again
        is_early = is_abandoned(error)
        return handle_failure(error, call, stream=stream)
    finally:
        if token is not None:
            failures.end(token, is_early=is_early)


# Look up


def look_up(call: Call) -> Record | None:
    """Return the recorded answer of a call, or ``None`` if the call has to be made.

    :raises CacheMissError: if nothing is recorded, and the cassette (without one, the cache's mode)
        forbids calls; and if the recorded answer does not fit the call.
    """
    record = call.store.get(call.request)
    if record is None:
        if not call.may_ask:
            call.refuse(_miss_error(call))
        check_may_ask(call)
        return None
    if call.request.expected is not None:
        refuse_misfit(call, record)
    return record


def check_may_ask(call: Call) -> None:
    """Raise an error if a listener forbids the call, such as a test that may reach no model; a function's
    own calls are checked.
    """
    if call.request.kind == "function":
        return
    try:
        for listener in listeners:
            listener.asks(call)
    except CacheMissError as error:
        call.refuse(error)


def refuse_misfit(call: Call, record: Record) -> None:
    """Refuse an answer of another call that does not fit this call's ``response_format``.

    :raises CacheMissError: an :class:`LLMCall` reads answers itself, and records them whether they
        fit or not; and a class may have changed since the recording.
    """
    if call.request.expected is None:
        return
    from .checks import fits

    if fits(call.request, record.response):
        return
    error = CacheMissError(
        f"the recorded answer to this {call.label} does not fit its response_format. Give the call a sample= of "
        "its own, or ask anew with cache_mode='refresh' (a cassette: mode 'rewrite')"
    )
    call.refuse(error)


def _miss_error(call: Call) -> CacheMissError:
    """Return the error of a call that is not recorded and may not be made.

    It names the first miss of the process: if the program went on without that answer, later misses
    may only follow from it.
    """
    from ..stores.cassettes.misses import miss_error

    error = miss_error(
        call.request,
        settings=call.settings,
        cache=call.cache,
        cassette=call.cassette,
        bypasses_cache=call.options.cache is False,
    )
    first_miss = first(CacheMissError, error.args[0])
    if first_miss != error.args[0]:
        error.first = first_miss
    return error


# Share, retry, attempt, check and store


async def _answer(call: Call, *, stream: bool = False) -> Record:
    """Answer a chat call that is not recorded.

    :param stream: emit the answer as it comes.
    :raises ContextLengthError: if the context is too long, and no model is left to ask.
    """
    from .share import share  # a recorded answer needs none of it

    call = call.begun()
    records = await share([call], functools.partial(_ask, stream=stream), stream=stream)
    record = records[call.request.cache_key]
    if record.is_hit:
        call.count_hit(record)
    refuse_misfit(call, record)  # an equal call with another response_format may have got it
    if stream and record.is_hit:
        await _emit_recorded(record)
    return record


async def _emit_recorded(record: Record) -> None:
    """Emit a recorded answer to the reader of a stream."""
    from ..apis.chunks import chunks_of, text_in

    for chunk in chunks_of(record.response):
        await emit(Piece(text_in(chunk), chunk))


async def _ask(calls: Sequence[Call], *, stream: bool) -> dict[str, Record]:
    """Ask the model of one call or, if the context is too long, its fallbacks; store the answer."""
    from .retry import retry
    from .send import Exchange, release

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


# Finish


def _finish(call: Call, record: Record) -> Any:
    """Finish an answered call, and return its answer as the caller wants it: a reply, or what
    ``response_format`` parses.

    :raises CacheCorruptError: if the record does not contain a model's answer.
    """
    call.end(record)
    try:
        reply = Reply.of(record, call.request.expected)
    except (LookupError, TypeError, AttributeError) as error:
        key = short_key(record.cache_key)
        remedy = f"'llmcall cache delete {key}', or after its line is removed from the cassette, llmcall asks again"
        raise CacheCorruptError(
            f"the record {key}… does not contain a model's answer; after {remedy}"
        ) from error
    expected = call.request.expected
    if call.options.enable_pydantic_model_return and expected is not None and expected.is_class:
        return reply.parsed
    return reply


def handle_failure(error: BaseException, call: Call, *, stream: bool = False) -> Any:
    """Raise, log or return an API failure, as the caller wants; raise any other error.

    The call's draw is given back.

    :param stream: whether its answer was streamed. A stream has no value that could be the error,
        so it raises the error that a call would return.
    :returns: the error if the caller wants it as the value, or ``None`` if it was logged.
    """
    note_failure(error, call, stream=stream)
    hide_own_frames(error)
    if not isinstance(error, APIError):
        raise error
    on_error, model = call.options.on_error, call.request.model
    endpoints = call.client.pool(model).endpoints
    # all may have failed
    failed = [each for each in endpoints if each.name == error.endpoint] or endpoints
    addresses = {without_password(each.address) or call.client.host(each) for each in failed}
    address = ", ".join(sorted(each.partition("?")[0] for each in addresses))
    if on_error == "raise" or (on_error == "return" and stream):
        note = f"model {model} at {address}. {error.remedy}"
        # Python 3.10 has no notes; an error that several calls share is raised more than once.
        if hasattr(error, "add_note") and note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise error
    if on_error == "return":
        return error
    line = f"{call.label} at {address} failed: {error}"
    if is_new(("failed", address, type(error))):
        full_stop = "" if line.endswith((".", "?", "!")) else "."
        line += f'{full_stop} {error.remedy}; on_error="raise" raises this error'
    logger().error("%s", line)
    return None


def note_failure(error: BaseException, call: Call, *, stream: bool = False) -> None:
    """Report a call that ended without an answer, and give its draw back.

    :param stream: whether its answer was streamed.
    """
    for listener in listeners:
        listener.failed(call, error, is_streamed=stream)
    call.give_back()
