"""What a package says of its recordings: models, counts and cost, and the report of all answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...records.amounts import amounts_of
from ...records.reader import read
from ...records.served import days_entry, is_given_by_model, served_by
from ...review.conversations import conversations
from ...review.marks import ASKED_AGAIN, CUT, REFUSED, asked_again, marks_of
from ...review.page import page
from ...review.runs import RecordedRun
from ...types import total_cost

if TYPE_CHECKING:
    from ...types import Record

REPORT = "report.html"
REQUIREMENTS = "requirements.txt"


def run_of(folder: Path, paths: Sequence[str]) -> RecordedRun:
    """Return the run that some recordings have of a study.

    If they have a scope in common, all scopes are below their recordings' names: they are actors of
    several runs.

    :param paths: of the recordings below the folder.
    """
    recordings = {path: read(folder / path) for path in paths}
    records = {path: recording.records() for path, recording in recordings.items()}
    scopes = [scope for each in records.values() for scope in {record.scope for record in each}]
    if len(scopes) > len(set(scopes)):
        records = {path: [_below(path, record) for record in records[path]] for path in paths}
    settings = [recording.settings for recording in recordings.values()]
    return RecordedRun(
        "the packed recordings",
        [record for each in records.values() for record in each],
        settings[0] if settings else {},
    )


def _below(path: str, record: Record) -> Record:
    """Return a record whose scope is below a recording's name."""
    separator = "/" if record.scope else ""
    return record.replace(sample=f"{path}{separator}{record.sample or ''}")


def facts_of(run: RecordedRun) -> dict[str, Any]:
    """Return the fields of the manifest that tell of the answers."""
    served = served_by(run.records)
    cost = total_cost(amounts_of(run.records).cost)
    return {
        "served": {name: days and days_entry(days) for name, days in served.items()},
        "asked": sorted({each.model for each in run.records if each.model is not None}),
        "answers": _answers(run),
        "cost": None if cost is None else round(cost, 6),
    }


def texts_of(run: RecordedRun, packages: dict[str, str]) -> dict[str, str]:
    """Return the files that are made of the recordings and the versions of what was imported."""
    requirements = "".join(f"{name}=={version}\n" for name, version in packages.items())
    return {REPORT: page(run), REQUIREMENTS: requirements}


def _answers(run: RecordedRun) -> dict[str, int]:
    """Return how many answers there are, and how many were cut, refused or asked again."""
    counts = {
        "answers": sum(map(is_given_by_model, run.records)),
        CUT: 0,
        REFUSED: 0,
        ASKED_AGAIN: 0,
    }
    for calls in conversations(run).values():
        ids_asked_again = asked_again(calls)
        for call in calls:
            for mark in marks_of(call.record, is_asked_again=id(call.record) in ids_asked_again):
                counts[mark] += 1
    return counts
