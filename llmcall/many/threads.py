"""The threads of a map."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class DaemonThreads:
    """Daemon threads: neither a map that is left nor the end of the interpreter waits for them.

    :param max_threads: the largest number of threads.
    """

    def __init__(self, max_threads: int) -> None:
        self._max_threads = max_threads
        self._count = 0
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, work: Callable[[], None]) -> None:
        """Call a function in a thread; the function must not raise."""
        if self._count < self._max_threads:
            self._count += 1
            name = f"llmcall map {self._count}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        self._todo.put(work)

    def _work(self) -> None:
        while (work := self._todo.get()) is not None:
            work()
            del work  # keep nothing while waiting for the next one

    def end(self) -> None:
        """End the threads after all submitted calls."""
        for _ in range(self._count):
            self._todo.put(None)
