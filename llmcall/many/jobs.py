"""The jobs of a ``map``: what it does with each item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..clients.base import LLMClient
from ..config import resolve as config

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import TypeAlias

    from ..config.settings import Settings
    from ..typed.conversations import SendMessage

    Function: TypeAlias = Callable[[Any], Any] | "HasJob"  # what a map runs over its items


class Job(Protocol):
    """The work that a map does with each item."""

    @property
    def window(self) -> str:
        """The window in which its calls are answered, if it is known; ``"none"`` outside any."""

    @property
    def client(self) -> LLMClient | None:
        """The client that its calls ask, if it is known."""

    @property
    def settings(self) -> Settings:
        """The settings of the client that its calls ask, if it is known."""

    @property
    def is_named(self) -> bool:
        """Return whether items need names even without a scope."""

    @property
    def axes(self) -> tuple[str, ...]:
        """With ``vary``, the columns that hold the labels of a row's cell."""

    def check(self, items: object) -> None:
        """Refuse items with which it can do nothing, before anything runs."""

    def run(self, item: object) -> object:
        """Return an item's result."""

    def identity(self, item: object) -> object:
        """Return the data that identifies an item."""


class AskingJob(Job, Protocol):
    """A job that asks a call about each item, so that it can be planned."""

    @property
    def client(self) -> LLMClient:
        """The client that asks."""

    def call_for(self, item: object) -> object:
        """Return the call that asks about an item."""

    def conversation(
        self, item: object, ask: Callable[[SendMessage], Awaitable[object]]
    ) -> Coroutine[Any, Any, object]:
        """Ask about an item until an answer fits.

        :param ask: answers each question.
        """


class HasJob(Protocol):
    """An ``LLMCall``, an ``@llm`` function, or another object that says how it asks about items."""

    def __map_job__(self) -> AskingJob:
        """Return the job of a map with it."""


class FunctionJob(NamedTuple):
    """Calls a function with each item."""

    function: Callable[[Any], object]
    is_named: bool = False
    axes: tuple[str, ...] = ()

    @property
    def client(self) -> LLMClient | None:
        """The client whose method it is."""
        owner = getattr(self.function, "__self__", None)
        return owner if isinstance(owner, LLMClient) else None

    @property
    def settings(self) -> Settings:
        """The process's settings; for a client's method, the client's."""
        return config.settings() if self.client is None else self.client.settings

    @property
    def window(self) -> str:
        """The window of the settings."""
        return self.settings.window

    def check(self, items: object) -> None:
        """Take whatever Python iterates over."""

    def run(self, item: object) -> object:
        """Call the function."""
        return self.function(item)

    def identity(self, item: object) -> object:
        """Return the whole item, which identifies itself."""
        return item


def job_of(function: Function) -> AskingJob | FunctionJob:
    """Return the job of a map with a function.

    :param function: a callable with one argument, or an ``LLMCall`` or ``@llm`` function, whose
        method ``__map_job__`` returns its job.
    :raises TypeError: if it cannot be called, or is asynchronous.
    """
    from inspect import iscoroutinefunction

    if hasattr(type(function), "__map_job__"):
        return function.__map_job__()  # type: ignore[union-attr]  # by its class, which a class lacks
    if not callable(function):
        raise TypeError(
            f"fn is {function!r}; it must be a function, an LLMCall or an @llm function"
        )
    if iscoroutinefunction(function):
        raise TypeError(
            f"{function.__qualname__} is asynchronous: pass a synchronous function, or use asyncio.gather"
        )
    return FunctionJob(function)
