"""Calls that are made inside other ones: in the loop over a stream, or by a transport.

The outer call ends only after the inner one, so the inner one must not wait for what the outer one
holds. While a call waits, the calls that it keeps from ending are stuck: their slots do not count
among those under way, and no call waits for what they have reserved. Two other ways were rejected. If
every inner call went past the limits, a map over streams would double them. If each call left out only
what its own outer calls hold, two threads could still wait for one another, each inside a stream of
the other's endpoint.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..support.system import after_fork_in_child, current_task, lock
from ..support.waits import set_owners, waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Owner:
    """The thread and the task that make a call; of a stream, those that began to read it.

    What begins in its block, such as a task or the calls of a map, begins in its name.
    """

    def __init__(self) -> None:
        self._thread, self._task = threading.get_ident(), current_task()

    def waits_for_us(self) -> bool:
        """Return whether it goes on only after the current thread or task does."""
        how = waits()
        if self in how.owners:
            return True
        # A wait that blocks the whole thread stops all of its tasks.
        is_same_task = how.may_block or self._task in (None, current_task())
        return self._thread == threading.get_ident() and is_same_task

    def __enter__(self) -> Owner:
        set_owners((*waits().owners, self))
        return self

    def __exit__(self, *_: object) -> None:
        # The reader of a stream has the context in which it is closed, or another one.
        owners = waits().owners
        if self in owners:
            set_owners(tuple(owner for owner in owners if owner is not self))


class Holder(Owner):
    """A call that holds what others wait for, in its block.

    :param set_stuck: gets whether the call is stuck when that changes; its caller has the lock.
    :param note_sent: is called when the call's request was sent.
    :ivar note_room: gets the headers of its answer and the bytes of its request, or ``None``.
    """

    def __init__(
        self, set_stuck: Callable[[bool], object], note_sent: Callable[[], object]
    ) -> None:
        super().__init__()
        self._set_stuck = set_stuck
        self.note_sent = note_sent
        self.note_room: Callable[[Mapping[str, str], int], object] | None = None
        self._inner_count = 0  # of the calls that wait inside it

    def __enter__(self) -> Holder:
        super().__enter__()
        with lock:
            _holders.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        with lock:
            _holders.discard(self)
            self._set_stuck = self.note_sent = bool  # a context may keep this object

    def count_inner(self, change: int) -> None:
        """Count a call that waits inside it; the caller has the lock."""
        was_stuck = self._inner_count > 0
        self._inner_count += change
        if (self._inner_count > 0) != was_stuck:
            self._set_stuck(not was_stuck)


_holders: set[Holder] = set()
after_fork_in_child(_holders.clear)  # a forked process lacks the threads that make these calls


def innermost_holder() -> Holder | None:
    """Return the call that sends in the current context, or ``None``."""
    holders = (owner for owner in reversed(waits().owners) if isinstance(owner, Holder))
    return next(holders, None)


@contextmanager
def waiting(own: Holder | None = None) -> Iterator[bool]:
    """Mark the calls that end only after the current one as stuck while a block waits; yield whether
    there are any.

    :param own: what the current call itself holds.
    """
    with lock:
        outer = [holder for holder in _holders if holder is not own and holder.waits_for_us()]
        for holder in outer:
            holder.count_inner(1)
    try:
        yield bool(outer)
    finally:
        with lock:
            for holder in outer:
                holder.count_inner(-1)
