"""Ctrl-C at a chosen instant, for the programs that interrupt themselves; it is the alarm's signal that they hear."""

from __future__ import annotations

import signal
from collections.abc import Callable

__all__ = ["interrupt_of"]


def interrupt_of(act: Callable[[], object], seconds: float) -> KeyboardInterrupt | None:
    """Do something that an alarm interrupts after some seconds; return the interrupt."""
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            act()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt as error:
        return error
    return None
