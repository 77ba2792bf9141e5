"""Drivers: they run flows and perform their effects, in a thread or in an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

from .effects import Emit, Flow

T = TypeVar("T")


class _AbandonedError(BaseException):
    """Raised inside a flow whose reader has left: a flow that is closed could yield no effect in its
    ``finally``.
    """


def drive(flow: Flow[T]) -> T:
    """Run a flow that emits nothing, and return its result."""
    results: list[T] = []
    for _ in drive_stream(flow, results.append):
        pass
    return results[0]


async def adrive(flow: Flow[T]) -> T:
    """Run a flow that emits nothing in the running event loop, and return its result."""
    results: list[T] = []
    try:
        async for _ in adrive_stream(flow, results.append):
            pass
    finally:
        flow.close()  # a coroutine that is closed leaves the asynchronous generator as it is
    return results[0]


def drive_stream(flow: Flow[T], finish: Callable[[T], None]) -> Generator[Emit, None, None]:
    """Run a flow, and yield the pieces that it emits.

    :param finish: called with the flow's result at its end, unless the reader leaves before.
    """
    result: Any = None  # of the effect, for the flow
    failure: BaseException | None = None
    try:
        while True:
            effect = flow.send(result) if failure is None else flow.throw(failure)
            result = failure = None
            try:
                if isinstance(effect, Emit):
                    result = yield effect
                else:
                    result = effect.perform()
            except GeneratorExit:
                failure = _AbandonedError()
            except BaseException as error:  # noqa: BLE001 - the flow gets it thrown in, and raises it
                failure = error
    except StopIteration as stop:
        finish(stop.value)
    except _AbandonedError:
        return
    finally:
        del failure  # else an error would refer to itself by this frame
        flow.close()  # Ctrl-C between two effects leaves it where it was


async def adrive_stream(flow: Flow[T], finish: Callable[[T], None]) -> AsyncGenerator[Emit, None]:
    """Run a flow in the running event loop, and yield the pieces that it emits, as
    :func:`drive_stream`.
    """
    result: Any = None  # of the effect, for the flow
    failure: BaseException | None = None
    try:
        while True:
            effect = flow.send(result) if failure is None else flow.throw(failure)
            result = failure = None
            try:
                if isinstance(effect, Emit):
                    result = yield effect
                else:
                    result = await effect.aperform()
            except GeneratorExit:
                failure = _AbandonedError()
            except BaseException as error:  # noqa: BLE001 - the flow gets it thrown in, and raises it
                failure = error
    except StopIteration as stop:
        finish(stop.value)
    except _AbandonedError:
        return
    finally:
        del failure  # else an error would refer to itself by this frame
        flow.close()
