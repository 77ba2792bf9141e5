"""The HTML page of one run or of two compared: it loads nothing, and runs no text of a record."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from ...keys.keys import short_key
from ...review.comparison import Comparison
from ...review.conversations import MARKS, RecordedCall, conversations, marked_calls
from ...review.divergences import Divergence
from ...review.pairs import Pair, item_words
from ...review.runs import RecordedRun, short_names
from ...review.text import describe_arms
from ...support.display import OF_NO_ACTOR, money, natural, visible
from ...typed.notes import FORM
from .facts import RunFacts, facts
from .reporting import BLANK, TITLE, checklist
from .survey import Survey

ROOT = -1  # the history without a message
MOST_AT_ONCE = 10_000  # calls that a browser holds at once; with more, it reads one part at a time
CALLS_OF_PART = 2_000
SHOW_ALL = 'showCalls(JSON.parse(document.getElementById("data").textContent));\n'
MAX_VARIABLES = 5  # of a row, shown as columns
NO_FORM: Mapping[str, Any] = {"variables": {}}
NUMBERS = ("calls", "actors", "tokens in", "tokens out", "cost")  # facts that share a line


def rows_of_table(pairs: Iterable[Pair], words: Mapping[str, str]) -> list[Pair]:
    """Return calls row by row, sorted by the rows' words.

    :param pairs: the calls, actor by actor.
    """
    rows: dict[str, list[Pair]] = {}
    for pair in pairs:
        rows.setdefault(pair.item, []).append(pair)
    names = sorted(rows, key=lambda row: natural(words.get(row, row)))
    return [pair for row in names for pair in rows[row]]


def sample_rows(pairs: list[Pair], limit: int | None) -> list[Pair]:
    """Return the calls of an even sample of rows, at most ``limit``."""
    if limit is None or limit >= len(pairs):
        return pairs
    rows = list(dict.fromkeys(pair.item for pair in pairs))
    count = min(len(rows), max(1, limit * len(rows) // len(pairs)))
    chosen = {rows[number * len(rows) // count] for number in range(count)}
    return [pair for pair in pairs if pair.item in chosen][:limit]


def unpaired_calls(run: RecordedRun) -> list[Pair]:
    """Return the calls of a run that is not compared, actor by actor."""
    by_actor = run.by_actor()
    return [
        Pair(scope, number, records, number)
        for scope, records in sorted(by_actor.items(), key=lambda item: natural(item[0]))
        for number in range(len(records))
    ]


class _Calls:
    """The calls of runs, read actor by actor."""

    def __init__(self, runs: Sequence[RecordedRun]) -> None:
        self._actors = [run.by_actor() for run in runs]
        # Of an actor whose calls are wanted in several parts, those after the last that was read
        self._rest: dict[tuple[int, str], Iterator[tuple[int, RecordedCall]]] = {}
        self._last: dict[tuple[int, str], int] = {}

    def of(self, pairs: Iterable[Pair]) -> Iterator[tuple[int, int, RecordedCall]]:
        """Yield the calls of some pairs, each with the number of its run and its place in it."""
        wanted: dict[tuple[int, str], set[int]] = {}
        for pair in pairs:
            for number, place, path in pair.calls():
                wanted.setdefault((number, path), set()).add(place)
        for number, path in sorted(wanted, key=lambda of: (of[0], natural(of[1]))):
            for place, call in self._of_actor(number, path, wanted[number, path]):
                yield number, place, call

    def _of_actor(
        self, number: int, path: str, wanted: set[int]
    ) -> Iterator[tuple[int, RecordedCall]]:
        actor = number, path
        records = self._actors[number][path]
        if actor not in self._rest or min(wanted) <= self._last[actor]:
            self._rest[actor] = zip(records.places, marked_calls(records), strict=True)
        for place, call in self._rest[actor]:
            self._last[actor] = place
            if place in wanted:
                wanted.remove(place)
                yield place, call
            if not wanted:
                break
        if self._last[actor] == records.places[-1]:
            del self._rest[actor], self._last[actor]


class _Found(NamedTuple):
    """A place where two runs diverge, by scope, index and status.

    :param order: which of the divergences it is.
    """

    divergence: Divergence
    order: int


def page_data(
    names: Sequence[str],
    calls_read: Iterable[tuple[int, int, RecordedCall]],
    pairs: Sequence[Pair],
    found: Mapping[tuple[str, int, str], _Found],
    words: Mapping[str, str],
) -> dict[str, Any]:
    """Return the data in a page, or in a part of it.

    :param names: the names of the runs.
    :param calls_read: the calls of the pairs, each with the number of its run and its place in it.
    :param pairs: the calls to show.
    :param found: where two runs diverge.
    :param words: of the items of a map, by their rows.
    """
    # Each gives a new entry the next number.
    texts, scopes, rows, messages, nodes = (
        defaultdict[Any, int](itertools.count().__next__) for _ in range(5)
    )
    calls: dict[str, list[object]] = {
        name: []
        for name in (
            *("title", "served", "parameters", "facts", "node"),
            *("new", "answers", "key", "marks"),
        )
    }
    indexes: dict[tuple[int, int], int] = {}
    variables: dict[tuple[int, int], Mapping[str, str]] = {}
    spoken = []
    for number, place, call in calls_read:
        indexes[number, place] = len(indexes)
        variables[number, place] = (FORM.of(call.record) or NO_FORM)["variables"]
        node = ROOT
        for message in call.messages:
            node = nodes[node, messages[message]]
        spoken.append(call.answers)
        parameters = "  ".join(f"{name}={value}" for name, value in call.parameters)
        texts_of_call = call.title, call.record.served or "", parameters
        for name, text in zip(("title", "served", "parameters"), texts_of_call, strict=True):
            calls[name].append(visible(text))
        calls["facts"].append(_facts(call))
        calls["node"].append(node)
        calls["new"].append(len(call.messages) - call.repeated)
        calls["key"].append(short_key(call.record.cache_key))
        calls["marks"].append(call.marks)
    for name in ("title", "served", "parameters"):
        calls[name] = [texts[text] for text in calls[name]]
    calls["answers"] = [[messages[answer] for answer in answers] for answers in spoken]

    def index_of(number: int, place: int | None) -> int:
        return -1 if place is None else indexes[number, place]

    # A call that only the other run has may have the number of one of the first run.
    cells = {(pair.scope, pair.index, pair.status): number for number, pair in enumerate(pairs)}
    changed = {
        (pair.scope, pair.index): number
        for number, pair in reversed([*enumerate(pairs)])
        if pair.status != "same"
    }
    divergences = {
        cells[cell]: found[cell].divergence
        for cell in sorted(cells.keys() & found.keys(), key=lambda cell: found[cell].order)
    }
    row_numbers = [rows[pair.item] for pair in pairs]
    row_names = [visible(words.get(row, row)) or OF_NO_ACTOR for row in rows]
    return {
        "variables": _variables(row_names, zip(row_numbers, pairs, strict=True), variables),
        "runs": list(map(visible, names)),
        "calls": calls,
        "cells": {
            "scope": [scopes[visible(pair.scope) or OF_NO_ACTOR] for pair in pairs],
            # "+3" is a call that only the other run has; the first run may have a call 3 of its own.
            "call": [f"{'+' if pair.status == 'added' else ''}{pair.index + 1}" for pair in pairs],
            "row": row_numbers,
            "one": [index_of(0, pair.places[0]) for pair in pairs],
            "other": [index_of(1, pair.places[1]) for pair in pairs],
            "status": [pair.status for pair in pairs],
        },
        "divergences": {
            number: visible(divergence.in_words(names[-1]))
            for number, divergence in divergences.items()
        },
        "causes": {
            number: changed[divergence.caused_by]
            for number, divergence in divergences.items()
            if divergence.caused_by in changed
        },
        "words_of_marks": MARKS,
        "messages": [
            [visible(message.role), [texts[visible(text)] for text in message.texts]]
            for message in messages
        ],
        "nodes": list(nodes),
        "scopes": list(scopes),
        "rows": row_names,
        "texts": list(texts),
    }


def _variables(
    row_names: Sequence[str],
    pairs: Iterable[tuple[int, Pair]],
    of_calls: Mapping[tuple[int, int], Mapping[str, str]],
) -> dict[str, list[Any]]:
    """Return the variables that all calls of a row share, and in which rows differ: their names, and the values by row.

    :param pairs: the calls, each with the number of its row.
    """
    found: dict[str, list[set[str]]] = {}
    for row, pair in pairs:
        for number, place in enumerate(pair.places):
            for name, text in of_calls[number, place].items() if place is not None else ():
                found.setdefault(name, [set() for _ in row_names])[row].add(visible(text))
    own_names = [name.rpartition("/")[2] for name in row_names]
    columns = {
        visible(name): [next(iter(texts)) for texts in by_row]
        for name, by_row in found.items()
        if all(len(texts) == 1 for texts in by_row)
    }
    shown = [
        name for name, column in columns.items() if len({*column}) > 1 and column != own_names
    ][:MAX_VARIABLES]
    return {
        "names": shown,
        "values": [list(row) for row in zip(*map(columns.get, shown), strict=True)],
    }


class _Parts:
    """The calls of a large page in parts of whole rows, which a browser reads one at a time.

    :ivar index: the rows with their counts, and the first and last row of each part; whole after the last part.
    """

    def __init__(
        self, pairs: Sequence[Pair], data_of: Callable[[Sequence[Pair]], dict[str, Any]]
    ) -> None:
        self._pairs = pairs
        self._data_of = data_of
        counts: dict[str, list[int]] = {name: [] for name in ("calls", "differing", *MARKS)}
        self.index: dict[str, list[Any]] = {"names": [], "from": [], "to": [], **counts}
        self._row = ""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for first, pairs in self._slices():
            yield self._noted(first, pairs)

    def _slices(self) -> Iterator[tuple[int, list[Pair]]]:
        """Yield the calls of each part; before them, the number of calls of their only row in earlier parts."""
        part: list[Pair] = []
        for _, row in itertools.groupby(self._pairs, key=lambda pair: pair.item):
            calls = list(row)
            if part and len(part) + len(calls) > CALLS_OF_PART:
                yield 0, part
                part = []
            for start in range(0, len(calls), CALLS_OF_PART) if len(calls) > CALLS_OF_PART else ():
                yield start, calls[start : start + CALLS_OF_PART]
            part += calls if len(calls) <= CALLS_OF_PART else []
        if part:
            yield 0, part

    def _noted(self, first: int, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Return the data of a part, and count its calls."""
        data, index = self._data_of(pairs), self.index
        cells, marks = data["cells"], data["calls"]["marks"]
        begin = len(index["names"]) - (first > 0)
        for name in data["rows"][first > 0 :]:
            index["names"].append(name)
            for counts in ("calls", "differing", *MARKS):
                index[counts].append(0)
        index["from"].append(begin)
        index["to"].append(len(index["names"]) - 1)
        for row, status, *calls in zip(
            cells["row"], cells["status"], cells["one"], cells["other"], strict=True
        ):
            index["calls"][begin + row] += 1
            index["differing"][begin + row] += status not in ("", "same")
            for mark in {mark for call in calls if call >= 0 for mark in marks[call]}:
                index[mark][begin + row] += 1
        return {**data, "first": first}


def _facts(call: RecordedCall) -> str:
    """Return the draw, the arms, the tokens and the cost of a call, in words."""
    usage, cost = call.record.usage, call.record.cost
    parts = [
        f"draw #{visible(call.draw)}" if call.draw else "",
        visible(describe_arms(call.record)),
        "" if usage.input_tokens is None else f"{usage.input_tokens:,} tokens in",
        "" if usage.output_tokens is None else f"{usage.output_tokens:,} out",
        "" if cost is None else money(cost),
    ]
    return " · ".join(filter(None, parts))


def page(*runs: RecordedRun) -> str:
    """Return the page of runs; see :func:`pieces`."""
    return "".join(pieces(*runs))


def pieces(
    *runs: RecordedRun, comparison: Comparison | None = None, sample: int | None = None
) -> Iterator[str]:
    """Yield the page, a piece at a time; no text is in two pieces.

    A page of many calls holds them in parts, each as JSON: a browser reads the part of the actor that is chosen.

    :param runs: one run, or two that are compared.
    :param comparison: the comparison of both runs.
    :param sample: the largest number of calls to show, from evenly chosen actors.
    """
    from ...support.libraries import jinja2

    survey = Survey(len(runs))
    all_found = list(map(RunFacts, runs))
    for number, found in enumerate(all_found):
        for _, places, calls in conversations(found.run):
            for place, call in zip(places, calls, strict=True):
                found.add(place, call)
                survey.add(number, call)
    pairs = comparison.pairs if comparison else unpaired_calls(runs[0])
    words = item_words(pairs)
    all_calls = rows_of_table(pairs, words)
    shown = sample_rows(all_calls, sample)
    run_facts = [facts(found) for found in all_found]
    names, read = short_names(runs), _Calls(runs)
    found_at = {
        (divergence.scope, divergence.index, divergence.status): _Found(divergence, number)
        for number, divergence in enumerate(comparison.divergences if comparison else ())
    }

    def data_of(some: Sequence[Pair]) -> dict[str, Any]:
        return page_data(names, read.of(some), some, found_at, words)

    is_large = len(shown) > MOST_AT_ONCE
    parts = _Parts(shown, data_of) if is_large else None
    style = _file("report.css") + (_file("parts.css") if is_large else "")
    begin = _file("parts.js") if is_large else SHOW_ALL
    script = f'"use strict";\n{{\n{_file("report.js")}{begin}}}\n'
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["visible"] = visible
    environment.filters["json"] = _json
    yield from environment.from_string(_file("report.html")).generate(
        names=names,
        numbers=NUMBERS,
        labels=list(dict.fromkeys(label for by_label in run_facts for label in by_label)),
        facts=run_facts,
        lines=[] if comparison is None else str(comparison).split("\n"),
        shown=[(len(calls), len({pair.item for pair in calls})) for calls in (shown, all_calls)],
        survey=survey.distributions(pairs),
        checklist_title=TITLE,
        blank=BLANK,
        checklist=[] if runs[1:] else checklist(all_found[0]),
        data=None if is_large else data_of(shown),
        parts=parts,
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


def _file(name: str) -> str:
    return (files(__package__) / "data" / name).read_text(encoding="utf-8")


def _json(data: dict[str, object]) -> str:
    """Return data as JSON that cannot close the element around it."""
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _csp_hash(text: str) -> str:
    """Return the source that allows an inline style or script (Content-Security-Policy Level 3, hash-source)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
