"""One HTML page of a run, or of two compared: it loads nothing, and no text in it is run.

The page holds the calls as JSON, each text, each message and each history once; its script shows
what is looked at.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from ..display.formatting import OUTSIDE_ANY_SCOPE, as_json, counted, money
from ..display.printable import visible
from .causes import Pair
from .comparison import WHY, counted_value
from .conversations import ORDINARY_ENDS, conversations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..types import Record
    from .comparison import Comparison
    from .conversations import Call, Run


def page(*runs: Run, comparison: Comparison | None = None, sample: int | None = None) -> str:
    """Return the page.

    :param runs: what it shows: one run, or two that are compared.
    :param comparison: what :func:`~llmcall.compare` made of both.
    :param sample: how many calls it shows at most: those of actors that stand evenly among all.
    """
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    folder = files(__package__).joinpath("data")
    template, style, script = (
        folder.joinpath(f"report.{kind}").read_text(encoding="utf-8")
        for kind in ("html", "css", "js")
    )
    cells = comparison.pairs if comparison else _cells(runs[0])
    shown = cells if sample is None else _sampled(cells, sample)
    calls = [[call for calls in conversations(each).values() for call in calls] for each in runs]
    facts = [dict(_facts(each, its)) for each, its in zip(runs, calls, strict=True)]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        names=[visible(_name(each)) for each in runs],
        labels=list(dict.fromkeys(label for each in facts for label in each)),
        facts=facts,
        lines=[] if comparison is None else visible(str(comparison)).split("\n"),
        sampled=[f"{len(of):,}" for of in (shown, cells, _actors(shown), _actors(cells))],
        data=json.dumps(
            _data(itertools.chain(*calls), shown, comparison), ensure_ascii=False
        ).replace("<", "\\u003c"),
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; base-uri 'none'",
    )


def _source(text: str) -> str:
    """Return what allows one inline style or script in a Content-Security-Policy (CSP Level 3,
    hash-source).
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _name(run: Run) -> str:
    """Return a run's name without the folders that its file is in."""
    what, of, path = run.name.rpartition(" of ")
    return f"{what}{of}{os.path.basename(path.rstrip('/'))}"


# What is shown


def _cells(run: Run) -> list[Pair]:
    """Return the calls of a run that is not compared, actor by actor."""
    return [
        Pair(scope, 0, record) for scope, records in run.by_actor().items() for record in records
    ]


def _sampled(cells: list[Pair], most: int) -> list[Pair]:
    """Return the calls of actors that stand evenly among all, so many that they have at most so
    many calls.
    """
    actors = _actors(cells)
    count = min(len(actors), max(1, most * len(actors) // len(cells)))
    chosen = {actors[number * len(actors) // count] for number in range(count)}
    return [cell for cell in cells if cell.scope in chosen][:most]


def _actors(cells: Iterable[Pair]) -> list[str]:
    return list(dict.fromkeys(cell.scope for cell in cells))


# What the runs are


def _facts(run: Run, calls: list[Call]) -> Iterator[tuple[str, str]]:
    """Yield what is said of a run, each with its label."""
    asked = [call for call in calls if call.record.kind in ("chat", "embedding")]
    usages = [call.record.usage for call in asked]
    costs = [call.record.cost for call in asked if call.record.cost is not None]
    unknown = f", {len(asked) - len(costs):,} unknown" if len(costs) < len(asked) else ""
    kinds = Counter(call.record.kind for call in calls)
    by_kind = (
        ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
        if len(kinds) > 1
        else ""
    )
    facts = [
        ("calls", f"{len(calls):,}" + (f" ({by_kind})" if by_kind else "")),
        ("actors", f"{len(run.by_actor()):,}"),
        ("model", ", ".join(sorted({call.title for call in asked}))),
        ("tokens in", _sum(usage.input_tokens for usage in usages)),
        ("tokens out", _sum(usage.output_tokens for usage in usages)),
        ("cost", f"{money(sum(costs))}{unknown}" if costs else "unknown"),
        ("failures", "; ".join(_failures(run, asked))),
        *((name, value if isinstance(value, str) else as_json(value)) for name, value in sorted(run.settings.items())
          if name not in ("model", "embedding_model")),
    ]  # fmt: skip
    return ((label, visible(value)) for label, value in facts if value)


def _failures(run: Run, calls: Iterable[Call]) -> Iterator[str]:
    """Yield what went wrong, as far as records tell: a call that failed for good leaves none."""
    choices = (choice for call in calls for choice in call.record.response.get("choices") or ())
    ends = Counter(choice.get("finish_reason") or "stop" for choice in choices)
    yield from (
        f"{counted(count, 'answer')} ended by {end}"
        for end, count in ends.items()
        if end not in ORDINARY_ENDS
    )
    if not run.is_complete:
        yield "the recording broke off"


def _sum(counts: Iterable[int | None]) -> str:
    known = [count for count in counts if count is not None]
    return f"{sum(known):,}" if known else "unknown"


# The data


CALL = ("title", "parameters", "draw", "node", "new", "answers", "input", "output", "cost", "key")


def _data(
    calls: Iterable[Call], shown: list[Pair], comparison: Comparison | None
) -> dict[str, Any]:
    """Return what the page's script is given: tables whose entries refer to one another by their
    places.
    """
    # Each gives the next place to a key that is new. Nodes are histories: the one before the last
    # message, and that.
    texts, messages, actors, nodes = (
        defaultdict[Any, int](itertools.count().__next__) for _ in range(4)
    )

    def text_at(text: str) -> int:
        return texts[visible(text)]

    kept = {id(record) for cell in shown for record in (cell.one, cell.other)}
    place: dict[int, int] = {}  # of a record: its place among the calls
    rows: list[tuple[Any, ...]] = []
    for call in calls:
        if id(call.record) in kept:
            record, usage = call.record, call.record.usage
            parameters = "  ".join(f"{name}={value}" for name, value in call.parameters)
            answers = [messages[said] for said in call.answers]
            node = -1  # the empty history
            for said in call.messages:
                node = nodes[node, messages[said]]
            place[id(record)] = len(rows)
            rows.append((
                text_at(call.title), text_at(parameters), visible(call.draw), node, len(call.messages) - call.known,
                answers, usage.input_tokens, usage.output_tokens, record.cost, record.cache_key[:12],
            ))  # fmt: skip
    said_texts = [[visible(said.role), [text_at(text) for text in said.texts]] for said in messages]
    drawn: dict[Any, list[Record]] = {}  # by what was asked
    for cell in shown:
        if cell.one is not None:
            title, parameters, _, node, *_ = rows[place[id(cell.one)]]
            drawn.setdefault((cell.one.kind, title, parameters, node), []).append(cell.one)
    # of each request that was drawn several times: its calls, and how often each answer came
    spread = []
    for same in drawn.values():
        if len(same) > 1:
            counts = Counter(counted_value(record.answer) for record in same)
            found = [[text_at(answer), count] for answer, count in counts.most_common()]
            spread.append([[place[id(record)] for record in same], found])
    actor_of = [actors[cell.scope] for cell in shown]
    # Why an actor's runs part, and what differs there, by the number of the cell at which they do.
    partings = comparison.parted if comparison else ()
    parted = {
        (each.scope, each.place, each.status): (
            WHY[each.why],
            visible(f"{each.in_words()}{each.perhaps}"),
        )
        for each in partings
    }
    places = [(cell.scope, cell.place, cell.status) for cell in shown]
    return {
        "actors": [visible(name) or OUTSIDE_ANY_SCOPE for name in actors],
        "texts": list(texts),
        "messages": said_texts,
        "nodes": list(nodes),
        "calls": {name: [row[at] for row in rows] for at, name in enumerate(CALL)},
        "cells": {
            "actor": actor_of,
            "one": [place.get(id(cell.one), -1) for cell in shown],
            "other": [place.get(id(cell.other), -1) for cell in shown],
            "status": [cell.status for cell in shown],
        },
        "parted": {number: parted[at] for number, at in enumerate(places) if at in parted},
        "spread": spread,
    }
