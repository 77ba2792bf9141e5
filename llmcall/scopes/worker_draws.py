"""Arms in worker processes: the draws of a bound function are sent to the parent process with its
result.

Some executors pickle a result right after the function returns it, and unpickle it in the parent
process. The pickled result, or the pickled exception, contains the draws. When the parent process
unpickles it, it counts the draws and gets the result alone. Anything else that runs the function in
a worker process would lose the draws, and the arm would make them again. So a draw is an error
there.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any
from weakref import WeakValueDictionary

from ..config import resolve as config
from ..errors import ScopeError
from ..notices import warn_once
from ..queues import take_all
from ..system import after_fork_in_child
from .draws import DrawCounter, Draws
from .equal_requests import NamedAsker
from .numbers import ArmPath, Counts, DrawNumber, ScopedRequest
from .scoped_record import ScopedRecord

# The modules whose functions call what was submitted, and pickle what it returns, in the main thread
# of a worker process; and their local variable that contains what was submitted. A pool's
# initializer is called before there is such a variable, and what it returns is not sent.
EXECUTORS = {
    "concurrent.futures.process": "call_item",
    "multiprocessing.pool": "task",
    "loky.process_executor": "call_item",
    "joblib.externals.loky.process_executor": "call_item",
}
# The module whose functions call several functions in a row, for such an executor.
BATCHES = "joblib.parallel"
REMEDIES = (
    "Run the function with llmcall.map(function, items, executor=…), which takes Dask's client.get_executor(), too, "
    "or pass llmcall.bind(function) itself to a ProcessPoolExecutor, a multiprocessing.Pool or joblib's processes, "
    "as a task and not as their initializer"
)


class WorkerDraws(Draws):
    """Count an arm's draws in a worker process, and note them for the parent process.

    :param arm_token: the arm's token in the parent process, or ``None`` if its draws cannot be sent.
    :ivar unsent_numbers: the numbers that were drawn, not given back and not sent yet.
    :ivar used_records: gathers the records that its calls get here.
    :ivar are_sent: whether an executor calls the function, so that its draws and used records are
        sent to the parent process with its result.
    """

    __slots__ = ("_arm_token", "are_sent", "unsent_numbers", "used_records")

    def __init__(self, counts: Counts, since: float, arm_token: str | None) -> None:
        super().__init__(counts, since)
        self._arm_token = arm_token
        self.unsent_numbers: deque[DrawNumber] = deque()
        self.used_records = WorkerRecords(self)
        self.are_sent = False

    def take(self, request: ScopedRequest, asker: NamedAsker | None) -> DrawNumber:
        """Return the number of a draw; see :meth:`Draws.take`.

        :raises ScopeError: if the draw would not be sent to the parent process.
        """
        if not self.are_sent:
            name = "" if request.arm is None else f" {request.arm.name!r}"
            raise ScopeError(
                f"this process runs a function that was bound in the arm{name}, and the arm would not know of this "
                f"draw, so it would make the same draw again. {REMEDIES}"
            )
        taken = super().take(request, asker)
        self.unsent_numbers.append(taken)
        return taken

    def claim(self, taken: DrawNumber) -> None:
        """Take a number that another process took; see :meth:`Draws.claim`."""
        super().claim(taken)
        self.unsent_numbers.append(taken)

    def give_back(self, taken: DrawNumber) -> None:
        """Free a number; see :meth:`Draws.give_back`."""
        try:
            self.unsent_numbers.remove(taken)
        except ValueError:
            return  # it was sent
        super().give_back(taken)

    def end(self, request: ScopedRequest, stored_at: float | None) -> None:
        """Note that a call has its answer.

        Another arm may have recorded it in another process meanwhile: that is what arms are for. If
        two tasks of this arm made the same draw, the parent process warns when it has the results of
        both.
        """
        self._under_way.pop(request, None)

    def call_for_executor(self, function: Callable[[], Any]) -> Any:
        """Return the result of a function; pickled, the result contains the draws, too.

        :param function: what an executor calls. Its pickled exception contains the draws, too.
        """
        self.are_sent = True
        try:
            return _WithDraws(function(), self)
        except BaseException as error:
            error._worker_draws = _WithDraws(None, self)  # type: ignore[attr-defined]
            raise
        finally:
            self.are_sent = False

    def reduced(self, result: Any) -> tuple[Any, ...]:
        """Return how to unpickle a result in the parent process, with all draws and used records that
        were not sent yet.
        """
        return _unpickled_result, (
            result,
            self._arm_token,
            take_all(self.unsent_numbers),
            take_all(self.used_records),
        )


class WorkerRecords(deque[ScopedRecord]):
    """The records that an arm's calls get in a worker process.

    :param draws: counts the arm's draws there.
    """

    def __init__(self, draws: WorkerDraws) -> None:
        super().__init__()
        self._draws = draws

    def append(self, record: ScopedRecord) -> None:
        """Add a record, and warn if it is not sent to the parent process.

        Its call was no draw, since such a draw is an error.
        """
        if not self._draws.are_sent:
            warn_once(
                f"a function that was bound in llmcall.arms makes calls in another process, with sample= or for "
                f"embeddings (the first in the scope {record.path!r}), and llmcall.arms cannot count them: they are "
                f"missing in .calls, .shared, .cost and .compare. {REMEDIES}",
                about=WorkerRecords,
            )
        super().append(record)


class _WithDraws:
    """A result that is pickled with its draws. Unpickled, it is the result alone.

    :param draws: its draws, and earlier ones whose results were never sent.
    """

    def __init__(self, result: Any, draws: WorkerDraws) -> None:
        self._result = result
        self._draws = draws

    def __reduce__(self) -> tuple[Any, ...]:
        return self._draws.reduced(self._result)


def is_called_by_executor(depth: int) -> bool:
    """Return whether the function at a depth of the stack is called by an executor that pickles its
    result.

    :param depth: 1 is the caller of the caller of this function.
    """
    if threading.current_thread() is not threading.main_thread():
        return False  # multiprocessing.pool has a pool of threads, too
    frame: FrameType | None = sys._getframe(depth + 1)
    while _module_of(frame) == BATCHES:
        frame = frame.f_back  # type: ignore[union-attr]
    module = _module_of(frame)
    while module in EXECUTORS and _module_of(frame) == module:
        if EXECUTORS[module] in frame.f_locals:  # type: ignore[union-attr]
            return True
        frame = frame.f_back  # type: ignore[union-attr]
    return False


def _module_of(frame: FrameType | None) -> str:
    """Return the name of a frame's module; empty for no frame."""
    return "" if frame is None else frame.f_globals.get("__name__", "")


def warn_of_refresh(arm: ArmPath) -> None:
    """Warn if the cache's mode keeps an arm's calls in a worker process from sharing answers."""
    if config.settings().cache_mode == "refresh":
        warn_once(
            f"the cache's mode is refresh, and the arm {arm.name!r} makes calls in another process: each process asks "
            "for each answer again, so two arms may get different answers to equal requests. Make the calls in "
            "threads, or use the mode auto with another folder in [Cache] PATH",
            about="refresh in another process",
        )


# By token, what counts an arm's draws in this process, and what gathers its records: both live as
# long as the arm's scope.
_draws: WeakValueDictionary[str, DrawCounter] = WeakValueDictionary()
_used_records: WeakValueDictionary[str, deque[ScopedRecord]] = WeakValueDictionary()


def register_arm(draws: DrawCounter, used_records: deque[ScopedRecord] | None) -> str:
    """Return a token for an arm of this process, for the draws that worker processes send.

    :param draws: counts its draws.
    :param used_records: gathers the records that its calls get, or ``None``.
    """
    token = os.urandom(8).hex()
    _draws[token] = draws
    if used_records is not None:
        _used_records[token] = used_records
    return token


def registered_arm(token: str) -> tuple[DrawCounter, deque[ScopedRecord] | None] | None:
    """Return what counts an arm's draws and gathers its records, or ``None`` if the arm is not of this
    process.
    """
    draws = _draws.get(token)
    return None if draws is None else (draws, _used_records.get(token))


def _unpickled_result(
    result: Any, token: str, numbers: list[DrawNumber], used_records: list[ScopedRecord]
) -> Any:
    """Count the draws of a bound function in a worker process, and return its result."""
    draws = _draws.get(token)
    if draws is not None:
        for number in numbers:
            draws.claim_from_task(number)
    records_of_arm = _used_records.get(token)
    if records_of_arm is not None:
        records_of_arm.extend(used_records)
    return result


def _forget_arms() -> None:
    """Forget, in a forked process, the arms of its parent."""
    _draws.clear()
    _used_records.clear()


after_fork_in_child(_forget_arms)
