"""Functions that are recorded as a model's answers are: by name, arguments and scope, in the cache and on cassettes."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import multiprocessing
import random
import subprocess
import sys
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import given
from programs import ran

import llmcall
from llmcall import CacheMissError, cassette, recorded, scope
from llmcall.cache.cache import shared_cache
from llmcall.replay.recorded import recordable
from llmcall.testing import ScriptedClient

CALLS: list[Any] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    """Forget what earlier tests called."""
    CALLS.clear()


@recorded
def count(*things: Any) -> int:
    """Return how often this was run."""
    CALLS.append(things)
    return len(CALLS)


@recorded
async def acount(*things: Any) -> int:
    """Return how often this was run, asynchronously."""
    CALLS.append(things)
    counted = len(CALLS)
    await asyncio.sleep(0)
    return counted


def records() -> list[Any]:
    """Return the records of the cache."""
    return list(shared_cache(llmcall.settings().cache_path).records())


def test_a_result_is_run_for_once() -> None:
    """The same arguments get the same result, which is run for once; others are run for."""
    assert [count("a"), count("a"), count("b"), count("a")] == [1, 1, 2, 1]
    assert CALLS == [("a",), ("b",)]


def test_the_record() -> None:
    """A record holds name, version, arguments with defaults and namespace, and the value."""

    @recorded(name="market.price", version=2)
    def price_of(item: str, *others: str, currency: str = "coins", **more: Any) -> float:
        return 2.5

    with llmcall.configured(cache_namespace="lab"):
        assert price_of("bread", "salt", day=1.0) == 2.5
    (record,) = records()
    assert (record.kind, record.sample, record.cost, record.host) == ("function", None, None, None)
    assert record.request == {
        "function": "market.price",
        "version": 2,
        "arguments": {"item": "bread", "others": ["salt"], "currency": "coins", "more": {"day": 1}},
        "namespace": "lab",
    }
    assert record.response == {"value": 2.5}


def test_the_name_is_the_module_s_and_the_qualified_one() -> None:
    """Without a name, a function is known by its module and qualified name."""

    @recorded
    def clock() -> int:
        return 7

    clock()
    function = f"{__name__}.test_the_name_is_the_module_s_and_the_qualified_one.<locals>.clock"
    assert records()[0].request == {"function": function, "arguments": {}}


SCRIPT = """
import multiprocessing, random, sys
from concurrent.futures import ProcessPoolExecutor
import llmcall

@llmcall.recorded
def dice(item):
    return random.random()

if __name__ == "__main__":
    with llmcall.cassette("dice.jsonl", mode=sys.argv[1]), llmcall.scope("day"):
        if len(sys.argv) > 2:
            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(sys.argv[2])) as executor:
                print(llmcall.map(dice, range(4), executor=executor))
        else:
            print(llmcall.map(dice, range(4)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_a_pool_s_workers_record_is_replayed_without_one(method: str) -> None:
    """A function of the script itself has the same name in the processes that import the script anew."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"there is no {method} here")
    Path("script.py").write_text(SCRIPT)

    def played(*arguments: str) -> str:
        command = [sys.executable, "script.py", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout

    assert played("once", method) == played("none") == played("none", method)


def test_a_recorded_function_looks_like_itself() -> None:
    """Name, docstring and kind are those of the function."""
    assert (count.__name__, count.__doc__) == ("count", "Return how often this was run.")
    assert asyncio.iscoroutinefunction(acount) and not asyncio.iscoroutinefunction(count)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda f: f(1, 2), lambda f: f(b=2, a=1)),
        (lambda f: f(1), lambda f: f(1, b=3)),
        (lambda f: f(1.0), lambda f: f(1)),
        (lambda f: f((1, 2)), lambda f: f([1, 2])),
        (lambda f: f({"x": 1, "y": 2}), lambda f: f({"y": 2, "x": 1.0})),
        (lambda f: f(1, c=4, d=5), lambda f: f(1, d=5, c=4)),
    ],
)
def test_spellings_of_the_same_call(one: Any, other: Any) -> None:
    """How an argument is passed or written does not matter."""

    @recorded
    def function(a: Any, b: int = 3, **others: int) -> int:
        CALLS.append(a)
        return len(CALLS)

    assert (one(function), other(function)) == (1, 1)


@pytest.mark.parametrize("change", [{"version": 2}, {"version": "1"}, {"name": "other"}])
def test_what_makes_another_function(change: Any) -> None:
    """Another version or name has other results."""

    def function() -> int:
        CALLS.append(None)
        return len(CALLS)

    first = recorded(name="f", version=1)(function)
    second = recorded(**{"name": "f", "version": 1, **change})(function)
    assert (first(), second(), recorded(name="f", version=1)(function)()) == (1, 2, 1)


def test_draws() -> None:
    """Inside a scope a repeated call is a new draw, and each draw replays."""

    def run() -> list[int]:
        with scope("trial"):
            return [count(), count(), count("other"), count()]

    assert run() == run() == [1, 2, 3, 4]
    assert sorted(record.sample for record in records()) == ["trial#0", "trial#0", "trial#1", "trial#2"]


def test_an_exception_is_not_recorded_and_gives_its_draw_back(caplog: pytest.LogCaptureFixture) -> None:
    """After an exception the next call takes the same draw; the cassette says at its end that something failed."""

    @recorded(name="unsteady")
    def unsteady() -> int:
        CALLS.append(None)
        if len(CALLS) == 1:
            raise ZeroDivisionError
        return len(CALLS)

    with cassette("c.jsonl"), scope("a"):
        with pytest.raises(ZeroDivisionError):
            unsteady()
        assert unsteady() == 2
    assert [record.sample for record in records()] == ["a#0"]
    assert [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING] == [
        "1 call failed for good (1 in scope 'a'; the first: unsteady: ZeroDivisionError). A failure is not recorded, "
        "so a replay of the cassette c.jsonl will not go as this run did: run it again, and only what is missing is "
        "asked"
    ]


def test_asynchronous_functions() -> None:
    """An async function is recorded the same way: draws, records, exceptions and identical calls at once."""

    async def run() -> list[int]:
        with scope("trial"):
            return [await acount(), await acount()]

    async def at_once() -> list[int]:
        return list(await asyncio.gather(acount("x"), acount("x"), acount("y")))

    assert asyncio.run(run()) == asyncio.run(run()) == [1, 2]
    assert asyncio.run(at_once()) == [3, 3, 4] and len(CALLS) == 4


def test_a_cancelled_call_gives_its_draw_back() -> None:
    """Cancelling an async call leaves no record, and its draw is the next one's."""
    begun = asyncio.Event()

    @recorded(name="slow")
    async def slow() -> str:
        CALLS.append(None)
        if len(CALLS) == 1:
            begun.set()
            await asyncio.Event().wait()
        return "done"

    async def run() -> str:
        with scope("a"):
            task = asyncio.create_task(slow())
            await begun.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return await slow()

    assert asyncio.run(run()) == "done"
    assert [record.sample for record in records()] == ["a#0"]


def test_identical_calls_at_once_run_once() -> None:
    """Of identical calls under way in several threads one runs, and all get its result, each a copy of its own."""
    inside, go_on = threading.Event(), threading.Event()

    @recorded(name="shared")
    def shared() -> list[int]:
        CALLS.append(None)
        inside.set()
        assert go_on.wait(10)
        return [len(CALLS)]

    with ThreadPoolExecutor(3) as executor:
        first = executor.submit(shared)
        assert inside.wait(10)
        others = [executor.submit(shared) for _ in range(2)]
        go_on.set()
        results = [each.result() for each in (first, *others)]
    assert results == [[1]] * 3 and len({id(each) for each in results}) == 3


def test_a_failed_leader_is_succeeded() -> None:
    """A follower whose leader failed runs the function itself; the exception is the leader's alone."""
    inside, go_on = threading.Event(), threading.Event()

    @recorded(name="unsteady")
    def unsteady() -> int:
        CALLS.append(None)
        if len(CALLS) == 1:
            inside.set()
            assert go_on.wait(10)
            raise ZeroDivisionError
        return len(CALLS)

    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(unsteady)
        assert inside.wait(10)
        second = executor.submit(unsteady)
        go_on.set()
        assert isinstance(first.exception(), ZeroDivisionError) and second.result() == 2


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_function_that_calls_itself(asynchronous: bool) -> None:
    """A function that tries itself again, with the same arguments, does not wait for itself."""

    @recorded(name="again")
    def again() -> int:
        CALLS.append(None)
        return len(CALLS) if len(CALLS) == 3 else again()

    @recorded(name="aagain")
    async def aagain() -> int:
        CALLS.append(None)
        return len(CALLS) if len(CALLS) == 3 else await asyncio.ensure_future(aagain())

    assert (asyncio.run(aagain()) if asynchronous else again()) == 3


class Market:
    """Be an object that is no plain data, with a few methods."""

    def __init__(self, name: str) -> None:
        self.name = name

    @recorded
    def price(self, item: str) -> str:
        """Return what nobody else returns."""
        CALLS.append(item)
        return f"{self.name} {len(CALLS)}"

    @classmethod
    @recorded
    def kinds(cls) -> str:
        """Return the class's name."""
        return cls.__name__

    @staticmethod
    @recorded
    def tax(rate: float) -> float:
        """Return twice the rate."""
        return rate * 2


class Basket(dict):  # type: ignore[type-arg]
    """Be an object that is plain data."""

    @recorded
    def price(self) -> int:
        """Return the sum."""
        CALLS.append(dict(self))
        return sum(self.values())


def test_methods() -> None:
    """An object does not enter, so that two of them share an answer; their scopes tell them apart."""
    one, other = Market("one"), Market("other")
    assert [one.price("salt"), other.price("salt"), Market.price(other, "salt")] == ["one 1"] * 3
    with scope("other"):
        assert other.price("salt") == "other 2"
    assert records()[0].request["arguments"] == {"item": "salt"}
    assert (Market.kinds(), Market.tax(2), one.tax(2)) == ("Market", 4, 4)


def test_a_plain_object_enters() -> None:
    """An object that is plain data itself enters like any argument."""
    assert [Basket(salt=1).price(), Basket(salt=2).price(), Basket(salt=1).price()] == [1, 2, 1]
    assert records()[0].request["arguments"] == {"self": {"salt": 1}} and len(CALLS) == 2


class Pair(NamedTuple):
    """Be a tuple with names."""

    a: int
    b: str


class Colour(str, enum.Enum):
    """Be a string of a class of its own."""

    RED = "red"


@pytest.mark.parametrize(
    ("argument", "place"),
    [
        ({1, 2}, "thing is a set"),
        (object(), "thing is an object"),
        ([{"a": [b"x"]}], "thing[0].a[0] is a bytes"),
        ({1: 2}, "thing has the key 1"),
        (math.nan, "thing is nan"),
    ],
)
def test_arguments_that_are_not_plain(argument: Any, place: str) -> None:
    """An argument that is not plain data is refused by name before the function runs, and takes no draw."""

    @recorded(name="look")
    def look(thing: Any) -> int:
        CALLS.append(thing)
        return 1

    with scope("a"):
        with pytest.raises((TypeError, ValueError), match=rf"^look: {place.replace('[', chr(92) + '[')}"):
            look(argument)
        assert not CALLS
        look("plain")
    assert [record.sample for record in records()] == ["a#0"]


def test_arguments_that_do_not_fit() -> None:
    """Arguments that the function does not take are a TypeError that names it."""

    @recorded(name="look")
    def look(thing: Any) -> int:
        return 1

    with pytest.raises(TypeError, match=r"^look: missing a required argument: 'thing'"):
        look()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        ({"a": [1, {2}]}, TypeError, "price: the result.a[1] is of type set; only dict, list, str"),
        (object(), TypeError, "price: the result is of type object; only"),
        ({1: "a"}, TypeError, "price: the result has a key of type int; only text keys"),
        (Fraction(1, 3), TypeError, "price: the result is of type Fraction; only"),
        (1j, TypeError, "price: the result is of type complex; only"),
        (bytearray(b"a"), TypeError, "price: the result is of type bytearray; only"),
        ([math.inf], ValueError, "price: the result[0] is inf, which JSON cannot hold"),
        ("\ud800", ValueError, "price: the result has a lone surrogate at index 0"),
        pytest.param(10**5000, ValueError, "price: the result is a number of too many digits", id="digits"),
    ],
)
def test_results_that_are_not_plain(result: Any, error: type[Exception], message: str) -> None:
    """A result that cannot be recorded is refused, naming function and place; nothing is recorded."""
    with scope("a"):
        with pytest.raises(error) as caught:
            recorded(name="price")(lambda: result)()
        assert str(caught.value).startswith(message)
        assert recorded(name="price")(lambda: 1)() == 1
    assert [record.sample for record in records()] == ["a#0"]


def test_a_generator_is_refused_when_it_is_decorated() -> None:
    """What can have no plain result is refused at once."""

    def steps() -> Any:
        yield 1

    async def asteps() -> Any:
        yield 1

    for function in (steps, asteps):
        with pytest.raises(TypeError, match="steps is a generator function; return a list"):
            recorded(function)
    with pytest.raises(TypeError, match="takes a function, not <class"):
        recorded(Market)
    with pytest.raises(TypeError, match="put it below @classmethod"):
        recorded(classmethod(steps))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"has no name of its own; give it one: recorded\(name="):
        recorded(lambda: 1)
    with pytest.raises(TypeError, match=r"version is 1\.5"):
        recorded(version=1.5)(count)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="name is ''"):
        recorded(name="")(count)


@pytest.mark.parametrize("mode", ["auto", "off", "cassette"])
def test_live_equals_replay(mode: str) -> None:
    """Live and replayed, a result is the same, in the types and the order of names too."""
    result = {
        "z": (1, 2.0, -0.0, True, None),
        "role": Pair(1, "x"),
        "a": OrderedDict(y=Colour.RED, content="x" * 600, x=b"\x00\xff"),
        "": {"$text": 10**30},
    }
    expected = (
        "{'role': [1, 'x'], '': {'$text': 1000000000000000000000000000000}, 'a': {'content': '"
        + "x" * 600
        + "', 'x': b'\\x00\\xff', 'y': 'red'}, 'z': [1, 2.0, -0.0, True, None]}"
    )

    @recorded(name="f")
    def function() -> Any:
        CALLS.append(None)
        return result

    with llmcall.configured(cache_mode="off" if mode != "auto" else "auto"):
        if mode == "cassette":
            for _ in range(2):
                with cassette("c.jsonl"):
                    assert repr(function()) == expected
        else:
            assert repr(function()) == repr(function()) == expected
    assert len(CALLS) == (2 if mode == "off" else 1)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@given(PLAIN)
def test_any_plain_result_comes_back_the_same(result: Any) -> None:
    """Whatever the plain result, the first return, the cache's and the cassette's are one."""
    path = f"{random.Random(repr(result)).random()}.jsonl"  # each example has a cassette of its own
    function = recorded(name=path)(lambda: result)
    with cassette(path, mode="rewrite"):
        live = function()
    again = function()
    with cassette(path, mode="none"):
        assert repr(live) == repr(again) == repr(function()) == repr(recordable(result, "f"))


def test_a_caller_may_change_what_it_gets() -> None:
    """Results are copies: changing one changes no other, nor what is recorded."""

    @recorded(name="f")
    def function() -> Any:
        return {"a": [1]}

    with llmcall.configured(cache_mode="off"), cassette("c.jsonl"):
        for _ in range(3):
            result = function()
            assert result == {"a": [1]}
            result["a"].append(2)
    with cassette("c.jsonl", mode="none"):
        assert function() == {"a": [1]}


def test_modes() -> None:
    """``auto``, ``replay``, ``refresh`` and ``off`` mean for functions what they mean for models."""
    with llmcall.configured(cache_mode="off"):
        assert [count(), count()] == [1, 2] and not records()
    assert [count(), count()] == [3, 3]
    with llmcall.configured(cache_mode="replay"):
        assert count() == 3
        with pytest.raises(CacheMissError, match=r"this function request to .*test_recorded\.count is not recorded"):
            count("other")
    with llmcall.configured(cache_mode="refresh"):
        assert [count(), count()] == [4, 4]
    assert (count(), len(CALLS)) == (4, 4)


def test_a_miss_gives_its_draw_back() -> None:
    """A call that was not recorded moves no draw."""
    with scope("a"):
        with llmcall.configured(cache_mode="replay"), pytest.raises(CacheMissError, match=r"scope +a, draw 0"):
            count()
        count()
    assert [record.sample for record in records()] == ["a#0"]


def test_normalizers_hold_for_arguments() -> None:
    """What ``NORMALIZE`` names in the text of an argument makes no miss; the function gets the text as it is."""
    with llmcall.configured(cache_normalize=("times",)):
        assert count("at 10:15", {"k": ["2026-11-20"]}) == count("at 23:59", {"k": ["2027-01-01"]}) == 1
        assert count("by 10:15", {"k": ["2026-11-20"]}) == 2
    assert CALLS[0] == ("at 10:15", {"k": ["2026-11-20"]})


def test_usage_counts_models_only() -> None:
    """A recorded function is no model call, neither live nor replayed."""
    before = llmcall.usage()
    with llmcall.track() as usage:
        count()
        count()
    assert (usage.calls, usage.cached_calls) == (0, 0) and llmcall.usage() == before


def test_models_inside_move_no_draw_outside() -> None:
    """A replay does not run the function, so what it asks of models stands in a scope of its own."""
    client = ScriptedClient(lambda messages: f"answer {len(client.requests)}")

    @recorded(name="tools/search#1")
    def search(topic: str) -> Any:
        return client.send_message("Which?")["content"]

    def run() -> list[Any]:
        with scope("a"):
            return [search("x"), client.send_message("Which?")["content"], search("x"), search("y")]

    with cassette("c.jsonl") as tape:
        live = run()
        assert tape.records == 7
    with cassette("c.jsonl"):
        assert run() == live == ["answer 1", "answer 2", "answer 3", "answer 4"]
    scopes = [request.sample for request in client.requests]
    assert scopes[1] == "a#0" and all(each.startswith("a/tools.search.1.") for each in [*scopes[:1], *scopes[2:]])


def simulate(client: ScriptedClient, rounds: int = 3) -> list[Any]:
    """Run a market: a clock, a random price, a search, and two buyers who ask a model."""
    seen: list[Any] = []
    for number in range(rounds):
        for buyer in ("lisa", "oscar"):
            with scope(buyer):
                price = draw_price("bread", round=number)
                found = search_offers("bread", limit=2)
                question = f"It is {clock()}. Bread costs {price}; offers: {found}. Do you buy?"
                seen.append([question, client.send_message(question)["content"]])
                seen.append(client.send_message("Why?")["content"])
    return seen


WORLD = random.Random(7)


@recorded
def clock() -> float:
    """Return a time that is never the same."""
    return WORLD.random() * 1e9


@recorded(name="market.price", version=2)
def draw_price(item: str, *, round: int) -> float:
    """Return a random price."""
    return WORLD.uniform(1, 3)


@recorded
def search_offers(item: str, limit: int = 5) -> list[tuple[str, float]]:
    """Return what a search finds today."""
    return [(f"{item} {WORLD.randrange(1000)}", WORLD.random()) for _ in range(limit)]


def test_a_simulation_replays_whole() -> None:
    """A market with a clock, random prices, a search and a model replays from its cassette alone, bit for bit."""
    client = ScriptedClient(lambda messages: f"answer {WORLD.random()}")
    with cassette("market.jsonl") as tape, scope("day"):
        live = simulate(client)
    assert tape.recorded == 3 * 2 * 5 and len({str(each) for each in live}) == 12
    shared_cache(llmcall.settings().cache_path).clear()
    nobody = ScriptedClient()
    with cassette("market.jsonl", mode="none") as tape, scope("day"):
        assert repr(simulate(nobody)) == repr(live)
    assert (tape.replayed, tape.unused(), nobody.requests) == (30, [], [])


def test_a_hit_imports_nothing_heavy() -> None:
    """A result from the cache comes without any SDK, and without what only a run needs."""
    program = """
        @llmcall.recorded(name="f")
        def f():
            return "live"
        print(f())
        heavy = {"openai", "pydantic", "httpx", "httpx2", "jinja2", "tiktoken", "tenacity", "asyncio", "diskcache"}
        print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
    """
    assert ran(program).splitlines()[0] == "live"
    assert ran(program.replace('"live"', '"other"')) == "live\n[]"
