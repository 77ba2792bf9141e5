"""The result of a call of a recorded function: recorded, shared with an equal call, or new."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..call.attempt import RetryPolicy, retry
from ..call.effects import Do, Send, with_cache
from ..call.lookup import lookup
from ..call.share import share
from ..errors import BudgetExceededError
from ..failures import (
    ABANDONED,
    NOT_JSON,
    OVER_BUDGET,
    is_abandoned,
    is_failure,
    process_failures,
)
from ..keys.plain_data import ordered, plain
from ..values import record_of
from .calls import UnrecordedAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..call.effects import Flow
    from ..values import Record
    from .calls import FunctionCall


def result_of(call: FunctionCall) -> Flow[Any]:
    """Return the recorded result, or run the function; a call that fails gives its draw back.

    :raises CacheMissError: if nothing is recorded, and the function may not run.
    """
    try:
        if call.asks_always and call.request.sample is None:
            call.check_guards()
            record = yield from _run(call)
        else:
            record = yield from _record_of(call)
    except BaseException as error:
        if isinstance(error, BudgetExceededError) and call.is_http:
            process_failures.count_refused()
            call.failures.add(call.scope, call.label, OVER_BUDGET, asks_model=False)
        elif is_abandoned(error):
            words = f"{call.request.kind} call of {call.name}"
            call.failures.add(call.scope, words, ABANDONED, asks_model=call.is_http)
        call.give_back()
        raise
    call.end(record)
    return record.response["value"]


def _record_of(call: FunctionCall) -> Flow[Record]:
    """Return the record of a call; if there is none, that of its result now."""
    record = yield from with_cache(call.cache, lookup, call)
    is_hit = record is not None
    if record is None:
        record, is_hit = yield from _run_or_share(call)
    if is_hit and call.counter is not None:
        call.counter.count_hit(call, record)
    return record


def _run_or_share(call: FunctionCall) -> Flow[tuple[Record, bool]]:
    """Run the function, or share the result of an equal call that is under way.

    :returns: the record, and whether it is another call's.
    """
    if call.runs_here:
        return (yield from _run(call)), False
    is_shared = True

    def run(_: Sequence[FunctionCall]) -> Flow[dict[str, Record]]:
        """Run the function."""
        nonlocal is_shared
        is_shared = False
        record = yield from _run(call)
        return {call.request.cache_key: record}

    records = yield from share([call], run, RetryPolicy.of(call))
    return records[call.request.cache_key], is_shared


def _run(call: FunctionCall) -> Flow[Record]:
    """Run the function, or send the HTTP request, and store its result."""
    try:
        if call.is_http:
            result = yield from _send(call)
        else:
            result = yield Send(call, call.request, None)
    except UnrecordedAnswer as answer:
        call.failures.add(call.scope, f"{call.name}: {answer}", NOT_JSON)
        raise
    except Exception as error:
        if is_failure(error):
            words = f"{call.name}: {type(error).__name__}"
            call.failures.add(call.scope, words, asks_model=call.is_http)
            if call.counter is not None:
                call.counter.count_error(call)
        raise
    value = ordered(plain(result, f"{call.name}: the result", for_record=True))
    cost = None if call.counter is None else call.counter.cost(result)
    record = record_of(call.request, {"value": value}, cost=cost)
    stored_record: Record = yield Do(functools.partial(call.store.add, record))
    return stored_record


def _send(call: FunctionCall) -> Flow[Any]:
    """Send an HTTP request, again if it fails, until its deadline."""
    policy = RetryPolicy.of(call)

    def attempt(number: int) -> Flow[Any]:
        """Send it once."""
        if call.counter is not None:
            return (yield from call.counter.attempt(call, policy, number))
        return (yield Send(call, call.request, policy.time_left()))

    return (yield from retry(policy, call.name, attempt))
