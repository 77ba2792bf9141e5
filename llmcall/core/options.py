"""The options of one call: its timeouts, attempts, draw and answer to failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..keys.parameters import checked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.settings import Settings

ON_ERROR = ("raise", "none", "return")
ALLOWED = {"on_error": ON_ERROR, "window": ("2h", "8h", "none")}


class Options(NamedTuple):
    """The options of one call; none of them enters its key.

    :param timeout: seconds for one attempt.
    :param deadline: seconds for the whole call with its retries and waits; ``None`` means no limit.
    :param max_attempts: attempts in all.
    :param waiting_time: seconds before the second attempt.
    :param exponential_backoff_factor: what each further wait is multiplied by.
    :param on_error: ``"raise"``, ``"none"`` or ``"return"``.
    :param window: in which the answer is made: ``"2h"``, ``"8h"`` or ``"none"``.
    :param sample: which draw this is, instead of the next one.
    :param cache: ``False`` bypasses the disk cache.
    :param dedent_messages: remove the common indentation of every text.
    :param enable_pydantic_model_return: return the object that ``response_format`` reads, in place
        of the reply.
    """

    timeout: float | None
    deadline: float | None
    max_attempts: int
    waiting_time: float
    exponential_backoff_factor: float
    on_error: str
    window: str
    sample: str | None = None
    cache: bool | None = None
    dedent_messages: bool = False
    enable_pydantic_model_return: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Options:
        """Return the options of a call that names none."""
        return cls(
            settings.timeout,
            settings.deadline,
            settings.retry_max_attempts,
            settings.retry_waiting_time,
            settings.retry_exponential_backoff_factor,
            settings.on_error,
            settings.window,
        )


OPTIONS = frozenset(Options._fields)


def split_options(
    arguments: Mapping[str, Any], defaults: Options
) -> tuple[Options, dict[str, Any]]:
    """Return a call's options, checked, and its other arguments.

    :param arguments: by name; ``None`` means not given.
    :param defaults: say what the arguments do not.
    :raises TypeError: for an option of the wrong type, naming it.
    :raises ValueError: for one out of range.
    """
    params = {name: value for name, value in arguments.items() if value is not None}
    if params.get("dedent_messages") is False:  # as send_message passes it on
        del params["dedent_messages"]
    given = {name: _checked_option(name, params[name]) for name in params if name in OPTIONS}
    if not given:
        return defaults, params
    others = {name: params[name] for name in params if name not in OPTIONS}
    return defaults._replace(**given), others


def _checked_option(name: str, value: Any) -> Any:
    value = checked(name, value)
    if name == "waiting_time" and value < 0:
        raise ValueError(f"{name} is {value}; it must be at least 0")
    if name in ALLOWED and value not in ALLOWED[name]:
        allowed = ", ".join(map(repr, ALLOWED[name]))
        raise ValueError(f"{name} is {value!r}; it must be one of {allowed}")
    if name == "sample":
        if value == "":
            raise ValueError("sample is ''; it must name a draw")
        return str(value)
    is_number = name in ("timeout", "deadline", "max_attempts", "exponential_backoff_factor")
    if is_number and value <= 0:
        raise ValueError(f"{name} is {value}; it must be more than 0")
    return value
