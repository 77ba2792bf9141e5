"""A call's answer from its record: all that a replay needs. The pipeline of the others is ``answer.py``."""

from __future__ import annotations

from ..errors import CacheMissError
from ..stores.record import Record
from ..support.listeners import notify
from ..support.notices import first as first_notice
from .calls import Call, answers_held_back
from .reply import note_failure


def answer_from_record(call: Call) -> Record | None:
    """Answer a chat call from its record, without a procedure; the look-up may block the thread.

    :returns: the record, or ``None`` if a model must answer.
    """
    try:
        record = found(call, call.store.get(call.request))
        if record is not None:
            call.note_hit(record, record.cost)
            call.note_answer(record)
        return record
    except BaseException as error:
        note_failure(error, call)
        raise


def waits_for_record(call: Call) -> bool:
    """Return whether a call may have to wait for its recorded answer: another process answers it, or the answer is held
    back.
    """
    return call.errand is not None or bool(answers_held_back)


def found(call: Call, record: Record | None) -> Record | None:
    """Return what a look-up of a call found; ``None`` if the call has to be made.

    :raises CacheMissError: if nothing is recorded, and the cassette, or else the cache's mode, forbids calls; if
        a listener refuses it; or if the recorded answer does not fit the call.
    """
    if record is None:
        if not call.may_call:
            call.refuse(_miss_error(call))
        if call.request.kind != "function":  # that may run; only calls inside it can be refused
            try:
                notify("asks", call)  # a test that must not reach a model refuses it
            except CacheMissError as error:
                call.refuse(error)
        return None
    if call.request.expected is not None:
        refuse_misfit(call, record)
    return record


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
        f"the recorded answer to this {call.label} does not fit its response_format. Give the call its own "
        "sample=, or request a new answer with cache_mode='refresh' (a cassette: mode 'rewrite')"
    )
    call.refuse(error)


def _miss_error(call: Call) -> CacheMissError:
    """Return the error of a call that is not recorded and may not be made.

    It names the first miss of the process: if the program went on without that answer, later misses
    may be mere consequences.
    """
    from ..stores.misses.report import miss_error

    error = miss_error(call)
    first_miss = first_notice(CacheMissError, error.args[0])
    if first_miss != error.args[0]:
        error.first = first_miss
    return error
