"""The table of a usage: rows for models and scopes that a person wants to read, as text and as HTML alike."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import llmcall
from llmcall.engine.usage import COLUMNS, Meter, Usage
from llmcall.parallel.items import digest
from llmcall.testing import ScriptedClient

ITEMS = [digest(f"persona {number}", number) for number in range(240)]


def spent(*scopes: str, calls: int = 1, **amounts: Any) -> Usage:
    """Return the usage of calls in some scopes."""
    meter = Meter()
    for scope in scopes:
        meter.add("m", scope, {"calls": calls, "cost": 0.01, **amounts})
    return meter.usage()


def table(usage: Any) -> list[list[str]]:
    """Return the cells of the text, whose names have no double blanks."""
    return [re.split(" {2,}", line.strip()) for line in str(usage).splitlines()]


def scopes(usage: Any) -> dict[str, str]:
    """Return the calls in the rows that stand below the head of the scopes."""
    rows = table(usage)
    heads = [place for place, row in enumerate(rows) if row[0] == "scope"]
    return {row[0]: row[1] for row in rows[heads[0] + 1 :] if len(row) > 1} if heads else {}


def test_a_survey_s_items_count_in_their_scope() -> None:
    """Of a survey with 240 items that are drawn twice there is one row, and none that shows a digest."""
    client = ScriptedClient(lambda messages: "yes")
    with llmcall.track() as usage:
        llmcall.map(client.send_message, ITEMS, scope="village", repeats=3)
    assert scopes(usage) == {"village": "720"}
    assert not any(item in str(usage) or item in usage._repr_html_() for item in ITEMS)


def test_a_map_s_own_items() -> None:
    """The scopes that map really makes are summed up in the one around them."""
    client = ScriptedClient(lambda messages: "yes")
    with llmcall.track() as usage:
        llmcall.map(client.send_message, [str(number) for number in range(12)], scope="village", repeats=2)
    assert {name: part.calls for name, part in usage.by_scope.items()} == {"village": 24}
    assert scopes(usage) == {"village": "24"}


@pytest.mark.parametrize(
    ("paths", "rows"),
    [
        ([""], {}),
        ([], {}),
        (["trial-1"], {"trial-1": "1"}),
        (["trial-1", ""], {"(no scope)": "1", "trial-1": "1"}),
        (["trial-10/lisa", "trial-2/lisa", "trial-2/bart"], {"trial-2": "2", "trial-10": "1"}),
        (["rep-1/trial-1/lisa", "rep-1/trial-2/lisa"], {"rep-1": "2", "rep-1/trial-1": "1", "rep-1/trial-2": "1"}),
        (["rep-1/trial-1", "rep-1"], {"rep-1": "2", "rep-1/trial-1": "1"}),
        (["trial-1/lisa"], {"trial-1": "1", "trial-1/lisa": "1"}),
        ([ITEMS[0], ITEMS[1]], {ITEMS[0]: "1", ITEMS[1]: "1"}),
    ],
)
def test_a_row_for_each_outermost_scope(paths: list[str], rows: dict[str, str]) -> None:
    """Calls are summed up by the first name that tells them apart, in the order that a reader expects."""
    found = scopes(spent(*paths))
    assert found == rows
    assert "(no scope)" in rows or list(found) == list(rows)


def test_many_named_scopes() -> None:
    """Of many scopes the ten with the most calls have a row, and one row sums up the others."""
    meter = Meter()
    for number in range(240):
        meter.add("m", f"persona-{number}", {"calls": number})
    found = scopes(meter.usage())
    assert list(found) == [*(f"persona-{number}" for number in range(230, 240)), "(230 more)"]
    assert found["(230 more)"] == f"{sum(range(230)):,}"


def test_one_more_is_shown() -> None:
    """Eleven scopes have eleven rows: a row for the one that is left would be as long."""
    assert list(scopes(spent(*(f"trial-{number}" for number in range(1, 12))))) == [
        f"trial-{number}" for number in range(1, 12)
    ]


NAMES = st.sampled_from(["trial-1", "trial-2", "lisa", "bart", *ITEMS[:3], *map(str, range(20))])
PATHS = st.lists(NAMES, max_size=4).map("/".join)


@given(st.lists(st.tuples(PATHS, st.integers(0, 50), st.none() | st.integers(0, 50)), max_size=60))
@example([("a", 1, None), ("b", 2, 3)])
def test_the_rows_of_scopes_add_up(added: list[tuple[str, int, int | None]]) -> None:
    """However calls are nested, the rows of the scopes are few, and together all of the usage."""
    meter = Meter()
    for scope, calls, tokens in added:
        meter.add("m", scope, {"calls": calls, "input_tokens": tokens})
    usage = meter.usage()
    found = scopes(usage)
    assert len(found) <= 12
    if any(scope for scope, _, _ in added):
        outermost = {scope.partition("/")[0] for scope, _, _ in added}
        rows = found if len(outermost) > 1 else {"": found[outermost.pop()]}
        assert sum(int(calls.replace(",", "")) for calls in rows.values()) == usage.calls
    else:
        assert not found


def test_what_is_unknown_in_one_is_unknown_in_the_sum() -> None:
    """A row that sums up a scope with an unknown amount says so."""
    meter = Meter()
    for scope, cost in (("trial-1/lisa", 0.5), ("trial-1/bart", None), ("trial-2/lisa", 0.5)):
        meter.add("m", scope, {"calls": 1, "cost": cost, "output_tokens": 1000})
    assert [(row[0], row[6], row[7]) for row in table(meter.usage())] == [
        ("model", "output_tokens", "cost"),
        ("m", "3,000", "?"),
        ("scope", "output_tokens", "cost"),
        ("trial-1", "2,000", "?"),
        ("trial-2", "1,000", "$0.5000"),
    ]


def test_every_amount_is_shown() -> None:
    """Billed, cached with what they saved, retried and failed: each has its column, for models, scopes and all."""
    meter = Meter()
    values = dict(zip(COLUMNS, (2, 3, 5, 7, 11, 4, 13, 17.0, 19.0), strict=True))
    meter.add("m", "trial", values)
    meter.add("n", "trial", {})
    cells = ["2", "3", "5", "7", "11", "4", "13", "$17.0000", "$19.0000"]
    rows = table(meter.usage())
    assert rows[0] == ["model", *COLUMNS]
    assert {row[0]: row[1:] for row in rows if row[1] != "0"} == {
        "model": list(COLUMNS), "m": cells, "all": cells, "scope": list(COLUMNS), "trial": cells,
    }  # fmt: skip


def test_html_shows_the_same() -> None:
    """The HTML has the cells of the text, row for row, and the note below it."""
    usage = spent("", "trial-1/lisa", "trial-2", *(f"p{number}" for number in range(20)), priced_by="a list of 2026")
    html = usage._repr_html_()
    rows = [re.findall("<t[hd]>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", html)]
    *lines, note = table(usage)
    assert rows == lines
    assert html.endswith(f"</table><p>{note[0]}</p>")
    assert html.count("<th>") == 2 * len(COLUMNS)  # without that of cached input


def test_scopes_are_escaped() -> None:
    """A scope's name and a price's source are text in the HTML, whatever letters they have."""
    html = spent("<b>", priced_by="<i>")._repr_html_()
    assert "<b>" not in html and "<i>" not in html
    assert "&lt;b&gt;" in html and "&lt;i&gt;" in html


@pytest.mark.parametrize(
    ("sources", "note"),
    [
        ([], None),
        (["[Prices]"], "priced by [Prices]"),
        (["b for 2026-11-19", "[Prices]"], "priced by [Prices], b for 2026-11-19"),
        ([f"b for 2026-11-{day}" for day in (12, 10, 11, 13)], "priced by b for 2026-11-10, …, b for 2026-11-13"),
    ],
)
def test_the_note_says_whose_prices(sources: list[str], note: str | None) -> None:
    """Below the table stands whose prices the cost is made of, with their dates, a long run's first and last."""
    meter = Meter()
    for source in sources:
        meter.add("m", "", {"calls": 1, "cost": 0.01, "priced_by": source})
    usage = meter.usage()
    assert usage.priced_by == tuple(sorted(sources))
    assert [line for line in str(usage).splitlines() if line.startswith("priced")] == ([note] if note else [])


def test_prices_belong_to_their_models() -> None:
    """Each model's part of a usage says whose prices its own cost is made of."""
    client = ScriptedClient(lambda messages: "yes", model="m", prices={"m": (1.0, 2.0)})
    client.send_message("Hello", model="unpriced")
    assert client.usage.priced_by == ()
    meter = Meter()
    meter.add("m", "a", {"cost": 0.1, "priced_by": "[Prices]"})
    meter.add("n", "b", {"cost": None})
    usage = meter.usage()
    assert (usage.by_model["m"].priced_by, usage.by_model["n"].priced_by) == (("[Prices]",), ())
    assert (usage.by_scope["a"].priced_by, usage.by_scope["b"].priced_by) == (("[Prices]",), ())
