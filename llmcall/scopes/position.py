"""Who asks: the position of the code that runs, which goes to the tasks that it makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .askers import Asker
    from .scope import ActiveScope


class Here(NamedTuple):
    """A context's position.

    :param active: the scope that it entered last, or ``None`` if it entered none.
    :param asker: who asks, or ``None`` if that has no name.
    :param levels: of the recorded functions that run here: below a default scope, their calls have these levels.
    :param is_programs: whether a program's call is answered here.
    """

    active: ActiveScope | None = None
    asker: Asker | None = None
    levels: str = ""
    is_programs: bool = False


NOWHERE = Here()
_here: ContextVar[Here] = ContextVar("llmcall here", default=NOWHERE)
here = _here.get


def move(**changes: Any) -> None:
    """Change the position of the current context.

    :param changes: fields of :class:`Here`.
    """
    _here.set(here()._replace(**changes))


@contextmanager
def moved(**changes: Any) -> Iterator[None]:
    """Change the position of the current context for a block; other fields stay as the block leaves them.

    :param changes: fields of :class:`Here`.
    """
    current = here()
    _here.set(current._replace(**changes))
    try:
        yield
    finally:
        move(**{name: getattr(current, name) for name in changes})
