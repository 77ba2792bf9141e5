"""Results that are recorded as they are: those of recorded functions, and the responses to other HTTP requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.calls import Call, Options
from ..core.pipeline import answer_calls
from ..core.prepare import with_draw
from ..core.seams import CoroutineTransport
from ..keys.keys import identity
from ..keys.normalizers import normalizer
from ..keys.plain_data import map_texts, recordable
from ..keys.request import Request
from ..scopes import Position, in_function
from ..stores.cache.cache import shared_cache
from ..stores.cassettes.current import current_cassette
from ..stores.cassettes.replay_log import function_scope
from ..support.failures import UnrecordedResult, failed_inside
from ..support.notices import notice
from ..support.waits import may_block
from ..traffic import standard as standard  # its listeners

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..config.settings import Settings
    from ..core.client import Client
    from ..core.seams import Transport
    from ..keys.request import Data
    from ..scopes import Draw


class FunctionTransport(CoroutineTransport):
    """A transport that runs a function; the result is the answer's ``"value"``.

    :param run: runs the function; in an event loop, it returns an awaitable.
    """

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run = run

    async def asend(self, request: Request, timeout: float | None) -> dict[str, object]:
        """Run the function in the scope of its call."""
        scope = function_scope(request.asked, request.sample)
        with in_function(scope, draws=request.sample is not None), failed_inside() as failed:
            value = self.run() if may_block() else await self.run()
        if failed:
            name = request.asked["function"]
            if not isinstance(failed[0], UnrecordedResult):  # which another line told
                notice(
                    f"the result of {name} is not recorded, because a call in it failed ({type(failed[0]).__name__}): "
                    "run it again, or raise the error with on_error='raise'"
                )
            raise UnrecordedResult(value=recordable(value, f"the result of {name}"))
        return {"value": value}


def prepare_recorded(
    kind: str,
    identity_fields: dict[str, Data],
    settings: Settings,
    transport: Transport,
    *,
    name: str,
    model: str = "",
    body: Mapping[str, object] | None = None,
    counted_by: Client | None = None,
    asks_model: bool = False,
    prefers_asking: bool = False,
) -> Call:
    """Return a call; inside a scope it takes a draw.

    :param identity_fields: the fields of its key, without the namespace.
    :param transport: sends the request, or runs the function.
    :param name: the name of what it calls.
    :param model: the model, or the host, under which usage counts it.
    :param body: the request's body.
    :param counted_by: the client that makes it and counts it; ``None`` if no model answers it.
    :param asks_model: whether a model answers it.
    :param prefers_asking: use a recorded answer of the disk cache, and outside any scope also of a cassette,
        only where asking is forbidden.
    """
    cassette = current_cassette()
    if settings.cache_namespace:
        identity_fields = {**identity_fields, "namespace": settings.cache_namespace}
    options = Options.of(settings)._replace(timeout=None)  # a program's own client has one
    if kind == "function":
        options = options._replace(deadline=None, max_attempts=1)
    cache = shared_cache(settings.cache_path)

    def make(sample: str | None, key: str, position: Position, draw: Draw | None = None) -> Call:
        request = Request(kind, model, identity_fields, body or {}, {}, sample, key)
        call = Call(
            counted_by,
            settings,
            cache,
            cassette,
            request,
            options,
            name,
            position,
            draw,
            transport=transport,
            asks_model=asks_model,
        )
        return call._replace(skips_recorded=True) if prefers_asking and call.may_ask else call

    return with_draw(make, cassette or cache, identity(kind, identity_fields))


def normalized(value: Any, settings: Settings) -> Any:
    """Return plain data with ``[Cache] NORMALIZE`` applied to its texts."""
    normalize = normalizer(settings.cache_normalize)
    return value if normalize is None else map_texts(value, normalize)


async def recorded_result(call: Call) -> object:
    """Return the recorded result, or run the function; a call that fails releases its draw.

    :raises CacheMissError: if nothing is recorded, and the function may not run.
    """
    try:
        [record] = await answer_calls([call])
    except UnrecordedResult as error:
        return error.value
    return record.response["value"]
