"""Ctrl-C, pressed in a call or an item of a map, at an instant that does not depend on the machine."""

from __future__ import annotations

import gc
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import wait as wait_for_futures

from llmcall.interrupts import current_stops


def press_ctrl_c() -> None:
    """Press Ctrl-C, and return once the map around has noticed it.

    The garbage collector rests meanwhile. It calls a function of hypothesis's, and Python would lose
    a KeyboardInterrupt that is raised there.
    """
    gc.disable()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        wait_for_futures(current_stops.get(), 30, FIRST_COMPLETED)
    finally:
        gc.enable()


def wait_for_maps() -> None:
    """Wait until the threads of all maps have ended, also of those that were left."""
    for thread in threading.enumerate():
        if thread.name.startswith("llmcall map"):
            thread.join(30)
            assert not thread.is_alive()
