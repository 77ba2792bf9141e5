"""Arms: branches of a scope that share the draws of equal requests."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
from clients import numbered
from commands import LONGEST
from map_functions import sample

import llmcall
from llmcall.errors import ScopeError

ASKED = "Bread?"


def ask(client: llmcall.LLMClient, text: str = ASKED) -> str:
    """Return the sample of a call."""
    reply = client.send_message(text, temperature=1)
    assert reply is not None and reply.sample is not None
    return reply.sample


# How draws are counted


def test_an_equal_request_of_two_arms_is_one_draw() -> None:
    """Equal requests of two arms have the same sample, and one answer."""
    client = numbered()
    answers = []
    with llmcall.scope("rep-1"):
        for name in ("control", "treated"):
            with llmcall.arm(name), llmcall.scope("lisa"):
                answers.append([client.send_message(ASKED, temperature=1).content for _ in "ab"])
    assert answers[0] == answers[1] == ["answer 0", "answer 1"]


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize(
    ("draws", "numbers"),
    [
        pytest.param("-a", [0, 1], id="an arm avoids those of its scope"),
        pytest.param("aa-bbb", [0, 1, 2, 0, 1, 3], id="the scope avoids those of all arms"),
        pytest.param("a-abb", [0, 1, 2, 0, 2], id="an arm that is entered again goes on"),
    ],
)
def test_a_draw_takes_the_lowest_number_that_neither_arm_nor_scope_has(
    draws: str, numbers: list[int], is_kept: bool
) -> None:
    """Each draw is of the scope itself or of an arm, which enters a kept scope again as in a notebook's cell."""
    client, found, kept = numbered(), [], llmcall.scope("r")
    with nullcontext() if is_kept else kept:
        for name in draws:
            with (
                kept if is_kept else nullcontext(),
                nullcontext() if name == "-" else llmcall.arm(name),
            ):
                found.append(ask(client))
    assert found == [f"r#{number}" for number in numbers]


# Threads, tasks and processes


def test_arms_at_once_in_threads_count_apart() -> None:
    """Each arm's draws are the same as alone, whatever the others do."""
    client = numbered()
    barrier = threading.Barrier(3, timeout=LONGEST)

    def play(name: str) -> list[str]:
        with llmcall.arm(name), llmcall.scope("lisa"):
            barrier.wait()
            return [ask(client) for _ in range(20)]

    with llmcall.scope("r"), ThreadPoolExecutor(3) as pool:
        found = list(pool.map(llmcall.bind(play), "abc"))
    assert found == [[f"r/lisa#{n}" for n in range(20)]] * 3
    assert client.usage.calls == 20


def test_an_arm_of_a_process_scope_holds_for_every_thread() -> None:
    """Threads without a scope draw in the arm while it is open, and outside it afterwards."""
    client = numbered()

    def in_thread() -> str:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(ask, client).result()

    with llmcall.scope("r", process=True):
        with llmcall.arm("a"):
            assert in_thread() == "r#0"
        with llmcall.arm("b"):
            assert in_thread() == "r#0"
        assert in_thread() == "r#1"


def drawn_twice(item: Any = None) -> list[str | None]:
    """Draw twice, in whatever process."""
    return [sample("bread"), sample("bread")]


@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.feature("executors")
def test_a_process_pool_carries_an_arms_counts(first: str) -> None:
    """A map in an arm goes on from the arm's draws, and the arm counts its draws."""
    with ProcessPoolExecutor(1) as pool, llmcall.scope("r"):
        with llmcall.arm(first), llmcall.scope("x"):
            assert sample("bread") == "r/x#0"
        with llmcall.arm("a"):
            samples = llmcall.map(drawn_twice, [1], key=lambda _: "x", executor=pool)
        number = 1 if first == "a" else 0
        assert samples == [[f"r/x#{number}", f"r/x#{number + 1}"]]
        with llmcall.arm("a"), llmcall.scope("x"):
            assert sample("bread") == f"r/x#{number + 2}"


def submitted(function: Callable[..., Any]) -> Any:
    """Run a function in a process pool of ``concurrent.futures``."""
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_a_function_that_is_bound_in_an_arm_goes_to_no_other_process() -> None:
    """The arm would not know of its draws: the error names ``map``, which brings them back."""
    with llmcall.scope("r"):
        with llmcall.arm("a"), pytest.raises(ScopeError, match=r"the arm 'a'.* llmcall\.map\("):
            submitted(llmcall.bind(drawn_twice))
        assert submitted(llmcall.bind(drawn_twice)) == ["r#0", "r#1"]  # outside any arm


# Recorded functions


@pytest.mark.parametrize(("shared", "results"), [(False, [0, 1]), (True, [0, 0])])
def test_each_arm_records_its_own_result_of_a_function_unless_it_is_shared(
    shared: bool, results: list[int]
) -> None:
    """A function may read the state of the arm's world, or throw a die for all arms."""
    numbers = itertools.count()
    state = llmcall.recorded(name="world", shared=shared)(lambda: next(numbers))
    for _ in range(2):  # the second time, all is replayed
        found = []
        with llmcall.configured(cache_mode="auto"), llmcall.scope("r"):
            for name in "ab":
                with llmcall.arm(name):
                    found.append(state())
        assert found == results


# What is said


def test_usage_counts_calls_by_arm() -> None:
    """The first arm pays; the other arm's calls are cached."""
    client = numbered()
    with llmcall.scope("r"):
        for name in ("control", "treated"):
            with llmcall.arm(name):
                ask(client)
    usage = client.usage
    assert {name: (part.calls, part.cached_calls) for name, part in usage.by_arm.items()} == {
        "control": (1, 0),
        "treated": (0, 1),
    }
    assert "arm" in str(usage)


def test_the_seed_is_that_of_the_scope_path() -> None:
    """The same in every arm and run; pinned, since people's studies rest on it."""
    with llmcall.scope("rep-1"):
        outside = llmcall.seed()
        with llmcall.arm("a"):
            inside = llmcall.seed()
    assert outside == inside == 9449439092819538952


@pytest.mark.parametrize(
    ("of_client", "of_call"), [({}, {"cache": False}), ({"cache_mode": "off"}, {})]
)
def test_a_call_of_an_arm_without_the_cache_is_warned_of(
    of_client: dict[str, Any], of_call: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It shares nothing with other arms, and a warning says so once."""
    client = numbered(**of_client)
    with llmcall.scope("r"), llmcall.arm("a"):
        for _ in range(2):
            client.send_message(ASKED, temperature=1, **of_call)
    assert sum("has cache=False" in entry.getMessage() for entry in caplog.records) == 1
