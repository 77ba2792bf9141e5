"""What a ``map`` does with each item: call a function with it, or ask an ``LLMCall`` about a row."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ..clients.base import LLMClient

__all__ = ["Asker", "CallJob", "FunctionJob", "Job", "check_picklable", "job_of"]


class Asker:
    """Be what asks a model about rows: an ``LLMCall``."""

    @property
    def client(self) -> LLMClient:
        """Return whom it asks."""
        raise NotImplementedError

    def variables(self) -> frozenset[str]:
        """Return the names that its templates use."""
        raise NotImplementedError

    def run(self, /, **variables: Any) -> Any:
        """Ask, and return the value with the reply and the messages."""
        raise NotImplementedError

    def asking(self, client: LLMClient, variables: dict[str, Any]) -> Generator[Any, Any, Any]:
        """Yield what is asked, as ``messages`` and ``params``, take the reply, and return the answer."""
        raise NotImplementedError


class FunctionJob:
    """Call a function with each item."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, item: Any) -> Any:
        return self.function(item)

    def identity(self, item: Any) -> Any:
        """Return what tells an item from others: all of it."""
        return item


class CallJob:
    """Ask about each row.

    :param call: what asks.
    :param function: the ``@llm`` function that gives arguments and defaults, or ``None``.
    :param whole: whether the answer is wanted whole, with its reply and messages.
    """

    def __init__(self, call: Asker, function: Any = None, *, whole: bool = False) -> None:
        self.call = call
        self.function = function
        self.whole = whole

    def __call__(self, item: Any) -> Any:
        answer = self.call.run(**self.variables(item))
        return answer if self.whole else answer.value

    def variables(self, item: Any) -> dict[str, Any]:
        """Return the templates' variables of an item.

        :raises TypeError: where it is no row.
        """
        if self.function is not None:
            return self.function.variables(item)  # type: ignore[no-any-return]
        if not isinstance(item, Mapping):
            raise TypeError(f"a row is {type(item).__name__}; it must be a dict of the templates' variables")
        unnamed = [name for name in item if not isinstance(name, str)]
        if unnamed:
            raise TypeError(f"a row has the column {unnamed[0]!r}; a column's name must be a text")
        return dict(item)

    def identity(self, item: Any) -> dict[str, Any]:
        """Return what tells an item from others: only the variables that the templates use."""
        used = self.call.variables()
        if self.function is not None:
            used -= self.function.bound_names()
        return {name: value for name, value in self.variables(item).items() if name in used}


Job = FunctionJob | CallJob


def job_of(function: Any) -> Job:
    """Return what a map does with each item.

    :param function: any callable of one argument, an ``LLMCall``, or an ``@llm`` function.
    :raises TypeError: where it cannot be called, or is asynchronous.
    """
    from inspect import iscoroutinefunction

    if isinstance(function, CallJob):
        return function
    if isinstance(function, Asker):
        return CallJob(function)
    if isinstance(call := getattr(function, "llm_call", None), Asker):
        return CallJob(call, function)
    if not callable(function):
        raise TypeError(f"fn is {function!r}; it must be a function, an LLMCall or an @llm function")
    if iscoroutinefunction(function):
        raise TypeError(f"{function.__qualname__} is asynchronous: give a function that is not, or use asyncio.gather")
    return FunctionJob(function)


def check_picklable(job: Job) -> None:
    """Refuse a job that cannot be sent to another process.

    :raises TypeError: saying why.
    """
    try:
        pickle.dumps(job)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(
            f"fn cannot be sent to other processes: {error}. It must be a function that can be imported, not a lambda "
            "or one inside another, and what it holds, such as client=, must be picklable"
        ) from error
