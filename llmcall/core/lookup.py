"""The recorded answer of a call: from the cassette, then from the cache; and calls that are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CacheMissError, ScopeError
from ..stores.cassettes import current as cassettes
from ..support.failures import MISSED, UNSCOPED, note_refusal, process_failures
from ..support.notices import first

if TYPE_CHECKING:
    from ..stores.record import Record
    from .calls import Call


def note_refused(call: Call, error: CacheMissError | ScopeError) -> None:
    """Note a call that was refused: the program may catch the error and go on without an answer."""
    report_refused(call.scope, call.label, error)
    call.add_usage(errors=1)


def report_refused(scope: str, label: str, error: CacheMissError | ScopeError) -> None:
    """Note that a call or a map was refused, for a report when the program ends.

    :param scope: its scope path; empty outside any scope.
    :param label: how messages name it.
    """
    reason = UNSCOPED if isinstance(error, ScopeError) else MISSED
    process_failures.add(scope, label, reason)
    note_refusal(error)


def lookup(call: Call) -> Record | None:
    """Return the recorded answer of a call, or ``None`` if the call has to be made.

    :raises CacheMissError: if nothing is recorded, and the cassette (without one, the cache's mode)
        forbids calls; and if the recorded answer does not fit the call.
    """
    record = call.store.get(call.request)
    if record is None:
        if not call.may_ask:
            raise _miss_error(call)
        check_guards(call)
        return None
    call.check_origin(record)
    if call.request.expected is not None:
        refuse_misfit(call, record)
    return record


def check_guards(call: Call) -> None:
    """Raise an error if something forbids the call, such as a test that may reach no model; a
    function's own calls are checked.
    """
    try:
        if call.request.kind != "function":
            for guard in cassettes.guards:
                guard(call.maker, call.cassette)
    except CacheMissError as error:
        note_refused(call, error)
        raise


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
    note_refused(call, error)
    raise error


def _miss_error(call: Call) -> CacheMissError:
    """Return the error of a call that is not recorded and may not be made, and note it.

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
    note_refused(call, error)
    return error
