"""The data in a page: the calls as JSON, each text, each message and each history once.

Tables refer to one another by the indexes of their entries; the page's script shows what is looked at.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..display.formatting import OF_NO_ACTOR
from ..display.printable import visible
from ..records.served import is_given_by_model
from .marks import ASKED_AGAIN
from .partings import WHY
from .survey import distributions, is_survey

if TYPE_CHECKING:
    from ..types import Record
    from .comparison import Comparison
    from .conversations import Call
    from .grid import Cell

Conversations = Mapping[str, Sequence["Call"]]
Marks = Mapping[int, Sequence[str]]  # of each record, by its id

ROOT = -1  # the history without a message


class Table(defaultdict[Any, int]):
    """Gives each new entry the next number."""

    def __init__(self) -> None:
        super().__init__(itertools.count().__next__)


def page_data(
    conversations: Sequence[Conversations],
    grid: Sequence[Cell],
    marks: Marks,
    comparison: Comparison | None,
) -> dict[str, Any]:
    """Return the data in a page.

    :param conversations: the calls of one run by actor, or those of two that are compared.
    :param grid: what is shown.
    :param comparison: what was made of two runs.
    """
    data = PageData(grid)
    for calls_by_actor in conversations:
        data.add_run(calls_by_actor, marks)
    sections = {
        "parted": data.parted(comparison),
        "survey": list(_survey(conversations, marks)),
        "cells": data.cells(),
    }
    return sections | data.tables()


class PageData:
    """The tables of a page."""

    def __init__(self, grid: Sequence[Cell]) -> None:
        self._grid = grid
        self._texts, self._messages, self._nodes, self._actors, self._rows = (
            Table() for _ in range(5)
        )
        self._calls: list[dict[str, Any]] = []
        self._call_indexes: dict[int, int] = {}  # by the id of a record: its index among the calls
        self._shown_ids = {
            id(record)
            for cell in grid
            for record in (cell.pair.one, cell.pair.other)
            if record is not None
        }

    # The calls

    def add_run(self, conversations: Conversations, marks: Marks) -> None:
        """Add the calls of a run that are shown."""
        for calls in conversations.values():
            for call in calls:
                if id(call.record) in self._shown_ids:
                    self._add_call(call, marks)

    def _add_call(self, call: Call, marks: Marks) -> None:
        record, usage = call.record, call.record.usage
        self._call_indexes[id(record)] = len(self._calls)
        self._calls.append(
            {
                "title": self._text(call.title),
                "model": self._text(call.model),
                "by_model": is_given_by_model(record),
                "served": self._text(record.served or ""),
                "parameters": self._text(
                    "  ".join(f"{name}={value}" for name, value in call.parameters)
                ),
                "draw": visible(call.draw),
                "node": self._history_nodes(call)[-1],
                "new": len(call.messages) - call.repeated,
                "answers": [self._messages[message] for message in call.answers],
                "input": usage.input_tokens,
                "output": usage.output_tokens,
                "cost": record.cost,
                "key": record.cache_key[:12],
                "marks": list(marks.get(id(record), ())),
            }
        )

    def _history_nodes(self, call: Call) -> list[int]:
        """Return the node of each history with which a call begins: the one before the last
        message, and that.
        """
        nodes = [ROOT]
        for message in call.messages:
            nodes.append(self._nodes[nodes[-1], self._messages[message]])
        return nodes

    def _text(self, text: str) -> int:
        return self._texts[visible(text)]

    def _actor(self, name: str) -> int:
        return self._actors[visible(name) or OF_NO_ACTOR]

    # The tables

    def tables(self) -> dict[str, Any]:
        """Return the tables of actors, texts, messages, histories and calls, when all else is there."""
        messages = [
            [visible(each.role), [self._text(text) for text in each.texts]]
            for each in self._messages
        ]
        names = self._calls[0] if self._calls else ()
        return {
            "actors": list(self._actors),
            "texts": list(self._texts),
            "messages": messages,
            "nodes": list(self._nodes),
            "calls": {name: [call[name] for call in self._calls] for name in names},
        }

    def cells(self) -> dict[str, Any]:
        """Return the table's cells, and the names of its rows and columns."""
        cells = self._grid
        columns = [
            f"call {n + 1}" for n in range(max((cell.column for cell in cells), default=-1) + 1)
        ]
        return {
            "actor": [self._actor(cell.pair.scope) for cell in cells],
            "call": [_call_label(cell) for cell in cells],
            "row": [self._rows[visible(cell.row) or OF_NO_ACTOR] for cell in cells],
            "column": [cell.column for cell in cells],
            "one": [self._call_index(cell.pair.one) for cell in cells],
            "other": [self._call_index(cell.pair.other) for cell in cells],
            "status": [cell.pair.status for cell in cells],
            "rows": list(self._rows),
            "columns": [visible(name) for name in columns],
        }

    def _call_index(self, record: Record | None) -> int:
        return self._call_indexes.get(id(record), -1)

    def parted(self, comparison: Comparison | None) -> dict[int, list[str]]:
        """Return why an actor's runs part, and what differs there, by the number of the cell."""
        reasons = {
            (each.scope, each.place, each.status): [
                WHY[each.why],
                visible(f"{each.in_words()}{each.more}"),
            ]
            for each in (comparison.parted if comparison else ())
        }
        calls = ((cell.pair.scope, cell.pair.place, cell.pair.status) for cell in self._grid)
        return {number: reasons[call] for number, call in enumerate(calls) if call in reasons}


def _call_label(cell: Cell) -> str:
    """Return the number of a call among its actor's, from 1; that of another run's call has a plus
    sign.
    """
    number = cell.pair.place + 1
    return f"+{number}" if cell.pair.one is None else f"{number}"


def _survey(conversations: Sequence[Conversations], marks: Marks) -> Iterator[dict[str, Any]]:
    """Yield the distributions of a survey's answers."""
    runs = [
        {
            actor: [call.record for call in calls if ASKED_AGAIN not in marks[id(call.record)]]
            for actor, calls in calls_by_actor.items()
        }
        for calls_by_actor in conversations
    ]
    if not all(map(is_survey, runs)):
        return
    names = ["this run", "the other run"] if len(runs) > 1 else [""]
    for each in distributions(runs):
        yield {
            "field": visible(each.field),
            "values": [visible(value) for value in each.values],
            "rows": list(zip(names, each.counts, strict=True)),
        }
