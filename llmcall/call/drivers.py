"""Drivers: they run flows and perform their effects, in a thread or in an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial
from typing import Any, TypeVar

from ..blocking import iterate, run
from .effects import Effect, Emit, Flow

T = TypeVar("T")


class _AbandonedError(BaseException):
    """Raised inside a flow whose reader has left: a flow that is closed could yield no effect in its
    ``finally``.
    """


def drive(flow: Flow[T]) -> T:
    """Run a flow that emits nothing, and return its result."""
    return run(_result(flow, _perform))


async def adrive(flow: Flow[T]) -> T:
    """Run a flow that emits nothing in the running event loop, and return its result."""
    return await _result(flow, _aperform)


def drive_stream(flow: Flow[T], finish: Callable[[T], None]) -> Generator[Emit, None, None]:
    """Run a flow, and yield the pieces that it emits.

    :param finish: called with the flow's result at its end, unless the reader leaves before.
    """
    yield from iterate(_driven(flow, finish, _perform))


def adrive_stream(flow: Flow[T], finish: Callable[[T], None]) -> AsyncGenerator[Emit, None]:
    """Run a flow in the running event loop, and yield the pieces that it emits, as
    :func:`drive_stream`.
    """
    return _driven(flow, finish, _aperform)


async def _perform(effect: Effect) -> Any:
    return effect.perform()


async def _aperform(effect: Effect) -> Any:
    return await effect.aperform()


async def _result(flow: Flow[T], perform: Callable[[Effect], Awaitable[Any]]) -> T:
    results: list[T] = []
    try:
        async for _ in _driven(flow, results.append, perform):
            pass
    finally:
        flow.close()  # a coroutine that is closed leaves the asynchronous generator as it is
    return results[0]


async def _driven(
    flow: Flow[T], finish: Callable[[T], None], perform: Callable[[Effect], Awaitable[Any]]
) -> AsyncGenerator[Emit, None]:
    step = partial(flow.send, None)
    try:
        while True:
            effect = step()
            try:
                result = (yield effect) if isinstance(effect, Emit) else await perform(effect)
                step = partial(flow.send, result)
            except GeneratorExit:
                step = partial(flow.throw, _AbandonedError())
            except BaseException as error:  # noqa: BLE001 - the flow gets it thrown in, and raises it
                step = partial(flow.throw, error)
    except StopIteration as stop:
        finish(stop.value)
    except _AbandonedError:
        pass
    finally:
        flow.close()  # Ctrl-C between two effects leaves it where it was
