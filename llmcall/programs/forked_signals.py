"""SIGTERM in forked processes: a handler of the program that forked them does not reach them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


def end_forked_processes_on_sigterm(handler: Handler) -> None:
    """End forked processes on SIGTERM, from their first moment on, instead of running a handler there.

    A forked process forgets the signals that Python has received and not yet handled. One that
    comes in that moment would be lost, so SIGTERM is blocked around each fork.

    :param handler: the handler of SIGTERM in this process.
    """
    if not hasattr(os, "register_at_fork"):
        return
    before_fork = threading.local()

    def block() -> None:
        before_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before_fork.mask)

    def begin_child() -> None:
        if signal.getsignal(signal.SIGTERM) == handler:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=begin_child)
