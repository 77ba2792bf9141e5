"""One setting, and its values in a layer."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from . import values
from .values import UNSET, Parser

Rank = IntEnum(
    "Rank", "DEFAULT NAMED_FILE FOUND_FILE DOTENV ENVIRONMENT PUSHED CONFIGURED ARGUMENT FORCED"
)
"""The layers; a higher one wins."""


class Given(NamedTuple):
    """A setting's value in a layer.

    :param value: the value; ``UNSET`` if the layer leaves it to those below.
    :param rank: the layer's rank.
    :param origin: the place that it came from, e.g. ``"environment variable LLMCALL_MODEL"``.
    """

    value: Any
    rank: Rank
    origin: str


Layer = Mapping[str, Given]


class Setting(NamedTuple):
    """One setting.

    :param parse: checks its values.
    :param default: its value if nothing sets it; ``None`` if it may have none.
    :param name: its name in code; in capitals after ``LLMCALL_``, its environment variable.
    :param section: its section in config.ini.
    :param key: its name there; empty if the whole section is the value, or if only code can set it.
    """

    parse: Parser
    default: Any = None
    name: str = ""
    section: str = ""
    key: str = ""

    def check(self, value: Any, location: str, folder: str | None = None) -> Any:
        """Return a value as the setting's type.

        :param value: text from a file or a variable, or a value from code; for a whole section, a
            mapping of such values.
        :param location: where it was found, for the message.
        :param folder: the directory that a relative path starts from; ``None`` is the working
            directory.
        :returns: the value, or ``UNSET`` for empty text.
        :raises ConfigError: if it is of the wrong type or outside the allowed range.
        """
        if isinstance(value, str):
            value = value.strip()
            if self.default != "":
                if not value:
                    return UNSET
                if value.casefold() == "none" and self.parse not in values.WORDS:
                    return None if self.default is None else UNSET
        parsed = self.parse(value, location)
        return values.absolute(parsed, folder) if self.parse is values.path else parsed


def settings_of(section: str, parsers: Mapping[str, Parser]) -> dict[str, Setting]:
    """Return the settings of a named section by their names in code."""
    return {
        name: Setting(parse, None, name, section, name.upper()) for name, parse in parsers.items()
    }
