"""Tables, and the numbers, amounts and short forms of texts in them and in messages."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from functools import lru_cache

OUTSIDE_ANY_SCOPE = "outside any scope"
# Calls outside any scope, or in the scope that holds the whole run.
OF_NO_ACTOR = "outside any actor's scope"
USD_COLUMNS = ("cost", "saved")  # of usage


def as_json(data: object) -> str:
    """Return plain data as JSON on one line; bytes become their number."""
    return json.dumps(data, ensure_ascii=False, default=lambda data: f"{len(data)} bytes")


def one_line(text: str, max_length: int) -> str:
    """Return a text on one line, cut after so many characters."""
    beginning = text[: 4 * max_length]
    line = re.sub(r"\s+", " ", beginning).strip()
    if len(line) <= max_length and len(beginning) == len(text):
        return line
    return line[: max_length - 1].rstrip() + "…"


def shortened(text: str, max_length: int) -> str:
    """Return a text, cut after so many characters."""
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


@lru_cache(maxsize=10_000)  # many records of a scope share its key
def natural(path: str) -> tuple[list[object], str]:
    """Return a key that sorts scope paths with their numbers as numbers: ``survey/2`` before ``survey/10``."""
    return [*map(_natural_name, path.split("/"))], path


def _natural_name(name: str) -> list[object]:
    if name[:1] == "~" and not name[1:].isdecimal():  # a digest, of an item without a key
        return [name]
    # by their length first, since int() refuses thousands of digits
    return [
        (len(word.lstrip("0")), word.lstrip("0")) if word.isdecimal() else word
        for word in re.split(r"(\d+)", name)
    ]


def counted(number: int, noun: str) -> str:
    """Return a number of things, such as ``1 record`` or ``1,200 records``."""
    ending = "" if number == 1 else "s"
    return f"{number:,} {noun}{ending}"


def money(usd: float) -> str:
    """Return an amount of US dollars with four decimals; a smaller one is ``<$0.0001``."""
    return "<$0.0001" if 0 < usd < 0.00005 else f"${usd:,.4f}"


def quantity(column: str, value: float | None) -> str:
    """Return a value of a usage table: a number, US dollars, or ``?`` if it is unknown.

    :param column: the column's name.
    """
    if value is None:
        return "?"
    return money(value) if column in USD_COLUMNS else f"{value:,}"


def text_table(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Return rows of cells as lines with aligned columns.

    :param rows: the rows, all of one length, at least one.
    :param right: the positions of number columns, which are aligned to the right.
    """
    from ..libraries import tabulate  # takes a tenth of a second

    alignments = ["right" if position in right else "left" for position in range(len(rows[0]))]
    return str(
        tabulate.tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=alignments)
    )
