"""Presses of Ctrl-C, held back while something must not end half-way."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["held_back"]


@contextmanager
def held_back(pressed: list[KeyboardInterrupt] | None = None) -> Iterator[None]:
    """Hold the presses of Ctrl-C back while a block runs, and raise ``KeyboardInterrupt`` after it.

    :param pressed: where they are put instead of being raised.
    """
    kept: list[KeyboardInterrupt] = [] if pressed is None else pressed
    # Only the main thread is interrupted, and a handler that is none of Python's cannot be put back.
    before = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: kept.append(KeyboardInterrupt()))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed is None and kept:
        raise kept[0]
