"""The settings that are a whole section of config.ini, and those of [Model NAME]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from . import values
from .setting import Setting, check_setting
from .values import UNSET, FrozenDict, Parser, nearest, refuse


def settings_of(section: str, *rows: tuple[str, Parser, str, str]) -> dict[str, Setting]:
    """Return the settings of a named section by their names in code.

    :param rows: each setting's name in code, parser, help and example.
    """
    return {
        name: Setting(section, name.upper(), parse, None, help, example, name)
        for name, parse, help, example in rows
    }


# The settings of [Model NAME], by their names in code.
MODEL_KEYS = settings_of(
    "Model",
    (
        "context_window",
        values.integer(1),
        "Context window (input and output together), in tokens",
        "32768",
    ),
    ("max_output_tokens", values.integer(1), "Maximum length of an answer, in tokens", "8192"),
    ("encoding", values.text, "The tiktoken encoding that counts its tokens", "o200k_base"),
    ("reasoning", values.boolean, "Whether it can reason before it answers", "no"),
    (
        "refused_parameters",
        values.names,
        "Parameters it does not accept; they are not sent",
        "top_p, presence_penalty",
    ),
    (
        "refused_when_reasoning",
        values.names,
        "Parameters it does not accept while it reasons",
        "temperature",
    ),
    (
        "max_completion_tokens",
        values.boolean,
        "Whether it expects max_completion_tokens instead of max_tokens",
        "no",
    ),
    (
        "structured_output",
        values.boolean,
        "Whether it accepts a JSON schema as response_format",
        "yes",
    ),
    (
        "tools_on_responses",
        values.boolean,
        "Whether it calls tools while it reasons on the Responses API only",
        "no",
    ),
    ("embedding", values.boolean, "Whether it is an embedding model", "no"),
)


# Parsers


def mapping_of(parse: Parser, value_location: str = "{location} {name}") -> Parser:
    """Return the parser of a mapping of values by the names of models.

    :param parse: the parser of its values.
    :param value_location: where a value is, for messages.
    """

    def parse_each(value: Any, location: str) -> FrozenDict:
        """Return a mapping of parsed values."""
        if not isinstance(value, Mapping):
            refuse(location, value, "a mapping")
        return FrozenDict(
            {
                name: parse(item, value_location.format(location=location, name=name))
                for name, item in value.items()
            }
        )

    return parse_each


def _price(value: Any) -> tuple[float, ...] | None:
    """Return a price as numbers, or ``None`` to refuse it."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (tuple, list)) or len(value) not in (2, 3):
        return None
    numbers = [values.as_number(item, 0) for item in value]
    return None if None in numbers else tuple(number for number in numbers if number is not None)


_PRICES = (
    "two or three numbers of at least 0: USD per million tokens of input, output, cached input"
)
parse_prices = mapping_of(values.parser(_price, _PRICES))


def checked_fields(rows: Mapping[str, Setting], fields: Any, location: str) -> dict[str, Any]:
    """Return the checked fields of one named section, without those that are unset or ``None``.

    :param rows: the settings that it may have, by their names in code.
    :param fields: its values, by the same names.
    :param location: where it is, for messages.
    """
    if not isinstance(fields, Mapping):
        refuse(location, fields, "a mapping")
    checked = {}
    for name, value in fields.items():
        if name not in rows:
            raise ConfigError(f"{location}: there is no setting {name!r}{nearest(name, rows)}")
        if value is None:
            continue
        checked_value = check_setting(rows[name], value, f"{location} {rows[name].key}")
        if checked_value is not UNSET and checked_value is not None:
            checked[name] = checked_value
    return checked


parse_models = mapping_of(
    lambda value, location: FrozenDict(checked_fields(MODEL_KEYS, value, location)),
    "{location}, [Model {name}]",
)
