"""How one call is made: its options, checked."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..requests.parameters import checked

ON_ERROR = ("raise", "none", "return")


class Options(NamedTuple):
    """How one call is made; none of this enters its key. ``None`` means what the settings say.

    :param timeout: seconds for one attempt.
    :param deadline: seconds for the whole call with its retries and waits.
    :param max_attempts: attempts in all.
    :param waiting_time: seconds before the second attempt.
    :param exponential_backoff_factor: what each further wait is multiplied by.
    :param sample: which draw this is, instead of the next one.
    :param cache: ``False`` bypasses the disk cache.
    :param on_error: ``"raise"``, ``"none"`` or ``"return"``.
    :param dedent_messages: remove the common indentation of every text.
    :param enable_pydantic_model_return: return the object that ``response_format`` reads, in place
        of the reply.
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
    enable_pydantic_model_return: bool = False


DEFAULT_OPTIONS = Options()
OPTION_NAMES = frozenset(Options._fields)
POSITIVE_OPTIONS = ("timeout", "deadline", "max_attempts", "exponential_backoff_factor")


def split_options(arguments: dict[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Return a call's options, checked, and its other arguments.

    :param arguments: arguments by name, none of which is ``None``.
    :raises TypeError: for an option of the wrong type, naming it.
    :raises ValueError: for one out of range.
    """
    options = {
        name: _checked_option(name, value)
        for name, value in arguments.items()
        if name in OPTION_NAMES
    }
    parameters = {name: value for name, value in arguments.items() if name not in OPTION_NAMES}
    return Options(**options), parameters


def _checked_option(name: str, value: Any) -> Any:
    value = checked(name, value)
    if name in POSITIVE_OPTIONS and value <= 0:
        raise ValueError(f"{name} is {value}; it must be more than 0")
    if name == "waiting_time" and value < 0:
        raise ValueError(f"{name} is {value}; it must be at least 0")
    if name == "on_error" and value not in ON_ERROR:
        allowed = ", ".join(map(repr, ON_ERROR))
        raise ValueError(f"on_error is {value!r}; it must be one of {allowed}")
    if name == "sample":
        if value == "":
            raise ValueError("sample is ''; it must name a draw")
        return str(value)
    return value
