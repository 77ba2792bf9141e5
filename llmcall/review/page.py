"""One HTML page of a run, or of two compared: it loads nothing, and no text in it is run."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..display.printable import visible
from .conversations import conversations
from .facts import facts
from .grid import grid, pairs_of, sampled
from .marks import find_marks
from .page_data import page_data

if TYPE_CHECKING:
    from .comparison import Comparison
    from .grid import Cell
    from .runs import RecordedRun

# The parts of the page's script, in their order.
SCRIPTS = (
    "data",
    "grid",
    "search",
    "differences",
    "conversation",
    "charts",
    "print",
    "start",
)


def page(
    *runs: RecordedRun, comparison: Comparison | None = None, sample: int | None = None
) -> str:
    """Return the page.

    :param runs: what it shows: one run, or two that are compared.
    :param comparison: what :func:`~llmcall.compare` made of both.
    :param sample: how many calls it shows at most: those of actors that stand evenly among all.
    """
    from jinja2 import Environment, StrictUndefined

    run_conversations = [conversations(run) for run in runs]
    marks = find_marks(
        actor_calls
        for calls_by_actor in run_conversations
        for actor_calls in calls_by_actor.values()
    )
    full_grid = grid(comparison.pairs if comparison else pairs_of(runs[0]))
    shown_grid = sampled(full_grid, sample)
    run_facts = [
        facts(run, [call for actor_calls in calls_by_actor.values() for call in actor_calls], marks)
        for run, calls_by_actor in zip(runs, run_conversations, strict=True)
    ]
    style, script = _file("report.css"), _script()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_file("report.html")).render(
        names=[visible(_name(run)) for run in runs],
        labels=list(dict.fromkeys(label for each in run_facts for label in each)),
        facts=run_facts,
        lines=[] if comparison is None else visible(str(comparison)).split("\n"),
        sample="" if shown_grid is full_grid else _sample(shown_grid, full_grid),
        data=_json(page_data(run_conversations, shown_grid, marks, comparison)),
        style=style,
        script=script,
        policy="; ".join(
            (
                "default-src 'none'",
                f"style-src {_source(style)}",
                f"script-src {_source(script)}",
                "base-uri 'none'",
            )
        ),
    )


def _sample(shown: list[Cell], cells: list[Cell]) -> str:
    """Return how much of a run is shown, in words."""
    rows, all_rows = ({cell.row for cell in each} for each in (shown, cells))
    return f"{len(shown):,} of {len(cells):,} calls, of {len(rows):,} of {len(all_rows):,} actors"


def _script() -> str:
    """Return the page's script: all its parts, in a block of their own."""
    parts = "\n".join(_file(f"{name}.js") for name in SCRIPTS)
    return f'"use strict";\n{{\n{parts}}}\n'


def _file(name: str) -> str:
    return files(__package__).joinpath("data", name).read_text(encoding="utf-8")


def _json(data: dict[str, Any]) -> str:
    """Return data as JSON that ends no element."""
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _source(text: str) -> str:
    """Return what allows one inline style or script in a Content-Security-Policy (CSP Level 3,
    hash-source).
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _name(run: RecordedRun) -> str:
    """Return a run's name without the folders that its file is in."""
    prefix, separator, path = run.name.rpartition(" of ")
    return f"{prefix}{separator}{os.path.basename(path.rstrip('/'))}"
