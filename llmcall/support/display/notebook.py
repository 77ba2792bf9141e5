"""HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .printable import visible

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


def html_message(text: str, notes: Iterable[str]) -> str:
    """Return a message as HTML, escaped, with notes below it.

    :param notes: empty ones are left out.
    """
    footer = " · ".join(note for note in notes if note)
    return f'<div style="{BUBBLE}">{_escaped(text)}</div><small>{_escaped(footer)}</small>'


def _escaped(text: str) -> str:
    from html import escape  # takes milliseconds, which importing llmcall need not

    return escape(visible(text))
