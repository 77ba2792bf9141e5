"""The arguments of a call that steer it and never enter its key: times, retries, sample, cache, errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ON_ERROR", "Options", "split"]

ON_ERROR = ("raise", "none", "return")


class Options(NamedTuple):
    """Hold how one call is made; ``None`` means what the settings say.

    :param timeout: seconds for one attempt.
    :param deadline: seconds for the whole call with its retries and waits.
    :param max_attempts: attempts in all.
    :param waiting_time: seconds before the second attempt.
    :param exponential_backoff_factor: what each further wait is multiplied by.
    :param sample: which draw this is, instead of the next one.
    :param cache: ``False`` goes past the disk cache.
    :param on_error: ``"raise"``, ``"none"`` or ``"return"``.
    :param dedent_messages: remove the common indentation of every text.
    """

    timeout: float | None = None
    deadline: float | None = None
    max_attempts: int | None = None
    waiting_time: float | None = None
    exponential_backoff_factor: float | None = None
    sample: str | None = None
    cache: bool | None = None
    on_error: str | None = None
    dedent_messages: bool = False


DEFAULTS = Options()
# The smallest value of each number, and whether it may be that small itself.
SMALLEST = {
    "timeout": (0, False),
    "deadline": (0, False),
    "max_attempts": (1, True),
    "waiting_time": (0, True),
    "exponential_backoff_factor": (0, False),
}


def split(arguments: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Return a call's options, checked, and its other arguments.

    :raises TypeError: for an option of the wrong type, naming it.
    :raises ValueError: for one out of range.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    options = {name: _checked(name, given.pop(name)) for name in given.keys() & set(Options._fields)}
    return (Options(**options) if options else DEFAULTS), given


def _checked(name: str, value: Any) -> Any:
    if name in SMALLEST:
        return _number(name, value)
    if name == "sample":
        return _sample(value)
    if name == "on_error":
        if value not in ON_ERROR:
            raise ValueError(f"on_error is {value!r}; it must be one of {', '.join(map(repr, ON_ERROR))}")
    elif not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it must be True or False")
    return value


def _number(name: str, value: Any) -> Any:
    whole = name == "max_attempts"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise TypeError(f"{name} is {value!r}; it must be a {'whole number' if whole else 'number'}")
    smallest, included = SMALLEST[name]
    if not math.isfinite(value) or value < smallest or (value == smallest and not included):
        raise ValueError(f"{name} is {value}; it must be {'at least' if included else 'more than'} {smallest}")
    return value


def _sample(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise TypeError(f"sample is {value!r}; it must be a string or a whole number")
    if value == "":
        raise ValueError("sample is ''; it must name a draw")
    return str(value)
