"""Replaying: whatever the interleaving, and whatever was added, what was asked before is answered as it was."""

from __future__ import annotations

import itertools
import logging
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
from programs import ran

import llmcall
from llmcall import ResponseCache, bind, cassette, recorded, scope
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
    """Give each example a folder for its cassette and its cache."""
    folder = Path(f"run-{next(FOLDERS)}").absolute()
    folder.mkdir()
    with llmcall.configured(cache_path=folder / "cache"):
        yield folder / PATH
    shutil.rmtree(folder)


def run(way: str, program: Any, seed: int, *, inside: bool, mode: str, **how: Any) -> dict[str, Any]:
    """Run a program, in one scope around all actors or with each actor's own as the outermost."""
    with llmcall.configured(cache_mode=mode), scope("trial") if inside else nullcontext():
        return WAYS[way](program, seed, cache_mode=mode, on_error="none", **how)


def without_refusals(steps: list[Any]) -> list[Any]:
    """Return steps without those that fail, which no replay has."""
    kept = [step for step in steps if step[0] != "refused"]
    return [(kind, text, *(without_refusals(each) for each in inside)) for kind, text, *inside in kept]


@given(PROGRAMS, SEEDS, st.booleans())
@settings(max_examples=60)
def test_any_interleaving_is_the_sequential_run(program: Any, seed: int, inside: bool) -> None:
    """Threads and tasks in a random order take the same draws, and write the same cassette, byte for byte."""
    with a_place_of_its_own() as path:
        told, files = [], set()
        for way in WAYS:
            with cassette(path, mode="rewrite"):
                told.append(run(way, program, seed, inside=inside, mode="off", pure=True))
            files.add(path.read_bytes() if path.exists() else b"")
            path.unlink(missing_ok=True)
    assert told[1] == told[0] == told[2] and len(files) == 1


@given(PROGRAMS, SEEDS, st.permutations(list(WAYS)), st.booleans())
@settings(max_examples=30)
def test_any_interleaving_replays_any_other(program: Any, seed: int, ways: list[str], inside: bool) -> None:
    """What was recorded in one interleaving replays in any other: from the cassette alone, and from the cache alone."""
    program = [without_refusals(steps) for steps in program]
    with a_place_of_its_own() as path:
        with cassette(path):
            live = run(ways[0], program, seed, inside=inside, mode="auto")
        assert run(ways[1], program, seed + 1, inside=inside, mode="replay") == live
        with llmcall.configured(cache_path=path.parent / "empty"), cassette(path, mode="none") as again:
            assert run(ways[2], program, seed + 2, inside=inside, mode="auto") == live
        assert (again.recorded, again.unused()) == (0, [])


@given(PROGRAMS, SEEDS, st.booleans())
@settings(max_examples=30)
def test_refused_calls_leave_no_gaps(program: Any, seed: int, inside: bool) -> None:
    """Whatever fails in whatever order, the draws of each path and request are numbered from 0, each once."""
    with a_place_of_its_own() as path:
        run("in threads", program, seed, inside=inside, mode="auto")
        with ResponseCache(path.parent / "cache") as cache:
            records = [record for record in cache.records() if record.sample and "given" not in record.sample]
    drawn: dict[tuple[str, str], list[int]] = {}
    for record in records:
        place, _, number = str(record.sample).partition("#")
        drawn.setdefault((place, repr(record.request)), []).append(int(number))
    assert all(sorted(numbers) == list(range(len(numbers))) for numbers in drawn.values())


def extended(steps: tuple[Tagged, ...], order: random.Random) -> tuple[Tagged, ...]:
    """Return steps with calls of another text put in between, at random."""
    more: list[Tagged] = []
    for step in steps:
        if order.random() < 0.5:
            more.append(Tagged("new", order.choice(["ask", "function", "embed"]), f"new {order.randrange(3)}"))
        more.append(step._replace(inside=extended(step.inside, order)))
    return tuple(more)


@given(PROGRAMS, SEEDS, st.permutations(list(WAYS)), st.booleans())
@settings(max_examples=20)
def test_what_is_added_moves_nothing(program: Any, seed: int, ways: list[str], inside: bool) -> None:
    """Another run with more rounds, agents and calls in between replays all that an earlier one asked."""
    order = random.Random(seed)
    first = [tagged(without_refusals(steps)) for steps in program]
    later = [tagged(without_refusals(steps), "later") for steps in program]
    longer = [extended(steps, order) + more for steps, more in zip(first, later, strict=True)] + later[:2]
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


def numbered(**settings: Any) -> ScriptedClient:
    """Return a client whose answers are numbered."""
    client = ScriptedClient(lambda messages: f"answer {len(client.requests)}", **settings)
    return client


def said(client: ScriptedClient, text: str = "Hi") -> Any:
    """Ask and return the answer's text."""
    return client.send_message(text, on_error="raise").content


CELLS = [
    "trial = llmcall.scope('trial')",
    "with trial:\n    told.append(said(client))",
    "with trial:\n    told.append(said(client))\n    with llmcall.scope('lisa'):\n        told.append(said(client))",
    "with trial, llmcall.scope('lisa'):\n    told.append(look())\n    told.append(said(client))",
]


def in_a_notebook(client: ScriptedClient, order: list[int]) -> list[Any]:
    """Run cells one after the other in one namespace, as a fresh kernel does."""
    names: dict[str, Any] = {"llmcall": llmcall, "client": client, "said": said, "told": []}
    names["look"] = recorded(name="look")(random.random)
    for number in order:
        exec(CELLS[number], names)
    return names["told"]  # type: ignore[no-any-return]


def test_the_cells_of_a_notebook() -> None:
    """A scope kept in a variable goes on from cell to cell; a new kernel replays, also where a cell is run again."""
    client = numbered(cache_mode="auto")
    live = in_a_notebook(client, [0, 1, 2, 3])
    assert len(set(live)) == 5
    nobody = numbered(cache_mode="replay")
    assert in_a_notebook(nobody, [0, 1, 2, 3]) == live
    with pytest.raises(llmcall.CacheMissError):
        in_a_notebook(nobody, [0, 1, 2, 3, 3])
    assert in_a_notebook(client, [0, 1, 2, 3, 3])[:5] == live
    assert in_a_notebook(nobody, [0, 2, 3, 1])[:1] == live[:1]


MODULE = """
from llmcall import recorded, scope
from llmcall.testing import ScriptedClient
import os

@recorded
def chance():
    return [os.getpid(), os.urandom(4).hex()]

def act(name):
    client = ScriptedClient(lambda messages: os.urandom(4).hex(), cache_mode=None, on_error="raise")
    told = []
    for _ in range(2):
        with scope(name):
            told += [client.send_message("Hi").content, client.send_message("Hi").sample, chance()]
    return told
"""


POOLED = """
import sys, llmcall
import json, multiprocessing
from concurrent.futures import ProcessPoolExecutor
from acting import act
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as executor, llmcall.scope("trial"):
        run = map if sys.argv[1] == "in sequence" else executor.map
        print(json.dumps(list(run(llmcall.bind(act), ["lisa", "oscar", "ann"]))))
"""


def test_the_processes_of_a_pool() -> None:
    """Actors in processes of their own record under their scopes, and replay in other processes or in one."""
    Path("acting.py").write_text(MODULE.replace("cache_mode=None", 'cache_mode="auto"'))
    Path("main.py").write_text(POOLED)
    program = "import runpy; sys.path.insert(0, os.getcwd()); runpy.run_path('main.py', run_name='__main__')"
    live = ran(program, "in a pool")
    Path("acting.py").write_text(MODULE.replace("cache_mode=None", 'cache_mode="replay"'))
    for way in ("in a pool", "in sequence"):
        assert ran(program, way, LLMCALL_CACHE_MODE="replay") == live
    assert live.count("trial/lisa#1") == 1 and live.count("trial/ann#3") == 1


# The same request at once, from two threads in one scope


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def at_once(ask: Callable[[Any], Any], *arguments: Any) -> list[Any]:
    """Call a function in threads, in one scope."""
    with scope("trial"), ThreadPoolExecutor(len(arguments)) as executor:
        return [each.result() for each in [executor.submit(bind(ask), argument) for argument in arguments]]


def meeting(threads: int) -> ScriptedClient:
    """Return a client that answers when a number of threads ask at once."""
    barrier = threading.Barrier(threads, timeout=60)
    return ScriptedClient(lambda messages: str(barrier.wait()))


@pytest.mark.parametrize("function", [False, True])
def test_the_same_request_at_once_warns(function: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Threads that ask the same in one scope leave it to chance who gets which draw: one warning says so."""
    client, barrier = meeting(3), threading.Barrier(3, timeout=60)
    clock = recorded(name="clock")(lambda: barrier.wait())
    at_once(lambda _: clock() if function else said(client), 1, 2, 3)
    assert warnings(caplog) == [
        "the same request is under way from two threads in the scope 'trial': which of them gets which draw is left "
        "to chance, and a replay may exchange their answers. Give each thread a scope of its own"
    ]


def test_other_requests_at_once_do_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    """Other texts, other scopes and given samples are no matter of chance."""
    texts, samples, scopes = meeting(2), meeting(2), meeting(2)
    at_once(lambda text: said(texts, text), "a", "b")
    at_once(lambda name: samples.send_message("Hi", sample=name), "a", "b")

    def alone(name: str) -> Any:
        with scope(name):
            return said(scopes)

    at_once(alone, "a", "b")
    assert warnings(caplog) == []


@pytest.mark.parametrize("way", ["answered", "cached", "streamed", "function", "failed", "missed", "built"])
def test_the_same_request_in_turn_does_not_warn(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Threads that ask the same one after the other have an order."""
    client = numbered(cache_mode="replay" if way == "missed" else "auto")
    failing = ScriptedClient(lambda messages: llmcall.InvalidRequestError("no"))
    clock = recorded(name="clock")(lambda: random.random())

    def ask(_: Any) -> Any:
        if way == "streamed":
            return list(client.stream_message("Hi"))
        if way == "missed":
            with pytest.raises(llmcall.CacheMissError):
                client.send_message("Hi")
            return None
        if way in ("function", "built"):
            return clock() if way == "function" else client.build_request("Hi")
        return failing.send_message("Hi") if way == "failed" else said(client)

    if way == "cached":
        with scope("trial"):
            said(client), said(client), said(client)
    with scope("trial"):
        for _ in range(3):
            with ThreadPoolExecutor(1) as executor:
                executor.submit(bind(ask), None).result()
    assert [line for line in warnings(caplog) if "under way" in line] == []
