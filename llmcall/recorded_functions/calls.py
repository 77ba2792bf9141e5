"""Calls of recorded functions and recorded HTTP requests: each is recorded, shared with an equal one, or new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.calls import Call, Options
from ..core.effects import do, send, with_cache
from ..core.prepare import with_draw
from ..core.retry import retry
from ..core.road import check_may_ask, look_up, note_failure
from ..core.send import Exchange
from ..core.share import share
from ..keys.keys import identity, sampled_key
from ..keys.normalizers import normalizer
from ..keys.plain_data import map_texts, ordered, plain
from ..keys.request import Request
from ..scopes import in_function, next_order
from ..stores.cache.cache import shared_cache
from ..stores.cassettes.current import current_cassette
from ..stores.cassettes.uses import function_scope
from ..stores.record import record_of
from ..support.blocking import may_block
from ..traffic import standard as standard  # its listeners

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..config.settings import Settings
    from ..stores.record import Received, Record


class FunctionTransport:
    """Runs a function in place of a server.

    :param run: runs it; a coroutine function in an event loop.
    """

    obeys_may_block = True

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run = run

    async def asend(self, request: Request, timeout: float | None) -> Any:
        """Run the function."""
        draws = request.sample is not None
        with in_function(function_scope(request.asked, request.sample), draws=draws):
            return self.run() if may_block.get() else await self.run()


def prepare_recorded(
    kind: str,
    identity_fields: dict[str, Any],
    settings: Settings,
    transport: Any,
    *,
    model: str = "",
    body: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Call:
    """Return a call; inside a scope it takes a draw.

    :param identity_fields: what identifies it, apart from the namespace.
    :param transport: sends the request, or runs the function.
    :param model: the model that is asked, or the host, under which it counts.
    :param body: what is sent.
    :param fields: further ones of the :class:`~llmcall.core.calls.Call`.
    """
    cassette = current_cassette()
    if settings.cache_namespace:
        identity_fields = {**identity_fields, "namespace": settings.cache_namespace}
    identity_hash = identity(kind, identity_fields)
    options = Options.of(settings)
    if kind == "function":
        options = options._replace(deadline=None)
    key = sampled_key(identity_hash, None)
    call = Call(
        settings=settings,
        cache=shared_cache(settings.cache_path),
        request=Request(kind, model, identity_fields, body or {}, {}, None, key),
        options=options,
        transport=transport,
        cassette=cassette,
        order=next_order(),
        **fields,
    )
    return with_draw(call, identity_hash)


def normalized(value: Any, settings: Settings) -> Any:
    """Return plain data with ``[Cache] NORMALIZE`` applied to its texts."""
    normalize = normalizer(settings.cache_normalize)
    return value if normalize is None else map_texts(value, normalize)


async def result_of(call: Call) -> Any:
    """Return the recorded result, or run the function; a call that fails gives its draw back.

    :raises CacheMissError: if nothing is recorded, and the function may not run.
    """
    call = call.begun()
    try:
        if call.asks_always and call.request.sample is None:
            check_may_ask(call)
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
    record = await with_cache(call.cache, look_up, call)
    if record is None:
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

    def store(result: Any, received: Received | None = None) -> Record:
        value = ordered(plain(result, f"{call.name}: the result", for_record=True))
        cost = None if received is None else received.cost
        return call.store.add(record_of(call.request, {"value": value}, cost=cost))

    if call.request.kind == "function":
        return await do(store, await send(call.transport, call.request, None))
    if call.maker is not None:
        return await retry(call, Exchange(call, store).attempt)

    async def attempt() -> Any:
        return await send(call.transport, call.request, call.time_left())

    return await do(store, await retry(call, attempt))
