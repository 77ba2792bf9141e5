"""A comparison of two recordings in words, and as data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .conversations import first_words, grouped, shown_data
from .text import OUTSIDE, Line, call_lines, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .comparison import Change, Comparison, Parting
    from .conversations import Call

__all__ = ["comparison_data", "comparison_lines", "named"]

DETAIL_LINES = 24  # of the difference at the call where two runs part
WORDS = 60  # characters of a question in a list
MARKS = {"came": "+", "went": "-", "answer": "~", "request": "~"}


def comparison_lines(found: Comparison) -> Iterator[Line]:
    """Yield a comparison as lines of text."""
    yield Line("plain", f"{_counts(found)}.")
    for name, before, after in found.settings:
        yield Line("~", f"~ setting {visible(name)}: {visible(shown_data(before))} → {visible(shown_data(after))}")
    if found.partings:
        yield Line("plain", f"The runs first part at {_where(found.partings[0])}.")
    for parting in found.partings:
        yield Line("blank", "")
        yield Line("scope", f"=== {visible(parting.scope) or OUTSIDE}, from call {parting.place} on")
        for change in parting.changes:
            yield _change_line(change)
            if change is parting.first:
                yield from _detail(change)


def _counts(found: Comparison) -> str:
    kinds = [change.kind for change in found.changes]
    came, went = kinds.count("came"), kinds.count("went")
    return f"{found.same:,} the same, {came} came, {went} went, {len(kinds) - came - went} changed"


def _where(parting: Parting) -> str:
    scope = f"scope {visible(parting.scope)}" if parting.scope else "the calls outside any scope"
    how = {
        "came": "which came",
        "went": "which went",
        "answer": "the same request, answered differently",
        "request": "the request differs",
    }
    return f"call {parting.place} of {scope} ({how[parting.first.kind]})"


def _change_line(change: Change) -> Line:
    mark = MARKS[change.kind]
    what = {"answer": "answer to ", "request": "request "}.get(change.kind, "")
    call = change.before or change.after
    assert call is not None
    return Line(mark, f"{mark} {what}{named(call)}")


def named(call: Call) -> str:
    """Return what a call is called in a list: its sample, its model or function, and its first words."""
    sample = f"{call.record.sample} " if call.record.sample else ""
    return visible(f'{sample}{call.title} "{first_words(call, WORDS)}"')


def _detail(change: Change) -> Iterator[Line]:
    """Yield how the call at which two runs part differs, line by line."""
    from difflib import unified_diff

    if change.before is None or change.after is None:
        return
    calls = (change.before, change.after)
    moved = change.before.record.sample != change.after.record.sample
    before, after = ([f"sample={call.record.sample}"] * moved + _text(call) for call in calls)
    found = unified_diff(before, after, n=1, lineterm="")
    different = [line for line in found if not line.startswith(("---", "+++", "@@"))]
    for line in different[:DETAIL_LINES]:
        yield Line(line[0], f"    {line}")
    if len(different) > DETAIL_LINES:
        yield Line("note", f"    … {len(different) - DETAIL_LINES} more lines")


def _text(call: Call) -> list[str]:
    """Return a call's lines, with all its messages."""
    whole = grouped([call.record])[0].calls[0]
    parameters = [visible(f"{name}={value}") for name, value in call.parameters]
    return parameters + [line.text for line in call_lines(whole) if line.kind != "call"]


def comparison_data(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain data."""
    return {
        "same": found.same,
        "settings": [{"name": name, "before": before, "after": after} for name, before, after in found.settings],
        "partings": [
            {
                "scope": parting.scope,
                "call": parting.place,
                "changes": [
                    {
                        "change": change.kind,
                        "before": change.before and _call_data(change.before),
                        "after": change.after and _call_data(change.after),
                    }
                    for change in parting.changes
                ],
            }
            for parting in found.partings
        ],
    }


def _call_data(call: Call) -> dict[str, Any]:
    record = call.record
    return {
        "cache_key": record.cache_key,
        "kind": record.kind,
        "sample": record.sample,
        "name": call.title,
        "asked": first_words(call, WORDS),
    }
