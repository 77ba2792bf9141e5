"""A map's worker on another machine: it answers its calls itself, from a cache that the machines share.

It has limits of its own, and neither budget nor cassette. It notes what the map's process counts.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from ...additions import additions
from ...errors import CacheError, LLMCallError
from ...link.remote import NotedMeter
from ...scopes.active import ScopedRecord
from ...scopes.draws import Drawn
from ...support.failures import UnrecordedCall, process_failures
from ...support.listeners import CallListener, listen, stop_listening
from ...support.system import last_in
from ...traffic.usage import UsageDelta, meters

# The errors of pickle for an object that it cannot pickle.
UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError)

E = TypeVar("E", bound=BaseException)
UsageEntry = tuple[str, str, "UsageDelta", str]  # model, scope, amounts and arm
FailureEntry = tuple[str, list["UnrecordedCall"]]  # why calls left no record, and the calls


def picklable(error: E) -> E | LLMCallError:
    """Return an error; if it cannot be pickled and so would break a pool, return a similar one."""
    try:
        pickle.loads(pickle.dumps(error))
    except (*UNPICKLABLE, pickle.PickleError, ValueError, KeyError, ImportError) as reason:
        return LLMCallError(
            f"{type(error).__name__}: {error} (it cannot be sent between processes: {reason})"
        )
    return error


class Noted(NamedTuple):
    """Notes of a task in a worker on another machine, for the map's process to count.

    :param refused: the first error of a call that was refused, which the task may have caught.
    """

    drawn: Sequence[Drawn]
    used_records: Sequence[ScopedRecord]
    usage: Sequence[UsageEntry]
    failures: Sequence[FailureEntry]
    refused: Exception | None


class Elsewhere(CallListener):
    """A listener that notes the calls of this worker.

    :param has_budget: ``True`` if a budget is open in the map's process.
    :param cassette: the file of the cassette that is open there, or ``None``.
    :raises CacheError: if either is.
    """

    def __init__(self, *, has_budget: bool, cassette: str | None) -> None:
        if has_budget:
            raise CacheError(
                "a budget is open in the process of the map, and does not limit workers on other machines. Run the "
                "map without a budget, or on this machine"
            )
        if cassette is not None:
            shared = additions("remedies").get("a cassette on another machine")
            remedy = f"{shared}, " if shared else ""
            raise CacheError(
                f"{cassette} is open in the process of the map, where workers on other machines cannot record or "
                f"replay. Run the map without a cassette, {remedy}or on this machine"
            )
        self._meter = NotedMeter(None)
        self._refused: Exception | None = None
        self._lock = threading.Lock()

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note the calls of a block."""
        with last_in(meters, self._meter):
            listen(self)
            try:
                yield
            finally:
                stop_listening(self)

    def refused(self, call: object, error: Exception) -> None:
        """Note the first error of a call that was refused."""
        self._refused = self._refused or picklable(error)

    def take_noted(self, drawn: Sequence[Drawn], used_records: Iterable[ScopedRecord]) -> Noted:
        """Return what a task drew and used, and what was noted since another ended; forget that."""
        with self._lock:  # other threads may note more meanwhile
            usage = self._meter.noted[:]
            del self._meter.noted[: len(usage)]
            refused, self._refused = self._refused, None
            return Noted(drawn, list(used_records), usage, process_failures.take(), refused)
