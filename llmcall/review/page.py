"""One HTML page of a run, or of two compared: it loads nothing, and no text in it is run.

The page holds the calls as JSON, each text, each message and each history once; its script shows what is looked at.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..text import OUTSIDE, counted, money, visible
from .comparison import WHY, Pair, counted_value
from .conversations import ORDINARY_ENDS, grouped, message_key, messages_of, said_of, shown_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..types import Record
    from .comparison import Comparison
    from .conversations import Call, Run, Said

__all__ = ["page"]


def page(run: Run, other: Run | None = None, comparison: Comparison | None = None, *, sample: int | None = None) -> str:
    """Return the page.

    :param run: what it shows.
    :param other: the run that it is compared with.
    :param comparison: what :func:`~llmcall.compare` made of both.
    :param sample: how many calls it shows at most: those of actors that stand evenly among all.
    """
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    folder = files(__package__).joinpath("data")
    template, style, script = (
        folder.joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    actors = _cells(run, comparison)
    shown = actors if sample is None else _sampled(actors, sample)
    runs = [run] if other is None else [run, other]
    calls = [[call for group in grouped(each.records) for call in group.calls] for each in runs]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        names=[visible(_name(each)) for each in runs],
        facts=_facts(runs, calls),
        lines=[] if comparison is None else visible(str(comparison)).split("\n"),
        sampled=_how_sampled(actors, shown) if shown != actors else "",
        data=json.dumps(_Data(calls, shown, comparison).as_dict(), ensure_ascii=False).replace("<", "\\u003c"),
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; base-uri 'none'",
    )


def _source(text: str) -> str:
    """Return what allows one inline style or script in a Content-Security-Policy (CSP Level 3, hash-source)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _name(run: Run) -> str:
    """Return a run's name without the folders that its file is in."""
    what, of, path = run.name.rpartition(" of ")
    return f"{what}{of}{os.path.basename(path.rstrip('/'))}"


# What is shown


def _cells(run: Run, comparison: Comparison | None) -> dict[str, list[Pair]]:
    """Return the calls of each actor."""
    if comparison is None:
        return {scope: [Pair(scope, 0, record) for record in records] for scope, records in run.by_actor().items()}
    found: dict[str, list[Pair]] = {}
    for pair in comparison.pairs:
        found.setdefault(pair.scope, []).append(pair)
    return found


def _sampled(actors: Mapping[str, list[Pair]], most: int) -> dict[str, list[Pair]]:
    """Return the calls of actors that stand evenly among all, so many that they have at most so many calls."""
    names, total = list(actors), sum(map(len, actors.values()))
    if total <= most:
        return dict(actors)
    count = min(len(names), max(1, most * len(names) // total))
    shown: dict[str, list[Pair]] = {}
    left = most
    for number in range(count):
        name = names[number * len(names) // count]
        cells = actors[name][:left]
        if cells:
            shown[name] = cells
        left -= len(cells)
    return shown


def _how_sampled(actors: Mapping[str, list[Pair]], shown: Mapping[str, list[Pair]]) -> str:
    calls, all_calls = (sum(map(len, each.values())) for each in (shown, actors))
    return (
        f"A sample: {calls:,} of {all_calls:,} calls, of {len(shown):,} of {len(actors):,} actors, "
        "taken evenly from the first to the last. The sums above are those of the whole run."
    )


# What the runs are


def _facts(runs: list[Run], calls: list[list[Call]]) -> list[tuple[str, list[str]]]:
    """Return, for each label, the value of each run; labels without any value are left out."""
    found: dict[str, list[str]] = {}
    for number, run in enumerate(runs):
        for label, value in _facts_of(run, calls[number]):
            found.setdefault(label, [""] * len(runs))[number] = visible(value)
    return list(found.items())


def _facts_of(run: Run, calls: list[Call]) -> list[tuple[str, str]]:
    asked = [call for call in calls if call.record.kind in ("chat", "embedding")]
    usages = [call.usage for call in asked]
    costs = [call.record.cost for call in asked if call.record.cost is not None]
    unknown = f", {len(asked) - len(costs):,} unknown" if len(costs) < len(asked) else ""
    kinds = Counter(call.record.kind for call in calls)
    by_kind = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common()) if len(kinds) > 1 else ""
    facts = [
        ("calls", f"{len(calls):,}" + (f" ({by_kind})" if by_kind else "")),
        ("actors", f"{len(run.by_actor()):,}"),
        ("model", ", ".join(sorted({call.title for call in asked}))),
        ("tokens in", _sum(usage.input_tokens for usage in usages)),
        ("tokens out", _sum(usage.output_tokens for usage in usages)),
        ("cost", f"{money(sum(costs))}{unknown}" if costs else "unknown"),
        ("failures", "; ".join(_failures(run, asked))),
        *((name, value if isinstance(value, str) else shown_data(value)) for name, value in sorted(run.settings.items())
          if name not in ("model", "embedding_model")),
    ]  # fmt: skip
    return [(label, value) for label, value in facts if value]


def _failures(run: Run, calls: Iterable[Call]) -> Iterator[str]:
    """Yield what went wrong, as far as records tell: a call that failed for good leaves none."""
    choices = (choice for call in calls for choice in call.record.response.get("choices") or ())
    reasons = (choice.get("finish_reason") for choice in choices if isinstance(choice, dict))
    ends = Counter(str(reason) for reason in reasons if reason is not None)
    yield from (f"{counted(count, 'answer')} ended by {end}" for end, count in ends.items() if end not in ORDINARY_ENDS)
    if not run.is_complete:
        yield "the recording broke off"


def _sum(counts: Iterable[int | None]) -> str:
    known = [count for count in counts if count is not None]
    return f"{sum(known):,}" if known else "unknown"


# The data


CALL = ("title", "parameters", "draw", "node", "new", "answers", "input", "output", "cost", "key")


class _Data:
    """Gather what the page's script is given: tables whose entries refer to one another by their places."""

    def __init__(self, runs: list[list[Call]], actors: Mapping[str, list[Pair]], comparison: Comparison | None) -> None:
        self._texts: dict[str, int] = {}
        self._messages: dict[Said, int] = {}
        self._message_of: dict[str, int] = {}  # by the key of the message
        self._nodes: dict[tuple[int, int], int] = {}  # a history: the history before its last message, and that message
        self._calls: dict[str, list[Any]] = {name: [] for name in CALL}
        self._place: dict[int, int] = {}  # of a record: its place among the calls
        shown = [cell for cells in actors.values() for cell in cells]
        kept = {id(record) for cell in shown for record in (cell.one, cell.other)}
        for calls in runs:
            for call in calls:
                if id(call.record) in kept:
                    self._add(call)
        self._cells = {
            "actor": [number for number, cells in enumerate(actors.values()) for _ in cells],
            "one": [self._place.get(id(cell.one), -1) for cell in shown],
            "other": [self._place.get(id(cell.other), -1) for cell in shown],
            "status": [cell.status for cell in shown],
        }
        self._actors = [visible(name) or OUTSIDE for name in actors]
        self._parted = _parted(shown, comparison)
        self._spread = self._drawn_again(cell.one for cell in shown)

    def as_dict(self) -> dict[str, Any]:
        """Return the data."""
        return {
            "actors": self._actors,
            "texts": list(self._texts),
            "messages": [
                [visible(said.role), [[block.kind, self._texts[visible(block.text)]] for block in said.blocks]]
                for said in self._messages
            ],
            "nodes": [list(node) for node in self._nodes],
            "calls": self._calls,
            "cells": self._cells,
            "parted": self._parted,
            "spread": self._spread,
        }

    def _text(self, text: str) -> int:
        return self._texts.setdefault(visible(text), len(self._texts))

    def _message(self, said: Said) -> int:
        found = self._messages.get(said)
        if found is None:
            found = self._messages[said] = len(self._messages)
            for block in said.blocks:
                self._text(block.text)
        return found

    def _add(self, call: Call) -> None:
        record, node = call.record, -1
        messages = messages_of(record)
        for message in messages:
            key = message_key(message)
            said = self._message_of.get(key)
            if said is None:
                said = self._message_of[key] = self._message(said_of(message))
            node = self._nodes.setdefault((node, said), len(self._nodes))
        usage = call.usage
        values = (
            self._text(call.title), self._text("  ".join(f"{name}={value}" for name, value in call.parameters)),
            visible(call.draw), node, len(messages) - call.known, [self._message(said) for said in call.answers],
            usage.input_tokens, usage.output_tokens, record.cost, record.cache_key[:12],
        )  # fmt: skip
        self._place[id(record)] = len(self._calls["node"])
        for name, value in zip(CALL, values, strict=True):
            self._calls[name].append(value)

    def _drawn_again(self, records: Iterable[Record | None]) -> list[Any]:
        """Return, for each request that was drawn several times, its calls, and how often each answer came."""
        drawn: dict[Any, list[Record]] = {}
        for record in records:
            if record is not None:
                place = self._place[id(record)]
                request = (record.kind, *(self._calls[name][place] for name in ("title", "parameters", "node")))
                drawn.setdefault(request, []).append(record)
        found = []
        for same in drawn.values():
            if len(same) > 1:
                answers = Counter(counted_value(record.answer) for record in same)
                counts = [[self._text(answer), count] for answer, count in answers.most_common()]
                found.append([[self._place[id(record)] for record in same], counts])
        return found


def _parted(shown: Iterable[Pair], comparison: Comparison | None) -> dict[int, tuple[str, str]]:
    """Return, by the number of the cell at which an actor's runs part, why they do and what differs there."""
    partings = comparison.parted if comparison else ()
    found = {(each.scope, each.place, each.status): (WHY[each.why], visible(each.in_words())) for each in partings}
    places = ((number, (cell.scope, cell.place, cell.status)) for number, cell in enumerate(shown))
    return {number: found[place] for number, place in places if place in found}
