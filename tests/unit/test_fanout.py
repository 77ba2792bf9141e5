"""Many calls: map and imap in threads."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from dice import CALL, Dice, ask, calls, divide, greet, sample, samples
from hypothesis import given, settings
from hypothesis import strategies as st

import llmcall
from llmcall import imap, map, scope
from llmcall.errors import BudgetExceededError, CacheMissError, ConfigError, OutputError, ScopeError
from llmcall.testing import ScriptedClient

number: ContextVar[int] = ContextVar("a number of the caller's", default=0)


class Item:
    """Be an item that can be watched."""


def at_once(count: int) -> Any:
    """Return a function that ends only when so many of it run at the same time."""
    barrier = threading.Barrier(count)

    def meet(item: Any) -> Any:
        barrier.wait(30)
        return item

    return meet


# Order, threads, look-ahead


def test_results_are_in_the_order_of_the_items() -> None:
    """The last item may end first: its result is the last."""
    last = threading.Event()

    def wait(item: int) -> int:
        if item == 9:
            last.set()
        else:
            last.wait(30)
        return item * item

    assert map(wait, range(10)) == [item * item for item in range(10)]


def test_imap_yields_as_they_finish() -> None:
    """What is done comes at once, with its index."""
    first = threading.Event()

    def wait(item: str) -> str:
        if item == "slow":
            first.wait(30)
        return item.upper()

    found = imap(wait, ["slow", "quick"])
    assert next(found) == (1, "QUICK")
    first.set()
    assert list(found) == [(0, "SLOW")]


@pytest.mark.parametrize(("given", "workers"), [(None, 32), (3, 3)])
def test_threads_by_default(given: int | None, workers: int) -> None:
    """By default 32 items are worked on at once; or as many as are asked for."""
    assert map(at_once(workers), range(workers), workers=given) == list(range(workers))


def test_no_more_threads_than_calls_are_allowed() -> None:
    """MAX_CONCURRENT_CALLS, of each endpoint, bounds the default, and not what is asked for."""
    with llmcall.configured(limits_max_concurrent_calls=2):
        assert len(set(map(lambda item: threading.get_ident(), range(50)))) <= 2
        assert map(at_once(4), range(4), workers=4) == list(range(4))
    two = [llmcall.Endpoint(name, ("gpt-4o-mini",), api_key="key") for name in ("east", "west")]
    with llmcall.configured(limits_max_concurrent_calls=2, endpoints=two):
        assert map(at_once(4), range(4)) == list(range(4))


@pytest.mark.parametrize("items", [[], (), range(0), iter(()), {}])
def test_no_items(items: Any) -> None:
    """Of nothing comes nothing."""
    assert map(ask, items) == []
    assert list(imap(ask, items)) == []
    assert map(ask, items, repeats=2) == []


def test_items_are_taken_as_there_is_room() -> None:
    """A generator is taken from a few items ahead of the results, so that a million items take no memory."""
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(10_000):
            taken += 1
            yield item

    ahead = [taken - yielded for yielded, _ in enumerate(imap(str, items(), workers=4))]
    assert max(ahead) <= 2 * 4 + 1
    assert len(ahead) == 10_000


def test_items_and_results_are_forgotten() -> None:
    """Neither an item nor its result stays with imap once it was yielded."""
    alive: weakref.WeakSet[Item] = weakref.WeakSet()

    def items() -> Iterator[Item]:
        for _ in range(200):
            item = Item()
            alive.add(item)
            yield item

    most = 0
    for _, result in imap(lambda item: item, items(), workers=2):
        del result
        most = max(most, len(alive))
    assert most <= 2 * 2 + 2


@pytest.mark.slow
def test_a_long_generator_takes_constant_memory() -> None:
    """Twenty thousand items take no more memory than five hundred."""
    import tracemalloc

    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in imap(str, iter(range(count)), workers=2):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(100)
    assert peak(20_000) < 2 * peak(500)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("around", "how", "most"),
    [
        (None, {}, 40),
        (None, {"repeats": 2}, 40),
        (None, {"scope": "survey"}, 150),
        (None, {"scope": "survey", "repeats": 2, "key": str}, 150),
        ("trial", {}, 400),
        ("trial", {"scope": "survey"}, 400),
        ("trial", {"repeats": 2}, 700),
    ],
)
def test_what_stays_of_an_item(around: str | None, how: dict[str, Any], most: int) -> None:
    """Bytes that stay of each item: where nobody can come back to its scope, only that it was seen; else its draws."""
    import gc
    import tracemalloc

    def traced() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    looked = llmcall.recorded(divide)
    begin, end, after = 500, 3500, 0
    with llmcall.configured(cache_mode="off"), scope(around):
        tracemalloc.start()
        try:
            for count, _ in enumerate(imap(looked, iter(range(10_000, 20_000)), workers=2, **how)):
                if count == begin:
                    before = traced()
                if count == end:
                    after = traced()
                    break
        finally:
            tracemalloc.stop()
    assert (after - before) / (end - begin) < most


def test_a_scope_that_outlives_its_item_goes_on_counting() -> None:
    """A bound function that an item leaves behind draws after the item's own draws, also once the map is over."""
    left = map(lambda item: (sample(item), llmcall.bind(sample)), "ab", key=str, scope="survey")
    assert [(own, later("a")) for own, later in left] == [("survey/a#0", "survey/a#1"), ("survey/b#0", "survey/b#0")]


def test_repeats_and_the_scopes_of_an_item_are_apart() -> None:
    """A function that numbers its own scopes shares none with a repeat."""

    def both(item: str) -> list[str | None]:
        with scope("1"):
            inside = sample(item)
        return [sample(item), inside]

    assert map(both, "a", key=str, repeats=2, scope="survey", workers=1) == [
        [["survey/a#0", "survey/a/1#0"], ["survey/a/~1#0", "survey/a/~1/1#0"]]
    ]


def test_a_scope_left_open_by_an_item() -> None:
    """It is named, as where it is left open in any other scope."""
    opened = scope("open")
    with pytest.raises(ScopeError, match="the scope 'survey/a' ends before one that was opened after it"):
        map(lambda item: opened.__enter__(), "a", key=str, scope="survey")
    opened.__exit__(None, None, None)


# Scopes, keys, repeats


def test_outside_a_scope_it_is_a_cache() -> None:
    """Equal items get one answer, as in a loop, and a second run makes no call."""
    first = map(ask, ["a", "b", "a"])
    assert first[0] == first[2] != first[1]
    assert [ask(item) for item in ["a", "b", "a"]] == first
    assert (map(ask, ["b", "a"]), calls()) == ([first[1], first[0]], 2)
    assert map(sample, ["a"]) == [None]


@pytest.mark.parametrize("opened", ["around", "argument", "object", "process"])
def test_inside_a_scope_each_item_has_its_own(opened: str) -> None:
    """Equal items are draws of their own; each sample holds the map's scope, the item's name, and the draw."""
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


def test_the_root_scope_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMCALL_SCOPE is a scope as any other."""
    monkeypatch.setenv("LLMCALL_SCOPE", "replicate-2")
    llmcall.reset()
    assert map(sample, ["a"], key=str) == ["replicate-2/a#0"]
    assert map(sample, ["a"], key=str, scope="survey") == ["replicate-2/survey/a#0"]


def test_scope_none_says_that_none_is_meant() -> None:
    """A map in scope(None) is outside any scope, whatever is around it."""
    with scope("survey"):
        assert map(sample, ["a"], scope=scope(None)) == [None]


def test_without_scope_beside_one() -> None:
    """A map outside any scope runs while a scope is open elsewhere, as far as its caller may."""
    opened, done = threading.Event(), threading.Event()

    def hold() -> None:
        with scope("elsewhere"):
            opened.set()
            done.wait(30)

    with ThreadPoolExecutor(1) as other:
        held = other.submit(hold)
        opened.wait(30)
        with pytest.raises(ScopeError, match="scope is open in another thread"):
            map(sample, ["a"])
        with scope(None):
            assert map(sample, ["a"]) == [None]
        done.set()
        held.result()


def test_a_map_begins_where_the_scope_stands() -> None:
    """Two maps of the same items in one scope are two draws of each; in a new scope they are the first again."""
    with scope("trial"):
        assert map(sample, "ab", key=str) == ["trial/a#0", "trial/b#0"]
        assert map(sample, "ab", key=str) == ["trial/a#1", "trial/b#1"]
    assert map(sample, "ab", key=str, scope="trial") == ["trial/a#0", "trial/b#0"]


@settings(max_examples=15)
@given(st.lists(st.integers(0, 4), max_size=6), st.permutations(range(6)), st.integers(0, 4))
def test_sorting_inserting_and_dropping_make_no_new_call(items: list[int], order: list[int], more: int) -> None:
    """Whatever is done to the items, each keeps its answers."""
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


def test_adding_a_column_makes_no_new_call() -> None:
    """Of a row, an LLMCall's item is what its templates use; with a key, only the key counts."""
    rows = [{"name": "Lisa"}, {"name": "Bart"}]
    first = CALL.map(rows, scope="survey")
    wider = [{"name": row["name"], "age": 8} for row in rows]
    assert (CALL.map(wider, scope="survey"), calls()) == (first, 2)
    assert (map(CALL, wider[::-1], scope="survey"), calls()) == (first[::-1], 2)
    greeted = greet.map(rows, scope="survey")
    assert (greet.map([{**row, "greeting": "Hello", "x": 1} for row in rows], scope="survey"), calls()) == (greeted, 4)


def test_a_key_survives_a_changed_item() -> None:
    """The key alone names the scope: what else changes in an item moves no draw."""
    first = map(lambda row: sample(row["name"]), [{"id": 1, "name": "Lisa", "age": 7}], key="id", scope="survey")
    again = map(lambda row: sample(row["name"]), [{"id": 1, "name": "Lisa", "age": 8}], key="id", scope="survey")
    assert first == again == ["survey/1#0"]
    assert calls() == 1


def test_repeats() -> None:
    """Three draws of each item: a list of lists; repeat 0 stands in the item's scope, the others in one below."""
    assert map(sample, ["a"], repeats=3) == [[None, "~1#0", "~2#0"]]
    assert map(sample, "ab", key=str, repeats=2, scope="survey") == [
        ["survey/a#0", "survey/a/~1#0"],
        ["survey/b#0", "survey/b/~1#0"],
    ]


@pytest.mark.parametrize("where", [None, "survey"])
def test_more_repeats_keep_the_earlier_draws(where: str | None) -> None:
    """Raising repeats draws only what is new."""
    first = map(ask, ["a", "b"], repeats=2, scope=where)
    more = map(ask, ["a", "b"], repeats=3, scope=where)
    assert [draws[:2] for draws in more] == first
    assert [draws[:1] for draws in first] == [[answer] for answer in map(ask, ["a", "b"], scope=where)]
    assert len({answer for draws in more for answer in draws}) == calls() == 6


def test_imap_with_repeats() -> None:
    """An item comes when all its repeats are there, as a list."""
    assert dict(imap(sample, ["a", "b"], repeats=2)) == {0: [None, "~1#0"], 1: [None, "~1#0"]}


def test_context_variables_go_with_the_items() -> None:
    """Each item sees a copy of the caller's context; what it sets there touches neither caller nor neighbours."""

    def next_number(item: int) -> int:
        number.set(number.get() + item)
        return number.get()

    token = number.set(5)
    assert map(next_number, [1, 2, 3], workers=1) == [6, 7, 8]
    assert number.get() == 5
    number.reset(token)


def test_map_inside_map() -> None:
    """Scopes of an inner map stand below the item's."""

    def inner(item: str) -> list[str]:
        return map(sample, [f"{item}1", f"{item}2"], key=str)

    assert map(inner, ["a"], key=str, scope="outer") == [["outer/a/a1#0", "outer/a/a2#0"]]


def test_an_executor_of_threads() -> None:
    """A pool of threads of one's own is as good, and stays open."""
    with ThreadPoolExecutor(2) as pool:
        assert map(sample, "ab", key=str, scope="survey", executor=pool) == ["survey/a#0", "survey/b#0"]
        assert map(ask, ["a"], executor=pool) == map(ask, ["a"])
        assert pool.submit(int, "3").result() == 3


# Cassettes


def test_a_cassette_has_a_map_s_records_in_the_order_of_its_items() -> None:
    """Whichever item ends first: the file is the same, and replays all of it."""
    last = threading.Event()

    def backwards(item: int) -> str:
        if item == 3:
            found = ask(item)
            last.set()
            return found
        last.wait(30)
        return ask(item)

    with llmcall.cassette("map.jsonl"):
        first = map(backwards, range(4))
    with llmcall.cassette("loop.jsonl"):
        assert [ask(item) for item in range(4)] == first
    with open("map.jsonl", "rb") as one, open("loop.jsonl", "rb") as other:
        assert one.read() == other.read()
    with llmcall.configured(cache_mode="off"), llmcall.cassette("map.jsonl", mode="none"):
        assert map(ask, range(4)) == first
    assert calls() == 4


# Errors


def test_raise_is_the_default() -> None:
    """The first exception is raised, with the results that there are."""
    with pytest.raises(ZeroDivisionError) as caught:
        map(divide, [1, 2, 0], workers=1)
    assert caught.value.results == [6.0, 3.0, None]  # type: ignore[attr-defined]


def test_what_has_begun_is_waited_for() -> None:
    """An exception leaves only when no item's code runs; what that gave is among the results."""
    failed = threading.Event()

    def work(item: str) -> str:
        if item == "bad":
            failed.set()
            raise ValueError(item)
        failed.wait(30)
        return item.upper()

    with pytest.raises(ValueError, match="bad") as caught:
        map(work, ["good", "bad"], workers=2)
    assert caught.value.results == ["GOOD", None]  # type: ignore[attr-defined]


def test_what_has_not_begun_is_cancelled() -> None:
    """After a failure no further item is taken, and none begins."""
    begun: list[int] = []
    taken: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        raise ValueError

    with pytest.raises(ValueError):
        map(work, (taken.append(item) or item for item in range(1000)), workers=1)  # type: ignore[func-returns-value]
    assert len(begun) <= 2
    assert len(taken) <= 2 * 1 + 1


def test_results_of_repeats() -> None:
    """Of an item of which some repeats are there, the others are None."""

    def work(item: int) -> int:
        if llmcall.replay.scopes.path() == "~1":
            raise ValueError
        return item

    with pytest.raises(ValueError) as caught:
        map(work, [5, 6], repeats=2, workers=1)
    assert caught.value.results[0] == [5, None]  # type: ignore[attr-defined]


def test_none_and_return() -> None:
    """One failed item loses no other: None or the exception stands in its place."""
    assert map(divide, [1, 0, 2], on_error="none") == [6.0, None, 3.0]
    first, error, last = map(divide, [1, 0, 2], on_error="return")
    assert (first, last) == (6.0, 3.0)
    assert isinstance(error, ZeroDivisionError)


def test_none_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What became None says why in the log."""
    map(divide, [1, 0], on_error="none")
    assert caplog.messages == ["item 1 of 2 (0) failed: ZeroDivisionError: division by zero"]


@pytest.mark.parametrize("kind", [ConfigError, CacheMissError, ScopeError, BudgetExceededError, SystemExit])
@pytest.mark.parametrize("on_error", ["none", "return"])
def test_what_concerns_all_items_is_raised(kind: type[BaseException], on_error: str) -> None:
    """An error that the next item would have as well ends the map."""

    def work(item: int) -> int:
        if item:
            raise kind("for all")
        return item

    with pytest.raises(kind) as caught:
        map(work, [0, 1], on_error=on_error, workers=1)
    assert caught.value.results == [0, None]  # type: ignore[attr-defined]


def test_replay_without_a_record() -> None:
    """In the mode replay a map gives what is recorded, and raises at what is not."""
    map(ask, ["a"])
    with llmcall.configured(cache_mode="replay"), pytest.raises(CacheMissError) as caught:
        map(ask, ["a", "b"], workers=1)
    assert caught.value.results[0].startswith("item a")  # type: ignore[attr-defined]
    assert calls() == 1


def test_a_failed_call_goes_on_from_there() -> None:
    """All that finished is in the cache: the second run asks only for what failed."""
    with pytest.raises(llmcall.InvalidRequestError):
        map(ask, ["a", "b", "fail"], scope="survey", workers=1)
    assert map(ask, ["a", "b", "c"], scope="survey")[0].startswith("item a")
    assert calls() == 4


def test_the_items_may_fail() -> None:
    """An exception of the iterable, or of a key, leaves as one of an item does."""

    def items() -> Iterator[int]:
        yield 1
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="gone") as caught:
        map(divide, items())
    assert caught.value.results == [6.0]  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="item 1 holds object, which is not plain data") as refused:
        map(id, [1, object()], scope="survey")
    assert len(refused.value.results) == 2  # type: ignore[attr-defined]


def test_imap_raises_after_what_is_done() -> None:
    """imap yields what had begun before it raises an item's exception."""
    yielded = []
    with pytest.raises(ZeroDivisionError) as caught:
        for pair in imap(divide, [1, 0, 2, 3], workers=1):
            yielded.append(pair)
    assert yielded[0] == (0, 6.0)
    assert caught.value.results == []  # type: ignore[attr-defined]


def test_leaving_imap_early() -> None:
    """Who leaves imap ends it: no further item begins, and none runs on."""
    begun = []
    found = imap(lambda item: begun.append(item), range(1000), workers=2)
    next(found)
    found.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name.startswith("llmcall map"):
            thread.join(30)
    assert len(begun) <= 2 * 2 + 2


def test_an_imap_that_nobody_asks_does_nothing() -> None:
    """Arguments are checked at once; nothing is run before the first result is asked for."""
    begun: list[int] = []
    found = imap(begun.append, [1])
    with pytest.raises(TypeError, match="fn is 3"):
        imap(3, [1])
    assert begun == []
    assert list(found) == [(0, None)]


def test_an_error_that_takes_no_attributes() -> None:
    """Results are attached to any exception."""

    class FrozenError(Exception):
        """Refuse attributes of a user's."""

        def __setattr__(self, name: str, value: Any) -> None:
            if not name.startswith("__"):
                raise AttributeError(name)
            super().__setattr__(name, value)

    def work(item: int) -> None:
        raise FrozenError

    with pytest.raises(FrozenError) as caught:
        map(work, [1])
    assert caught.value.results == [None]  # type: ignore[attr-defined]


async def coroutine(item: int) -> int:
    """Be asynchronous."""
    return item


async def agenerator() -> Any:
    """Be asynchronous."""
    yield 1


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((3, [1]), {}, TypeError, "fn is 3; it must be a function, an LLMCall or an @llm function"),
        ((coroutine, [1]), {}, TypeError, "coroutine is asynchronous: give a function that is not"),
        ((lambda item: coroutine(item), [1]), {}, TypeError, "the function of a map is asynchronous"),
        ((ask, 3), {}, TypeError, "items is int; it must be an iterable"),
        ((ask, agenerator()), {}, TypeError, "items is an asynchronous generator"),
        ((ask, [1]), {"key": 3}, TypeError, "key is 3; it must be a function"),
        ((ask, [1]), {"repeats": 1.5}, TypeError, "repeats is 1.5; it must be a whole number"),
        ((ask, [1]), {"repeats": 0}, ValueError, "repeats is 0; it must be at least 1"),
        ((ask, [1]), {"repeats": True}, TypeError, "repeats is True"),
        ((ask, [1]), {"workers": 0}, ValueError, "workers is 0; it must be at least 1"),
        ((ask, [1]), {"workers": "2"}, TypeError, "workers is '2'; it must be a whole number"),
        ((ask, [1]), {"progress": "yes"}, TypeError, "progress is 'yes'; it must be True, False or None"),
        ((ask, [1]), {"on_error": "ignore"}, ValueError, "on_error is 'ignore'; it must be one of raise, none, return"),
        ((ask, [1]), {"executor": 3}, TypeError, "executor is int; it must be a concurrent.futures.Executor"),
        ((ask, [1]), {"scope": ["a"]}, TypeError, "the scope name must be a string or a number, not list"),
        ((ask, [1]), {"scope": "a/b"}, ValueError, "holds '/' or '#'"),
        ((CALL, ["Lisa"]), {}, TypeError, "a row is str; it must be a dict of the templates' variables"),
        ((CALL, [{1: "Lisa"}]), {}, TypeError, "a row has the column 1; a column's name must be a text"),
        ((greet, [{"greeting": "Hi"}]), {}, TypeError, "missing a required argument: 'name'"),
    ],
)
@pytest.mark.parametrize("function", [map, imap])
def test_wrong_arguments(function: Any, arguments: Any, options: Any, error: type[Exception], words: str) -> None:
    """A wrong argument is refused in words that name it and what it may be."""
    with pytest.raises(error) as caught:
        list(function(*arguments, **options))
    assert words in str(caught.value)
    assert calls() == 0


# LLMCall and @llm


def test_rows_of_a_call() -> None:
    """A row's columns are the templates' variables; the values come in the order of the rows."""
    client = ScriptedClient(lambda messages: str(len(messages[0]["content"])))
    call = llmcall.LLMCall(user="{{ name }}", output_type=int, client=client)
    longer, shorter = call.map([{"name": "x" * 20}, {"name": ""}])
    assert longer - shorter == 20
    assert map(call, [{"name": ""}], repeats=2) == [[shorter, shorter]]


def test_rows_of_a_function() -> None:
    """A row holds the arguments of an @llm function; what is no row is its first argument."""
    rows: list[Any] = [{"name": "Lisa"}, {"name": "Bart", "greeting": "Hi", "age": 10}, "Maggie"]
    assert [answer.rpartition(" ")[0] for answer in greet.map(rows)] == ["Hello, Lisa!", "Hi, Bart!", "Hello, Maggie!"]


class Shop:
    """Have a method that a model answers."""

    def __init__(self, name: str) -> None:
        self.name = name

    @llmcall.llm(client=Dice())
    def sells(shop, product: str) -> str:
        """Does {{ shop.name }} sell {{ product }}?"""
        raise NotImplementedError


def test_rows_of_a_method() -> None:
    """A bound method's object is no part of an item."""
    first = Shop("Moe's").sells.map(["beer", "milk"], scope="survey")
    assert first[0].startswith("Does Moe's sell beer?")
    assert (Shop("Moe's").sells.map([{"product": "milk"}], scope="survey"), calls()) == (first[1:], 2)


def test_a_row_that_fails() -> None:
    """A missing variable or an answer that does not fit is that row's failure, and no other's."""
    client = ScriptedClient(lambda messages: "seven" if "Lisa" in messages[0]["content"] else "7")
    call = llmcall.LLMCall(user="{{ name }}?", output_type=int, output_retries=0, client=client)
    found = call.map([{"name": "Lisa"}, {}, {"name": "Bart"}], on_error="return")
    assert [type(value) for value in found] == [OutputError, llmcall.TemplateError, int]
    with pytest.raises(OutputError) as caught:
        call.map([{"name": "Bart"}, {"name": "Lisa"}], workers=1)
    assert caught.value.results == [7, None]  # type: ignore[attr-defined]


def test_a_call_that_wants_no_errors() -> None:
    """With on_error="none" among its parameters, a call's own failures are None."""
    call = llmcall.LLMCall(user="{{ name }} fail", client=Dice(), on_error="none")
    assert call.map([{"name": "Lisa"}]) == [None]


def test_the_caller_s_last_answer_stays() -> None:
    """What items were asked is not the caller's last answer."""
    client = ScriptedClient(["first", "second"])
    call = llmcall.LLMCall(user="{{ name }}", client=client)
    call(name="Lisa")
    call.map([{"name": "Bart"}])
    assert call.model_output is not None
    assert call.model_output.content == "first"


def test_from_a_running_event_loop() -> None:
    """A map may be run beside an event loop, in a thread that sees its task's scope."""

    async def main() -> list[Any]:
        with scope("survey"):
            return await asyncio.to_thread(map, sample, ["a"], key=str)

    assert asyncio.run(main()) == ["survey/a#0"]


def test_asynchronous_calls_inside_an_item() -> None:
    """An item's function may run an event loop of its own."""

    def work(item: str) -> str:
        return (asyncio.run(Dice().asend_message(item, on_error="raise"))).content or ""

    assert map(work, ["a", "b"], scope="survey") == map(work, ["a", "b"], scope="survey")
    assert calls() == 2
