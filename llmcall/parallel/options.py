"""The arguments of ``map`` and ``imap``, checked."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, NamedTuple

from ..replay import scopes
from .items import key_function
from .progress import is_shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..replay.scopes import Scope

__all__ = ["ON_ERROR", "MapOptions", "checked"]

ON_ERROR = ("raise", "none", "return")


class MapOptions(NamedTuple):
    """Hold the arguments of a map, checked; see :func:`llmcall.parallel.map.map`."""

    key: Callable[[Any], Any] | None
    repeats: int
    workers: int | None
    shown: bool
    on_error: str
    executor: Executor | None
    scope: Scope | None
    scope_is_own: bool  # made for this map, by its name


def checked(
    items: Any, key: Any, repeats: Any, workers: Any, progress: Any, on_error: Any, executor: Any, scope: Any
) -> MapOptions:
    """Return the arguments of a map, checked; what is wrong is said before anything is run.

    :raises TypeError: for one of the wrong type.
    :raises ValueError: for one of the wrong value.
    """
    if not (hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        kind = "an asynchronous generator" if hasattr(items, "__aiter__") else type(items).__name__
        raise TypeError(f"items is {kind}; it must be an iterable, such as a list, a generator or a DataFrame")
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error is {on_error!r}; it must be one of {', '.join(ON_ERROR)}")
    return MapOptions(
        key_function(key),
        _count("repeats", repeats),
        None if workers is None else _count("workers", workers),
        is_shown(progress),
        on_error,
        _checked_executor(executor),
        _checked_scope(scope),
        scope is not None and not isinstance(scope, scopes.Scope),
    )


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")
    return value


def _checked_executor(executor: Any) -> Executor | None:
    if executor is not None and not isinstance(executor, Executor):
        hint = ": pass client.get_executor()" if hasattr(executor, "get_executor") else ""
        raise TypeError(f"executor is {type(executor).__name__}; it must be a concurrent.futures.Executor{hint}")
    return executor


def _checked_scope(scope: Any) -> Scope | None:
    if scope is None or isinstance(scope, scopes.Scope):
        return scope
    return scopes.scope(scope)
