"""The HTML page of one run or of two compared: it loads nothing, and runs no text of a record."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import TYPE_CHECKING

from ..support.display import visible
from .conversations import conversations, is_conversed
from .facts import actor_costs, facts
from .marks import ASKED_AGAIN
from .page_data import grid, page_data, sample_rows, unpaired_calls
from .reporting import BLANK, TITLE, checklist
from .runs import short_names
from .survey import AnsweredQuestion, distributions, is_survey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .comparison import Comparison
    from .conversations import RecordedCall
    from .runs import RecordedRun


def page(
    *runs: RecordedRun, comparison: Comparison | None = None, sample: int | None = None
) -> str:
    """Return the page.

    :param runs: one run, or two that are compared.
    :param comparison: the comparison of both runs.
    :param sample: the largest number of calls to show, from evenly chosen actors.
    """
    from ..support.libraries import jinja2

    calls_by_run = [conversations(run) for run in runs]
    all_cells = grid(comparison.pairs if comparison else unpaired_calls(runs[0]))
    cells = sample_rows(all_cells, sample)
    answered = [
        {
            actor: questions
            for actor, calls in calls_by_actor.items()
            if (questions := list(_answered(calls)))
        }
        for calls_by_actor in calls_by_run
    ]
    survey = distributions(answered) if all(map(is_survey, answered)) else []
    run_facts = list(map(facts, runs, calls_by_run))
    style, script = _file("report.css"), f'"use strict";\n{{\n{_file("report.js")}}}\n'
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["visible"] = visible
    return environment.from_string(_file("report.html")).render(
        names=short_names(runs),
        labels=list(dict.fromkeys(label for by_label in run_facts for label in by_label)),
        facts=run_facts,
        lines=[] if comparison is None else str(comparison).split("\n"),
        shown=[
            (len(some_cells), len({cell.row for cell in some_cells}))
            for some_cells in (cells, all_cells)
        ],
        survey=survey,
        checklist_title=TITLE,
        blank=BLANK,
        checklist=[] if runs[1:] else checklist(runs[0], calls_by_run[0]),
        costs=[] if survey else actor_costs(all_cells),
        data=_json(page_data(short_names(runs), calls_by_run, cells, comparison)),
        style=style,
        script=script,
        policy="; ".join(
            (
                "default-src 'none'",
                f"style-src {_csp_hash(style)}",
                f"script-src {_csp_hash(script)}",
                "base-uri 'none'",
            )
        ),
    )


def _answered(calls: Iterable[RecordedCall]) -> Iterator[AnsweredQuestion]:
    """Yield the questions that a model answered an actor, without answers that were asked again."""
    question = None
    for call in filter(is_conversed, calls):
        question = question or call.record
        if ASKED_AGAIN not in call.marks:
            yield AnsweredQuestion(question, call.record)
            question = None


def _file(name: str) -> str:
    return (files(__package__) / "data" / name).read_text(encoding="utf-8")


def _json(data: dict[str, object]) -> str:
    """Return data as JSON that cannot close the element around it."""
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _csp_hash(text: str) -> str:
    """Return the source that allows an inline style or script (Content-Security-Policy Level 3, hash-source)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
