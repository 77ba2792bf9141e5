"""Arms: branches of a scope that share the draws of equal requests."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
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


def test_a_draw_in_an_arm_avoids_those_of_its_scope() -> None:
    """It takes the lowest number that neither the arm nor the scope itself has."""
    client = numbered()
    with llmcall.scope("r"):
        before = ask(client)
        with llmcall.arm("a"):
            inside = ask(client)
    assert (before, inside) == ("r#0", "r#1")


def test_a_draw_of_the_scope_avoids_those_of_all_arms() -> None:
    """A call between arms belongs to the scope, so no arm may draw the same answer."""
    client = numbered()
    with llmcall.scope("r"):
        with llmcall.arm("a"):
            first = [ask(client), ask(client)]
        between = ask(client)
        with llmcall.arm("b"):
            second = [ask(client), ask(client), ask(client)]
    assert first == ["r#0", "r#1"] and between == "r#2"
    assert second == ["r#0", "r#1", "r#3"]


def test_an_arm_that_is_entered_again_goes_on() -> None:
    client = numbered()
    with llmcall.scope("r"):
        with llmcall.arm("a"):
            first = ask(client)
        with llmcall.arm("a"):
            second = ask(client)
    assert (first, second) == ("r#0", "r#1")


def test_an_arm_of_a_kept_scope_goes_on() -> None:
    """As in several cells of a notebook; what is asked between them belongs to all arms."""
    client = numbered()
    trial, control = llmcall.scope("trial"), llmcall.arm("control")
    with trial, control:
        first = ask(client)
    with trial:
        between = ask(client)
    with trial, control:
        second = ask(client)
    with trial, llmcall.arm("treated"):
        other = [ask(client), ask(client)]
    assert (first, between, second) == ("trial#0", "trial#1", "trial#2")
    assert other == ["trial#0", "trial#2"]


def test_another_scope_has_arms_of_its_own() -> None:
    """Two sets of arms in two scopes count apart."""
    client = numbered()
    with llmcall.scope("trial"):
        for scope in "xy":
            with llmcall.scope(scope), llmcall.arm("a"):
                assert ask(client) == f"trial/{scope}#0"


# Where an arm may stand


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


def test_each_arm_records_its_own_result_of_a_function() -> None:
    """A function may read the state of the arm's world."""
    numbers = itertools.count()

    @llmcall.recorded(name="world")
    def state() -> int:
        return next(numbers)

    for _ in range(2):  # the second time, all is replayed
        with llmcall.configured(cache_mode="auto"), llmcall.scope("r"):
            with llmcall.arm("a"):
                first = state()
            with llmcall.arm("b"):
                second = state()
        assert (first, second) == (0, 1)


def test_a_shared_function_has_one_result() -> None:
    """A die is thrown once for all arms."""
    numbers = itertools.count()

    @llmcall.recorded(name="die", shared=True)
    def die() -> int:
        return next(numbers)

    with llmcall.configured(cache_mode="auto"), llmcall.scope("r"):
        with llmcall.arm("a"):
            first = [die(), die()]
        with llmcall.arm("b"):
            second = [die(), die()]
    assert first == second == [0, 1]


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
