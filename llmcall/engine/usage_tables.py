"""The table of a usage: a row for each model and scope, and whose prices they are; as text and as HTML."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING

from ..tables import columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .usage import Usage

    Row = tuple[str, ...]

__all__ = ["as_html", "as_text"]

MOST_SCOPES = 10  # with a row of their own: as many as are taken in at a glance
MOST_SOURCES = 3  # of prices: a package has one for each day
OUTSIDE = "(no scope)"
HTML = (
    "<table>{% for section in sections %}"
    "<tr>{% for cell in section[0] %}<th>{{ cell }}</th>{% endfor %}</tr>"
    "{% for row in section[1:] %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}"
    "{% endfor %}</table>{% if note %}<p>{{ note }}</p>{% endif %}"
)


def as_text(usage: Usage, names: Sequence[str]) -> str:
    """Return a table with a row for each model and each outermost scope, aligned, and the note on prices below.

    Scopes that lie in one and the same are told apart by the next name of their path, and beyond the ten largest one
    row sums up the others.

    :param names: those of the columns.
    """
    rows = [row for section in _sections(usage, names) for row in section]
    return "\n".join([columns(rows, right=range(1, len(names) + 1)), *_notes(usage)])


def as_html(usage: Usage, names: Sequence[str]) -> str:
    """Return the same as HTML."""
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(HTML)
    return template.render(sections=_sections(usage, names), note="\n".join(_notes(usage)))


def _sections(usage: Usage, names: Sequence[str]) -> list[list[Row]]:
    """Return the rows for models and, where there are scopes, those for scopes; the first row of each is its head."""
    models = [(model, [part]) for model, part in usage.by_model.items()]
    models += [("all", [usage])] if len(models) != 1 else []
    sections = ("model", models), ("scope", _scopes(usage.by_scope))
    return [[(title, *names), *(_row(*part, names) for part in parts)] for title, parts in sections if parts]


def _row(title: str, usages: Sequence[Usage], names: Sequence[str]) -> Row:
    return title, *(_shown(name, _sum([getattr(usage, name) for usage in usages])) for name in names)


def _sum(amounts: Sequence[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "?"
    return f"${value:,.4f}" if name in ("cost", "saved") else f"{value:,}"


def _notes(usage: Usage) -> list[str]:
    sources = usage.priced_by
    if len(sources) > MOST_SOURCES:
        sources = sources[0], "…", sources[-1]
    return [f"priced by {', '.join(sources)}"] if sources else []


def _scopes(by_scope: Mapping[str, Usage]) -> list[tuple[str, list[Usage]]]:
    """Return the scopes that have a row, with what is summed up in it; none where no call had a scope."""
    paths = {scope: tuple(scope.split("/")) if scope else () for scope in by_scope}
    depth = 1 + _shared([path for path in paths.values() if path])
    groups: dict[tuple[str, ...], list[Usage]] = {}
    for scope, usage in by_scope.items():
        groups.setdefault(paths[scope][:depth], []).append(usage)
    if not any(groups):
        return []
    largest = sorted(groups, key=lambda path: (-_size(groups[path]), _natural(path)))
    shown, others = largest[:MOST_SCOPES], largest[MOST_SCOPES:]
    if len(others) == 1:  # is as long as the row that would hide it
        shown, others = largest, []
    rows = [("/".join(path) or OUTSIDE, groups[path]) for path in sorted(shown, key=_natural)]
    rest = [usage for path in others for usage in groups[path]]
    return rows + ([(f"({len(others):,} more)", rest)] if others else [])


def _shared(paths: Sequence[tuple[str, ...]]) -> int:
    """Return how many names all paths begin with."""
    return len(list(takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))))


def _natural(path: Iterable[str]) -> list[list[tuple[int, str]]]:
    """Return what sorts trial-2 before trial-10."""
    return [[(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)] for name in path]


def _size(usages: Iterable[Usage]) -> int:
    return sum(usage.calls + usage.cached_calls + usage.errors for usage in usages)
