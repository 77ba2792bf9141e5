"""Replaying: whatever the interleaving, and whatever was added, what was asked before is answered
as it was.
"""

from __future__ import annotations

import itertools
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from actors import PROGRAMS, Tagged, in_sequence, in_tasks, in_threads, tagged
from hypothesis import given, settings

import llmcall
from llmcall import bind, cassette, recorded, scope
from llmcall.testing import ScriptedClient

PATH = "tape.jsonl"
WAYS: dict[str, Callable[..., dict[str, Any]]] = {
    "in sequence": in_sequence,
    "in threads": in_threads,
    "in tasks": in_tasks,
}
SEEDS = st.integers(0, 10**6)
FOLDERS = itertools.count()


@contextmanager
def a_place_of_its_own() -> Iterator[Path]:
    """Provide a folder for the cassette and the cache of an example."""
    folder = Path(f"run-{next(FOLDERS)}").absolute()
    folder.mkdir()
    with llmcall.configured(cache_path=folder / "cache"):
        yield folder / PATH
    shutil.rmtree(folder)


def run(
    way: str, program: Any, seed: int, *, inside: bool, mode: str, **how: Any
) -> dict[str, Any]:
    """Run a program, in one scope around all actors or with each actor's own as the outermost."""
    with llmcall.configured(cache_mode=mode), scope("trial") if inside else nullcontext():
        return WAYS[way](program, seed, cache_mode=mode, on_error="none", **how)


def without_refusals(steps: list[Any]) -> list[Any]:
    """Return steps without those that fail, which no replay has."""
    kept = [step for step in steps if step[0] != "refused"]
    return [
        (kind, text, *(without_refusals(each) for each in inside)) for kind, text, *inside in kept
    ]


@given(PROGRAMS, SEEDS, st.booleans())
@settings(max_examples=60)
def test_any_interleaving_is_the_sequential_run(program: Any, seed: int, inside: bool) -> None:
    """Threads and tasks in a random order take the same draws, and write the same cassette, byte
    for byte.
    """
    with a_place_of_its_own() as path:
        told, files = [], set()
        for way in WAYS:
            with cassette(path, mode="rewrite"):
                told.append(run(way, program, seed, inside=inside, mode="off", pure=True))
            files.add(path.read_bytes() if path.exists() else b"")
            path.unlink(missing_ok=True)
    assert told[1] == told[0] == told[2]
    assert len(files) == 1


@pytest.mark.newest_only
@given(PROGRAMS, SEEDS, st.permutations(list(WAYS)), st.booleans())
@settings(max_examples=30)
def test_any_interleaving_replays_any_other(
    program: Any, seed: int, ways: list[str], inside: bool
) -> None:
    """What was recorded in one interleaving replays in any other: from the cassette alone, and from
    the cache alone.
    """
    program = [without_refusals(steps) for steps in program]
    with a_place_of_its_own() as path:
        with cassette(path):
            live = run(ways[0], program, seed, inside=inside, mode="auto")
        assert run(ways[1], program, seed + 1, inside=inside, mode="replay") == live
        with (
            llmcall.configured(cache_path=path.parent / "empty"),
            cassette(path, mode="none") as again,
        ):
            assert run(ways[2], program, seed + 2, inside=inside, mode="auto") == live
        assert (again.recorded, again.unused()) == (0, [])


def extended(steps: tuple[Tagged, ...], order: random.Random) -> tuple[Tagged, ...]:
    """Return steps with calls of another text put in between, at random."""
    more: list[Tagged] = []
    for step in steps:
        if order.random() < 0.5:
            more.append(
                Tagged(
                    "new", order.choice(["ask", "function", "embed"]), f"new {order.randrange(3)}"
                )
            )
        more.append(step._replace(inside=extended(step.inside, order)))
    return tuple(more)


@pytest.mark.newest_only
@given(PROGRAMS, SEEDS, st.permutations(list(WAYS)), st.booleans())
@settings(max_examples=20)
def test_what_is_added_moves_nothing(
    program: Any, seed: int, ways: list[str], inside: bool
) -> None:
    """Another run with more rounds, agents and calls in between replays all that an earlier one
    asked.
    """
    order = random.Random(seed)
    first = [tagged(without_refusals(steps)) for steps in program]
    later = [tagged(without_refusals(steps), "later") for steps in program]
    longer = [
        extended(steps, order) + more for steps, more in zip(first, later, strict=True)
    ] + later[:2]
    tags = {f"actor-{index}": all_tags(steps) for index, steps in enumerate(first)}
    with a_place_of_its_own() as path:
        with cassette(path):
            live = run(ways[0], first, seed, inside=inside, mode="auto")
        with cassette(path, mode="new") as tape:
            told = run(ways[1], longer, seed + 1, inside=inside, mode="auto")
        assert not tape.unused()
    earlier = {name: [each for each in told[name] if each[0] in tags[name]] for name in tags}
    assert earlier == live


def all_tags(steps: tuple[Tagged, ...]) -> set[str]:
    """Return the tags of steps, those inside others too."""
    return {step.tag for step in steps}.union(*(all_tags(step.inside) for step in steps))


def said(client: ScriptedClient, text: str = "Hi") -> Any:
    """Ask and return the answer's text."""
    return client.send_message(text, on_error="raise").content


# The same request at once, from two threads in one scope


def at_once(ask: Callable[[Any], Any], *arguments: Any) -> list[Any]:
    """Call a function in threads, in one scope."""
    with scope("trial"), ThreadPoolExecutor(len(arguments)) as executor:
        return [
            each.result()
            for each in [executor.submit(bind(ask), argument) for argument in arguments]
        ]


def meeting(threads: int) -> ScriptedClient:
    """Return a client that answers when a number of threads ask at once."""
    barrier = threading.Barrier(threads, timeout=60)
    return ScriptedClient(lambda messages: str(barrier.wait()))


AT_THE_SAME_TIME = "make the same request at the same time"


@pytest.mark.parametrize("function", [False, True])
def test_the_same_request_at_once_warns(function: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Chance decides which thread gets which draw: one warning says so."""
    client, barrier = meeting(3), threading.Barrier(3, timeout=60)
    clock = recorded(name="clock")(lambda: barrier.wait())
    at_once(lambda _: clock() if function else said(client), 1, 2, 3)
    (warning,) = caplog.messages
    assert f"two threads in the scope 'trial' {AT_THE_SAME_TIME}" in warning
    assert "Give each thread its own scope" in warning


def ask_texts(client: ScriptedClient, name: str) -> Any:
    """Ask another text."""
    return said(client, name)


def ask_samples(client: ScriptedClient, name: str) -> Any:
    """Ask for another sample."""
    return client.send_message("Hi", sample=name)


def ask_in_scopes(client: ScriptedClient, name: str) -> Any:
    """Ask in another scope."""
    with scope(name):
        return said(client)


@pytest.mark.parametrize("ask", [ask_texts, ask_samples, ask_in_scopes])
def test_other_requests_at_once_do_not_warn(
    ask: Callable[[ScriptedClient, str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """They are no matter of chance."""
    client = meeting(2)
    at_once(lambda name: ask(client, name), "a", "b")
    assert caplog.messages == []


@pytest.mark.parametrize("way", ["answered", "streamed", "function", "failed", "missed", "built"])
def test_the_same_request_in_turn_does_not_warn(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Threads that ask the same one after the other have an order."""
    client = ScriptedClient(
        lambda messages: "yes", cache_mode="replay" if way == "missed" else "auto"
    )
    failing = ScriptedClient(lambda messages: llmcall.InvalidRequestError("no"))

    def missed() -> None:
        with pytest.raises(llmcall.CacheMissError):
            client.send_message("Hi")

    ways: dict[str, Callable[[], Any]] = {
        "answered": lambda: said(client),
        "streamed": lambda: list(client.stream_message("Hi")),
        "function": recorded(name="clock")(random.random),
        "failed": lambda: failing.send_message("Hi"),
        "missed": missed,
        "built": lambda: client.build_request("Hi"),
    }
    with scope("trial"):
        for _ in range(3):
            with ThreadPoolExecutor(1) as executor:
                executor.submit(bind(lambda: ways[way]())).result()
    assert AT_THE_SAME_TIME not in caplog.text
