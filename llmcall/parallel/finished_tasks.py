"""The finished tasks of a ``map`` whose results wait to be collected."""

from __future__ import annotations

import queue
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tasks import Task


class FinishedTasks:
    """Tasks that workers add, in the order in which they finished, and that one thread takes.

    This thread can wait for several tasks. If it woke up for each recorded answer, it would slow
    the workers down.
    """

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()
        self._awaited_count = 1
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: Task) -> None:
        """Add a task, and wake the waiting thread if that waits for no more."""
        self._tasks.append(task)
        if len(self._tasks) >= self._awaited_count and self._signals.empty():
            self._signals.put(None)

    def wait(self, count: int, timeout: float) -> bool:
        """Wait until ``count`` tasks are here. It may return earlier.

        :param timeout: the longest time to wait, in seconds.
        :returns: whether it returned before that time was over.
        """
        self._awaited_count = count
        while not self._signals.empty():  # from before
            self._signals.get()
        # No signal is missed: a task that is not here yet is added, and then signalled, after this.
        if self._tasks:
            return True
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
