"""The options of a call: how it is made, none of which enters its key; and those that features add."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ..additions import additions, load
from ..config.settings import ON_ERROR, Settings
from ..keys.parameters import checked_argument
from ..keys.request import Data
from ..support.notices import warn_once

if TYPE_CHECKING:
    from ..clients.configured import ConfiguredClient as Client
    from ..config.endpoints import Endpoint
    from .calls import Call
    from .seams import Transport

# The value of a feature's option that leaves it out, as of a setting that has its default.
WITHOUT = "none"


class CallOption:
    """An option of a chat that a feature adds. A setting of its name has its default; ``"none"`` is without it.

    :ivar values: what else it may be.
    :ivar about: what the docstrings of methods say of it.
    :ivar is_slow: ``True`` if an answer may take hours, which its server makes as it finds time: such a call is no
        work under way that holds others back.
    """

    values: tuple[str, ...] = ()
    about = ""
    is_slow = False

    def prepare(
        self, client: Client, options: Options, sent: dict[str, Data]
    ) -> tuple[Options, dict[str, Data]]:
        """Return the options and the sent fields of a chat that has it."""
        return options, sent

    def check(self, call: Call) -> None:
        """Raise an error if a call cannot be sent with it; a recorded answer is not sent."""

    def around(self, transport: Transport, call: Call, endpoint: Endpoint) -> Transport:
        """Return the transport that sends a call to an endpoint.

        :param transport: the one that sends calls without it.
        """
        return transport


Added = tuple[tuple[str, str], ...]  # the names and values of features' options


@cache
def known_options() -> dict[str, CallOption]:
    """Return the options that features add, by name."""
    return {name: load(place) for name, place in additions("options").items()}


def added_options(settings: Settings, given: Mapping[str, object]) -> Added:
    """Return the options of features with which a call is made: given, or else set.

    :param given: those that the call names.
    """
    values = {
        name: str(given.get(name) or getattr(settings, name, WITHOUT)) for name in known_options()
    }
    return tuple(item for item in values.items() if item[1] != WITHOUT)


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
    :param added: those that features add, and that are not left out.
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
    added: Added = ()

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
            added=added_options(settings, {}),
        )


OPTIONS = frozenset(Options._fields) - {"added"}


def split_options(
    arguments: Mapping[str, object], defaults: Options
) -> tuple[Options, dict[str, Data]]:
    """Return a call's options, checked, and its other arguments.

    :param arguments: by name; ``None`` means not given.
    :param defaults: the options that the arguments do not name.
    :raises TypeError: for an option of the wrong type, naming it.
    :raises ValueError: for one out of range.
    """
    options: dict[str, Any] = {}
    others: dict[str, Data] = {}
    added = dict(defaults.added)
    for name, value in arguments.items():
        if name in known_options():
            added |= {} if value is None else {name: _checked_option(name, value)}
        elif name not in OPTIONS:
            others[name] = value
        elif value is not None:
            options[name] = _checked_option(name, value)
    if added:
        options["added"] = tuple(item for item in sorted(added.items()) if item[1] != WITHOUT)
    return defaults._replace(**options) if options else defaults, others


def _checked_option(name: str, value: Any) -> Any:
    value = checked_argument(name, value)
    if name == "waiting_time" and value < 0:
        raise ValueError(f"{name} is {value}; it must be at least 0")
    allowed = (*known_options()[name].values, WITHOUT) if name in known_options() else ON_ERROR
    if (name in known_options() or name == "on_error") and value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")
    if name == "sample":
        if value == "":
            raise ValueError("sample is ''; it must name a draw")
        return str(value)
    is_number = name in ("timeout", "deadline", "max_attempts", "exponential_backoff_factor")
    if is_number and value <= 0:
        raise ValueError(f"{name} is {value}; it must be more than 0")
    return value


def is_slow(added: Added) -> bool:
    """Return whether an answer may take hours."""
    return any(known_options()[name].is_slow for name, _ in added)


def without_added(options: Options, subject: str) -> Options:
    """Return options without those that features add; warn once of each that is left out.

    :param subject: in words, the calls.
    """
    for name, value in options.added:
        warn_once(f"{name.upper()} = {value}: {subject} are sent without a {name}")
    return options._replace(added=())
