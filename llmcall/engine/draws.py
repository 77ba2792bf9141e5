"""The draw of a call: in a scope, a call takes the next draw of its request; in an arm, the arm's."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..errors import ScopeError
from ..notices import warn_once
from ..requests.keys import sampled_key
from ..scopes import RecordedAskers, current_scope, scope_of_call
from .refusals import note_refused

if TYPE_CHECKING:
    from ..scopes import ActiveScope
    from .prepared_call import PreparedCall


# Equal requests that were under way at once when a run was killed, and so are not recorded.
LONGEST_GAP = 100


def take_sample(call: PreparedCall, identity_hash: Any) -> None:
    """Note the scope of a new call, and its sample with the key that follows from it: in a scope, it
    takes the next draw unless its options name one.

    :param call: its request has no sample yet.
    :param identity_hash: what :func:`llmcall.requests.keys.identity` returns for the request.
    :raises ScopeError: if timing would decide which draw it takes, or if its arm would not know of
        the draw.
    """
    try:
        active = scope_of_call()
        enter_scope(call, active)
        if call.options.sample is not None:
            sample = f"{call.scope}#{call.options.sample}"
        elif active is not None:
            recorded_askers = functools.partial(_recorded_askers, call, identity_hash)
            store = call.cassette or call.cache
            call.draw = active.draw(call.request.cache_key, store, recorded_askers)
            sample = call.draw.sample
        else:
            return
    except ScopeError as error:
        enter_scope(call, current_scope())
        note_refused(call, error)
        raise
    call.request = call.request._replace(
        sample=sample, cache_key=sampled_key(identity_hash, sample)
    )


def enter_scope(call: PreparedCall, active: ActiveScope | None) -> None:
    """Note the scope and the arm that a new call is in.

    :param active: the scope of the call, or ``None`` outside any.
    """
    if active is None:
        return
    call.scope = active.path
    if active.arm is None:
        return
    call.arm = active.arm.name
    call.used_records = active.used_records
    if call.options.cache is False and call.cassette is None:
        warn_once(
            f"a call in the arm {active.arm.name!r} has cache=False, so it shares no answer with other arms: leave "
            "that out, or open a cassette around all arms",
            about="cache=False in an arm",
        )


def _recorded_askers(call: PreparedCall, identity_hash: Any) -> RecordedAskers:
    """Return who took the draws of a request when they were recorded.

    :param call: its request has no sample yet.
    :param identity_hash: what :func:`llmcall.requests.keys.identity` returns for the request.
    """
    # The function is kept with the draws, and must not keep the call and its messages.
    cache = call.cache
    mode = call.settings.cache_mode
    reads_cache = call.reads_cache
    path = call.scope

    def askers_from(number: int, longest_gap: int) -> dict[int, str]:
        askers: dict[int, str] = {}
        gap = 0
        while reads_cache and gap <= longest_gap:
            record = cache.get(sampled_key(identity_hash, f"{path}#{number}"), mode=mode)
            gap = gap + 1 if record is None else 0
            if record is not None and record.asker is not None:
                askers[number] = record.asker
            number += 1
        return askers

    askers = askers_from(0, 0)
    cassette = call.cassette
    recorded = RecordedAskers(
        askers,
        may_ask=mode != "replay" if cassette is None else cassette.may_record,
        beyond_gap=functools.partial(askers_from, max(askers, default=-1) + 1, LONGEST_GAP),
    )
    if cassette is None:
        return recorded
    cassette_askers = cassette.asker_names.recorded(path, call.request.cache_key)
    return recorded._replace(
        askers={**askers, **cassette_askers.askers}, is_recording=cassette_askers.is_recording
    )
