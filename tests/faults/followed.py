"""A call that others follow, interrupted at random instants: none of them waits for longer than a moment.

The exceptions are kept and no garbage is collected, so that nothing of the interrupted calls goes away by itself.
"""

from __future__ import annotations

import gc
import queue
import random
import signal
import statistics
import sys
import threading
import time
from typing import Any

from alarms import interrupt_of

from llmcall.testing import ScriptedClient

CALLS = 1500
SECONDS = 100.0  # on the slowest of machines


def answer(messages: Any) -> str:
    """Answer the last message, once the other thread had time to ask the same."""
    time.sleep(0)
    return f"answer to {messages[-1]['content']}"


client = ScriptedClient(answer, cache_mode="auto")
keys: queue.SimpleQueue[str] = queue.SimpleQueue()
answers: queue.SimpleQueue[str] = queue.SimpleQueue()


def follow() -> None:
    """Ask what the main thread asks."""
    while True:
        reply = client.send_message(keys.get(), on_error="raise")
        answers.put(reply.content or "")


def span() -> float:
    """Return how long a call takes, in seconds, and somewhat more."""
    taken = []
    for number in range(101):
        begun = time.perf_counter()
        client.send_message(f"warm up {number}", on_error="raise")
        taken.append(time.perf_counter() - begun)
    return 3 * statistics.median(taken)


def lead(key: str, seconds: float) -> KeyboardInterrupt | None:
    """Ask, interrupted after some seconds; return the interrupt."""
    keys.put(key)
    return interrupt_of(lambda: client.send_message(key, on_error="raise"), seconds)


def main(seed: int) -> None:
    """Print how many calls were interrupted, after each of which the follower got its answer."""
    dice = random.Random(seed)
    kept: list[KeyboardInterrupt] = []
    gc.disable()
    threading.Thread(target=follow, daemon=True).start()
    longest = span()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    for number in range(CALLS):
        error = lead(f"question {number}", dice.uniform(1e-6, longest))
        if error is not None:
            kept.append(error)
        assert answers.get(timeout=SECONDS) == f"answer to question {number}"
    print(f"{len(kept)} interrupted")


if __name__ == "__main__":
    main(int(sys.argv[1]))
