"""Functions that are recorded as a model's answers are: by name, arguments and scope, in the cache
and on cassettes.
"""

from __future__ import annotations

import asyncio
import enum
import math
import multiprocessing
import random
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
from errors import check_error, error_table
from hypothesis import example, given

import llmcall
from llmcall import CacheMissError, ResponseCache, cassette, recorded, scope
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
    with ResponseCache(llmcall.settings().cache_path) as cache:
        return list(cache.records())


def samples() -> list[str | None]:
    """Return the samples of the records of the cache."""
    return [record.sample for record in records()]


# What a call is known by


@recorded(name="market.price", version=2)
def price_of(item: str, *others: str, currency: str = "coins", **more: Any) -> float:
    """Return the price."""
    return 2.5


def test_a_record_holds_the_call_and_its_value() -> None:
    """Name, version, arguments with defaults, namespace and value; it has no cost and no host."""
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


def test_a_function_runs_once_for_the_same_arguments() -> None:
    """Later calls get the recorded value."""
    assert [count("a"), count("a"), count("b"), count("a")] == [1, 1, 2, 1]
    assert CALLS == [("a",), ("b",)]


def test_a_function_that_calls_itself_with_equal_arguments_runs_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It cannot wait for itself, and later calls get the inner result, which is stored first."""
    values = iter("abc")

    @recorded
    def last() -> str:
        """Return the last of the values."""
        value = next(values)
        return value if value == "c" else last()

    assert [last(), last()] == ["c", "c"]
    assert "while the same request is under way" in caplog.text


def test_the_name_is_the_modules_and_the_qualified_one() -> None:
    """A function without a name of its own is known by them."""
    count("a")
    assert records()[0].request == {"function": f"{__name__}.count", "arguments": {"things": ["a"]}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda f: f((1, 2)), lambda f: f([1, 2])),
        (lambda f: f({"x": 1, "y": 2}, c=4, d=5), lambda f: f({"y": 2, "x": 1.0}, d=5, c=4)),
    ],
)
def test_spellings_of_the_same_call_share_an_answer(one: Any, other: Any) -> None:
    """Arguments may be passed by position or by name, and be written in several ways."""

    @recorded
    def function(a: Any, b: int = 3, **others: int) -> int:
        CALLS.append(a)
        return len(CALLS)

    assert (one(function), other(function)) == (1, 1)


class Market:
    """An object that is no plain data, with a few methods."""

    def __init__(self, name: str) -> None:
        self.name = name

    @recorded
    def price(self, item: str) -> str:
        """Return what nobody else returns."""
        CALLS.append(item)
        return f"{self.name} {len(CALLS)}"


def test_objects_that_are_not_plain_data_share_an_answer() -> None:
    """``self`` is no argument of the record, however the method is called."""
    one, other = Market("one"), Market("other")
    assert [one.price("salt"), other.price("salt"), Market.price(other, "salt")] == ["one 1"] * 3
    assert records()[0].request["arguments"] == {"item": "salt"}


DECORATORS: dict[str, Any] = {
    "recorded": recorded,
    "llm": llmcall.llm(client=ScriptedClient(lambda messages: messages[-1]["content"])),
    "cassette": cassette("a.jsonl"),
}


@pytest.mark.parametrize("name", DECORATORS)
def test_a_decorator_stands_above_staticmethod_and_classmethod(name: str) -> None:
    """It is called by the class or by an object."""

    class Shop:
        word = "Shop"

        @DECORATORS[name]
        @staticmethod
        def sold(item: str) -> str:
            """{{ item }}"""
            return item

        @DECORATORS[name]
        @classmethod
        def named(cls) -> str:
            """{{ cls.word }}"""
            return cls.word

    for shop in (Shop, Shop()):
        assert (shop.sold("salt"), shop.named()) == ("salt", "Shop")


def test_numpys_numbers_and_truth_values_are_plain_data() -> None:
    """In arguments and results."""
    numpy = pytest.importorskip("numpy")
    same = recorded(name="same")(lambda value: value)
    assert same(numpy.False_) is same(False) is False
    assert same([numpy.int8(3), numpy.float32(0.5)]) == same([3, 0.5]) == [3, 0.5]


@pytest.fixture
def normalized_times() -> Iterator[None]:
    """Times in texts are normalized."""
    with llmcall.configured(cache_normalize=("times",)):
        yield


@pytest.mark.usefixtures("normalized_times")
def test_normalizers_hold_for_arguments() -> None:
    """Text of an argument that ``NORMALIZE`` names makes no miss; other text does."""
    assert count("at 10:15", {"k": ["2026-11-20"]}) == 1
    assert count("at 23:59", {"k": ["2027-01-01"]}) == 1
    assert count("by 10:15", {"k": ["2026-11-20"]}) == 2


# Draws and modes


def test_each_identical_call_in_a_scope_is_a_draw() -> None:
    """The same draws are found again, in the order in which they were made."""

    def run() -> list[int]:
        with scope("trial"):
            return [count(), count(), count("other"), count()]

    assert run() == run() == [1, 2, 3, 4]
    assert sorted(map(str, samples())) == ["trial#0", "trial#0", "trial#1", "trial#2"]


def test_the_mode_off_runs_each_call_and_records_none() -> None:
    """Nor does it find what is recorded."""
    assert count() == 1
    with llmcall.configured(cache_mode="off"):
        assert [count(), count()] == [2, 3]
    assert count() == 1


def test_the_mode_replay_runs_nothing() -> None:
    """A call that is not recorded is a miss that names the function, and its scope and draw."""
    assert count() == 1
    with llmcall.configured(cache_mode="replay"):
        assert count() == 1
        with pytest.raises(
            CacheMissError, match=r"function request to .*functions\.count is not recorded"
        ):
            count("new")
        with scope("a"), pytest.raises(CacheMissError, match=r"scope +a, draw 0"):
            count()
    assert CALLS == [()]


def test_the_mode_refresh_runs_a_call_once_and_replaces_its_record() -> None:
    """Later calls, in other modes too, get the new value."""
    assert count() == 1
    with llmcall.configured(cache_mode="refresh"):
        assert [count(), count()] == [2, 2]
    assert count() == 2
    assert CALLS == [(), ()]


@recorded(name="unsteady")
def unsteady() -> int:
    """Return how often this was run; fail the first time."""
    CALLS.append(None)
    if len(CALLS) == 1:
        raise ZeroDivisionError
    return len(CALLS)


def test_an_exception_is_not_recorded_and_gives_its_draw_back() -> None:
    """The next call takes the same draw."""
    with scope("a"):
        with pytest.raises(ZeroDivisionError):
            unsteady()
        assert unsteady() == 2
    assert samples() == ["a#0"]


def test_each_identical_call_of_an_asynchronous_function_is_a_draw() -> None:
    """It is recorded and found as that of any function."""

    async def run() -> list[int]:
        with scope("trial"):
            return [await acount(), await acount()]

    assert asyncio.run(run()) == asyncio.run(run()) == [1, 2]


async def cancel_and_call_again() -> str:
    """Cancel a call of a function while it runs, and return what the next call returns."""
    begun = asyncio.Event()

    @recorded(name="slow")
    async def slow() -> str:
        CALLS.append(None)
        if len(CALLS) == 1:
            begun.set()
            await asyncio.Event().wait()
        return "done"

    task = asyncio.create_task(slow())
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return await slow()


def test_a_cancelled_call_gives_its_draw_back() -> None:
    """It leaves no record, and the next call takes the same draw."""
    with scope("a"):
        assert asyncio.run(cancel_and_call_again()) == "done"
    assert samples() == ["a#0"]


def call_at_once(fails: bool) -> tuple[list[int] | BaseException, list[list[int]]]:
    """Call a function three times at once; return what came of the first call, and what the others
    got.

    The function returns how often it was run; the first time it fails, if it is to fail.
    """
    inside, go_on = threading.Event(), threading.Event()

    @recorded(name="shared")
    def shared() -> list[int]:
        CALLS.append(None)
        inside.set()
        assert go_on.wait(60)
        if fails and len(CALLS) == 1:
            raise ZeroDivisionError
        return [len(CALLS)]

    with ThreadPoolExecutor(3) as executor:
        first = executor.submit(shared)
        assert inside.wait(60)
        others = [executor.submit(shared) for _ in range(2)]
        go_on.set()
        return first.exception() or first.result(), [future.result() for future in others]


def test_identical_calls_at_once_are_run_once() -> None:
    """All get the result of the one that runs."""
    first, others = call_at_once(fails=False)
    assert [first, *others] == [[1]] * 3


def test_a_call_that_fails_is_made_by_the_next_that_waits() -> None:
    """The exception is the first caller's alone."""
    first, others = call_at_once(fails=True)
    assert isinstance(first, ZeroDivisionError)
    assert others == [[2]] * 2


# What can be recorded


class Pair(NamedTuple):
    """A tuple with names."""

    a: Any
    b: str


class Colour(str, enum.Enum):
    """A string of a class of its own."""

    RED = "red"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({1, 2},), "thing is a set"),
        (([{"a": [b"x"]}],), r"thing\[0\]\.a\[0\] is a bytes"),
        (({1: 2},), "thing has the key 1"),
        ((math.nan,), "thing is nan"),
        ((), "missing a required argument: 'thing'"),
    ],
)
def test_an_argument_that_is_not_plain_is_refused_before_the_function_runs(
    arguments: Any, message: str
) -> None:
    """The error names the function, the parameter and the place in it; no draw is taken."""

    @recorded(name="look")
    def look(thing: Any) -> int:
        CALLS.append(thing)
        return 1

    with scope("a"):
        with pytest.raises((TypeError, ValueError), match=rf"^look(\(\))?: {message}"):
            look(*arguments)
        assert not CALLS
        look("plain")
    assert samples() == ["a#0"]


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (
            {"a": [1, {2}]},
            TypeError,
            "price: the result.a[1] is a set; it must be plain data (dict, list, str",
        ),
        ({1: "a"}, TypeError, "price: the result has the key 1; keys must be strings"),
        (Fraction(1, 3), TypeError, "price: the result is a Fraction; it must"),
        ([math.inf], ValueError, "price: the result[0] is inf, which JSON cannot represent"),
        ("\ud800", ValueError, "price: the result has a lone surrogate at index 0"),
        pytest.param(
            10**5000, ValueError, "price: the result is a number with too many digits", id="digits"
        ),
    ],
)
def test_a_result_that_is_not_plain_is_refused_and_not_recorded(
    result: Any, error: type[Exception], message: str
) -> None:
    """The error names the function and the place in the result; its draw is the next call's."""
    with scope("a"):
        with pytest.raises(error) as caught:
            recorded(name="price")(lambda: result)()
        assert str(caught.value).startswith(message)
        assert recorded(name="price")(lambda: 1)() == 1
    assert samples() == ["a#0"]


def simulate_steps() -> Any:
    """Yield one step."""
    yield 1


async def simulate_asteps() -> Any:
    """Yield one step, asynchronously."""
    yield 1


RECORDED: Any = recorded  # called here as no type checker allows


@error_table(
    (
        "TypeError: ...simulate_steps is a generator function; return a list",
        lambda: recorded(simulate_steps),
    ),
    (
        "TypeError: ...simulate_asteps is a generator function; return a list",
        lambda: recorded(simulate_asteps),
    ),
    ("TypeError: ...takes a function, not <class", lambda: RECORDED(Market)),
    ("TypeError: ...has no name; give it one: recorded(name=", lambda: recorded(lambda: 1)),
    ("TypeError: ...version is 1.5", lambda: RECORDED(version=1.5)(count)),
    ("TypeError: ...name is ''", lambda: recorded(name="")(count)),
)
def test_a_function_that_cannot_be_recorded_is_refused_when_it_is_decorated(
    line: str, call: Callable[[], object]
) -> None:
    """A function without a plain result, or without a name, is refused at once."""
    check_error(line, call)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
NAMES = st.text() | st.sampled_from(["$text", "$bytes", "$data", "messages", "role"])
ARGUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=12
)
PLAIN = st.recursive(
    SCALARS | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(NAMES, inner)
        | st.builds(OrderedDict, st.dictionaries(st.text(), inner))
        | st.builds(Pair, inner, st.sampled_from(Colour))
    ),
    max_leaves=12,
)


@given(PLAIN, ARGUMENTS)
@example(3, {"$text": "bread"})
def test_any_plain_result_comes_back_the_same(result: Any, argument: Any) -> None:
    """The first return, the cache's and the cassette's are equal."""
    path = f"{random.Random(repr(result)).random()}.jsonl"  # each example has a cassette of its own
    function = recorded(name=path)(lambda value: result)
    with cassette(path, mode="rewrite"):
        live = function(argument)
    cached = function(argument)
    with cassette(path, mode="none") as tape:
        assert repr(live) == repr(cached) == repr(function(argument))
    assert [record.request["arguments"] for record in tape.all_records()] == [{"value": argument}]


# Among other calls


def run_search() -> tuple[list[Any], list[str | None]]:
    """Run a program whose recorded function asks a model what the program asks too; return all
    answers, and the samples of the calls that were made.
    """
    client = ScriptedClient(lambda messages: f"answer {len(client.requests)}")

    @recorded(name="tools/search#1")
    def search(topic: str) -> Any:
        return client.send_message("Which?", on_error="raise")["content"]

    with scope("a"):
        answers = [
            search("x"),
            client.send_message("Which?", on_error="raise")["content"],
            search("x"),
            search("y"),
        ]
    return answers, [request.sample for request in client.requests]


def test_models_inside_move_no_draw_outside() -> None:
    """A replay, which does not run the function, finds the draws of the program."""
    with cassette("c.jsonl") as tape:
        live, _ = run_search()
        assert tape.records == 7
    assert live == ["answer 1", "answer 2", "answer 3", "answer 4"]
    with cassette("c.jsonl"):
        assert run_search() == (live, [])


def test_models_inside_stand_in_a_scope_of_the_functions_name() -> None:
    """Its call has a scope of its own, in which what divides names is replaced."""
    _, samples = run_search()
    inside = [*samples[:1], *samples[2:]]
    assert samples[1] == "a#0"
    assert all(str(sample).startswith("a/tools.search.1.") for sample in inside)


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
@pytest.mark.feature("executors")
def test_a_function_recorded_by_workers_of_a_pool_is_replayed_without_a_pool(method: str) -> None:
    """A function of the script itself has the same name in the processes that import the script."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"there is no {method} here")
    Path("script.py").write_text(SCRIPT)

    def played(*arguments: str) -> str:
        command = [sys.executable, "script.py", *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=300
        ).stdout

    assert played("once", method) == played("none") == played("none", method)


def test_update_moves_unused_records_beside_a_function_that_ran_and_is_called_again() -> None:
    """Its second call is a replay, but of what it ran in this run."""
    with cassette("tape.jsonl"):
        count("old")
    with cassette("tape.jsonl", mode="update"):
        assert count("new") == count("new")
    _, *lines = Path("tape.jsonl").read_text(encoding="utf-8").splitlines()
    assert ["new" in line for line in lines] == [True]


def test_a_result_with_a_failed_call_in_it_is_not_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is returned once; the next run asks again. One line says so, whichever function holds the call."""
    client = ScriptedClient([llmcall.InvalidRequestError("no"), "bread"])

    @recorded(name="inner")
    def inner() -> tuple[str, ...]:
        reply = client.send_message("What?")
        return ("nothing" if reply is None else str(reply.content),)

    @recorded(name="outer")
    def outer() -> Any:
        return inner()

    with llmcall.configured(cache_mode="auto"):
        assert [outer(), outer(), outer()] == [["nothing"], ["bread"], ["bread"]]
    assert len(client.requests) == 2
    lines = [line for line in caplog.messages if "is not recorded" in line]
    assert len(lines) == 1 and lines[0].startswith("the result of inner ")
