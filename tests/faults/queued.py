"""Calls that wait for a place at an endpoint, interrupted at random instants: the place goes to the others.

The exceptions are kept and no garbage is collected, so that nothing of the interrupted calls goes away by itself.
"""

from __future__ import annotations

import gc
import queue
import random
import signal
import sys
import threading
import time
from typing import Any

from alarms import interrupt_of

from llmcall.testing import ScriptedClient

CALLS = 1500
SECONDS = 100.0  # on the slowest of machines
LONGEST = 0.001  # seconds that a call waits before the signal: its answer takes less


def answer(messages: Any) -> str:
    """Answer the last message, once the others had time to queue."""
    time.sleep(LONGEST / 10)
    return f"answer to {messages[-1]['content']}"


client = ScriptedClient(answer, cache_mode="off", limits_max_concurrent_calls=1)
done: queue.SimpleQueue[int] = queue.SimpleQueue()


def go_on(name: int) -> None:
    """Ask again and again, and tell of each answer."""
    while True:
        client.send_message(f"question of {name}", on_error="raise")
        done.put(name)


def ask(seconds: float) -> KeyboardInterrupt | None:
    """Ask, interrupted after some seconds; return the interrupt."""
    return interrupt_of(lambda: client.send_message("a question", on_error="raise"), seconds)


def main(seed: int) -> None:
    """Print how many calls were interrupted, after each of which the other threads still got answers."""
    dice = random.Random(seed)
    kept: list[KeyboardInterrupt] = []
    client.send_message("all is imported", on_error="raise")
    gc.disable()
    sys.setswitchinterval(1e-5)
    for name in range(2):
        threading.Thread(target=go_on, args=(name,), daemon=True).start()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    for _ in range(CALLS):
        error = ask(dice.uniform(1e-6, LONGEST))
        if error is not None:
            kept.append(error)
        while not done.empty():
            done.get()
        done.get(timeout=SECONDS)
    print(f"{len(kept)} interrupted")


if __name__ == "__main__":
    main(int(sys.argv[1]))
