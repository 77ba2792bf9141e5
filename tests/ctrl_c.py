"""Ctrl-C, pressed in a call or an item of a map, at an instant that does not depend on the machine."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager

from llmcall.support.interrupts import current_stops


@contextmanager
def ctrl_c_interrupts() -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt within, whoever started the tests.

    The garbage collector rests meanwhile: Python loses a KeyboardInterrupt that is raised in what
    the collector calls, such as the end of an earlier test's cache.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    """Press Ctrl-C, and return once the map around has noticed it."""
    os.kill(os.getpid(), signal.SIGINT)
    wait_for_futures(current_stops.get(), 30, FIRST_COMPLETED)


def wait_for_maps() -> None:
    """Wait until the threads of all maps have ended, also of those that were left."""
    for thread in threading.enumerate():
        if thread.name.startswith("llmcall map"):
            thread.join(30)
            assert not thread.is_alive()
