"""The threads of a ``map``."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tasks import Task

    Work = tuple[Callable[[Task], None], Task]


class DaemonThreads:
    """Threads that run tasks, as those of a ``ThreadPoolExecutor`` do. But they are daemons: a map
    that is left, and the end of the interpreter, wait for none of them.

    :param workers: the largest number of threads. Each task gets a new thread until there are so
        many.
    """

    def __init__(self, workers: int) -> None:
        self._most_threads = workers
        self._thread_count = 0
        self._todo: queue.SimpleQueue[Work | None] = queue.SimpleQueue()

    def submit(self, run: Callable[[Task], None], task: Task) -> None:
        """Run a task as soon as a thread is free.

        :param run: runs it, and raises nothing.
        """
        self._todo.put((run, task))
        if self._thread_count < self._most_threads:
            self._thread_count += 1
            name = f"llmcall map {self._thread_count}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (work := self._todo.get()) is not None:
            run, task = work
            run(task)
            del work, run, task  # keep nothing of a finished task while waiting for the next one

    def cancel(self) -> list[Task]:
        """Return the tasks that no thread has begun; none will. Call it before :meth:`close`."""
        cancelled: list[Task] = []
        with suppress(queue.Empty):
            while (work := self._todo.get_nowait()) is not None:
                cancelled.append(work[1])
        return cancelled

    def close(self) -> None:
        """End the threads once nothing is left to run; this waits for none of them."""
        for _ in range(self._thread_count):
            self._todo.put(None)
