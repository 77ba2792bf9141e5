"""A setting, its value in a layer, and settings that are whole sections of config.ini."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..support.arguments import nearest
from . import values
from .values import UNSET, FrozenDict, Parser, refuse

Rank = IntEnum(
    "Rank", "DEFAULT NAMED_FILE FOUND_FILE DOTENV ENVIRONMENT PUSHED CONFIGURED ARGUMENT FORCED"
)
"""The layers; a higher one wins."""


class SettingValue(NamedTuple):
    """A setting's value in a layer.

    :param value: the value, or ``UNSET`` to leave it to lower layers.
    :param rank: the layer's rank.
    :param origin: the source of the value, e.g. ``"environment variable LLMCALL_MODEL"``.
    """

    value: Any
    rank: Rank
    origin: str


Layer = Mapping[str, SettingValue]


class Setting(NamedTuple):
    """One setting.

    :param parse: checks its values.
    :param default: its default value; ``None`` if it may have no value.
    :param name: its name in code. The environment variable is ``LLMCALL_`` and this in capitals.
    :param section: its section in config.ini.
    :param key: its key in the section; empty if the section is the value, or if only code can set it.
    :param comment: of a feature's setting, what the top-level config.ini says of it. Such a setting may name its
        section, and its own name then begins with that; any other section follows from the name.
    """

    parse: Parser
    default: Any = None
    name: str = ""
    section: str = ""
    key: str = ""
    comment: str = ""

    def check(self, value: object, location: str, folder: str | None = None) -> object:
        """Return a value converted to the setting's type.

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


class OtherKeys(NamedTuple):
    """Another program's keys in sections of config.ini that have the names of llmcall's.

    :param name_of: returns the setting of llmcall that a key in a section means, such as ``"cache_mode"``, empty if
        there is none; ``None`` for an unknown key.
    :param translated: returns a key's value in llmcall's form. The last argument is its location, for messages.
    """

    name_of: Callable[[str, str], str | None]
    translated: Callable[[str, str, str], str]


def settings_of(section: str, parsers: Mapping[str, Parser]) -> dict[str, Setting]:
    """Return the settings of a section by their names in code."""
    return {
        name: Setting(parse, None, name, section, name.upper()) for name, parse in parsers.items()
    }


# Whole sections.

MODEL_KEYS = settings_of(
    "Model",
    {
        "context_window": values.integer(1),
        "max_output_tokens": values.integer(1),
        "encoding": values.text,
        "reasoning": values.boolean,
        "refused_parameters": values.names,
        "refused_when_reasoning": values.names,
        "max_completion_tokens": values.boolean,
        "structured_output": values.boolean,
        "tools_on_responses": values.boolean,
        "only_on_responses": values.boolean,
        "embedding": values.boolean,
    },
)


def mapping_of(parse: Parser, header: str) -> Parser:
    """Return the parser of a mapping from model names to values.

    :param parse: the parser of the values.
    :param header: the location of a ``{name}``'s value, for messages.
    """

    def parse_mapping(value: object, location: str) -> FrozenDict:
        """Return a mapping of parsed values."""
        if not isinstance(value, Mapping):
            refuse(location, value, "a mapping")
        return FrozenDict(
            {
                name: parse(item, f"{location}, {header.format(name=name)}")
                for name, item in value.items()
            }
        )

    return parse_mapping


def _price(value: object) -> tuple[float, ...] | None:
    """Return a price as two or three numbers, or ``None`` for anything else."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (tuple, list)) or len(value) not in (2, 3):
        return None
    numbers = [values.as_number(item, 0) for item in value]
    return None if None in numbers else tuple(number for number in numbers if number is not None)


_PRICES = (
    "two or three numbers of at least 0: USD per million tokens of input, output, cached input"
)
parse_prices = mapping_of(values.parser(_price, _PRICES), "[Prices] {name}")


def checked_fields(rows: Mapping[str, Setting], fields: object, location: str) -> dict[str, Any]:
    """Return the checked fields of one named section, without those that are unset or ``None``.

    :param rows: the settings that the section may have, by their names in code.
    :param fields: the values, by the same names.
    :param location: where it is, for messages.
    """
    if not isinstance(fields, Mapping):
        refuse(location, fields, "a mapping")
    checked = {}
    for name, value in fields.items():
        if name not in rows:
            raise ConfigError(f"{location}: unknown setting {name!r}{nearest(name, rows)}")
        if value is not None:
            checked[name] = rows[name].check(value, f"{location} {rows[name].key}")
    return {name: value for name, value in checked.items() if value not in (UNSET, None)}


parse_models = mapping_of(
    lambda value, location: FrozenDict(checked_fields(MODEL_KEYS, value, location)),
    "[Model {name}]",
)
