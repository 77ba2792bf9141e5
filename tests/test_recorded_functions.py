"""Functions that are recorded as a model's answers are: by name, arguments and scope, in the cache
and on cassettes.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import itertools
import math
import multiprocessing
import random
import re
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

import llmcall
from llmcall import CacheMissError, ResponseCache, cassette, recorded, scope
from llmcall.testing import ScriptedClient

CALLS: list[Any] = []
NUMBERS = itertools.count()


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


def test_the_record() -> None:
    """A record holds name, version, arguments with defaults and namespace, and the value; usage
    counts models only.
    """

    @recorded(name="market.price", version=2)
    def price_of(item: str, *others: str, currency: str = "coins", **more: Any) -> float:
        """Return the price."""
        return 2.5

    with llmcall.configured(cache_namespace="lab"), llmcall.track() as usage:
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
    assert (usage.calls, usage.cached_calls) == (0, 0)
    assert (price_of.__name__, price_of.__doc__) == ("price_of", "Return the price.")


def test_the_name_is_the_module_s_and_the_qualified_one() -> None:
    """Without a name, a function is known by its module and qualified name; the same arguments are
    run for once.
    """
    assert [count("a"), count("a"), count("b"), count("a")] == [1, 1, 2, 1] and CALLS == [
        ("a",),
        ("b",),
    ]
    assert records()[0].request == {"function": f"{__name__}.count", "arguments": {"things": ["a"]}}


@pytest.mark.parametrize(
    "function",
    [
        lambda: 0,
        lambda a, b=2, c=3: 0,
        lambda a, b, c: 0,
        lambda a, /, b=2: 0,
        lambda a, *b, c=1: 0,
        lambda a, **b: 0,
    ],
)
@given(
    args=st.lists(st.integers(), max_size=4),
    kwargs=st.dictionaries(st.sampled_from("abcd"), st.integers(), max_size=3),
)
def test_arguments_are_bound_as_by_the_signature(
    function: Any, args: list[int], kwargs: dict[str, int]
) -> None:
    """Defaults apply; what the function does not take is refused in the same words."""
    name = f"f{next(NUMBERS)}"
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        with pytest.raises(TypeError, match=re.escape(f"{name}: {error}")):
            recorded(name=name)(function)(*args, **kwargs)
        return
    bound.apply_defaults()
    recorded(name=name)(function)(*args, **kwargs)
    asked = {
        parameter: [*value] if isinstance(value, tuple) else value
        for parameter, value in bound.arguments.items()
    }
    assert records()[-1].request == {"function": name, "arguments": asked}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda f: f((1, 2)), lambda f: f([1, 2])),
        (lambda f: f({"x": 1, "y": 2}, c=4, d=5), lambda f: f({"y": 2, "x": 1.0}, d=5, c=4)),
    ],
)
def test_spellings_of_the_same_call(one: Any, other: Any) -> None:
    """How an argument is passed or written does not matter."""

    @recorded
    def function(a: Any, b: int = 3, **others: int) -> int:
        CALLS.append(a)
        return len(CALLS)

    assert (one(function), other(function)) == (1, 1)


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
    """An object enters only where it is plain data; else two of them share an answer, unless scopes
    tell them apart.
    """
    one, other = Market("one"), Market("other")
    assert [one.price("salt"), other.price("salt"), Market.price(other, "salt")] == ["one 1"] * 3
    with scope("other"):
        assert other.price("salt") == "other 2"
    assert records()[0].request["arguments"] == {"item": "salt"}
    assert (Market.kinds(), Market.tax(2), one.tax(2)) == ("Market", 4, 4)
    assert [Basket(salt=1).price(), Basket(salt=2).price(), Basket(salt=1).price()] == [1, 2, 1]
    assert records()[-1].request["arguments"] == {"self": {"salt": 2}}


def test_normalizers_hold_for_arguments() -> None:
    """What ``NORMALIZE`` names in the text of an argument makes no miss; the function gets the text
    as it is.
    """
    with llmcall.configured(cache_normalize=("times",)):
        assert (
            count("at 10:15", {"k": ["2026-11-20"]})
            == count("at 23:59", {"k": ["2027-01-01"]})
            == 1
        )
        assert count("by 10:15", {"k": ["2026-11-20"]}) == 2
    assert CALLS[0] == ("at 10:15", {"k": ["2026-11-20"]})


# Draws and modes


def test_draws_and_modes() -> None:
    """Draws, ``auto``, ``replay``, ``refresh`` and ``off`` mean for functions what they mean for
    models.
    """

    def run() -> list[int]:
        with scope("trial"):
            return [count(), count(), count("other"), count()]

    assert run() == run() == [1, 2, 3, 4]
    assert sorted(map(str, samples())) == ["trial#0", "trial#0", "trial#1", "trial#2"]
    with llmcall.configured(cache_mode="off"):
        assert [count(), count()] == [5, 6]
    assert [count(), count()] == [7, 7]
    with llmcall.configured(cache_mode="replay"):
        assert count() == 7
        with pytest.raises(
            CacheMissError, match=r"this function request to .*functions\.count is not recorded"
        ):
            count("new")
        with scope("a"), pytest.raises(CacheMissError, match=r"scope +a, draw 0"):
            count()
    with llmcall.configured(cache_mode="refresh"):
        assert [count(), count()] == [8, 8]
    assert (count(), len(CALLS)) == (8, 8)


def test_an_exception_is_not_recorded_and_gives_its_draw_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After an exception the next call takes the same draw; the cassette says at its end that
    something failed.
    """

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
    assert samples() == ["a#0"]
    assert (
        "1 call failed for good (1 in scope 'a'; the first: unsteady: ZeroDivisionError)"
        in caplog.text
    )


def test_asynchronous_functions() -> None:
    """An async function is recorded the same way: draws, records, and identical calls at once."""

    async def run() -> list[int]:
        with scope("trial"):
            return [await acount(), await acount()]

    async def at_once() -> list[int]:
        return list(await asyncio.gather(acount("x"), acount("x"), acount("y")))

    assert asyncio.run(run()) == asyncio.run(run()) == [1, 2]
    assert asyncio.run(at_once()) == [3, 3, 4] and len(CALLS) == 4


def test_a_cancelled_call_gives_its_draw_back(caplog: pytest.LogCaptureFixture) -> None:
    """Cancelling an async call leaves no record, and its draw is the next one's; the cassette tells
    of it.
    """
    begun = asyncio.Event()

    @recorded(name="slow")
    async def slow() -> str:
        CALLS.append(None)
        if len(CALLS) == 1:
            begun.set()
            await asyncio.Event().wait()
        return "done"

    async def run() -> str:
        with cassette("c.jsonl"), scope("a"):
            task = asyncio.create_task(slow())
            await begun.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return await slow()

    assert asyncio.run(run()) == "done"
    assert samples() == ["a#0"]
    assert "1 call ended before the whole answer arrived (1 in scope 'a'" in caplog.text


@pytest.mark.parametrize("fails", [False, True])
def test_identical_calls_at_once(fails: bool) -> None:
    """Of identical calls under way one runs, and all get copies of its result; one that fails is
    succeeded.

    Whoever changes what it got changes no other, nor what is recorded.
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

    with cassette("c.jsonl"), ThreadPoolExecutor(3) as executor:
        first = executor.submit(shared)
        assert inside.wait(60)
        others = [executor.submit(shared) for _ in range(2)]
        go_on.set()
        results = [each.result() for each in others]
        assert isinstance(first.exception(), ZeroDivisionError) if fails else first.result() == [1]
        for result in [*results, shared()] if fails else [first.result(), *results, shared()]:
            assert result == [2 if fails else 1]
            result.append(3)
    with cassette("c.jsonl", mode="none"):
        assert shared() == [2 if fails else 1]


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


# What can be recorded


class Pair(NamedTuple):
    """Be a tuple with names."""

    a: Any
    b: str


class Colour(str, enum.Enum):
    """Be a string of a class of its own."""

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
def test_arguments_that_are_not_plain(arguments: Any, message: str) -> None:
    """An argument that is not plain data is refused by name before the function runs, and takes no
    draw.
    """

    @recorded(name="look")
    def look(thing: Any) -> int:
        CALLS.append(thing)
        return 1

    with scope("a"):
        with pytest.raises((TypeError, ValueError), match=rf"^look: {message}"):
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
            10**5000, ValueError, "price: the result is a number of too many digits", id="digits"
        ),
    ],
)
def test_results_that_are_not_plain(result: Any, error: type[Exception], message: str) -> None:
    """A result that cannot be recorded is refused, naming function and place; nothing is recorded."""
    with scope("a"):
        with pytest.raises(error) as caught:
            recorded(name="price")(lambda: result)()
        assert str(caught.value).startswith(message)
        assert recorded(name="price")(lambda: 1)() == 1
    assert samples() == ["a#0"]


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        (lambda: recorded(simulate_steps), "simulate_steps is a generator function; return a list"),
        (
            lambda: recorded(simulate_asteps),
            "simulate_asteps is a generator function; return a list",
        ),
        (lambda: recorded(Market), "takes a function, not <class"),
        (lambda: recorded(classmethod(simulate_steps)), "put it below @classmethod"),  # type: ignore[call-overload, arg-type]
        (lambda: recorded(lambda: 1), r"has no name; give it one: recorded\(name="),
        (lambda: recorded(version=1.5)(count), r"version is 1\.5"),  # type: ignore[call-overload]
        (lambda: recorded(name="")(count), "name is ''"),
    ],
)
def test_what_cannot_be_recorded_is_refused_when_it_is_decorated(
    decorate: Any, message: str
) -> None:
    """What has no plain result, or no name, is refused at once."""
    with pytest.raises(TypeError, match=message):
        decorate()


def simulate_steps() -> Any:
    """Be a generator."""
    yield 1


async def simulate_asteps() -> Any:
    """Be an asynchronous generator."""
    yield 1


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
NAMES = st.text() | st.sampled_from(["$text", "$bytes", "$data", "$messages", "messages", "role"])
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
def test_any_plain_result_comes_back_the_same(result: Any, argument: Any) -> None:
    """Whatever the plain result, the first return, the cache's and the cassette's are one; no text
    breaks a line.
    """
    path = f"{random.Random(repr(result)).random()}.jsonl"  # each example has a cassette of its own
    function = recorded(name=path)(lambda given: result)
    with cassette(path, mode="rewrite"):
        live = function(argument)
    again = function(argument)
    with cassette(path, mode="none") as tape:
        assert repr(live) == repr(again) == repr(function(argument))
    assert [record.request["arguments"] for record in tape.all_records()] == [{"given": argument}]
    written = Path(path).read_bytes().decode()
    assert len(written.splitlines()) == written.count("\n")


# Among other calls


def test_models_inside_move_no_draw_outside() -> None:
    """A replay does not run the function, so what it asks of models stands in a scope of its own."""
    client = ScriptedClient(lambda messages: f"answer {len(client.requests)}")

    @recorded(name="tools/search#1")
    def search(topic: str) -> Any:
        return client.send_message("Which?", on_error="raise")["content"]

    def run() -> list[Any]:
        with scope("a"):
            return [
                search("x"),
                client.send_message("Which?", on_error="raise")["content"],
                search("x"),
                search("y"),
            ]

    with cassette("c.jsonl") as tape:
        live = run()
        assert tape.records == 7
    with cassette("c.jsonl"):
        assert run() == live == ["answer 1", "answer 2", "answer 3", "answer 4"]
    scopes = [request.sample for request in client.requests]
    assert scopes[1] == "a#0" and all(
        str(each).startswith("a/tools.search.1.") for each in [*scopes[:1], *scopes[2:]]
    )


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
    """A function of the script itself has the same name in the processes that import the script
    anew.
    """
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"there is no {method} here")
    Path("script.py").write_text(SCRIPT)

    def played(*arguments: str) -> str:
        command = [sys.executable, "script.py", *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=300
        ).stdout

    assert played("once", method) == played("none") == played("none", method)
