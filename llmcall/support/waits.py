"""What interrupts a wait of the running code, and inside which calls it runs."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar
from weakref import ref

from .system import after_fork_in_child, current_task

if TYPE_CHECKING:
    from .stops import Stop

Stops: TypeAlias = "tuple[Stop, ...]"
T = TypeVar("T")


_stops: ContextVar[Stops] = ContextVar("llmcall stops", default=())
# Only those who run others' code set it: callbacks, recorded functions, and the drivers of a stream for its reader.
_open_calls: ContextVar[tuple[Progress, ...]] = ContextVar("llmcall open calls", default=())


def stops(context: Context | None = None) -> Stops:
    """Return what interrupts a wait: something for each ``map`` that the code is in.

    :param context: by default the one in which the code runs.
    """
    return _stops.get() if context is None else context.get(_stops, ())


def open_calls() -> tuple[Progress, ...]:
    """Return the calls inside which the code runs, which end only after it does; the innermost last."""
    # A stream may be closed in another context than its reader's, which still has its call.
    return tuple([call for call in _open_calls.get() if not call.has_ended])


def set_stops(stops: Stops) -> None:
    """Set the stops of the maps that the code is in."""
    _stops.set(stops)


after_fork_in_child(lambda: set_stops(()))  # a forked process is in no map


@contextmanager
def in_maps(further: Stops) -> Iterator[None]:
    """Put the current context into further maps for a block.

    :param further: the stops of these maps.
    """
    before = stops()
    set_stops((*before, *further))
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


class HeldBySend(Protocol):
    """The permit and the reservation of a send.

    :ivar holds_budget: ``True`` if it may have reserved something of a budget, for which others may wait.
    """

    holds_budget: bool

    def answer_began(self) -> None:
        """Release the endpoint."""


class Progress:
    """The progress of a call that no record answers, with its thread and task; for a stream, those that began
    to read it.

    What begins in the code that it runs, such as a task or the calls of a map, is made inside it.

    :ivar is_read: ``True`` if its answer comes no faster than a reader reads it.
    :ivar was_sent: ``True`` if it was sent to a model.
    :ivar is_counted: ``True`` if usage counts it as answered.
    :ivar held: what the send under way holds, or ``None``.
    :ivar has_ended: ``True`` if the call has ended.
    """

    __slots__ = ("_task", "_thread", "has_ended", "held", "is_counted", "is_read", "was_sent")

    def __init__(self) -> None:
        self.is_read = False
        self.was_sent = False
        self.is_counted = False
        self.held: HeldBySend | None = None
        self.has_ended = False
        task = current_task()
        self._thread = threading.get_ident()
        # a task holds its result: a stream, perhaps
        self._task = None if task is None else ref(task)

    @property
    def holds_budget(self) -> bool:
        """Return whether it may have reserved something of a budget, for which others may wait."""
        held = self.held
        return held is not None and held.holds_budget

    def waits_for_us(self, *, blocks: bool) -> bool:
        """Return whether it continues only after the current thread or task does.

        :param blocks: ``True`` if the code that runs blocks its thread.
        """
        if self in _open_calls.get():
            return True
        # A wait that blocks the whole thread stops all of its tasks.
        task = current_task()
        is_same_task = blocks or self._task is None or (task is not None and self._task() is task)
        return self._thread == threading.get_ident() and is_same_task


def enter_call(call: Progress) -> None:
    """Note that the current context's code runs inside a call."""
    calls = open_calls()
    if call not in calls:
        _open_calls.set((*calls, call))


def leave_call(call: Progress) -> None:
    """Note that the current context's code no longer runs inside a call."""
    # By value: the code of a stream's reader may have entered others meanwhile.
    if call in _open_calls.get():
        _open_calls.set(tuple([other for other in open_calls() if other is not call]))


class NotAtOnceError(Exception):
    """Raised instead of a wait."""


class _AtOnce(threading.local):
    is_set = False


_at_once = _AtOnce()


def is_at_once() -> bool:
    """Return whether a database that another process or thread writes raises :class:`NotAtOnceError`."""
    return _at_once.is_set


def at_once(function: Callable[[], T]) -> T:
    """Return the result of a function that may not wait for a database.

    :raises NotAtOnceError: instead of a wait.
    """
    _at_once.is_set = True
    try:
        return function()
    finally:
        _at_once.is_set = False


async def resolved(result: object) -> Any:
    """Return the result of a function that may be asynchronous."""
    return await result if isinstance(result, Awaitable) else result


async def as_async(pieces: Any) -> AsyncIterator[Any]:
    """Yield the items of an iterator that may be asynchronous."""
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece
