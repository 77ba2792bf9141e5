"""The draw of a call: in a scope, a call takes the next draw of its request; in an arm, the arm's."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..errors import ScopeError
from ..keys.keys import sampled_key
from ..notices import warn_once
from ..scopes import RecordedAskers, current_scope, scope_of_call
from .lookup import note_refused

if TYPE_CHECKING:
    from ..scopes import ActiveScope
    from .calls import PreparedCall


def take_sample(call: PreparedCall, identity_hash: Any) -> None:
    """Note the scope of a new call, and its sample with the key that follows from it: in a scope, it
    takes the next draw unless its options name one.

    :param call: its request has no sample yet.
    :param identity_hash: what :func:`llmcall.keys.keys.identity` returns for the request.
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
    :param identity_hash: what :func:`llmcall.keys.keys.identity` returns for the request.
    """
    recorded = call.store.askers(call.scope, identity_hash, call.request.cache_key)
    return recorded._replace(may_ask=call.may_ask)
