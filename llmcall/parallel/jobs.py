"""What a map does with each item: call a function, or ask what a template says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Job(Protocol):
    """What a map does with each item."""

    def run(self, item: Any) -> Any:
        """Return an item's result."""

    def identity(self, item: Any) -> Any:
        """Return what identifies an item."""


class FunctionJob(NamedTuple):
    """Call a function with each item."""

    function: Callable[[Any], Any]

    def run(self, item: Any) -> Any:
        """Call the function."""
        return self.function(item)

    def identity(self, item: Any) -> Any:
        """Return what identifies an item: the whole item."""
        return item


def job_of(function: Any) -> Job:
    """Return what a map does with each item.

    :param function: a callable with one argument, or an ``LLMCall`` or ``@llm`` function, whose
        method ``__map_job__`` returns its job.
    :raises TypeError: if it cannot be called, or is asynchronous.
    """
    from inspect import iscoroutinefunction

    if hasattr(type(function), "__map_job__"):
        return function.__map_job__()  # type: ignore[no-any-return]
    if not callable(function):
        raise TypeError(
            f"fn is {function!r}; it must be a function, an LLMCall or an @llm function"
        )
    if iscoroutinefunction(function):
        raise TypeError(
            f"{function.__qualname__} is asynchronous: pass a synchronous function, or use asyncio.gather"
        )
    return FunctionJob(function)


def job_of_cell(job: Job, cell: int) -> Any:
    """Return the job that asks about one cell's rows: the job itself if nothing varies."""
    return job.job_of_cell(cell) if hasattr(job, "job_of_cell") else job
