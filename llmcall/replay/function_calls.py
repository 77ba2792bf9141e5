"""One call of a recorded function: looked up, or run and recorded, as a model's answer is."""

from __future__ import annotations

import copy
import functools
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cassettes.unrecorded import process_failures
from ..config import resolve as config
from ..engine.effects import ALONE, Do, Send, Wait, look
from ..errors import APIError, LLMCallError
from ..types import record_of
from .results import recordable
from .scopes import Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..cache.cache import ResponseCache
    from ..cassettes.current import Tape
    from ..engine.effects import Flow
    from ..engine.flights import Flight
    from ..types import Record, Request
    from .scopes import Draw

__all__ = ["FunctionCall", "answered"]


class FunctionCall(NamedTuple):
    """Hold one call of a recorded function; it is the transport that its own request is sent through."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    request: Request
    drawn: Draw | None
    tape: Tape | None
    cache: ResponseCache
    mode: str

    @property
    def reads_cache(self) -> bool:
        """Return whether the disk cache may supply the result."""
        return self.tape is None or self.tape.cassette.reads_cache

    @property
    def may_run(self) -> bool:
        """Return whether the function may be run where nothing is recorded."""
        return self.tape.cassette.asks if self.tape else self.mode != "replay"

    @property
    def storing(self) -> str:
        """Return how the disk cache stores."""
        again = self.tape is not None and self.tape.cassette.mode == "rewrite"
        return "rewrite" if again and self.mode != "off" else self.mode

    @property
    def scope(self) -> str:
        """Return the scope path of the call, empty outside any scope."""
        return self.request.sample.partition("#")[0] if self.request.sample else ""

    def give_back(self) -> None:
        """Make the draw's number free again."""
        if self.drawn is not None:
            self.drawn.give_back()

    def ended(self, found: Record) -> Any:
        """Return the value of a result: the call has ended."""
        if self.drawn is not None:
            self.drawn.end()
        return found.response["value"]

    def send(self, request: Request, timeout: float | None) -> Any:
        """Run the function."""
        with self._inside():
            return self.function(*self.args, **self.kwargs)

    async def asend(self, request: Request, timeout: float | None) -> Any:
        """Run the asynchronous function."""
        with self._inside():
            return await self.function(*self.args, **self.kwargs)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Stand in a scope of this call alone, so that a replay, which skips it, moves no draw outside."""
        if self.drawn is not None:
            with Scope(f"{_as_scope(self.name)}.{self.request.cache_key[:8]}"):
                yield
            return
        token = _running.set(_running.get() | {self.request.cache_key})
        try:
            yield
        finally:
            _running.reset(token)


_running: ContextVar[frozenset[str]] = ContextVar("llmcall functions that run here", default=frozenset())


def _as_scope(name: str) -> str:
    return name.replace("/", ".").replace("#", ".")


def answered(call: FunctionCall) -> Flow[Record]:
    """Return what is recorded, or run the function where there is leave.

    :raises CacheMissError: where there is none and no leave.
    """
    found = call.tape.find(call.request) if call.tape else None
    if call.tape and found is not None:
        call.tape.cassette.count_replay()
        return found
    if call.reads_cache:
        found = yield from look(call.cache, functools.partial(call.cache.get, call.request, mode=call.mode))
    if found is not None:
        return _kept(call, found)
    if not call.may_run:
        from ..explain.report import missed

        cassette = call.tape.cassette if call.tape else None
        raise missed(call.request, settings=config.settings(), cache=call.cache, cassette=cassette)
    return (yield from _joined(call))


def _kept(call: FunctionCall, record: Record) -> Record:
    return call.tape.keep(record) if call.tape else record


def _joined(call: FunctionCall) -> Flow[Record]:
    """Run the function, or share the result of an identical call that is under way."""
    if call.mode == "off":
        return (yield from _run(call))
    while True:
        leads, flight = call.cache.flights.join(call.request.cache_key)
        if leads:
            return (yield from _led(call, flight))
        # Whoever calls itself would wait for itself.
        alone = call.request.cache_key in _running.get()
        shared: Any = ALONE if alone else (yield Wait(flight, None))
        if shared is ALONE:
            return (yield from _run(call))
        if shared is not None:
            return _kept(call, copy.deepcopy(shared))


def _led(call: FunctionCall, flight: Flight) -> Flow[Record]:
    outcome: Record | None = None
    try:
        # Another one may have ended since it was looked up.
        get = functools.partial(call.cache.get, call.request, mode=call.mode)
        record = (yield from look(call.cache, get)) if call.reads_cache else None
        record = (yield from _run(call)) if record is None else _kept(call, record)
        outcome = copy.deepcopy(record)
        return record
    finally:
        call.cache.flights.land(flight, outcome)


def _run(call: FunctionCall) -> Flow[Record]:
    try:
        result = yield Send(call, call.request, None)
    except Exception as error:
        if isinstance(error, APIError) or not isinstance(error, LLMCallError):
            failures = call.tape.cassette.failures if call.tape else process_failures
            failures.add(call.scope, f"{call.name}: {type(error).__name__}")
        raise
    record = record_of(call.request, {"value": recordable(result, call.name)})
    if call.mode != "off":
        record = yield Do(functools.partial(call.cache.keep, record, mode=call.storing))
    return _kept(call, record)
