"""The draw of a call: in a scope, a call takes the next draw of its request; in an arm, the arm's."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import ScopeError
from ..notices import warn_once
from ..requests.keys import sampled_key
from ..scopes import RecordedAskers, current_path, scope_around, scope_of_call
from .refusals import note_refused

if TYPE_CHECKING:
    from ..scopes import ActiveScope
    from .prepared_call import Call, PreparedCall


# Equal requests that were under way at once when a run was killed, and so are not recorded.
LONGEST_GAP = 100


def with_sample(call: Call, identity_hash: Any) -> Call:
    """Return a call with its sample and key: in a scope, it takes the next draw unless its options
    name one.

    :param call: its request has no sample yet.
    :param identity_hash: what :func:`llmcall.requests.keys.identity` returns for the request.
    :raises ScopeError: if timing would decide which draw it takes, or if its arm would not know of
        the draw.
    """
    try:
        return _with_draw(call, scope_of_call(), identity_hash)
    except ScopeError as error:
        active = scope_around()
        arm = "" if active is None or active.arm is None else active.arm.name
        note_refused(call.label, call.callee, call.meter, error, scope=current_path(), arm=arm)
        raise


def _with_draw(call: Call, active: ActiveScope | None, identity_hash: Any) -> Call:
    """Return a call with its draw; see :func:`with_sample`.

    :param active: the scope of the call, or ``None`` outside any.
    """
    call = with_arm(call, active)
    path = "" if active is None else active.path
    draw = None
    if call.options.sample is not None:
        sample = f"{path}#{call.options.sample}"
    elif active is not None:
        recorded_askers = functools.partial(_recorded_askers, call, identity_hash, path)
        draw = active.draw(call.request.cache_key, call.cassette or call.cache, recorded_askers)
        sample = draw.sample
    else:
        return call
    request = call.request._replace(sample=sample, cache_key=sampled_key(identity_hash, sample))
    return replace(call, request=request, scope=path, draw=draw)


def with_arm(call: Call, active: ActiveScope | None) -> Call:
    """Return a call with the arm that it is in.

    :param active: the scope of the call, or ``None`` outside any.
    """
    if active is None or active.arm is None:
        return call
    if call.options.cache is False and call.cassette is None:
        warn_once(
            f"a call in the arm {active.arm.name!r} has cache=False, so it shares no answer with other arms: leave "
            "that out, or open a cassette around all arms",
            about="cache=False in an arm",
        )
    return replace(call, arm=active.arm.name, used_records=active.used_records)


def _recorded_askers(call: PreparedCall, identity_hash: Any, path: str) -> RecordedAskers:
    """Return who took the draws of a request when they were recorded.

    :param call: its request has no sample yet.
    :param identity_hash: what :func:`llmcall.requests.keys.identity` returns for the request.
    :param path: the scope path.
    """
    # The function is kept with the draws, and must not keep the call and its messages.
    cache, mode, reads_cache = call.cache, call.settings.cache_mode, call.reads_cache

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
