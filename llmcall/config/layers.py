"""Layers of settings: checked values that each know where they came from."""

from __future__ import annotations

from typing import Any

from .names import Setting
from .values import UNSET, check_value

__all__ = [
    "ARGUMENT",
    "CONFIGURED",
    "DEFAULT",
    "DOTENV",
    "ENVIRONMENT",
    "FORCED",
    "FOUND_FILE",
    "NAMED_FILE",
    "PUSHED",
    "Layer",
    "Origin",
    "check_setting",
    "put_setting",
]

# The ranks of the layers; a higher one wins.
DEFAULT, NAMED_FILE, FOUND_FILE, DOTENV, ENVIRONMENT = 0, 10, 11, 20, 30
PUSHED, CONFIGURED, ARGUMENT, FORCED = 40, 50, 60, 70


class Origin:  # no NamedTuple: typing compiles each annotation of one, half a millisecond of every run
    """Say where a value came from; compared by its parts.

    :param rank: its layer's rank.
    :param text: the place in words, e.g. ``"environment variable LLMCALL_MODEL"``.
    """

    __slots__ = ("rank", "text")

    def __init__(self, rank: int, text: str) -> None:
        self.rank = rank
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin) and (self.rank, self.text) == (other.rank, other.text)

    def __hash__(self) -> int:
        return hash((self.rank, self.text))

    def __repr__(self) -> str:
        return f"Origin({self.rank}, {self.text!r})"


Layer = dict[str, tuple[Any, Origin]]


def check_setting(row: Setting, value: Any, where: str, folder: str | None = None) -> Any:
    """Return the value of any setting as its type.

    :param row: the setting.
    :param value: text from a file or a variable, or a value from code; for a whole section, a mapping of such values.
    :param where: where it was found, for the message.
    :param folder: the directory that a relative path starts from; ``None`` is the working directory.
    :returns: the value, or ``UNSET`` for empty text.
    :raises ConfigError: if it is of the wrong type or outside the allowed range.
    """
    if row.section and not row.key and row.kind != "function":
        from .tables import check_table

        return check_table(row, value, where)
    return check_value(row, value, where, folder)


def put_setting(layer: Layer, row: Setting, value: Any, origin: Origin, folder: str) -> None:
    """Check a value and put it into a layer, unless it is empty text.

    :param folder: the directory that a relative path starts from.
    :raises ConfigError: if it is of the wrong type.
    """
    checked = check_setting(row, value, origin.text, folder)
    if checked is not UNSET:
        layer[row.attribute] = (checked, origin)
