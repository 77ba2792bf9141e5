"""What the folder of programs gives to the link while it records this process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from ..support.system import after_fork_in_child

if TYPE_CHECKING:
    from ..scopes import ActiveScope, Scope


class Recording(Protocol):
    """A recording of a program, whose processes are recorded, too."""

    @property
    def sends_nothing(self) -> bool:
        """Return whether a request that is not recorded is refused."""
        ...

    def default_scope(self) -> ActiveScope | None:
        """Return the scope of a program's calls outside any, or ``None``."""
        ...

    def actor_scope(self, name: str) -> Scope | None:
        """Return the scope of an actor, which all processes share; ``None`` if no actors are named."""
        ...

    def options(self) -> object:
        """Return the options of the recording, for a recorder of another process; they can be pickled."""
        ...

    def note(self, what: str, *details: Any) -> None:
        """Note what another process saw of its program: the name of a method of a recorder, and its arguments."""
        ...


# Record the clients of another process for a block, by the options of a recording; they can be pickled.
linked_recordings: list[Callable[[Any], AbstractContextManager[object]]] = []
recordings: list[Recording] = []  # those that are open, the innermost last
after_fork_in_child(recordings.clear)


def innermost() -> Recording | None:
    """Return the recording that was opened last, or ``None``."""
    opened = recordings[-1:]  # a copy, since other threads may close it
    return opened[0] if opened else None
