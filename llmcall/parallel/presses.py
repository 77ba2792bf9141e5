"""Presses of Ctrl-C, held back while something must not end half-way."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Presses"]


class Presses:
    """Hear Ctrl-C in place of Python's own handler, so that holding it back costs next to nothing."""

    def __init__(self) -> None:
        self._kept: list[KeyboardInterrupt] | None = None  # None: nothing is held back

    @contextmanager
    def heard(self, pressed: list[KeyboardInterrupt] | None = None) -> Iterator[None]:
        """Hear the presses of a block; they can be held back in it.

        :param pressed: where all of them are put instead of being raised.
        """
        # Only the main thread is interrupted, and a handler that is none of Python's cannot be put back.
        before = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
        if before is not signal.default_int_handler and not isinstance(getattr(before, "__self__", None), Presses):
            yield
            return
        self._kept = [] if pressed is None else pressed
        signal.signal(signal.SIGINT, self._press)
        try:
            if pressed is None:
                self.release()
            yield
        finally:
            kept = self._kept = [] if pressed is None else pressed
            if signal.getsignal(signal.SIGINT) == self._press:  # and not what somebody has put there meanwhile
                signal.signal(signal.SIGINT, before)
            self._kept = None
        if pressed is None and kept:
            raise kept[0]

    def _press(self, number: int, frame: Any) -> None:
        kept = self._kept
        if kept is None:
            signal.default_int_handler(number, frame)
        else:
            kept.append(KeyboardInterrupt())

    def hold(self) -> None:
        """Hold the presses back from now on."""
        self._kept = []

    def release(self) -> None:
        """Hold them back no longer.

        :raises KeyboardInterrupt: where one was held back.
        """
        kept, self._kept = self._kept, None
        if kept:
            raise kept[0]
