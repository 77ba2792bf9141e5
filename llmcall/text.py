"""Text as it is shown to people, also in columns that fit the terminal, and in tables of notebooks
and of pandas.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

OUTSIDE = "outside any scope"
USD = ("cost", "saved")  # the columns of usage that are US dollars
# Controls, what turns the direction of text, what is not seen at all, and lone surrogates; line
# ends and tabs stay, and joiners, which scripts and emoji need.
_HIDDEN = (  # compiled when a text is shown
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Return a text in which what a terminal would obey, or would not show, is escaped; line ends
    and tabs stay.
    """
    if text.isprintable():
        return text
    return re.sub(_HIDDEN, lambda match: match[0].encode("unicode_escape").decode(), text)


def printable(text: str) -> str:
    """Return a text in one line: as :func:`visible`, with line ends and tabs escaped as well."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def visible_json(data: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Return plain data as indented JSON in which what a terminal would obey, or would not show, is
    escaped.

    :param default: what JSON has no form for is replaced by what this returns.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, default=default)
    return re.sub(_HIDDEN, lambda match: json.dumps(match[0])[1:-1], text)


def shown_data(value: Any) -> str:
    """Return plain data as JSON; bytes by their number."""
    return json.dumps(value, ensure_ascii=False, default=lambda data: f"{len(data)} bytes")


def brief(text: str, limit: int) -> str:
    """Return a text on one line, cut where it is longer than so many characters."""
    flat = re.sub(r"\s+", " ", text[: 4 * limit]).strip()
    return (
        flat if len(flat) <= limit and len(text) <= 4 * limit else flat[: limit - 1].rstrip() + "…"
    )


def shortened(text: str, most: int) -> str:
    """Return a text, cut where it is longer than so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def counted(number: int, noun: str) -> str:
    """Return a number of things, such as ``1 record`` or ``1,200 records``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def money(usd: float) -> str:
    """Return an amount of US dollars; one that four decimals would show as nothing is ``<$0.0001``."""
    return "<$0.0001" if 0 < usd < 0.00005 else f"${usd:,.4f}"


def quantity(name: str, value: float | None) -> str:
    """Return an amount by the name of its column: US dollars, or a number; one that is unknown is
    ``?``.
    """
    return "?" if value is None else money(value) if name in USD else f"{value:,}"


def check_unicode(text: str, place: str) -> None:
    """Refuse a text with a lone surrogate by a ``ValueError`` that names its place."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{place} has a lone surrogate at index {error.start}, which is no text"
            ) from None


def joined_surrogates(text: str) -> str:
    """Return a text in which two surrogates that make one character are that character; JSON reads
    them so.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text


# Tables

GAP = 2  # characters between two columns
FRAME = (
    "scope",
    "draw",
    "kind",
    "model",
    "prompt",
    "answer",
    "input_tokens",
    "output_tokens",
    "cost",
    "cache_key",
)
USED = "used"  # fmt: skip
BUBBLE = (
    "border:1px solid #8886;border-radius:8px;padding:.4em .8em;max-width:60em;white-space:pre-wrap"
)
LEAST = 6  # characters to which a column is narrowed at most


def columns(
    rows: Sequence[Sequence[str]], right: Collection[int] = (), cut: Collection[int] = ()
) -> str:
    """Return rows of cells as lines, each column as wide as its widest cell, or less where the
    terminal is narrower.

    :param rows: the rows, all of one length, at least one.
    :param right: the positions of the columns of numbers: they are aligned to the right, and their
        heads may be broken at a space or underscore.
    :param cut: the positions of the columns of text whose cells may be cut; without any, all text
        may be wrapped.
    """
    from shutil import get_terminal_size

    from tabulate import tabulate

    found = list(zip(*rows, strict=True))
    widths = [_width_of(cells) for cells in found]
    # a program without a console has none
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    room = get_terminal_size().columns if on_terminal else sys.maxsize
    wrapped = None
    if _total(widths) > room:
        for at in right:
            found[at] = tuple(re.sub("[ _]", "\n", cell) for cell in found[at])
            widths[at] = _width_of(found[at])
        texts = list(cut) or [at for at in range(len(found)) if at not in right]
        while (
            _total(widths) > room and widths[widest := max(texts, key=widths.__getitem__)] > LEAST
        ):
            widths[widest] -= 1
        for at in cut:
            found[at] = tuple(_cut(cell, widths[at]) for cell in found[at])
        wrapped = (
            None if cut else [None if at in right else width for at, width in enumerate(widths)]
        )
    sides = ["right" if at in right else "left" for at in range(len(found))]
    cells = list(zip(*found, strict=True))
    return str(
        tabulate(
            cells, tablefmt="plain", disable_numparse=True, colalign=sides, maxcolwidths=wrapped
        )
    )


def _width_of(cells: Iterable[str]) -> int:
    return max(_width(line) for cell in cells for line in cell.split("\n"))


def _total(widths: Collection[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _width(text: str) -> int:
    """Return how many characters of a terminal a text takes; East Asian ones take two."""
    from wcwidth import wcswidth

    return max(0, wcswidth(text))


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while text and _width(text) >= width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def html_table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows of cells as an HTML table, all of it escaped; the first row is its head."""
    from html import escape

    def line(row: Sequence[str], tag: str) -> str:
        """Return a row."""
        return "<tr>" + "".join(f"<{tag}>{escape(visible(cell))}</{tag}>" for cell in row) + "</tr>"

    return f"<table>{''.join(line(row, 'td' if place else 'th') for place, row in enumerate(rows))}</table>"


def bubble(text: str, notes: Iterable[str]) -> str:
    """Return a message as HTML, all of it escaped, with those notes below that are not empty."""
    from html import escape

    told = " · ".join(filter(None, notes))
    return (
        f'<div style="{BUBBLE}">{escape(visible(text))}</div><small>{escape(visible(told))}</small>'
    )


def imported_pandas() -> Any:
    """Import pandas, which is optional.

    :raises ConfigError: where it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ConfigError(
            "a table is a pandas DataFrame, and pandas is not installed: pip install pandas"
        ) from error
    return pandas


def data_frame(rows: Iterable[Sequence[Any]], names: Sequence[str]) -> Any:
    """Return a pandas DataFrame of rows, whatever texts they hold."""
    rows, pandas = list(rows), imported_pandas()
    try:
        return pandas.DataFrame(rows, columns=list(names))
    except UnicodeEncodeError:
        return inferred(pandas.DataFrame(rows, columns=list(names), dtype=object))


def inferred(frame: Any) -> Any:
    """Return a DataFrame of objects in which each column has the type that its values share.

    A column of texts stays one of objects if a text holds a lone surrogate: pyarrow, in which pandas
    keeps texts if it is installed, refuses that.
    """
    columns = {}
    for name in frame:
        columns[name] = frame[name]
        with suppress(UnicodeEncodeError):
            columns[name] = frame[name].infer_objects()
    return imported_pandas().DataFrame(columns, columns=frame.columns, index=frame.index)


def frame(records: Iterable[Any], used: Callable[[Any], bool] | None = None) -> Any:
    """Return a pandas DataFrame with a row for each :class:`llmcall.Record`.

    :param used: returns whether a call used a record, for one more column.
    """
    rows = list(records)
    made = data_frame(map(_row, rows), FRAME)
    if used is not None:
        made.insert(len(FRAME) - 1, USED, [used(record) for record in rows])
    return made


def _row(record: Any) -> tuple[Any, ...]:
    usage, draw = record.usage, None if record.sample is None else record.sample.partition("#")[2]
    return (
        record.scope or None, int(draw) if draw and draw.isdecimal() else draw, record.kind,
        record.request.get("model"), record.prompt, record.answer, usage.input_tokens, usage.output_tokens,
        record.cost, record.cache_key,
    )  # fmt: skip
