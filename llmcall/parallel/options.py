"""The arguments of a map, checked before anything runs."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from .. import scopes
from ..call.options import ON_ERROR
from .names import key_function


@dataclass(frozen=True)
class MapOptions:
    """The arguments of a map; see :func:`llmcall.map`.

    :raises TypeError: if one has the wrong type.
    :raises ValueError: if one has the wrong value.
    """

    key: Any
    repeats: int
    workers: int | None
    progress: bool | None
    on_error: str
    executor: Executor | None
    scope: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key_function(self.key))
        checked_count("repeats", self.repeats)
        if self.workers is not None:
            checked_count("workers", self.workers)
        if self.on_error not in ON_ERROR:
            raise ValueError(
                f"on_error is {self.on_error!r}; it must be one of {', '.join(ON_ERROR)}"
            )
        if self.progress is not None and not isinstance(self.progress, bool):
            raise TypeError(
                f"progress is {self.progress!r}; it must be True, False or None (on a terminal or in a notebook)"
            )
        if self.executor is not None and not isinstance(self.executor, Executor):
            hint = ": pass client.get_executor()" if hasattr(self.executor, "get_executor") else ""
            raise TypeError(
                f"executor is {type(self.executor).__name__}; it must be a concurrent.futures.Executor{hint}"
            )
        if self.scope is not None and not isinstance(self.scope, scopes.Scope):
            object.__setattr__(self, "scope", scopes.scope(self.scope))


def checked_count(name: str, value: Any) -> int:
    """Return a whole number of at least 1.

    :param name: the argument's name, for the message.
    :raises TypeError, ValueError: if it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")
    return value
