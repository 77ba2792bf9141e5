"""The pipeline of a call, from top to bottom: look up, share, send, attempt, check, store, finish.

Each step adds one thing to the one below it. A recorded answer needs only the first and the last, so it never
waits. Identical calls share before one of them retries, so its attempts serve all of them. The answer is stored
before the sharing ends, so that waiting calls find it.

Steps that have to wait are procedures, written once for threads and event loops (``effects.py``). Chats, embeddings,
recorded functions and requests recorded verbatim all use this pipeline. They differ in how they are sent (their
transport), checked and recorded (``kinds.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..apis.token_usage import total_cost
from ..config.values import without_password
from ..errors import (
    APIError,
    CacheCorruptError,
    CacheMissError,
    LLMCallError,
    OutputError,
    ServiceError,
)
from ..keys.keys import short_key
from ..stores.record import Record
from ..support.display import sentence
from ..support.failures import Progress, note_inside
from ..support.listeners import notify
from ..support.notices import first, logger
from ..support.tracebacks import hide_own_frames
from .calls import Call
from .effects import Emit, Look, Piece
from .reply import Reply


def answer_from_record(call: Call) -> Record | None:
    """Answer a chat call from its record in this thread, where nothing has to wait.

    :returns: the record, or ``None`` if a model or another process must answer.
    """
    if call.way is not None:
        return None
    try:
        record = found(call, call.store.get(call.request))
        if record is not None:
            call.note_hit(record, record.cost)
            call.note_answer(record)
        return record
    except BaseException as error:
        note_failure(error, call)
        raise


async def reply_to(call: Call, *, looks_up: bool = True) -> Any:
    """Answer a chat call from its record, or by calling its model.

    :param looks_up: whether to look for a recorded answer first; the caller may have looked.
    :returns: the reply, or what ``response_format`` parses. If the call failed after all retries and its
        caller does not want the error raised: the error or ``None``, as ``on_error`` says.
    :raises APIError: if the call failed after all retries, and its caller wants the error raised.
    """
    try:
        [record] = await answer_calls([call], looks_up=looks_up)
    except APIError as error:
        return handle_failure(error, call)
    return reply_in(record, call)


async def answer_calls(calls: Sequence[Call], *, looks_up: bool = True) -> list[Record]:
    """Answer calls from their records or by sending them: the whole pipeline, for each kind of call.

    :param calls: one call, or one for each text of embeddings.
    :param looks_up: whether to look for recorded answers first.
    :returns: their records, in order.
    """
    if not calls:  # the embeddings of no text
        return []
    first = calls[0]  # the others have the same options
    if first.way is not None:
        try:
            return await first.way.answer(calls)
        except LLMCallError as error:
            note_inside(error)
            raise
    records: dict[str, Record] = {}
    missing: dict[str, Call] = {}
    progress = Progress()
    failures = None
    try:
        for call in calls:
            key = call.request.cache_key
            if key in records or key in missing:
                continue  # of identical texts, the first is looked up, and gives the record its position
            record = found(call, await Look(call.store, call.request)) if looks_up else None
            if record is None:
                missing[key] = call.begun(progress)
            else:
                records[key] = record
        if missing:
            from .share import share  # not needed for a recorded answer

            if first.is_counted and first.is_streamed:
                failures = first.failures
                failures.begin(progress, first.position.path, first.label)
            records |= await share([*missing.values()])
        for call in missing.values():  # an identical call with another format may have got it
            if call.request.expected is not None:
                refuse_misfit(call, records[call.request.cache_key])
        if first.is_streamed:
            await _emit_recorded(records[first.request.cache_key])
        hits = [record for record in records.values() if record.is_hit]
        if hits:
            saved = total_cost(record.cost for record in hits)
            if len(hits) < len(records):  # the call counts as answered by a model
                first.note(saved=saved)
            else:
                first.note_hit(hits[0], saved)
        answers = [records[call.request.cache_key] for call in calls]
        for call, record in zip(calls, answers, strict=True):
            call.note_answer(record)
        if failures is not None:
            failures.end(progress)
        return answers
    except BaseException as error:
        note_failure(error, first._replace(progress=progress))
        if failures is not None:
            failures.end(progress, error)
        raise


# Look up


def found(call: Call, record: Record | None) -> Record | None:
    """Return what a look-up of a call found; ``None`` if the call has to be made.

    :raises CacheMissError: if nothing is recorded, and the cassette, or else the cache's mode, forbids calls; or if
        the recorded answer does not fit the call.
    """
    if record is None:
        if not call.may_call:
            call.refuse(_miss_error(call))
        _let_listeners_refuse(call)
        return None
    if call.request.expected is not None:
        refuse_misfit(call, record)
    return record


def _let_listeners_refuse(call: Call) -> None:
    """Let a listener refuse the call, as in a test that must not reach a model. A recorded function may always run;
    only the calls that it makes can be refused.

    :raises CacheMissError: if a listener refuses it.
    """
    if call.request.kind == "function":
        return
    try:
        notify("asks", call)  # an unrecorded call may be refused, too
    except CacheMissError as error:
        call.refuse(error)


def refuse_misfit(call: Call, record: Record) -> None:
    """Refuse another call's answer if it does not fit this call's ``response_format``.

    :raises CacheMissError: if it does not fit: an :class:`LLMCall` reads answers itself and records them whether they
        fit or not, and a class may have changed since the recording.
    """
    try:
        if call.request.expected.misfit_in(record.response) is None:
            return
    except (LookupError, TypeError, AttributeError):
        return  # not a model's answer: reply_in raises an error
    error = CacheMissError(
        f"the recorded answer to this {call.label} does not fit its response_format. Give the call a sample= of "
        "its own, or request a new answer with cache_mode='refresh' (a cassette: mode 'rewrite')"
    )
    call.refuse(error)


def _miss_error(call: Call) -> CacheMissError:
    """Return the error of a call that is not recorded and may not be made.

    It names the first miss of the process: if the program went on without that answer, later misses
    may be mere consequences.
    """
    from ..stores.misses.report import miss_error

    error = miss_error(call)
    first_miss = first(CacheMissError, error.args[0])
    if first_miss != error.args[0]:
        error.first = first_miss
    return error


# Finish


async def _emit_recorded(record: Record) -> None:
    """Emit a chat's recorded answer to the reader of a stream; a new one was emitted as it came, and other kinds come
    whole.
    """
    from ..apis.chunks import chunk_text, chunks_of

    if record.is_hit and record.kind == "chat":
        for chunk in chunks_of(record.response):
            await Emit(Piece(chunk_text(chunk), chunk))


def reply_in(record: Record, call: Call) -> Any:
    """Return a chat's answer as its caller wants it: a reply, or what ``response_format`` parses. If that cannot
    be parsed and the caller does not want the error raised: the error or ``None``, as ``on_error`` says.

    :raises CacheCorruptError: if the record does not contain a model's answer.
    :raises ServiceError: if it cannot be parsed, and its caller wants the error raised.
    """
    try:
        reply = Reply.of(record, call.request.expected)
    except (LookupError, TypeError, AttributeError) as error:
        key = short_key(record.cache_key)
        raise CacheCorruptError(
            f"the record {key}… does not contain a model's answer. To request it again, run "
            f"'llmcall cache delete {key}', or remove its line from the cassette"
        ) from error
    expected = call.request.expected
    if not call.options.enable_pydantic_model_return or expected is None or not expected.is_class:
        return reply
    try:
        return reply.parsed
    except OutputError as error:  # it was cut off, or comes with a tool call
        misfit = ServiceError(f"the answer does not fit its response_format: {error}")
        misfit.remedy = "Raise max_tokens if it was cut off"
        return handle_failure(misfit, call)


def handle_failure(error: APIError, call: Call) -> APIError | None:
    """Raise, log or return an API failure, as the caller wants. A stream cannot return an error as its value, so it
    raises the one that a call would return.

    :returns: the error if the caller wants it as the value, or ``None`` if it was logged.
    """
    on_error, model, site = call.options.on_error, call.request.model, call.site
    # if that is unknown, all of them
    failed = [it for it in site.endpoints if it.name == error.endpoint] or site.endpoints
    addresses = {without_password(endpoint.address) or site.host(endpoint) for endpoint in failed}
    address = ", ".join(sorted(address.partition("?")[0] for address in addresses))
    if on_error == "raise" or (on_error == "return" and call.is_streamed):
        note = f"model {model} at {address}. {error.remedy}"
        # Python 3.10 has no notes; an error that several calls share is raised more than once.
        if hasattr(error, "add_note") and note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise error
    if on_error == "return":
        return error
    failure = sentence(f"{call.label} at {address} failed: {error}")
    result = "The stream's reply is" if call.is_streamed else "The call returns"
    line = f'{failure} {error.remedy}. {result} None. Pass on_error="raise" to raise'
    logger().error("%s", line)
    return None


def note_failure(error: BaseException, call: Call) -> None:
    """Report a call that ended without an answer, and release its draw."""
    call.release_draw()  # before a listener, which may raise
    note_inside(error)
    hide_own_frames(error)
    call.notify("failed", error)
