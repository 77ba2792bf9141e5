"""The recorded answer of a call: from the cassette, then from the cache; or the reason why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CacheMissError
from ..support.listeners import listeners
from ..support.notices import first

if TYPE_CHECKING:
    from ..stores.record import Record
    from .calls import Call


def lookup(call: Call) -> Record | None:
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
