"""The result of a task of a ``map``."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..call.usage import UsageDelta
    from ..scopes import ScopedRecord, ScopedRequest


class CassetteEvent(NamedTuple):
    """A call of a method of the cassette in a worker process.

    :param method: the method's name.
    """

    method: str
    arguments: tuple[Any, ...]


class TaskResult(NamedTuple):
    """A task's value or its error. If the task ran in a worker process: also what it did there.

    :param value: what the function returned.
    :param error: the exception that it raised, or ``None``.
    :param traceback: the error's traceback in the worker.
    :param draws: the numbers that the task drew.
    :param usage: model, scope, amounts and arm of each addition to the usage.
    :param events: the calls of the cassette's methods, which the map's process repeats.
    :param used_records: the records that answered the task's calls, if it ran in an arm.
    :param failures: why calls left no record, how many in each scope, and the first one in words.
    """

    value: Any = None
    error: BaseException | None = None
    traceback: str = ""
    draws: Sequence[tuple[ScopedRequest, int]] = ()
    usage: Sequence[tuple[str, str, UsageDelta, str]] = ()
    events: Sequence[CassetteEvent] = ()
    used_records: Sequence[ScopedRecord] = ()
    failures: Sequence[tuple[str, dict[str, int], str]] = ()


class NotBegunError(CancelledError):
    """Raised for a task that did not begin. Any other ``CancelledError`` is the function's own."""


class WorkerError(Exception):
    """The traceback of an error in a worker process; it is the error's cause."""
