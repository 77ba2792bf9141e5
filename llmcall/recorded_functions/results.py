"""The result of a call of a recorded function: recorded, shared with an equal call, or new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..call.attempt import retry
from ..call.effects import do, send, with_cache
from ..call.lookup import check_guards, lookup
from ..call.send import Exchange
from ..call.share import share
from ..clients.failed_calls import note_failure
from ..keys.plain_data import ordered, plain
from ..values import record_of
from .calls import runs_here

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..call.calls import Call
    from ..values import Record


async def result_of(call: Call) -> Any:
    """Return the recorded result, or run the function; a call that fails gives its draw back.

    :raises CacheMissError: if nothing is recorded, and the function may not run.
    """
    call = call.begun()
    try:
        if call.asks_always and call.request.sample is None:
            check_guards(call)
            record = await _run(call)
        else:
            record = await _record_of(call)
    except BaseException as error:
        note_failure(error, call)
        raise
    call.end(record)
    return record.response["value"]


async def _record_of(call: Call) -> Record:
    """Return the record of a call; if there is none, that of its result now."""
    record = await with_cache(call.cache, lookup, call)
    if record is None:
        if runs_here(call):
            return await _run(call)
        is_own = False

        async def run(_: Sequence[Call]) -> dict[str, Record]:
            nonlocal is_own
            is_own = True
            return {call.request.cache_key: await _run(call)}

        records = await share([call], run)
        record = records[call.request.cache_key]
        if is_own:
            return record
    call.count_hit(record)
    return record


async def _run(call: Call) -> Record:
    """Run the function, or send the HTTP request, and store its result."""
    cost = None
    if call.request.kind == "function":
        result = await send(call.transport, call.request, None)
    else:
        result, cost = await _send(call)
    value = ordered(plain(result, f"{call.name}: the result", for_record=True))
    record = record_of(call.request, {"value": value}, cost=cost)
    return await do(call.store.add, record)


async def _send(call: Call) -> tuple[Any, float | None]:
    """Send an HTTP request, again if it fails, until its deadline; return the answer and its cost."""
    if call.maker is not None:
        response, received = await retry(call, Exchange(call).attempt)
        assert received is not None  # only a window has another process's answer
        return response, received.cost

    async def attempt(number: int) -> Any:
        return await send(call.transport, call.request, call.time_left())

    return await retry(call, attempt), None
