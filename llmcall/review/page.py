"""The HTML page of one run or of two compared: it loads nothing, and runs no text of a record."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from ..keys.keys import short_key
from ..stores.record import Record
from ..support.display import OF_NO_ACTOR, money, natural, visible
from .comparison import Comparison
from .conversations import MARKS, RecordedCall, conversations
from .facts import RunFacts, facts
from .pairs import Pair, item_words
from .reporting import BLANK, TITLE, checklist
from .runs import RecordedRun, short_names
from .survey import distributions
from .text import describe_arms

ROOT = -1  # the history without a message
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
        Pair(scope, place, record)
        for scope in sorted(by_actor, key=natural)
        for place, record in enumerate(by_actor[scope])
    ]


def page_data(
    names: Sequence[str],
    calls_by_run: Sequence[Mapping[str, Sequence[RecordedCall]]],
    pairs: Sequence[Pair],
    comparison: Comparison | None,
    words: Mapping[str, str],
) -> dict[str, object]:
    """Return the data in a page.

    :param names: the names of the runs.
    :param calls_by_run: the calls of each run by actor.
    :param pairs: the calls to show.
    :param comparison: the comparison of two runs, if there are two.
    :param words: of the items of a map, by their rows.
    """
    # Each gives a new entry the next number.
    texts, scopes, rows, messages, nodes = (
        defaultdict[Any, int](itertools.count().__next__) for _ in range(5)
    )
    shown = {id(call) for pair in pairs for call in (pair.one, pair.other) if call}
    all_calls = [
        call
        for calls_by_actor in calls_by_run
        for calls in calls_by_actor.values()
        for call in calls
        if id(call.record) in shown
    ]
    indexes = {id(call.record): index for index, call in enumerate(all_calls)}
    node_of_call = []
    for call in all_calls:
        node = ROOT
        for message in call.messages:
            node = nodes[node, messages[message]]
        node_of_call.append(node)

    def index_of(record: Record | None) -> int:
        return indexes.get(id(record), -1)

    def parameters_of(call: RecordedCall) -> str:
        return "  ".join(f"{name}={value}" for name, value in call.parameters)

    calls = {
        "title": [texts[visible(call.title)] for call in all_calls],
        "served": [texts[visible(call.record.served or "")] for call in all_calls],
        "parameters": [texts[visible(parameters_of(call))] for call in all_calls],
        "facts": [_facts(call) for call in all_calls],
        "node": node_of_call,
        "new": [len(call.messages) - call.repeated for call in all_calls],
        "answers": [[messages[answer] for answer in call.answers] for call in all_calls],
        "key": [short_key(call.record.cache_key) for call in all_calls],
        "marks": [call.marks for call in all_calls],
    }
    # A call that only the other run has may have the number of one of the first run.
    cells = {(pair.scope, pair.index, pair.status): number for number, pair in enumerate(pairs)}
    changed = {
        (pair.scope, pair.index): number
        for number, pair in reversed([*enumerate(pairs)])
        if pair.status != "same"
    }
    divergences = {
        cells[found.scope, found.index, found.status]: found
        for found in (comparison.divergences if comparison else ())
        if (found.scope, found.index, found.status) in cells
    }
    return {
        "runs": list(map(visible, names)),
        "calls": calls,
        "cells": {
            "scope": [scopes[visible(pair.scope) or OF_NO_ACTOR] for pair in pairs],
            # "+3" is a call that only the other run has; the first run may have a call 3 of its own.
            "call": [f"{'' if pair.one else '+'}{pair.index + 1}" for pair in pairs],
            "row": [rows[pair.item] for pair in pairs],
            "one": [index_of(pair.one) for pair in pairs],
            "other": [index_of(pair.other) for pair in pairs],
            "status": [pair.status for pair in pairs],
        },
        "divergences": {
            number: visible(found.in_words(names[-1])) for number, found in divergences.items()
        },
        "causes": {
            number: changed[found.caused_by]
            for number, found in divergences.items()
            if found.caused_by in changed
        },
        "words_of_marks": MARKS,
        "messages": [
            [visible(message.role), [texts[visible(text)] for text in message.texts]]
            for message in messages
        ],
        "nodes": list(nodes),
        "scopes": list(scopes),
        "rows": [visible(words.get(row, row)) or OF_NO_ACTOR for row in rows],
        "texts": list(texts),
    }


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
    pairs = comparison.pairs if comparison else unpaired_calls(runs[0])
    words = item_words(pairs)
    all_calls = rows_of_table(pairs, words)
    shown = sample_rows(all_calls, sample)
    survey = distributions(calls_by_run, pairs)
    all_found = list(map(RunFacts.of, runs, calls_by_run))
    run_facts = [facts(found) for found in all_found]
    style, script = _file("report.css"), f'"use strict";\n{{\n{_file("report.js")}}}\n'
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["visible"] = visible
    return environment.from_string(_file("report.html")).render(
        names=short_names(runs),
        numbers=NUMBERS,
        labels=list(dict.fromkeys(label for by_label in run_facts for label in by_label)),
        facts=run_facts,
        lines=[] if comparison is None else str(comparison).split("\n"),
        shown=[(len(calls), len({pair.item for pair in calls})) for calls in (shown, all_calls)],
        survey=survey,
        checklist_title=TITLE,
        blank=BLANK,
        checklist=[] if runs[1:] else checklist(all_found[0]),
        data=_json(page_data(short_names(runs), calls_by_run, shown, comparison, words)),
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
