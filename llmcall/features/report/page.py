"""The HTML page of one run or of two compared: it loads nothing, and runs no text of a record."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from ...keys.keys import short_key
from ...review.comparison import Comparison
from ...review.conversations import MARKS, RecordedCall, describe_arms
from ...review.divergences import Divergence
from ...review.pairs import Pair, item_words
from ...review.runs import RecordedRun, short_names
from ...support.display import OF_NO_ACTOR, money, natural, visible
from ...typed.notes import FORM
from .facts import RunFacts, facts
from .reporting import BLANK, TITLE, checklist
from .survey import distributions

ROOT = -1  # the history without a message
MOST_SHOWN = 10_000  # calls, which a browser shows with ease
MAX_VARIABLES = 5  # of a row, shown as columns
NUMBERS = ("calls", "actors", "tokens in", "tokens out", "cost")  # facts that share a line


def sample_rows(pairs: list[Pair], limit: int) -> list[Pair]:
    """Return the calls of an even sample of rows, at most ``limit``."""
    if limit >= len(pairs):
        return pairs
    rows = list(dict.fromkeys(pair.item for pair in pairs))
    count = min(len(rows), max(1, limit * len(rows) // len(pairs)))
    chosen = {rows[number * len(rows) // count] for number in range(count)}
    return [pair for pair in pairs if pair.item in chosen][:limit]


def unpaired_calls(run: RecordedRun) -> list[Pair]:
    """Return the calls of a run that is not compared, actor by actor."""
    by_actor = run.by_actor()
    return [
        Pair(scope, number, record)
        for scope, records in sorted(by_actor.items(), key=lambda item: natural(item[0]))
        for number, record in enumerate(records)
    ]


def page_data(
    names: Sequence[str],
    calls_read: Iterable[tuple[int, RecordedCall]],
    pairs: Sequence[Pair],
    divergences: Iterable[Divergence],
    words: Mapping[str, str],
) -> dict[str, Any]:
    """Return the data in a page.

    :param names: the names of the runs.
    :param calls_read: the calls of the pairs, each with the number of its run.
    :param pairs: the calls to show.
    :param divergences: where two runs diverge.
    :param words: of the items of a map, by their rows.
    """
    # Each gives a new entry the next number.
    texts, scopes, rows, messages, nodes = (
        defaultdict[Any, int](itertools.count().__next__) for _ in range(5)
    )
    columns = "title", "served", "parameters", "facts", "node", "new", "answers", "key", "marks"
    calls: dict[str, list[object]] = {name: [] for name in columns}
    indexes: dict[tuple[int, str | None], int] = {}
    for number, call in calls_read:
        key = call.record.cache_key
        indexes[number, key] = len(indexes)
        node = ROOT
        for message in call.messages:
            node = nodes[node, messages[message]]
        parameters = "  ".join(f"{name}={value}" for name, value in call.parameters)
        calls["title"].append(texts[visible(call.title)])
        calls["served"].append(texts[visible(call.record.served or "")])
        calls["parameters"].append(texts[visible(parameters)])
        calls["facts"].append(_facts(call))
        calls["node"].append(node)
        calls["new"].append(len(call.messages) - call.repeated)
        calls["answers"].append([messages[answer] for answer in call.answers])
        calls["key"].append(short_key(key))
        calls["marks"].append(call.marks)

    # A call that only the other run has may have the number of one of the first run.
    cells = {(pair.scope, pair.index, pair.status): number for number, pair in enumerate(pairs)}
    changed = {
        (pair.scope, pair.index): number
        for number, pair in reversed([*enumerate(pairs)])
        if pair.status != "same"
    }
    found = {
        cells[cell]: divergence
        for divergence in divergences
        if (cell := (divergence.scope, divergence.index, divergence.status)) in cells
    }
    row_numbers = [rows[pair.item] for pair in pairs]
    row_names = [visible(words.get(row, row)) or OF_NO_ACTOR for row in rows]
    return {
        "variables": _variables(row_names, zip(row_numbers, pairs, strict=True)),
        "runs": list(map(visible, names)),
        "calls": calls,
        "cells": {
            "scope": [scopes[visible(pair.scope) or OF_NO_ACTOR] for pair in pairs],
            # "+3" is a call that only the other run has; the first run may have a call 3 of its own.
            "call": [f"{'+' if pair.status == 'added' else ''}{pair.index + 1}" for pair in pairs],
            "row": row_numbers,
            "one": [indexes.get((0, pair.keys[0]), -1) for pair in pairs],
            "other": [indexes.get((1, pair.keys[1]), -1) for pair in pairs],
            "status": [pair.status for pair in pairs],
        },
        "divergences": {
            number: visible(divergence.in_words(names[-1])) for number, divergence in found.items()
        },
        "causes": {
            number: changed[divergence.caused_by]
            for number, divergence in found.items()
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


def _variables(row_names: Sequence[str], pairs: Iterable[tuple[int, Pair]]) -> dict[str, list[Any]]:
    """Return the variables that all calls of a row share, and in which rows differ: their names, and the values by row.

    :param pairs: the calls, each with the number of its row.
    """
    found: dict[str, list[set[str]]] = {}
    for row, pair in pairs:
        for record in filter(None, (pair.one, pair.other)):
            form = FORM.of(record)
            for name, text in form["variables"].items() if form else ():
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


def _facts(call: RecordedCall) -> str:
    """Describe a call's draw, arms, tokens and cost."""
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
    """Return the page of runs.

    :param runs: one run, or two that are compared.
    :param comparison: the comparison of both runs.
    :param sample: the largest number of calls to show, from evenly chosen actors.
    """
    from ...support.libraries import jinja2

    pairs = comparison.pairs if comparison else unpaired_calls(runs[0])
    words = item_words(pairs)
    # Row by row; rows of the same words stay apart.
    all_calls = sorted(
        pairs, key=lambda pair: (natural(words.get(pair.item, pair.item)), pair.item)
    )
    shown = sample_rows(all_calls, sample or MOST_SHOWN)
    all_found = list(map(RunFacts, runs))
    wanted = {of for pair in shown for of in enumerate(pair.keys)}
    calls = [
        (number, call)
        for number, found in enumerate(all_found)
        for call in found.calls
        if (number, call.record.cache_key) in wanted
    ]
    divergences = comparison.divergences if comparison else ()
    data = page_data(short_names(runs), calls, shown, divergences, words)
    run_facts = [facts(found) for found in all_found]
    style = _file("report.css")
    script = f'"use strict";\n{{\n{_file("report.js")}}}\n'
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["visible"] = visible
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    return environment.from_string(_file("report.html")).render(
        names=short_names(runs),
        numbers=NUMBERS,
        labels=list(dict.fromkeys(label for by_label in run_facts for label in by_label)),
        facts=run_facts,
        lines=[] if comparison is None else str(comparison).split("\n"),
        shown=[(len(calls), len({pair.item for pair in calls})) for calls in (shown, all_calls)],
        survey=distributions([found.calls for found in all_found]),
        checklist_title=TITLE,
        blank=BLANK,
        checklist=[] if runs[1:] else checklist(all_found[0]),
        data=data,
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src {_csp_hash(style)}; script-src {_csp_hash(script)}; "
        "base-uri 'none'",
    )


def _file(name: str) -> str:
    return (files(__package__) / "data" / name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    """Return the source that allows an inline style or script (Content-Security-Policy Level 3, hash-source)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
