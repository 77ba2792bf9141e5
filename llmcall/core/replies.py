"""What the caller of a call gets: the reply, from the record or from a model, or its failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config.values import without_password
from ..errors import APIError, CacheCorruptError
from ..keys.keys import short_key
from ..support.failures import is_abandoned
from ..support.listeners import listeners
from ..support.notices import is_new, logger
from .effects import with_cache
from .lookup import lookup
from .reply import Reply

if TYPE_CHECKING:
    from ..stores.record import Record
    from .calls import Call


NOT_RECORDED = object()


def replay(call: Call) -> Any:
    """Answer a chat call from its record in this thread, where nothing has to wait.

    :returns: what its caller gets, as :func:`reply_to` returns it; ``NOT_RECORDED`` if it has to be
        asked.
    """
    try:
        record = lookup(call)
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
        record = await with_cache(call.cache, lookup, call) if looks_up else None
        if record is None:
            from .answer import answer  # a recorded reply does not need it

            if stream:
                failures = call.failures
                token = failures.begin(call.scope, call.label)
            record = await answer(call, stream=stream)
            return _finish(call, record)
        if stream:
            from .answer import emit_recorded

            await emit_recorded(record)
        call.count_hit(record)
        return _finish(call, record)
    except BaseException as error:  # noqa: BLE001 - handle_failure raises all but an APIError again
        is_early = is_abandoned(error)
        return handle_failure(error, call, stream=stream)
    finally:
        if token is not None:
            failures.end(token, is_early=is_early)


def _finish(call: Call, record: Record) -> Any:
    """Finish an answered call, and return its answer as the caller wants it: a reply, or what
    ``response_format`` parses.

    :raises CacheCorruptError: if the record does not contain a model's answer.
    """
    call.end(record)
    try:
        reply = Reply.of(record, call.parse)
    except (LookupError, TypeError, AttributeError) as error:
        key = short_key(record.cache_key)
        remedy = f"'llmcall cache delete {key}', or after its line is removed from the cassette, llmcall asks again"
        raise CacheCorruptError(
            f"the record {key}… does not contain a model's answer; after {remedy}"
        ) from error
    if call.options.enable_pydantic_model_return and call.parse is not None:
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
