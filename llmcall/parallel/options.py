"""The arguments of a map, checked before anything runs."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import scopes
from ..call.options import ON_ERROR
from .names import key_function

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..scopes import Scope


class MapOptions(NamedTuple):
    """The checked arguments of a map; see :func:`llmcall.map`."""

    key: Callable[[Any], Any] | None
    repeats: int
    workers: int | None
    progress: bool | None
    on_error: str
    executor: Executor | None
    scope: Scope | None


def check_options(
    items: Any,
    key: Any,
    repeats: Any,
    workers: Any,
    progress: Any,
    on_error: Any,
    executor: Any,
    scope: Any,
) -> MapOptions:
    """Return the arguments of a map, once they are checked.

    :raises TypeError: if one has the wrong type.
    :raises ValueError: if one has the wrong value.
    """
    if not (hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        kind = "an asynchronous generator" if hasattr(items, "__aiter__") else type(items).__name__
        raise TypeError(
            f"items is {kind}; it must be an iterable, such as a list, a generator or a DataFrame"
        )
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error is {on_error!r}; it must be one of {', '.join(ON_ERROR)}")
    if progress is not None and not isinstance(progress, bool):
        raise TypeError(
            f"progress is {progress!r}; it must be True, False or None (on a terminal or in a notebook)"
        )
    if executor is not None and not isinstance(executor, Executor):
        hint = ": pass client.get_executor()" if hasattr(executor, "get_executor") else ""
        raise TypeError(
            f"executor is {type(executor).__name__}; it must be a concurrent.futures.Executor{hint}"
        )
    return MapOptions(
        key_function(key),
        checked_count("repeats", repeats),
        None if workers is None else checked_count("workers", workers),
        progress,
        on_error,
        executor,
        scope if scope is None or isinstance(scope, scopes.Scope) else scopes.scope(scope),
    )


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
