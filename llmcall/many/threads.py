"""The threads of a map."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class DaemonThreads:
    """Daemon threads: neither a map that is left nor the end of the interpreter waits for them.

    Calls that only compute, such as replays, are quicker in one thread than in many, which pass the
    interpreter's lock to one another. So one thread may make the first calls; whoever waits for them
    calls :meth:`start_all` as soon as one is slow.

    :param max_threads: the largest number of threads.
    :param with_one: whether only one thread starts until :meth:`start_all`.
    :ivar all_started: whether a thread starts for each call, up to the largest number.
    """

    def __init__(self, max_threads: int, *, with_one: bool) -> None:
        self.all_started = not with_one
        self._max_threads = max_threads
        self._thread_count = 0
        self._submitted_count = 0
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, work: Callable[[], None]) -> None:
        """Call a function in a thread; the function must not raise."""
        self._todo.put(work)
        self._submitted_count += 1
        self._start()

    def start_all(self) -> None:
        """Start a thread for each call that was submitted, and for those to come."""
        self.all_started = True
        self._start()

    def _start(self) -> None:
        wanted = min(self._submitted_count, self._max_threads if self.all_started else 1)
        while self._thread_count < wanted:
            self._thread_count += 1
            name = f"llmcall map {self._thread_count}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (work := self._todo.get()) is not None:
            work()
            del work  # keep nothing while waiting for the next one

    def end(self) -> None:
        """End the threads after all submitted calls."""
        for _ in range(self._thread_count):
            self._todo.put(None)
