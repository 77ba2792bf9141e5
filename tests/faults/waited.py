"""Waits that end by their outcome, by a stop or by Ctrl-C at random instants: none leaves a lock behind.

The exceptions are kept and no garbage is collected, so that nothing of the interrupted waits goes away by itself.
"""

from __future__ import annotations

import gc
import queue
import random
import signal
import sys
import threading
from collections.abc import Callable

from alarms import interrupt_of

from llmcall.engine.flights import Outcome
from llmcall.engine.stops import Stop

WAITS = 5000
SECONDS = 100.0  # on the slowest of machines
LONGEST = 0.0002  # seconds before the signal


def wait(seconds: float, outcome: Outcome, stop: Stop) -> KeyboardInterrupt | None:
    """Wait for an outcome, interrupted by the stop, or after some seconds; return the interrupt."""

    def act() -> None:
        """Wait, and end as what waits in a map does."""
        stop.wait(outcome, SECONDS)
        stop.check()

    return interrupt_of(act, seconds)


def main(seed: int) -> None:
    """Print how many waits were interrupted, after each of which all that another thread did was soon done."""
    dice = random.Random(seed)
    kept: list[KeyboardInterrupt] = []
    todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
    done: queue.SimpleQueue[None] = queue.SimpleQueue()

    def work() -> None:
        """Do what is to be done."""
        while True:
            todo.get()()
            done.put(None)

    threading.Thread(target=work, daemon=True).start()
    wait(SECONDS, settled(), Stop())
    gc.disable()
    sys.setswitchinterval(1e-5)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    stop = Stop()
    for _ in range(WAITS):
        outcome, stop = Outcome(), Stop() if stop.is_set() else stop
        ending: Callable[[], object] = stop.set if dice.random() < 0.5 else lambda told=outcome: told.settle(None, None)
        todo.put(ending)
        error = wait(dice.uniform(1e-6, LONGEST), outcome, stop)
        if error is not None:
            kept.append(error)
        done.get(timeout=SECONDS)
        assert outcome.done() or stop.is_set()
    print(f"{len(kept)} interrupted")


def settled() -> Outcome:
    """Return an outcome that is there."""
    outcome = Outcome()
    outcome.settle(None, None)
    return outcome


if __name__ == "__main__":
    main(int(sys.argv[1]))
