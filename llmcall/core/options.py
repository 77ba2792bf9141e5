"""The options of a call: how it is made, none of which enters its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..config.settings import ON_ERROR, Settings
from ..errors import RequestTimeoutError
from ..keys.parameters import checked_argument
from ..keys.request import Data
from ..support import clock


class Options(NamedTuple):
    """The options of one call; none of them enters its key.

    :param timeout: seconds for one attempt.
    :param deadline: seconds for the whole call with its retries and waits; ``None`` means no limit.
    :param max_attempts: attempts in all.
    :param waiting_time: seconds before the second attempt.
    :param exponential_backoff_factor: what each further wait is multiplied by.
    :param on_error: ``"raise"``, ``"none"`` or ``"return"``.
    :param sample: the draw, instead of the next one.
    :param cache: ``False`` bypasses the disk cache.
    :param dedent_messages: remove the common indentation of every text.
    :param enable_pydantic_model_return: return the object that ``response_format`` reads, instead
        of the reply.
    """

    timeout: float | None
    deadline: float | None
    max_attempts: int
    waiting_time: float
    exponential_backoff_factor: float
    on_error: str
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
        )


OPTIONS = frozenset(Options._fields)


def split_options(
    arguments: Mapping[str, object], defaults: Options
) -> tuple[Options, dict[str, Data]]:
    """Return a call's options, checked, and its other arguments.

    :param arguments: by name; ``None`` means not given.
    :param defaults: the options that the arguments do not name.
    :raises TypeError: for an option of the wrong type, naming it.
    :raises ValueError: for one out of range.
    """
    options: dict[str, Data] = {}
    others: dict[str, Data] = {}
    for name, value in arguments.items():
        if name not in OPTIONS:
            others[name] = value
        elif value is not None:
            options[name] = _checked_option(name, value)
    return defaults._replace(**options) if options else defaults, others


def _checked_option(name: str, value: Data) -> Data:
    value = checked_argument(name, value)
    if name == "waiting_time" and value < 0:
        raise ValueError(f"{name} is {value}; it must be at least 0")
    if name == "on_error" and value not in ON_ERROR:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, ON_ERROR))}")
    if name == "sample":
        if value == "":
            raise ValueError("sample is ''; it must name a draw")
        return str(value)
    is_number = name in ("timeout", "deadline", "max_attempts", "exponential_backoff_factor")
    if is_number and value <= 0:
        raise ValueError(f"{name} is {value}; it must be more than 0")
    return value


class Deadline(NamedTuple):
    """The monotonic time after which nothing is tried, or ``None`` without one."""

    at: float | None

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """Return the deadline in some seconds; ``None`` means none."""
        return cls(None if seconds is None else clock.monotonic() + seconds)

    def time_left(self) -> float | None:
        """Return the seconds until it, or ``None`` without one."""
        return None if self.at is None else self.at - clock.monotonic()

    def is_over(self) -> bool:
        """Return whether it has passed."""
        return self.at is not None and self.at <= clock.monotonic()

    def time_for(
        self, seconds: float | None, if_late: str = "the call's deadline passed"
    ) -> float | None:
        """Return the seconds that a step may take: at most some, and until the deadline.

        :param seconds: ``None`` means no limit.
        :param if_late: the message of the error.
        :raises RequestTimeoutError: if the deadline has passed; it is not tried again.
        """
        seconds_left = self.time_left()
        if seconds_left is None:
            return seconds
        if seconds_left <= 0:
            error = RequestTimeoutError(if_late)
            error.retryable = False
            error.note(is_late=True)
            raise error
        return seconds_left if seconds is None else min(seconds, seconds_left)
