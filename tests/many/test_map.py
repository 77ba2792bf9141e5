"""Maps of items: their order, scopes and draws, the names of items, errors, rows, plans and the
bar.

What is drawn once is drawn once, whoever runs the items and however the map ends.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import io
import pathlib
import random
import re
import sys
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from commands import NEEDS_NOTES
from errors import check_error, error_table
from hypothesis import given, settings
from hypothesis import strategies as st
from map_functions import CALL, CALLS, ask, calls, divide, sample, samples
from pytest_httpserver import HTTPServer
from servers import OK, ScriptedServer, refusal

import llmcall
from llmcall import LLMCall, imap, map, scope
from llmcall.errors import (
    BudgetExceededError,
    CacheMissError,
    ConfigError,
    OutputError,
    ScopeError,
)
from llmcall.testing import ScriptedClient

# Order, threads, look-ahead


number: ContextVar[int] = ContextVar("a number of the caller's", default=0)


def at_once(count: int) -> Any:
    """Return a function that ends only when so many of it run at the same time."""
    barrier = threading.Barrier(count)

    def meet(item: Any) -> Any:
        barrier.wait(30)
        return item

    return meet


def test_imap_yields_items_as_they_finish() -> None:
    """A finished item comes at once, with its index."""
    first = threading.Event()

    def wait(item: str) -> str:
        if item == "slow":
            assert first.wait(30)
        return item.upper()

    found = imap(wait, ["slow", "quick"])
    assert next(found) == (1, "QUICK")
    first.set()
    assert list(found) == [(0, "SLOW")]


@pytest.mark.parametrize(("setting", "workers"), [(None, 32), (3, 3)])
def test_32_items_are_worked_on_at_once_or_as_many_as_are_asked_for(
    setting: int | None, workers: int
) -> None:
    """All of them meet."""
    assert map(at_once(workers), range(workers), workers=setting) == list(range(workers))


def test_all_workers_are_at_work_as_soon_as_an_item_waits_after_quick_ones() -> None:
    wait_for_all = at_once(32)
    items = range(100 + 32)
    assert map(lambda item: item if item < 100 else wait_for_all(item), items) == list(items)


# Scopes, keys, repeats


@pytest.mark.parametrize("opened", ["around", "argument", "object", "process"])
def test_inside_a_scope_each_item_has_its_own(opened: str) -> None:
    """Equal items are draws of their own; each sample holds the map's scope, the item's name, and
    the draw.
    """
    if opened == "argument":
        found = map(samples, ["a", "a"], key=str, scope="survey")
    elif opened == "object":
        found = map(samples, ["a", "a"], key=str, scope=scope("survey"))
    else:
        with scope("survey", process=opened == "process"):
            found = map(samples, ["a", "a"], key=str)
    assert found == [
        ["survey/a#0", "survey/a#1", "survey/a/inside#0"],
        ["survey/a~1#0", "survey/a~1#1", "survey/a~1/inside#0"],
    ]


@settings(max_examples=15)
@given(st.lists(st.integers(0, 4), max_size=6), st.permutations(range(6)), st.integers(0, 4))
def test_sorting_inserting_and_dropping_make_no_new_call(
    items: list[int], order: list[int], more: int
) -> None:
    """Each item keeps its answers."""
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto", cache_path="sorting")

    def answers(of: list[int]) -> int:
        before = len(client.requests)
        map(lambda item: client.send_message(f"item {item}"), of, scope="survey", workers=4)
        return len(client.requests) - before

    client.cache.clear()
    assert answers(items) == len(items)
    assert answers([items[index] for index in order if index < len(items)]) == 0
    assert answers([*items[:2], more, *items[2:]]) == 1
    assert answers(items[1:]) == 0


class Persona(NamedTuple):
    """A persona that is a named tuple."""

    name: str
    age: int


@dataclass
class Citizen:
    """A persona that is a dataclass."""

    name: str
    age: int


@pytest.mark.parametrize(
    "text", ["Are you {{ who.name }}?", "{% if who.name %}Are you {{ who.name }}?{% endif %}"]
)
def test_a_field_that_no_template_uses_makes_no_new_call(text: str) -> None:
    """An item's name depends on what the templates use of a row."""
    client = ScriptedClient(lambda messages: messages[-1]["content"], cache_mode="auto")

    def calls_for(who: Any) -> int:
        before = client.usage.calls
        LLMCall(user=text, client=client).map([{"who": who, "column": before}], scope="survey")
        return client.usage.calls - before

    assert calls_for({"name": "Lisa", "age": 30}) == 1
    assert calls_for({"name": "Lisa", "age": 31}) == 0
    assert calls_for(Citizen("Lisa", 32)) == 0
    assert calls_for(Persona("Oscar", 30)) == 1
    assert calls_for(Citizen("Oscar", 30)) == 1  # of a tuple, all counts


def test_a_key_may_name_a_column_or_a_field() -> None:
    """An item's name is its value, of a dict, a dataclass or a named tuple; the rest may change."""
    items = [{"name": "Lisa", "age": 30}, Citizen("Bart", 32), Persona("Oscar", 30)]
    assert names(items, "name") == ["Lisa", "Bart", "Oscar"]


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"dry_run": True}, marks=pytest.mark.feature("plans"))]
)
def test_outside_any_scope_a_key_is_an_error(options: dict[str, Any]) -> None:
    """It would name nothing: the error names ``scope=``."""
    with pytest.raises(ScopeError, match=r"key= names a scope .* scope="):
        map(CALL, [{"name": "Lisa"}], key="name", **options)


def test_each_item_is_drawn_as_often_as_repeats_says() -> None:
    """The result is a list of lists; repeat 0 stands in the item's scope, the others in one below."""
    assert map(sample, ["a"], repeats=3) == [[None, "~1#0", "~2#0"]]
    assert map(sample, "ab", key=str, repeats=2, scope="survey") == [
        ["survey/a#0", "survey/a/~1#0"],
        ["survey/b#0", "survey/b/~1#0"],
    ]


@pytest.mark.parametrize("where", [None, "survey"])
def test_more_repeats_keep_the_earlier_draws(where: str | None) -> None:
    """Raising repeats draws only what is new."""
    single = map(ask, ["a", "b"], scope=where)
    first = map(ask, ["a", "b"], repeats=2, scope=where)
    more = map(ask, ["a", "b"], repeats=3, scope=where)
    assert [draws[0] for draws in first] == single
    assert [draws[:2] for draws in more] == first
    assert len({answer for draws in more for answer in draws}) == calls() == 6


def test_context_variables_go_with_the_items() -> None:
    """Each item sees a copy of the caller's context; what it sets there touches neither caller nor
    neighbours.
    """

    def next_number(item: int) -> int:
        number.set(number.get() + item)
        return number.get()

    token = number.set(5)
    assert map(next_number, [1, 2, 3], workers=1) == [6, 7, 8]
    assert number.get() == 5
    number.reset(token)


# The names of items


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


class Colour(enum.Enum):
    """An enumeration."""

    RED = 1
    GREEN = 2


def names(items: list[Any], key: Any = None) -> list[str]:
    """Return the names of the scopes that items get."""
    asking = ScriptedClient()
    found = map(
        lambda item: asking.build_request("Well?").sample, items, scope="s", key=key, workers=1
    )
    return [str(sample).removeprefix("s/").removesuffix("#0") for sample in found]


def digest(item: Any) -> str:
    """Return the name that an item gets by itself."""
    return names([item])[0]


@pytest.mark.newest_only
@given(st.lists(PLAIN, max_size=5), st.integers())
def test_an_item_keeps_a_name_of_its_own_in_any_order(items: list[Any], seed: int) -> None:
    """Sorted in any way, the same items have the same names, of which no two are equal."""
    shuffled = random.Random(seed).sample(items, len(items))
    found = names(items)
    assert Counter(found) == Counter(names(shuffled))
    assert len(set(found)) == len(items)


@given(st.lists(st.text("ab~1", min_size=1, max_size=4), max_size=8))
def test_no_two_keys_share_a_name(keys: list[str]) -> None:
    """A key that looks like another's second occurrence has a name of its own."""
    assert len(set(names(keys, key=lambda item: item))) == len(keys)


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ("bread", "~010de3fa8c734349"),
        (3, "~4e07408562bedb8b"),
        (3.0, "~4e07408562bedb8b"),
        (2.5, "~b8736b9999090496"),
        (True, "~b5bea41b6c623f7c"),
        (None, "~74234e98afe7498f"),
        (float("nan"), "~784d265ecaa56784"),
        (["a", 1], "~135f17a475a61afd"),
        ({"b": 2, "a": 1}, "~43258cff783fe703"),
        (datetime.date(2026, 1, 2), "~566849124c4fdf45"),
        (decimal.Decimal("1.50"), "~8808f0d2ad0004a0"),
        (pathlib.PurePosixPath("a/b"), "~98e1b15a92a4956d"),
        (uuid.UUID(int=1), "~374d417a9bda05a9"),
        ("\u00e9\n", "~d7cacaecd26f631e"),
        ({}, "~44136fa355b3678a"),
    ],
)
def test_digests_of_items_are_pinned(item: Any, name: str) -> None:
    """Others would make every item a new one, and pay for it again."""
    assert digest(item) == name


def test_scope_names_of_items_and_repeats_are_pinned() -> None:
    """In maps in maps, too."""

    def inner(_: str) -> Any:
        return map(sample, ["x"], repeats=2)

    assert map(inner, ["p"], scope="s", repeats=2) == [
        [
            [[f"s/~1fb680aa1ed965bc{repeat}/~ba2df4903a2c14e8{inner}#0" for inner in ("", "/~1")]]
            for repeat in ("", "/~1")
        ]
    ]


def test_different_items_that_look_alike_have_different_digests() -> None:
    """Types count, and so do the types inside."""
    day = datetime.datetime(2020, 1, 1)
    items = [
        1,
        "1",
        True,
        None,
        "None",
        [1],
        ["1"],
        {"1": 1},
        {"a": float("nan")},
        {"a": "nan"},
        Colour.RED,
        Colour.GREEN,
        "RED",
        day,
        day.date(),
        str(day),
        decimal.Decimal(1),
        uuid.UUID(int=1),
        Citizen("Lisa", 30),
        {"name": "Lisa", "age": 30},
        float("inf"),
        [1, 2],
        pathlib.PurePosixPath("1"),
        datetime.timedelta(1),
    ]
    assert len({digest(item) for item in items}) == len(items)


@pytest.mark.parametrize(
    "item", [object(), {"a": len}, Citizen, {"a": {"b": iter([])}}, b"ab", {1: "x"}, {"x"}]
)
def test_an_item_that_is_no_plain_data_is_refused(item: Any) -> None:
    """The error says which item it is, what it holds, and the remedy, and leaves as an item's."""
    with pytest.raises(
        TypeError, match=r"item 2 contains .* which is not plain data: give a key="
    ) as refused:
        names([1, item])
    assert len(refused.value.results) == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", [lambda item: item["id"], "id"])
def test_keys_name_the_scopes_of_items(key: Any) -> None:
    """Texts and whole numbers do; their repetition is counted."""
    rows = [{"id": "lisa"}, {"id": 7}, {"id": "lisa"}, {"id": "lisa"}, {"id": "a~1"}]
    assert names(rows, key) == ["lisa", "7", "lisa~1", "lisa~2", "a~~1"]


@settings(max_examples=2 * settings.default.max_examples)
@given(
    st.lists(st.tuples(st.text("a,%/#~2", max_size=3), st.text("a,%/#~2", max_size=3)), unique=True)
)
def test_no_two_pairs_of_columns_share_a_name(pairs: list[tuple[str, str]]) -> None:
    """Rows that differ in one of several columns have different names, which a scope may have."""
    rows = [{"one": one, "other": other} for one, other in pairs]
    found = names(rows, key=["one", "other"])
    assert len(set(found)) == len(rows)
    assert not any("/" in name or "#" in name or name.endswith("~1") for name in found)


def test_scope_names_made_of_columns_are_pinned() -> None:
    """Also those of several columns; others would make every item a new one."""
    rows = [{"town": "Bonn", "id": 7}, {"town": "a/b, 5 % #1~", "id": 7}, {"town": "", "id": 0}]
    assert names(rows, key=["town", "id"]) == ["Bonn,7", "a%2Fb%2C 5 %25 %231~~,7", ",0"]
    assert names(rows, key=("town",)) == ["Bonn", "a%2Fb%2C 5 %25 %231~~", "%"]


def ask_rows(rows: list[dict[str, Any]], **options: Any) -> None:
    """Ask every row of a survey the same question."""
    call = LLMCall(user="What will {{ name }} buy?", client=ScriptedClient(lambda _: "Bread."))
    call.map(rows, scope="survey", **options)


@pytest.mark.parametrize(
    ("rows", "options", "count"),
    [
        ([{"name": "Lisa", "id": 1}, {"name": "Lisa", "id": 2}, {"name": "Bart"}], {}, 2),
        ([{"name": "Lisa", "id": 1}, {"name": "Bart", "id": 1}], {"key": "id"}, 2),
        (
            [{"name": "a", "id": 1}, {"name": "a", "id": 1}, {"name": "b", "id": 1}],
            {"key": "id"},
            3,
        ),
        pytest.param(
            [{"name": "Lisa", "id": 1}, {"name": "Lisa", "id": 2}],
            {"dry_run": True},
            2,
            marks=pytest.mark.feature("plans"),
        ),
    ],
)
def test_different_items_of_one_name_are_warned_of(
    rows: list[dict[str, Any]], options: Any, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Only their order tells them apart: a warning counts them, and names the remedy."""
    ask_rows(rows, **options)
    assert f"{count} items have the same scope name as a different item" in caplog.text
    assert "Give map a key=" in caplog.text


# Errors


def test_a_failure_cancels_items_of_a_map_that_have_not_begun() -> None:
    """After a failure no other item begins, and only as many were taken ahead as documented."""
    begun: list[int] = []
    taken: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        raise ValueError

    with pytest.raises(ValueError):
        map(work, (taken.append(item) or item for item in range(1000)), workers=1)  # type: ignore[func-returns-value]
    assert len(begun) == 1
    assert len(taken) <= 2 * 1 + 63


@pytest.mark.parametrize(
    ("kind", "on_error"),
    [
        (ConfigError, "none"),
        (CacheMissError, "return"),
        (ScopeError, "none"),
        (BudgetExceededError, "return"),
        (SystemExit, "none"),
    ],
)
def test_an_error_that_concerns_all_items_ends_the_map(
    kind: type[BaseException], on_error: str
) -> None:
    """The next item would have it as well, so it is raised whatever ``on_error`` says."""

    def work(item: int) -> int:
        if item:
            raise kind("for all")
        return item

    with pytest.raises(kind) as caught:
        map(work, [0, 1], on_error=on_error, workers=1)
    assert caught.value.results == [0, None]  # type: ignore[attr-defined]


def test_imap_raises_after_what_is_done() -> None:
    """imap yields what had begun before it raises an item's exception."""
    yielded = []
    with pytest.raises(ZeroDivisionError) as caught:
        for pair in imap(divide, [1, 0, 2, 3], workers=1):
            yielded.append(pair)
    assert yielded[0] == (0, 6.0)
    assert caught.value.results == []  # type: ignore[attr-defined]


async def coroutine(item: int) -> int:
    """Return the item, asynchronously."""
    return item


MAP: Any = map  # called here as no type checker allows


@error_table(
    (
        "TypeError: fn is 3; it must be a function, an LLMCall or an @llm function",
        lambda: MAP(3, [1]),
    ),
    (
        "TypeError: the function of a map returned a coroutine",
        lambda: map(lambda item: coroutine(item), [1]),
    ),
    ("ValueError: repeats is 0; it must be at least 1", lambda: map(ask, [1], repeats=0)),
    (
        "TypeError: executor is int; it must be a concurrent.futures.Executor",
        lambda: MAP(ask, [1], executor=3),
    ),
    (
        "TypeError: key is 3; it must be a function of the item, the name of a column, or a list of "
        "such names",
        lambda: MAP(str, [{}], key=3),
    ),
    (
        "ValueError: key='id' names a column that a row lacks; it has name",
        lambda: map(str, [{"name": 1}], key="id"),
    ),
    ("TypeError: ...or a list of such names", lambda: MAP(str, [{}], key=["id", 3])),
    (
        "TypeError: key='nam' names a column, but an item is Citizen without it, not a row (a dict)",
        lambda: map(str, [Citizen("Lisa", 30)], key="nam"),
    ),
    (
        "TypeError: the key of item 1 is 7.0; it must be a string or a whole number",
        lambda: MAP(str, [7], key=float),
    ),
    (
        "ValueError: the key of item 1 is 'a/b'; it names a scope",
        lambda: map(str, ["a/b"], key=str),
    ),
    (
        "TypeError: a row is str; it must be a dict of the templates' variables",
        lambda: MAP(CALL, ["Lisa"]),
    ),
)
def test_a_wrong_argument_is_refused_before_any_call(line: str, call: Callable[[], object]) -> None:
    """In words that name it and what it may be."""
    with scope("s"):
        check_error(line, call)
    assert calls() == 0
    assert not CALLS.exists()


def fail_at_c(trial: Any) -> ValueError:
    """Run a map in a scope that fails at its third item, and return the exception."""

    def work(item: str) -> str:
        if item == "c":
            raise ValueError("bad")
        return ask(item)

    with trial, pytest.raises(ValueError, match="bad") as caught:
        map(work, "abcd", key=str, workers=1)
    return caught.value


def test_a_map_that_failed_goes_on_in_a_kept_scope() -> None:
    """Finished items are not asked for a second time."""
    trial = scope("trial")
    done = [result for result in fail_at_c(trial).results if result]  # type: ignore[attr-defined]
    assert done
    with trial:
        assert set(done) < set(map(ask, "abcd", key=str))
    assert calls() == 4


@NEEDS_NOTES
def test_a_note_says_which_item_failed_and_how_many_are_done() -> None:
    """It stands below the exception."""
    error: Any = fail_at_c(scope("trial"))
    done = [result for result in error.results if result]
    assert error.__notes__[0].startswith(f"item 3 of 4 (c): {len(done)} of 4 done")


@NEEDS_NOTES
def test_a_map_that_an_unreadable_answer_ended_names_on_error() -> None:
    """Running again would read the same recorded answer."""
    rate = LLMCall(
        user="{{ name }}?", output_type=int, output_retries=0, client=ScriptedClient(["x"])
    )
    with pytest.raises(OutputError) as caught:
        rate.map([{"name": "Ann"}])
    [note] = caught.value.__notes__
    assert 'on_error="return" continues' in note
    assert "run it again" not in note


def test_an_imap_left_early_gives_its_draws_back() -> None:
    """Answers that were not received go to the next call; received ones stay."""
    with scope("trial"):
        for _ in imap(sample, "abcdef", key=str, workers=1):
            break
        assert map(sample, "abcdef", key=str) == [
            "trial/a#1",
            *(f"trial/{item}#0" for item in "bcdef"),
        ]


# The bar


class Terminal(io.StringIO):
    """A terminal that keeps what it shows."""

    def isatty(self) -> bool:
        return True

    def last(self) -> str:
        """Return the last state of the line."""
        return self.getvalue().rstrip("\n").rpartition("\r")[2]


def in_a_file(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Make standard error a file; pytest puts its own there before each test."""
    made = io.StringIO()
    monkeypatch.setattr(sys, "stderr", made)
    return made


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 100) -> Terminal:
    """Make standard error a terminal of some width; pytest puts its own there before each test."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda stream: (columns, 24))
    return made


def test_the_bar_shows_progress_speed_hits_tokens_and_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Recorded answers count as cached."""
    terminal = on_terminal(monkeypatch)
    shown = r"100%\|.* 4/4 .*(it/s|s/it).* cached=1, tokens=24, cost=\$0\.9150.*"
    with llmcall.configured(prices={"gpt-6-luna": (1_000, 100_000)}):
        map(ask, "abca", workers=1)
    assert re.fullmatch(shown, terminal.last())


def test_the_bar_shows_a_cost_below_its_digits_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three answers of 12 tokens and 3 at a millionth of a USD in all cost something."""
    terminal = on_terminal(monkeypatch)
    with llmcall.configured(prices={"gpt-6-luna": (0.01, 0.1)}):
        map(ask, "abc", workers=1)
    assert "cost=<$0.0001" in terminal.last()


@pytest.mark.feature("adaptive_limits")
def test_the_bar_shows_how_many_calls_run_where_endpoints_find_how_many_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the end none runs; 16 may, as at first."""
    terminal = on_terminal(monkeypatch, 200)
    client = ScriptedClient(lambda messages: "yes", limits_max_concurrent_calls="auto")
    map(client.send_message, "abc", workers=1)
    assert " running=0/16, cached=0, " in terminal.last()


@pytest.mark.ci
def test_the_bar_says_until_when_a_rate_limit_holds_calls_back(
    monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer
) -> None:
    """The server's time, by the clock; afterwards the bar is silent about it."""
    terminal = on_terminal(monkeypatch, 200)
    server = ScriptedServer(httpserver, refusal(429, "slow down", headers={"retry-after": "3"}), OK)
    client = llmcall.OpenAIClient(
        base_url=server.base_url, api_key="none", cache_mode="off", on_error="raise"
    )
    begun = time.time()
    map(client.send_message, ["Bread?"])
    shown = re.findall(r"rate limit until (\d\d:\d\d:\d\d)", terminal.getvalue())
    ends = {time.strftime("%H:%M:%S", time.localtime(begun + seconds)) for seconds in range(2, 8)}
    assert shown and set(shown) <= ends
    assert "rate limit" not in terminal.last()


def test_progress_false_shows_no_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is shown at all."""
    terminal = on_terminal(monkeypatch)
    map(ask, "a", progress=False)
    assert terminal.getvalue() == ""


def test_output_to_a_file_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """tqdm is not even imported."""
    log_file = in_a_file(monkeypatch)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    map(ask, "ab")
    list(imap(ask, "ab"))
    assert log_file.getvalue() == ""


def test_a_bar_of_plain_text_is_drawn_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file, or a notebook without widgets: at the beginning, at most every second, and at the end."""
    log_file = in_a_file(monkeypatch)
    map(lambda _: time.sleep(0.005), range(300), workers=1, progress=True)
    drawings = log_file.getvalue().split("\r")[1:]
    assert 3 <= len(drawings) <= 2 + 10 and "300/300" in drawings[-1]
    assert "cached=0" in drawings[-1]


@pytest.mark.parametrize(
    ("shell", "is_shown"),
    [
        pytest.param(None, False, id="no shell"),
        pytest.param(SimpleNamespace(), False, id="a shell of IPython"),
        pytest.param(SimpleNamespace(kernel=1), True, id="a kernel's shell"),
    ],
)
def test_a_notebook_shows_the_bar(
    shell: Any, is_shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although there is no terminal; IPython alone is no notebook."""
    log_file = in_a_file(monkeypatch)
    monkeypatch.setattr(sys, "stdout", log_file)
    ipython = SimpleNamespace(version_info=(8, 0), get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    map(str, [1])
    assert ("1/1" in log_file.getvalue()) is is_shown


PACKAGE = pathlib.Path(llmcall.__file__).parent


def frames_of(error: BaseException | None) -> list[str]:
    """Return the functions in a traceback: the user's by name, llmcall's as ``llmcall``."""
    return [
        "llmcall" if PACKAGE in pathlib.Path(frame.filename).parents else frame.name
        for frame in traceback.extract_tb(error and error.__traceback__)
    ]


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_failed_call_in_a_map_shows_only_the_frames_of_its_user(attempts: int) -> None:
    """Those of llmcall, of tenacity and of the SDK are left out; the SDK's exception is the cause."""
    client = llmcall.OpenAIClient(
        base_url="http://127.0.0.1:9/v1", retry_max_attempts=attempts, retry_waiting_time=0
    )

    def greets(name: str) -> Any:
        return client.send_message(f"Hello, {name}", on_error="raise")

    with pytest.raises(llmcall.ServiceError) as caught:
        map(greets, ["Ann"])
    test = "test_a_failed_call_in_a_map_shows_only_the_frames_of_its_user"
    assert frames_of(caught.value) == [test, "llmcall", "greets"]
    cause = caught.value.__cause__
    assert type(cause).__module__ == "openai"
    assert frames_of(cause) == []


def test_an_error_of_the_function_of_a_map_keeps_its_frames() -> None:
    """It may be a fault of llmcall's."""
    with pytest.raises(ZeroDivisionError) as caught:
        map(divide, [0])
    assert frames_of(caught.value).count("llmcall") > 1
    assert frames_of(caught.value)[-1] == "divide"
