"""One call of a recorded function, or one recorded HTTP request."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..cache.shared import shared_cache
from ..call.calls import Call
from ..call.options import Options
from ..call.prepare import with_draw
from ..cassettes.current import cassette_for
from ..cassettes.uses import function_scope
from ..keys.keys import identity, sampled_key
from ..keys.normalizers import normalizer
from ..keys.plain_data import map_texts
from ..scopes import next_order, scope_of_call
from ..values import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..config.settings import Settings

# The keys of the calls that run in this context.
_running: ContextVar[frozenset[str]] = ContextVar(
    "llmcall functions that run here", default=frozenset()
)


class FunctionTransport:
    """Runs a function in place of a server.

    :param run: runs it; a coroutine function in an event loop.
    """

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run = run

    def send(self, request: Request, timeout: float | None) -> Any:
        """Run the function."""
        with _inside(request):
            return self.run()

    async def asend(self, request: Request, timeout: float | None) -> Any:
        """Run the asynchronous function."""
        with _inside(request):
            return await self.run()


@contextmanager
def _inside(request: Request) -> Iterator[None]:
    """Open a scope of one call alone: a replay skips the call, and no draw outside may move."""
    active = scope_of_call() if request.sample is not None else None
    if active is not None:
        with active.child(function_scope(request.asked, request.sample)):
            yield
        return
    token = _running.set(_running.get() | {request.cache_key})
    try:
        yield
    finally:
        _running.reset(token)


def runs_here(call: Call) -> bool:
    """Return whether an equal call runs in this context: waiting for it would never end."""
    return call.request.cache_key in _running.get()


def prepare_function(
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
    :param fields: further ones of the :class:`~llmcall.call.calls.Call`.
    """
    cassette = cassette_for(None)
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
