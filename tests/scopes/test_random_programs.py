"""Random programs: recorded, then replayed without a model and with other timings."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST, NEEDS_POSIX, PRICED
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_programs import (
    ASKS,
    BLOCKS,
    CROWDS,
    NAMES,
    TEXTS,
    TOGETHER,
    TROUBLES,
    Actor,
    Chance,
    Crowd,
    Interruption,
    Plan,
)

import llmcall

HELPERS = str(Path(__file__).parents[1])  # the folder of what the script imports
SEEDS = st.integers(0, 10**6)
FOLDERS = itertools.count()


def programs(*asks: str) -> Any:
    """Return a strategy for lists of steps that ask in some ways."""
    leaves = st.tuples(st.sampled_from(asks), st.sampled_from(TEXTS), st.just([]))
    blocks = st.sampled_from([*BLOCKS, *TOGETHER, *TOGETHER])
    steps = st.recursive(
        leaves,
        lambda inner: st.tuples(blocks, st.sampled_from(NAMES), st.lists(inner, max_size=3)),
        max_leaves=12,
    )
    return st.lists(steps, min_size=1, max_size=4)


PROGRAMS = programs(*ASKS, *TROUBLES)
EXAMPLES = pytest.mark.parametrize(
    "examples",
    [5, pytest.param(20, marks=pytest.mark.ci), pytest.param(200, marks=pytest.mark.slow)],
)


@contextmanager
def for_all_threads(**changed: Any) -> Iterator[None]:
    """Change settings of the process for a block: a program's threads inherit no context."""
    before = {name: getattr(llmcall.settings(), name) for name in changed}
    llmcall.configure(**changed)
    try:
        yield
    finally:
        llmcall.configure(**before)


@contextmanager
def a_place_of_its_own() -> Iterator[Path]:
    """Provide a folder for the cassettes and the cache of an example."""
    folder = Path(f"run-{next(FOLDERS)}").absolute()
    folder.mkdir()
    with for_all_threads(cache_path=folder / "cache"):
        yield folder
    shutil.rmtree(folder)


def run(
    program: Any, seed: int, *, inside: bool, executor: Any = None, **plan: Any
) -> dict[str, Any]:
    """Run a program, in one scope around all or not."""
    actor = Actor(Chance(Plan(seed, **plan)), executor=executor)
    if inside:
        actor.position = actor.position.inside("trial")
    with llmcall.scope("trial") if inside else nullcontext():
        return actor.run(program)


def lines_of(path: Path) -> list[Any]:
    """Return the lines of a cassette, without the days and the number of failed calls in its header."""
    if not path.exists():
        return []
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [{**json.loads(header), "served": None, "unanswered": None}, *lines]


def check_replays(path: Path, live: Any, program: Any, seed: int, **how: Any) -> None:
    """Replay a program from the cassette alone, every record being used."""
    with (
        for_all_threads(cache_path=path.parent / "empty"),
        llmcall.cassette(path, mode="none") as tape,
    ):
        assert run(program, seed, is_dead=True, **how) == live
    assert (tape.recorded, tape.unused()) == (0, [])


@EXAMPLES
def test_a_recorded_program_replays(examples: int) -> None:
    """From the cassette alone, and from the cache alone; each draw has the number that a stranger
    counts.
    """

    @given(PROGRAMS, SEEDS, st.booleans())
    @settings(max_examples=examples)
    def check(program: Any, seed: int, inside: bool) -> None:
        with a_place_of_its_own() as folder:
            with llmcall.cassette(folder / "tape.jsonl"):
                live = run(program, seed, inside=inside)
            with for_all_threads(cache_mode="replay"):
                assert run(program, seed + 1, inside=inside, is_dead=True) == live
            check_replays(folder / "tape.jsonl", live, program, seed + 2, inside=inside)

    check()


def opens_a_scope_twice_at_once(
    steps: Any, *, is_together: bool = False, is_outermost: bool = False
) -> bool:
    """Return whether members of a program that run at the same time may open outermost scopes of one name."""
    return any(
        (is_outermost and kind in (*TOGETHER, "scope", "kept", "arms"))
        or opens_a_scope_twice_at_once(
            inside,
            is_together=is_together or kind in TOGETHER,
            is_outermost=is_outermost or (is_together and kind == "none"),
        )
        for kind, _, inside in steps
    )


@EXAMPLES
def test_an_interrupted_program_goes_on(examples: int) -> None:
    """However often it was interrupted, or its budget ran out, the cassette is in the end the one that
    an undisturbed recording gives, whatever the timing.
    """

    @given(PROGRAMS, SEEDS, st.booleans(), st.integers(1, 9), st.booleans())
    @settings(max_examples=examples)
    def check(program: Any, seed: int, inside: bool, calls: int, has_budget: bool) -> None:
        assume(not opens_a_scope_twice_at_once(program))  # docs: "If something surprises you"
        plan = {"is_pure": True, "has_budget": has_budget}
        with a_place_of_its_own() as folder:
            with (
                for_all_threads(cache_path=folder / "other"),
                llmcall.cassette(folder / "undisturbed.jsonl"),
            ):
                live = run(program, seed, inside=inside, **plan)
            results: Any = None
            while results is None:
                seed += 1
                left = None if has_budget else calls
                budget = llmcall.budget(calls=calls) if has_budget else nullcontext()
                try:
                    with llmcall.cassette(folder / "tape.jsonl"), budget:
                        results = run(program, seed, inside=inside, calls_left=left, **plan)
                except (Interruption, llmcall.BudgetExceededError):
                    calls += 1
            assert results == live
            paths = folder / "tape.jsonl", folder / "undisturbed.jsonl"
            again, undisturbed = map(lines_of, paths)
            assert again == undisturbed

    check()


def extended(steps: Any, order: random.Random) -> list[Any]:
    """Return steps with others put in between, which ask what nothing else does."""
    more: list[Any] = []
    for index, (kind, text, inside) in enumerate(steps):
        if order.random() < 0.5:
            more.append(["new", order.choice(TEXTS), []])
        more.append([kind, text, extended(inside, order), index])
    return more


@EXAMPLES
def test_added_calls_move_no_draw_of_a_random_program(examples: int) -> None:
    """A longer program replays all that the shorter one asked."""

    @given(PROGRAMS, SEEDS, st.booleans())
    @settings(max_examples=examples)
    def check(program: Any, seed: int, inside: bool) -> None:
        longer = extended(program, random.Random(seed))
        with a_place_of_its_own() as folder:
            with llmcall.cassette(folder / "tape.jsonl"):
                live = run(program, seed, inside=inside)
            with llmcall.cassette(folder / "tape.jsonl", mode="new") as tape:
                assert run(longer, seed + 1, inside=inside) == live
            assert not tape.unused()

    check()


def edited(steps: Any, order: random.Random) -> list[Any]:
    """Return steps of which some are changed, dropped, put in or moved."""
    changed: list[Any] = []
    for kind, text, inside in steps:
        if order.random() < 0.2:
            changed.append(["new", order.choice(TEXTS), []])
        chance = order.random()
        if chance < 0.2 and kind in ASKS:
            changed.append((kind, order.choice(TEXTS), inside))
        elif chance > 0.15:
            changed.append((kind, text, edited(inside, order)))
    if order.random() < 0.3:
        order.shuffle(changed)
    return changed


@EXAMPLES
@pytest.mark.parametrize("mode", ["update", pytest.param("new", marks=pytest.mark.ci)])
def test_the_file_of_a_changed_program_has_the_order_of_a_fresh_recording(
    mode: str, examples: int
) -> None:
    """It is a fresh recording byte for byte, but for records that it kept, if callers have the draws of a fresh
    recording: each gets its own recorded ones first.
    """

    @given(programs(*ASKS), SEEDS, st.booleans())
    @settings(max_examples=examples)
    def check(program: Any, seed: int, inside: bool) -> None:
        changed = edited(program, random.Random(seed))
        with a_place_of_its_own() as folder:
            tape, fresh = folder / "tape.jsonl", folder / "fresh.jsonl"
            with for_all_threads(cache_path=folder / "other"), llmcall.cassette(fresh):
                run(changed, seed, inside=inside, is_pure=True)
            for steps in (program, changed):
                with llmcall.cassette(tape, mode=mode):
                    run(steps, seed + 1, inside=inside, is_pure=True, is_changed=steps is changed)
            ours, records = records_of(tape), records_of(fresh)
            if not set(asked_in(fresh)) <= set(asked_in(tape)):
                return
            assert [line for line in ours if line in records] == records
            if fresh.exists() and mode == "update" and len(ours) == len(records):
                assert tape.read_bytes() == fresh.read_bytes()

    check()


def records_of(path: Path) -> list[str]:
    """Return the lines of a cassette's records, without the arms' names: ``new`` keeps earlier ones."""
    lines = [line for line in lines_of(path)[1:] if line.startswith('{"kind"')]
    return [re.sub(r'"arms": \[[^]]*\], ', "", line) for line in lines]


MEMBERS = st.recursive(
    st.tuples(st.sampled_from(CROWDS), st.sampled_from(TEXTS[:2]), st.just([])),
    lambda inner: st.tuples(
        st.sampled_from(CROWDS), st.sampled_from(TEXTS[:2]), st.lists(inner, max_size=3)
    ),
    max_leaves=6,
)


def edited_crowd(members: Any, order: random.Random) -> list[Any]:
    """Return members of which some ask otherwise, are dropped, put in or moved."""
    changed: list[Any] = []
    for way, text, inside in members:
        if order.random() < 0.2:
            changed.append((order.choice(CROWDS), order.choice(TEXTS[:2]), []))
        if order.random() > 0.2:
            other = order.choice([text, text, *TEXTS[:2]])
            changed.append((way, other, edited_crowd(inside, order)))
    if order.random() < 0.2:
        order.shuffle(changed)
    return changed


@EXAMPLES
@pytest.mark.parametrize("mode", ["update", pytest.param("new", marks=pytest.mark.ci)])
def test_the_updated_file_of_a_changed_crowd_replays(mode: str, examples: int) -> None:
    """Its tasks and threads ask the same in one scope. Where it has the draws of a fresh recording, it
    has its records, byte for byte. They stand in the order in which the tasks and threads came.
    """

    @given(st.sampled_from(CROWDS), st.lists(MEMBERS, min_size=1, max_size=4), SEEDS, st.booleans())
    @settings(max_examples=examples)
    def check(way: str, members: Any, seed: int, is_pure: bool) -> None:
        changed = edited_crowd(members, random.Random(seed))
        with a_place_of_its_own() as folder:
            tape, fresh = folder / "tape.jsonl", folder / "fresh.jsonl"
            with for_all_threads(cache_path=folder / "other"), llmcall.cassette(fresh):
                play(way, changed, seed, is_pure=is_pure)
            with llmcall.cassette(tape, mode=mode):
                play(way, members, seed + 1, is_pure=is_pure)
            with llmcall.cassette(tape, mode=mode):
                live = play(way, changed, seed + 2, is_pure=is_pure)
            if is_pure and asked_in(tape) == asked_in(fresh):
                assert sorted(records_of(tape)) == sorted(records_of(fresh))
            with for_all_threads(cache_path=folder / "empty"), llmcall.cassette(tape, mode="none"):
                assert play(way, changed, seed + 3, is_dead=True) == live

    check()


def play(way: str, members: Any, seed: int, **plan: Any) -> dict[str, Any]:
    """Let a crowd ask, and return what each member was answered."""
    results: dict[str, Any] = {}
    Crowd(Chance(Plan(seed, **plan)), results).play(way, members, "crowd")
    return results


def asked_in(path: Path) -> list[str]:
    """Return what each caller drew, and after what. A caller that moved keeps its draws, which come before new ones."""
    records = map(json.loads, records_of(path))
    names = "caller", "sample", "after", "request"
    return sorted(json.dumps([record.get(name) for name in names]) for record in records)


def scoped(steps: Any) -> list[Any]:
    """Return steps that all stand in a scope: outside, two processes may ask one question at once."""
    return [
        ("scope" if kind == "none" else kind, text, scoped(inside)) for kind, text, inside in steps
    ]


@pytest.mark.slow
@NEEDS_POSIX
@pytest.mark.feature("executors")
def test_a_program_with_workers_replays() -> None:
    """Items of its maps are worked on in other processes."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as workers:

        @given(PROGRAMS, SEEDS)
        @settings(max_examples=100)
        def check(program: Any, seed: int) -> None:
            program = [["map", "x", scoped(program)], ["map", "x", scoped(program)]]
            with a_place_of_its_own() as folder:
                with llmcall.cassette(folder / "tape.jsonl"):
                    live = run(program, seed, inside=True, executor=workers)
                check_replays(folder / "tape.jsonl", live, program, seed, inside=True)

        check()


@pytest.mark.ci
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]
)
def test_a_program_under_run_replays_in_a_fresh_process(seed: int) -> None:
    """With another hash seed, from the cassette alone, and from the cache alone; so do crowds of
    tasks and threads that ask the same in one scope.
    """
    order = random.Random(seed)

    def steps(depth: int) -> list[Any]:
        if not depth:
            return [[order.choice([*ASKS, *TROUBLES]), order.choice(TEXTS), []] for _ in range(2)]
        kinds = order.sample([*BLOCKS, *TOGETHER], 3)
        return [*steps(0), *([kind, order.choice(NAMES), steps(depth - 1)] for kind in kinds)]

    def members(depth: int) -> list[Any]:
        return [
            [order.choice(CROWDS), order.choice(TEXTS[:2]), members(depth - 1) if depth else []]
            for _ in range(2)
        ]

    program = [*steps(2), *(["crowd", way, members(2)] for way in CROWDS)]
    Path("program.json").write_text(json.dumps(program), encoding="utf-8")
    live = ran_under_run(["--cassette", "tape.jsonl"], "cache", {"seed": seed})
    assert len(live) > 100
    replay = {"seed": seed + 1, "is_dead": True}
    options = ["--cassette", "tape.jsonl", "--mode", "none"]
    assert ran_under_run(options, "empty", replay) == live
    assert ran_under_run(["--mode", "none"], "cache", replay) == live


@pytest.mark.ci
@NEEDS_POSIX
@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_run_that_was_stopped_records_what_its_replays_then_give(how: signal.Signals) -> None:
    """It was stopped in its midst and run again; something was kept, so the model answers fewer calls than all."""
    members = [[way, text, [[way, text, []]]] for way in CROWDS for text in TEXTS[:2]]
    calls = 4 * len(members)  # each member asks at its beginning and end
    Path("program.json").write_text(json.dumps([["crowd", "threads", members]]), encoding="utf-8")
    options = ["--cassette", "tape.jsonl"]
    plan = {"seed": 1, "calls_left": calls // 2, "signal": how}
    ran_under_run(options, "cache", plan, code=-how)
    live = ran_under_run(options, "cache", {"seed": 2, "calls_left": calls - 1})
    assert len(live) == calls
    replay = {"seed": 3, "is_dead": True}
    assert ran_under_run([*options, "--mode", "none"], "empty", replay) == live


def ran_under_run(
    options: list[str], cache: str, plan: dict[str, Any], code: int = 0
) -> dict[str, Any]:
    """Run the program in a fresh process, and return its results, if it ended well."""
    script = Path(__file__).with_name("random_programs.py")
    arguments = [script, "program.json", json.dumps(plan), "results.json"]
    done = subprocess.run(
        [sys.executable, "-m", "llmcall", "run", "--scope", "play", *options, *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([HELPERS, os.environ["PYTHONPATH"]]),
            "PYTHONHASHSEED": "random",
            "LLMCALL_CACHE_PATH": cache,
            "LLMCALL_CONFIG": str(PRICED),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
    )
    assert done.returncode == code, done.stderr
    return {} if code else json.loads(Path("results.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
