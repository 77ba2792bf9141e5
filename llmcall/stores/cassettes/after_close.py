"""Calls of a notebook that come after its cassette was closed: they are said, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...support.listeners import CallListener, listeners
from ...support.notices import notice
from ...support.system import ipython_shell

if TYPE_CHECKING:
    from pathlib import Path

    from ...core.calls import Call
    from .cassette import Cassette


class _AfterClose(CallListener):
    """Says which file lacks the answer of the first call after the close.

    :ivar path: the cassette that was closed last; ``None`` once another one opens, or that was said.
    """

    path: Path | None = None

    def opens(self, cassette: Cassette) -> None:
        """Forget the one that was closed."""
        self.path = None

    def asks(self, call: Call) -> None:
        """Say that the answer is not recorded in it."""
        path, self.path = self.path, None
        if path is not None and call.cassette is None:
            notice("%s is closed, so this answer is not recorded in it; open it again", path)


_after_close = _AfterClose()


def say_what_is_asked_after(path: Path) -> None:
    """Say in a notebook that the next call is not recorded in the file that was closed."""
    if ipython_shell() is None:
        return
    _after_close.path = path
    if _after_close not in listeners:
        listeners.append(_after_close)
