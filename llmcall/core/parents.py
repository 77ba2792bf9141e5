"""The process that records this one, and answers its calls: a child of a program, or a worker of a map, has one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..scopes import ActiveScope, CallOrder
    from ..stores.record import Record
    from .calls import Call


class Way(Protocol):
    """The way of a call to the process that records this one.

    :ivar is_taped: whether a cassette is open there, once the answer has begun.
    """

    is_taped: bool

    async def answer(self, calls: Sequence[Call]) -> list[Record]:
        """Return the records that answer calls: one, or one for each text of embeddings.

        :raises BaseException: what their caller gets instead.
        """
        ...


class RecordingProcess(Protocol):
    """The process that records this one."""

    def way(self, active: ActiveScope, order: CallOrder) -> Way | None:
        """Return the way of a call that is made here; ``None`` if this process goes on alone.

        :param active: its scope.
        """
        ...

    def note(self, what: str, *details: Any) -> None:
        """Tell it something that needs no answer."""
        ...


parents: list[RecordingProcess] = []  # the innermost last


@contextmanager
def linked(parent: RecordingProcess) -> Iterator[None]:
    """Have another process answer this one's calls for a block."""
    parents.append(parent)
    try:
        yield
    finally:
        if parent in parents:  # a forked process has another one
            parents.remove(parent)


def way_from(active: ActiveScope, order: CallOrder) -> Way | None:
    """Return the way of a call that is made here, or ``None`` if this process answers its calls itself."""
    innermost = parents[-1:]  # a copy, since other threads may leave it
    return innermost[0].way(active, order) if innermost else None
