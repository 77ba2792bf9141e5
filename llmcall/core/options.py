"""Options of a call that features add."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from ..config.settings import Settings
from ..features import additions, load
from ..keys.request import Data
from ..support.notices import warn_once

if TYPE_CHECKING:
    from ..clients.configured import ConfiguredClient as Client
    from ..config.endpoints import Endpoint
    from .calls import Call, Options
    from .seams import Transport

# The value of a feature's option that leaves it out, as of a setting that has its default.
WITHOUT = "none"


class CallOption:
    """An option of a chat that a feature adds. A setting of its name has its default; ``"none"`` is without it.

    :ivar values: what else it may be.
    :ivar about: what the docstrings of methods say of it.
    :ivar is_slow: whether an answer may take hours, which its server makes as it finds time: such a call is no
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
