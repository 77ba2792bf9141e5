"""A comparison as Markdown, for a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..support.display import OF_NO_ACTOR, counted, one_line, printable

if TYPE_CHECKING:
    from .comparison import Comparison

MAX_LINES = 20  # of the changes, before the calls that differ
MAX_CALLS = 50  # that differ, in a table; GitHub takes 65,536 characters
LINE_CHARACTERS, ANSWER_CHARACTERS = 500, 80


def as_markdown(comparison: Comparison) -> str:
    """Return a comparison as Markdown: what changed, and a folded table of the calls that differ."""
    return "\n".join(_lines(comparison)) + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    head, *lines = str(comparison).splitlines()
    names = list(map(_code, comparison.names))
    yield f"**{names[0]} → {', '.join(names[1:])}**: {head}"
    yield ""
    yield from (f"- {_code(one_line(line, LINE_CHARACTERS))}" for line in lines[:MAX_LINES])
    if lines[MAX_LINES:]:
        yield f"- and {counted(len(lines) - MAX_LINES, 'more line')}"
    rows = [row for row in comparison.rows if row.status != "same"]
    if not rows:
        return
    yield ""
    yield f"<details><summary>{counted(len(rows), 'call')} that {'differs' if len(rows) == 1 else 'differ'}</summary>"
    yield ""
    yield f"| actor | call | | {names[0]} | {names[1] if len(names) == 2 else 'other run'} |"
    yield "|---|---|---|---|---|"
    for row in rows[:MAX_CALLS]:
        cells = [_code(row.scope or OF_NO_ACTOR), str(row.place + 1), row.status]
        if len(names) > 2:
            cells[2] += f" in {names[row.run]}"
        answers = (row.answer, row.other_answer)
        cells += [
            "" if text is None else _code(one_line(text, ANSWER_CHARACTERS)) for text in answers
        ]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""
    if rows[MAX_CALLS:]:
        yield f"and {len(rows) - MAX_CALLS:,} more"
        yield ""
    yield "</details>"


def _code(text: str) -> str:
    """Return a text as a code span, in which nothing is markup, a link or somebody's name."""
    text = printable(text)
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest or not text.strip() else f"{fence}{text}{fence}"
