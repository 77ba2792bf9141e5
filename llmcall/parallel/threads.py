"""The threads of a ``map``."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    Work = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads:
    """Threads that run functions, as those of a ``ThreadPoolExecutor`` do. But they are daemons: a
    map that is left, and the end of the interpreter, wait for none of them.

    :param workers: the largest number of threads. Each function gets a new thread until there are
        so many.
    """

    def __init__(self, workers: int) -> None:
        self._most_threads = workers
        self._thread_count = 0
        self._todo: queue.SimpleQueue[Work | None] = queue.SimpleQueue()

    def run(self, future: Future[Any], function: Callable[[], Any]) -> None:
        """Run a function as soon as a thread is free.

        :param future: takes what the function returns or raises; if it is cancelled before that,
            the function is not run.
        """
        self._todo.put((future, function))
        if self._thread_count < self._most_threads:
            self._thread_count += 1
            name = f"llmcall map {self._thread_count}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (work := self._todo.get()) is not None:
            future, function = work
            if future.set_running_or_notify_cancel():
                try:
                    result = function()
                except BaseException as error:  # noqa: BLE001 - whoever has the future gets it
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            # keep nothing of a finished function while waiting for the next one
            del work, future, function

    def close(self) -> None:
        """End the threads once nothing is left to run; this waits for none of them."""
        for _ in range(self._thread_count):
            self._todo.put(None)
