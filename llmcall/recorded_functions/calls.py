"""One call of a recorded function, or one recorded HTTP request."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..cache.shared import shared_cache
from ..call.calls import PreparedCall
from ..call.draws import take_sample
from ..call.options import split_options
from ..call.usage import Meter
from ..cassettes.current import cassette_for, check_may_send
from ..cassettes.uses import function_scope
from ..display.printable import printable
from ..errors import APIError
from ..keys.keys import identity, sampled_key
from ..keys.normalizers import normalizer
from ..keys.plain_data import map_texts
from ..scopes import next_order, scope_of_call
from ..values import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..call.attempt import RetryPolicy
    from ..call.effects import Flow
    from ..config.settings import Settings
    from ..values import Record


class UnrecordedAnswer(APIError):
    """Takes an answer that cannot be recorded to the program."""


class RequestCounter(Protocol):
    """Counts recorded HTTP requests in usage, budgets and limits."""

    def attempt(self, call: FunctionCall, policy: RetryPolicy, number: int) -> Flow[Any]:
        """Send a request once, as soon as budgets and limits allow it, and return its answer."""
        ...

    def cost(self, value: Mapping[str, Any]) -> float | None:
        """Return the cost of an answer in USD, or ``None`` if it is unknown."""
        ...

    def count_hit(self, call: FunctionCall, record: Record) -> None:
        """Count an answer that is recorded, or that an equal request got."""
        ...

    def count_error(self, call: FunctionCall) -> None:
        """Count a request that failed after all retries."""
        ...


_meter = Meter()  # of no client
# The keys of the calls that run in this context.
_running: ContextVar[frozenset[str]] = ContextVar(
    "llmcall functions that run here", default=frozenset()
)


@dataclass(kw_only=True, eq=False)
class FunctionCall(PreparedCall):
    """One call of a recorded function, or one recorded HTTP request; as a transport, it runs it.

    :param name: of the function, or the method and path of the request.
    :param run: runs it; a coroutine function in an event loop.
    :param is_live: run it whenever that is allowed: the disk cache answers only if it is not, and
        outside any scope a cassette, too.
    :param counter: counts an HTTP request, or ``None``.
    """

    name: str
    run: Callable[[], Any]
    is_live: bool = False
    counter: RequestCounter | None = None

    @property
    def is_http(self) -> bool:
        """Return whether it is an HTTP request, which a model may answer, and not a function."""
        return self.request.kind == "http"

    @property
    def callee(self) -> str:
        """Return its name."""
        return self.name

    @property
    def label(self) -> str:
        """Return how messages name it."""
        request = self.request
        return f"{request.kind} call {request.cache_key[:12]} of {printable(self.name)}"

    @property
    def meter(self) -> Meter:
        """Return the meter of what no client makes."""
        return _meter

    @property
    def asks_always(self) -> bool:
        """Return whether it runs, although the disk cache may have a result."""
        return self.is_live and self.may_ask

    def check_origin(self, record: Record) -> None:
        """Accept any record: no host answers functions."""

    def check_guards(self) -> None:
        """Raise an error if an HTTP request may not be sent; a function's own calls are checked."""
        if self.is_http:
            check_may_send(None, self.cassette)

    def send(self, request: Request, timeout: float | None) -> Any:
        """Run the function."""
        with self._inside(request):
            return self.run()

    async def asend(self, request: Request, timeout: float | None) -> Any:
        """Run the asynchronous function."""
        with self._inside(request):
            return await self.run()

    @contextmanager
    def _inside(self, request: Request) -> Iterator[None]:
        """Open a scope of this call alone: a replay skips the call, and no draw outside may move."""
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

    @property
    def runs_here(self) -> bool:
        """Return whether an equal call runs in this context: waiting for it would never end."""
        return self.request.cache_key in _running.get()


def prepare_function(
    kind: str, identity_fields: dict[str, Any], settings: Settings, **fields: Any
) -> FunctionCall:
    """Return a call; inside a scope it takes a draw.

    :param identity_fields: what identifies it, apart from the namespace.
    :param fields: the further fields of :class:`FunctionCall`.
    """
    cassette = cassette_for(None)
    if settings.cache_namespace:
        identity_fields = {**identity_fields, "namespace": settings.cache_namespace}
    identity_hash = identity(kind, identity_fields)
    options, _ = split_options({}, settings)
    if kind == "function":
        options = options._replace(deadline=None)
    call = FunctionCall(
        settings=settings,
        cache=shared_cache(settings.cache_path),
        request=Request(
            kind=kind,
            model="",
            asked=identity_fields,
            body={},
            headers={},
            sample=None,
            cache_key=sampled_key(identity_hash, None),
        ),
        options=options,
        cassette=cassette,
        order=next_order(),
        **fields,
    )
    take_sample(call, identity_hash)
    return call


def normalized(value: Any, settings: Settings) -> Any:
    """Return plain data with ``[Cache] NORMALIZE`` applied to its texts."""
    normalize = normalizer(settings.cache_normalize)
    return value if normalize is None else map_texts(value, normalize)
