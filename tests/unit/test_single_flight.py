"""Identical requests under way at once: one call is made, and all callers share its answer or its error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llmcall.engine.single_flight import process_flights
from llmcall.errors import InvalidRequestError
from llmcall.testing import ScriptedClient

CALLERS = 12


class Gate:
    """Be a function of the messages that answers once it is let, and counts its calls."""

    def __init__(self, answer: Any = "the answer") -> None:
        self.answer = answer
        self.calls = 0
        self.asked = threading.Event()
        self.open = threading.Event()

    def __call__(self, messages: Any) -> Any:
        self.calls += 1
        self.asked.set()
        assert self.open.wait(30)
        return self.answer


def following(client: ScriptedClient) -> int:
    """Count the callers who wait for the one call that is under way."""
    (flight,) = process_flights._flights.values()
    return flight.followers


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads are about to do."""
    ticking = threading.Event()
    for _ in range(3000):
        if condition():
            return
        ticking.wait(0.01)
    raise AssertionError("it never came to that")


def asked_by_threads(gate: Gate, **arguments: Any) -> tuple[ScriptedClient, list[Any]]:
    """Ask the same from many threads at once; return the client and what each of them got."""
    client = ScriptedClient(gate, cache_mode="auto")
    with ThreadPoolExecutor(CALLERS) as executor:
        asked = [executor.submit(client.send_message, "Hello", **arguments) for _ in range(CALLERS)]
        assert gate.asked.wait(30)
        wait_until(lambda: following(client) == CALLERS - 1)
        gate.open.set()
        return client, [future.exception() or future.result() for future in asked]


def test_threads_share_one_call() -> None:
    """Twelve threads, one call: one reply is new, the others are cached and count as such."""
    gate = Gate()
    client, replies = asked_by_threads(gate)
    assert gate.calls == 1
    assert [reply["content"] for reply in replies] == ["the answer"] * CALLERS
    assert sorted(reply.cached for reply in replies) == [False] + [True] * (CALLERS - 1)
    assert (client.usage.calls, client.usage.cached_calls) == (1, CALLERS - 1)
    assert len(client.cache) == 1
    assert len({id(reply.raw) for reply in replies}) == CALLERS
    assert not process_flights._flights


def test_threads_share_an_error() -> None:
    """The API's error is that of every caller, each with an exception of its own; the next one asks anew."""
    client, errors = asked_by_threads(Gate(InvalidRequestError("no such model", status_code=404)), on_error="raise")
    assert {(type(error), str(error), error.status_code) for error in errors} == {
        (InvalidRequestError, "no such model", 404)
    }
    assert len({id(error) for error in errors}) == CALLERS
    assert len(client.requests) == 1
    with pytest.raises(InvalidRequestError):
        client.send_message("Hello", on_error="raise")
    assert len(client.requests) == 2


def test_an_error_of_the_leader_alone_is_not_shared() -> None:
    """Where the leader breaks down, another takes over and asks."""

    class Interrupted(BaseException):
        pass

    answers: list[Any] = [Interrupted(), "the answer"]
    gate = Gate()

    def answer(messages: Any) -> Any:
        gate(messages)
        return answers.pop(0)

    client = ScriptedClient(answer, cache_mode="auto")
    with ThreadPoolExecutor(3) as executor:
        asked = [executor.submit(client.send_message, "Hello") for _ in range(3)]
        assert gate.asked.wait(30)
        wait_until(lambda: following(client) == 2)
        gate.open.set()
        outcomes = [future.exception() or future.result() for future in asked]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Interrupted", "Reply", "Reply"]
    assert gate.calls == 2


def test_many_quick_threads_make_one_call() -> None:
    """Of any number of threads that ask at about the same time, however quick the answer, one makes the call."""
    for attempt in range(20):
        barrier = threading.Barrier(CALLERS)
        client = ScriptedClient(lambda messages: "quick", cache_mode="auto")

        def ask(client: ScriptedClient = client, barrier: threading.Barrier = barrier, attempt: int = attempt) -> Any:
            barrier.wait()
            return client.send_message(f"attempt {attempt}")

        with ThreadPoolExecutor(CALLERS) as executor:
            futures = [executor.submit(ask) for _ in range(CALLERS)]
        assert all(future.result()["content"] == "quick" for future in futures)
        assert len(client.requests) == 1, f"{len(client.requests)} calls in attempt {attempt}"


@pytest.mark.parametrize("ask", ["send_message", "get_embedding"])
def test_a_late_comer_finds_the_answer(ask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who looked the answer up before another's came, and only then joins, makes no second call."""
    client = ScriptedClient(["the answer" if ask == "send_message" else [1.0]] * 2, cache_mode="auto")
    flights = process_flights
    join = flights.join

    def late(key: str) -> Any:
        monkeypatch.setattr(flights, "join", join)
        getattr(client, ask)("Hello")
        return join(key)

    monkeypatch.setattr(flights, "join", late)
    found = getattr(client, ask)("Hello")
    assert len(client.requests) == 1
    assert getattr(found, "cached", True)


def test_tasks_share_one_call() -> None:
    """A hundred tasks of one event loop, one call."""
    client = ScriptedClient(lambda messages: "the answer", cache_mode="auto")

    async def main() -> list[Any]:
        return await asyncio.gather(*(client.asend_message("Hello") for _ in range(100)))

    replies = asyncio.run(main())
    assert len(client.requests) == 1
    assert sorted(reply.cached for reply in replies) == [False] + [True] * 99


def test_tasks_share_an_error() -> None:
    """An error is raised in every task."""
    client = ScriptedClient([InvalidRequestError("no")], cache_mode="auto")

    async def main() -> list[Any]:
        asked = (client.asend_message("Hello", on_error="raise") for _ in range(20))
        return await asyncio.gather(*asked, return_exceptions=True)

    assert {str(error) for error in asyncio.run(main())} == {"no"}
    assert len(client.requests) == 1


def test_threads_and_tasks_share_one_call() -> None:
    """A thread and a task that ask the same share one call, whoever leads."""
    gate = Gate()
    client = ScriptedClient(gate, cache_mode="auto")

    async def main() -> Any:
        task = asyncio.create_task(client.asend_message("Hello"))
        while not gate.asked.is_set():
            await asyncio.sleep(0)
        thread = asyncio.get_running_loop().run_in_executor(None, client.send_message, "Hello")
        while not following(client):
            await asyncio.sleep(0)
        gate.open.set()
        return await task, await thread

    replies = asyncio.run(main())
    assert [reply["content"] for reply in replies] == ["the answer"] * 2
    assert gate.calls == 1


def test_a_leader_that_changes_its_reply_changes_no_follower_s() -> None:
    """Followers get copies of the answer as it came, whatever the leader does with its own at once."""
    client = ScriptedClient(lambda messages: "the answer", cache_mode="auto")

    async def ask() -> Any:
        reply = await client.asend_message("Hello", on_error="raise")
        content = reply.raw["choices"][0]["message"]["content"]
        reply.raw["choices"][0]["message"]["content"] = "changed"
        return content

    async def main() -> list[Any]:
        return await asyncio.gather(*(ask() for _ in range(5)))

    assert asyncio.run(main()) == ["the answer"] * 5


@pytest.mark.parametrize("arguments", [{"cache": False}, {}])
def test_off_and_past_the_cache_each_call_goes_alone(arguments: dict[str, Any]) -> None:
    """Neither cache=False nor the mode off leads or follows."""
    gate = Gate()
    client = ScriptedClient(gate, cache_mode="auto" if arguments else "off")
    with ThreadPoolExecutor(3) as executor:
        asked = [executor.submit(client.send_message, "Hello", **arguments) for _ in range(3)]
        wait_until(lambda: gate.calls == 3)
        gate.open.set()
    assert [future.result().cached for future in asked] == [False] * 3  # type: ignore[union-attr]


def test_different_requests_do_not_wait_for_one_another() -> None:
    """Another request goes through while one is under way."""
    gate = Gate()
    client = ScriptedClient(
        lambda messages: gate(messages) if messages[-1]["content"] == "slow" else "quick", cache_mode="auto"
    )
    with ThreadPoolExecutor(1) as executor:
        slow = executor.submit(client.send_message, "slow")
        assert gate.asked.wait(30)
        assert client.send_message("quick") == {"role": "assistant", "content": "quick"}
        gate.open.set()
        assert slow.result() == {"role": "assistant", "content": "the answer"}


def test_a_call_inside_the_same_call_goes_alone() -> None:
    """A transport that asks the very same question does not wait for itself."""
    depth: list[int] = []

    def answer(messages: Any) -> Any:
        depth.append(1)
        return "inner" if len(depth) == 2 else client.send_message("Hello")["content"] + " in outer"  # type: ignore[index]

    client = ScriptedClient(answer, cache_mode="auto")
    client.send_message("Hello")
    assert len(depth) == 2
    assert client.send_message("Hello")["content"] == "inner"  # type: ignore[index]
