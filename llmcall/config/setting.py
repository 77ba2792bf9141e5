"""One setting: its place in config.ini, its parser, its default and its origin."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

from . import values
from .values import UNSET, Parser

Rank = IntEnum(
    "Rank", "DEFAULT NAMED_FILE FOUND_FILE DOTENV ENVIRONMENT PUSHED CONFIGURED ARGUMENT FORCED"
)
"""The layers; a higher one wins."""


class Origin(NamedTuple):
    """The place that a value came from.

    :param rank: its layer's rank.
    :param text: the place in words, e.g. ``"environment variable LLMCALL_MODEL"``.
    """

    rank: Rank
    text: str


class SettingValue(NamedTuple):
    """A setting's value in a layer, and the place that it came from."""

    value: Any
    origin: Origin


Layer = dict[str, SettingValue]


class Setting(NamedTuple):
    """One setting.

    :param section: its section in config.ini.
    :param key: its name there; empty if the whole section is the value, or if only code can set it.
    :param parse: checks its values.
    :param default: its value if nothing sets it; ``None`` if it may have none.
    :param help: one line for config.ini.
    :param example: what config.ini shows after a ``#`` if the default cannot be written there.
    :param name: its name in code; in capitals after ``LLMCALL_``, its environment variable.
    """

    section: str
    key: str
    parse: Parser
    default: Any = None
    help: str = ""
    example: str = ""
    name: str = ""


def check_setting(row: Setting, value: Any, location: str, folder: str | None = None) -> Any:
    """Return the value of a setting as its type.

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
        if not value and row.default != "":
            return UNSET
        if value.casefold() == "none" and row.default != "" and row.parse not in values.WORDS:
            return None if row.default is None else UNSET
    return (
        values.path(value, location, folder)
        if row.parse is values.path
        else row.parse(value, location)
    )
