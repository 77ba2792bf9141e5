"""The sockets that a thread waits on, shut down from another one.

Closing a socket wakes nobody who waits on it; shutting it down does. No HTTP library says which of its connections a
thread waits on, but the thread's own stack does.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["shut_down"]


def shut_down(thread: int, is_outside: Callable[[FrameType], bool]) -> bool:
    """Shut down the sockets that a thread uses in a part of its stack, whichever library opened them.

    :param thread: the thread's identifier.
    :param is_outside: tells the innermost frame that belongs to the part no longer.
    :returns: whether the thread is there still; where it is not, no socket is touched.
    """
    frame, inside = sys._current_frames().get(thread), []
    while frame is not None and not is_outside(frame):
        inside.append(frame)
        frame = frame.f_back
    if frame is None:
        return False
    for each in inside:
        for value in tuple(each.f_locals.values()):
            _shut_down(value)
            for held in tuple(vars(value).values()) if hasattr(value, "__dict__") else ():
                _shut_down(held)
    return True


def _shut_down(value: Any) -> None:
    if isinstance(value, socket.socket):
        try:
            socket.socket.shutdown(value, socket.SHUT_RDWR)  # the plain one: that of TLS would wait for the other side
        except OSError:
            return  # it is not connected, or no longer
