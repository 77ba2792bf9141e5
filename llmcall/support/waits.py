"""The rules by which the running code may wait: interrupted by what, and inside which calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar
from weakref import ref

from .system import after_fork_in_child, current_task

if TYPE_CHECKING:
    from .stops import Stop

Stops: TypeAlias = "tuple[Stop, ...]"


class Waits(NamedTuple):
    """The rules by which code may wait.

    :param stops: one for each ``map`` that it is in.
    :param open_calls: those that it is made inside of, which end only after it does; the innermost last.
    :param at_once: whether a database that another process or thread writes raises
        :class:`NotAtOnceError`.
    """

    stops: Stops = ()
    open_calls: tuple[OpenCall, ...] = ()
    at_once: bool = False


class NotAtOnceError(Exception):
    """Raised instead of a wait."""


DEFAULT = Waits()  # of code that no call of llmcall's runs
_waits: ContextVar[Waits] = ContextVar("llmcall waits", default=DEFAULT)


def waits(context: Context | None = None) -> Waits:
    """Return how the code of a context may wait; by default the code that runs."""
    return _waits.get() if context is None else context.get(_waits, DEFAULT)


def open_calls() -> tuple[OpenCall, ...]:
    """Return the open calls inside which the code runs, the innermost last."""
    # A stream without references ends in a context of its own: others still have its calls.
    return tuple([call for call in _waits.get().open_calls if not call.has_ended])


# A token would put an earlier value back as a whole, but the loop over the pieces of a stream goes on inside the call
# that the stream entered. A function for each field, because NamedTuple._replace is slow.


def set_stops(stops: Stops) -> None:
    """Set the stops of the maps that the code is in."""
    _, calls, at_once = _waits.get()
    _waits.set(Waits(stops, calls, at_once))


def set_open_calls(calls: tuple[OpenCall, ...]) -> None:
    """Set the open calls inside which the code runs."""
    stops, _, at_once = _waits.get()
    _waits.set(Waits(stops, calls, at_once))


def set_at_once(at_once: bool) -> None:
    """Set whether a database that another process or thread writes raises an error."""
    stops, calls, _ = _waits.get()
    _waits.set(Waits(stops, calls, at_once))


after_fork_in_child(lambda: set_stops(()))  # a forked process is in no map


@contextmanager
def in_maps(stops: Stops) -> Iterator[None]:
    """Put the current context into further maps for a block.

    :param stops: the stops of these maps.
    """
    before = waits().stops
    set_stops((*before, *stops))
    try:
        yield
    finally:
        set_stops(before)


def check_stops(stops: Stops) -> None:
    """Raise if a ``map`` was interrupted.

    :raises KeyboardInterrupt: so that no ``except Exception`` takes it for a failed call.
    """
    for stop in stops:
        if stop.done():
            raise KeyboardInterrupt("the map that this call belongs to was interrupted")


class OpenCall:
    """A call in progress, with the thread and the task that make it; of a stream, those that began to read it.

    What begins in its block, such as a task or the calls of a map, is made inside it.

    :param is_read: whether its answer comes no faster than a reader reads it.
    :ivar holds_budget: whether it may have reserved something of a budget, for which others may wait.
    :ivar has_ended: whether the call has ended.
    """

    def __init__(self, *, is_read: bool = False) -> None:
        self.is_read = is_read
        self.holds_budget = False
        self.has_ended = False
        task = current_task()
        self._thread = get_ident()
        # a task holds its result: a stream, perhaps
        self._task = None if task is None else ref(task)

    def waits_for_us(self, *, blocks: bool) -> bool:
        """Return whether it continues only after the current thread or task does.

        :param blocks: whether the code that runs blocks its thread.
        """
        how = waits()
        if self in how.open_calls:
            return True
        # A wait that blocks the whole thread stops all of its tasks.
        task = current_task()
        is_same_task = blocks or self._task is None or (task is not None and self._task() is task)
        return self._thread == get_ident() and is_same_task

    def __enter__(self) -> OpenCall:
        self.has_ended = False
        set_open_calls((*open_calls(), self))
        return self

    def __exit__(self, *_: object) -> None:
        self.has_ended = True
        # The reader of a stream has the context in which it is closed, or another one.
        if self in waits().open_calls:
            set_open_calls(open_calls())


T = TypeVar("T")


async def resolved(result: object) -> Any:
    """Return the result of a function that may be asynchronous."""
    return await result if hasattr(result, "__await__") else result


async def as_async(pieces: Any) -> AsyncIterator[Any]:
    """Yield the items of an iterator that may be asynchronous."""
    if hasattr(pieces, "__aiter__"):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece
