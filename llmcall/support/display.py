"""Texts, tables and notebook cells for people to read, and the colours of a terminal."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from .lazy_names import pattern

# Control characters, characters that turn the direction of text or are invisible, and lone
# surrogates. Line ends and tabs do not belong to it, nor do joiners, which scripts and emoji need.
UNSAFE = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Return a text with unsafe characters escaped; line ends and tabs stay."""
    if text.isprintable():
        return text
    return re.sub(UNSAFE, lambda match: match[0].encode("unicode_escape").decode(), text)


def printable(text: str) -> str:
    """Return a text on one line, with unsafe characters, line ends and tabs escaped."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


_ESCAPES = pattern(r"\x1b\[[0-9;]*m")  # of colours
_WORDS = pattern(r"( *)([^ ]+)")
_COPIED = pattern(r"(?:.*  )?(?:export|llmcall) ")  # a command, to be copied


def wrapped(text: str, width: int) -> str:
    """Break lines at blanks to fit a width; further lines are indented to the text behind a line's label.

    A label, or a column, ends with two blanks. Commands stay on one line.
    """
    return "\n".join(_wrapped_line(line, width) for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    shown = _ESCAPES.sub("", line)
    if len(shown) <= width or _COPIED.match(shown):
        return line
    label = re.match(rf"(?:.{{0,{width // 3}}}  )?(?=\S)", shown)
    indent = len(label[0]) if label and label[0].strip() else len(shown) - len(shown.lstrip()) + 2
    lines, length = [""], 0
    for blanks, word in _WORDS.findall(line):
        added = len(blanks) + len(_ESCAPES.sub("", word))
        if length > indent and length + added > width:
            lines.append(" " * indent + word)
            length = indent + added - len(blanks)
        else:
            lines[-1] += blanks + word
            length += added
    return "\n".join(lines)


def visible_json(data: object, default: Callable[[Any], object] | None = None) -> str:
    """Return plain data as indented JSON, with unsafe characters escaped as JSON does.

    :param default: replaces data that JSON has no form for.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, default=default)
    return re.sub(UNSAFE, lambda match: json.dumps(match[0])[1:-1], text)


OUTSIDE_ANY_SCOPE = "outside any scope"
# Calls outside any scope, or in the scope that holds the whole run.
OF_NO_ACTOR = "outside any actor's scope"
USD_COLUMNS = ("cost", "saved")  # of usage


def as_json(data: object) -> str:
    """Return plain data as JSON on one line; bytes become their number."""
    return json.dumps(data, ensure_ascii=False, default=lambda data: f"{len(data)} bytes")


def one_line(text: str, max_length: int) -> str:
    """Return a text on one line, cut to a number of characters."""
    beginning = text[: 4 * max_length]
    line = re.sub(r"\s+", " ", beginning).strip()
    if len(line) <= max_length and len(beginning) == len(text):
        return line
    return line[: max_length - 1].rstrip() + "…"


def sentence(text: object) -> str:
    """Return a text with its full stop."""
    words = str(text)
    return words if words.endswith((".", "?", "!")) else f"{words}."


def shortened(text: str, max_length: int) -> str:
    """Return a text, cut to a number of characters."""
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
    from .libraries import tabulate  # takes a tenth of a second

    alignments = ["right" if position in right else "left" for position in range(len(rows[0]))]
    return str(
        tabulate.tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=alignments)
    )


BUBBLE = (
    "border:1px solid #8886;border-radius:8px;padding:.4em .8em;max-width:60em;white-space:pre-wrap"
)


def html_table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows of cells as an HTML table, escaped; the first row is its head."""
    head, *body = rows
    lines = [_row(head, "th"), *(_row(row, "td") for row in body)]
    return f"<table>{''.join(lines)}</table>"


def _row(cells: Sequence[str], tag: str) -> str:
    cells_html = "".join(f"<{tag}>{_escaped(cell)}</{tag}>" for cell in cells)
    return f"<tr>{cells_html}</tr>"


# Against the styles of notebooks, which put a table's cells to the right, and cut no text at line ends
CELL = "text-align:left;vertical-align:top;white-space:pre-wrap"
# Words that were removed and added, as git diff --word-diff marks them, and their elements
WORD_CHANGE = pattern(r"\[-(?P<del>.*?)-\]|\{\+(?P<ins>.*?)\+\}", re.DOTALL)
WORD_COLOURS = {"del": "#e5534b", "ins": "#2ea043"}  # readable on white and on black


def html_labelled(headline: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return labelled texts as an HTML table below a headline, escaped; changed words in them have colours."""
    lines = "".join(
        f'<tr><th style="{CELL}">{_escaped(label)}</th><td style="{CELL}">{html_changes(text)}</td></tr>'
        for label, text in rows
    )
    return f"<div><b>{_escaped(headline)}</b></div>{lines and f'<table>{lines}</table>'}"


def html_changes(text: str) -> str:
    """Return a text as HTML, escaped; words that were removed and added have colours instead of their marks."""
    return WORD_CHANGE.sub(_html_change, _escaped(text))


def _html_change(match: re.Match[str]) -> str:
    element = match.lastgroup or ""
    return f'<{element} style="color:{WORD_COLOURS[element]}">{match[element]}</{element}>'


def html_message(text: str, notes: Iterable[str]) -> str:
    """Return a message as HTML, escaped, with notes below it.

    :param notes: empty ones are left out.
    """
    footer = " · ".join(note for note in notes if note)
    return f'<div style="{BUBBLE}">{_escaped(text)}</div><small>{_escaped(footer)}</small>'


def _escaped(text: str) -> str:
    from html import escape  # takes milliseconds, which importing llmcall need not

    return escape(visible(text))


# As git diff --word-diff marks removed and added words, in a miss also on its further lines; the labels of a miss; the
# results of checks
_STYLES: dict[re.Pattern[str], dict[str, Any]] = {
    pattern(r"\[-(?:.|\n {15})*?-\]"): {"fg": "red"},
    pattern(r"\{\+(?:.|\n {15})*?\+\}"): {"fg": "green"},
    pattern(r"(?m)^  (?:asked|scope|looked in|nearest|differs|cause|to record)(?=  )"): {
        "fg": "cyan"
    },
    pattern(r"(?m)^ok(?=  )"): {"fg": "green"},
    pattern(r"(?m)^FAIL(?=  )"): {"fg": "red", "bold": True},
    pattern(r"(?m)^Error(?=: )"): {"fg": "red", "bold": True},
}


def has_colours(*, is_terminal: bool) -> bool:
    """Return whether an output shows colours: a terminal, unless ``NO_COLOR`` or ``TERM=dumb`` says otherwise."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return is_terminal and not is_plain


def as_warning(text: str) -> str:
    """Return the text of a warning, in which nothing is a control character, with the colour of warnings."""
    return _styled({"fg": "yellow"}, text)


def coloured(text: str) -> str:
    """Return a text of llmcall's, in which nothing is a control character, with colours."""
    for form, style in _STYLES.items():
        text = form.sub(partial(_styled_match, style), text)
    return text


def _styled_match(style: Mapping[str, Any], match: re.Match[str]) -> str:
    return _styled(style, match[0])


def _styled(style: Mapping[str, Any], text: str) -> str:
    from .libraries import click

    return str(click.style(text, **style))
