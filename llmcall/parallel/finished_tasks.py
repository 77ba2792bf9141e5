"""The finished tasks of a ``map`` whose results wait to be collected."""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tasks import Task


class FinishedTasks:
    """The finished tasks whose results wait to be collected, in the order in which they finished.

    Workers add them, and one thread collects their results. It can wait for several tasks, because a
    thread that wakes up for each recorded answer slows down the workers.
    """

    def __init__(self) -> None:
        # Re-entrant: the garbage collector may end an iterator, which cancels tasks, at any moment.
        self._lock = threading.RLock()
        self._tasks: deque[Task] = deque()
        # How many tasks the collecting thread waits for; 0 if it does not wait.
        self._awaited_count = 0
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: Task, *, has_failed: bool) -> None:
        """Add a task.

        :param has_failed: whether to wake the collecting thread at once.
        """
        with self._lock:
            self._tasks.append(task)
            if self._awaited_count and (has_failed or len(self._tasks) >= self._awaited_count):
                self._awaited_count = 0
                self._signals.put(None)

    def wait(self, count: int, timeout: float) -> bool:
        """Wait until there are so many tasks or one has failed; it may end earlier.

        :param timeout: the longest time to wait, in seconds.
        :returns: whether it ended before that time was over.
        """
        with self._lock:
            if len(self._tasks) >= count:
                return True
            self._awaited_count = count
        try:
            self._signals.get(timeout=timeout)
        except queue.Empty:
            return False
        return True

    def take(self) -> Task | None:
        """Remove the first task and return it, or ``None`` if there is none."""
        return self._tasks.popleft() if self._tasks else None

    def clear(self) -> None:
        """Remove all tasks."""
        self._tasks.clear()
