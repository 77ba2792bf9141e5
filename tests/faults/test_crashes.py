"""Processes killed at random instants, 200 times: what a caller had received is there, and nothing
is half written.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import NEEDS_POSIX
from files import DATABASE, in_database, read_records
from workers import Nursery, Worker, digest, fill, is_answer_to, pause, seeded

from llmcall import ResponseCache

pytestmark = NEEDS_POSIX

RECORDS = 150
DATABASE_FILES = {".gitignore", DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"}


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    """A place to start processes from."""
    (tmp_path / "journals").mkdir()
    with Nursery(tmp_path / "journals") as opened:
        yield opened


def stored(folder: Path) -> dict[str, str]:
    """Check that a cache is sound without repair; return the digests of its answers by their
    questions.
    """
    assert {path.name for path in folder.iterdir()} <= DATABASE_FILES
    assert in_database(folder, "PRAGMA integrity_check") == [("ok",)]
    with ResponseCache(folder) as cache:
        found = {}
        for record in cache.records():
            question = record.request["messages"][-1]["content"]
            answer = record.response["choices"][0]["message"]["content"]
            assert is_answer_to(question, answer)
            found[question] = digest(answer)
        assert len(found) == len(cache)
    return found


def received(worker: Worker) -> dict[str, str]:
    """Return the digests of the answers that a killed process had received; it must have met no
    trouble before.
    """
    written = worker.lines()
    assert all(isinstance(line, list) for line in written), written
    return {
        question: answer_digest
        for question, answer_digest in written
        if question not in ("begin", "end", "asked")
    }


def strike(worker: Worker, longest: float, chance: random.Random) -> None:
    """Kill a process at a random instant after it has begun, at most as long after as it takes to
    the end.
    """
    worker.wait_for_lines(1)
    pause(chance.uniform(0, longest))
    worker.killed()


def time_of(worker: Worker) -> float:
    """Return the seconds from a process's beginning to its end."""
    worker.wait_for_lines(1)
    begun = time.monotonic()
    worker.done()
    return time.monotonic() - begun


def kill_one_of_four(
    nursery: Nursery, folder: Path, chance: random.Random, begin: int
) -> dict[str, str]:
    """Start four processes that store answers to the same questions; kill one, then the others;
    return what they received.
    """
    workers = [nursery.start("ask", folder, f"w{number}", begin) for number in range(4)]
    victim, *others = chance.sample(workers, 4)
    victim.wait_for_lines(chance.randrange(1, 20))
    pause(chance.uniform(0, 0.01))
    victim.killed()
    for worker in others:
        worker.wait_for_lines(len(worker.lines()) + 2)  # they go on
    for worker in others:
        worker.kill()
    answers: dict[str, str] = {}
    for worker in workers:
        worker.killed()
        for question, answer_digest in received(worker).items():
            assert answers.setdefault(question, answer_digest) == answer_digest
    return answers


@pytest.mark.ci
@pytest.mark.parametrize("rounds", [1, pytest.param(22, marks=pytest.mark.slow)])
def test_what_any_of_four_writers_had_received_is_there_after_a_kill(
    rounds: int, nursery: Nursery, tmp_path: Path
) -> None:
    """They share a cache, which stays sound. (88 kills)"""
    chance = seeded()
    answers: dict[str, str] = {}
    for number in range(rounds):
        answers |= kill_one_of_four(nursery, tmp_path / "cache", chance, number * 1000)
        found = stored(tmp_path / "cache")
        assert answers.items() <= found.items()
    assert len(answers) >= 3 * rounds


@pytest.mark.slow
def test_a_process_killed_while_it_makes_a_cache_hinders_no_other(
    nursery: Nursery, tmp_path: Path
) -> None:
    """The next one finishes it, and has what the killed one had received. (12 kills)"""
    chance = seeded()
    longest = time_of(nursery.start("create", tmp_path / "unharmed"))
    for number in range(12):
        folder = tmp_path / f"cache {number}"
        worker = nursery.start("create", folder)
        strike(worker, longest, chance)
        had = received(worker)
        nursery.start("create", folder).done()
        assert stored(folder).items() >= had.items()
        assert (folder / ".gitignore").read_text() == "*\n"


@pytest.mark.ci
@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_map_that_was_killed_asks_for_nothing_that_it_had_received(
    rounds: int, nursery: Nursery, tmp_path: Path
) -> None:
    """It goes on when it runs again. (20 kills)"""
    chance = seeded()
    for number in range(rounds):
        folder = tmp_path / f"cache {number}"
        worker = nursery.start("map_all", folder, 60)
        worker.wait_for_lines(chance.randrange(1, 50))
        pause(chance.uniform(0, 0.005))
        worker.killed()
        had = received(worker)
        kept = stored(folder)
        assert had.items() <= kept.items()
        asked = nursery.start("map_all", folder, 60).done()[-1]
        assert asked == ["asked", 60 - len(kept)]
        assert len(stored(folder)) == 60


def read_lines(path: Path) -> dict[str, str]:
    """Check that a file of records is whole; return the digests of its answers by their questions."""
    return {
        record.request["messages"][-1]["content"]: digest(
            record.response["choices"][0]["message"]["content"]
        )
        for record in read_records(path)
    }


@pytest.mark.slow
def test_an_export_that_was_killed_leaves_the_old_file_or_the_new_one(
    nursery: Nursery, tmp_path: Path
) -> None:
    """The next export removes what was begun beside it. (20 kills)"""
    chance = seeded()
    fill(tmp_path / "cache", RECORDS)
    whole, target = stored(tmp_path / "cache"), tmp_path / "out" / "exported.jsonl"
    longest = time_of(nursery.start("change", tmp_path / "cache", "export", target))
    assert read_lines(target) == whole
    with ResponseCache(tmp_path / "cache") as cache:
        first = next(cache.records())
        cache.export(tmp_path / "out" / "old.jsonl", where=lambda record: record == first)
    for _ in range(20):
        os.replace(tmp_path / "out" / "old.jsonl", target)
        old = target.read_bytes()
        strike(nursery.start("change", tmp_path / "cache", "export", target), longest, chance)
        assert target.read_bytes() == old or read_lines(target) == whole
        (tmp_path / "out" / "old.jsonl").write_bytes(old)
    nursery.start("change", tmp_path / "cache", "export", target).done()
    assert sorted(os.listdir(target.parent)) == ["exported.jsonl", "old.jsonl"]
    assert stored(tmp_path / "cache") == whole


@pytest.mark.slow
def test_a_load_that_was_killed_has_changed_all_records_or_none(
    nursery: Nursery, tmp_path: Path
) -> None:
    """The next one finishes it. (20 kills)"""
    chance = seeded()
    source, held = tmp_path / "exported.jsonl", 3
    fill(tmp_path / "whole", RECORDS)
    with ResponseCache(tmp_path / "whole") as cache:
        cache.export(source)
    fill(tmp_path / "cache", held)
    longest = time_of(nursery.start("change", tmp_path / "cache", "load", source))
    for number in range(20):
        folder = tmp_path / f"cache {number}"
        fill(folder, held)
        before, answers = keys_of(folder), stored(folder)
        worker = nursery.start("change", folder, "load", source)
        strike(worker, longest, chance)
        after, was_done = keys_of(folder), ["end", RECORDS] in worker.lines()
        nursery.start("change", folder, "load", source).done()
        changed = keys_of(folder)
        assert after == changed if was_done else after in (before, changed)
        assert changed >= before
        assert stored(folder).items() >= answers.items()
        assert len(changed) == RECORDS


def keys_of(folder: Path) -> set[str]:
    """Return the keys of a cache's records."""
    with ResponseCache(folder) as cache:
        return {record.cache_key for record in cache.records()}


@pytest.mark.ci
@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_recording_that_was_killed_leaves_the_old_file_or_the_new_one(
    rounds: int, nursery: Nursery, tmp_path: Path
) -> None:
    """Its answers are in the cache. (20 kills)"""
    chance = seeded()
    folder, tape, count = tmp_path / "cache", tmp_path / "tapes" / "tape.jsonl", 40
    longest = 2 * time_of(nursery.start("record", folder, tape, 0, count))
    recorded = read_lines(tape)
    for number in range(1, rounds + 1):
        worker = nursery.start("record", folder, tape, number * count, count)
        worker.wait_for_lines(chance.randrange(count + 1))
        pause(chance.choice((0, 1)) * chance.uniform(0, longest / 10))
        worker.killed()
        had = received(worker)
        found = read_lines(tape)
        assert found == recorded or (
            found.items() >= (recorded | had).items() and len(had) == count
        )
        assert had.items() <= stored(folder).items()
        recorded = found
    nursery.start("record", folder, tape, 0, count).done()
    nursery.start("record", folder, tape, 10**6, 1).done()
    assert os.listdir(tape.parent) == ["tape.jsonl"]


@pytest.mark.parametrize("made", ["", "CREATE TABLE Settings (key TEXT NOT NULL UNIQUE, value)"])
def test_a_database_that_a_killed_process_began_is_finished_by_the_next_one(
    made: str, tmp_path: Path
) -> None:
    """Before that it holds nothing."""
    (tmp_path / "cache").mkdir()
    sqlite3.connect(tmp_path / "cache" / DATABASE).executescript(made).connection.close()
    with ResponseCache(tmp_path / "cache") as cache:
        assert (list(cache.records()), len(cache)) == ([], 0)
    fill(tmp_path / "cache", 1)
    with ResponseCache(tmp_path / "cache") as cache:
        assert len(list(cache.records())) == len(cache) == 1


@pytest.mark.ci
@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("plot", ["actors", "sharing", "arms"])
@pytest.mark.parametrize("cache_mode", ["off", "auto"])
@pytest.mark.parametrize("mode", ["once", "new", "update"])
def test_a_recording_that_was_killed_goes_on(
    mode: str, cache_mode: str, plot: str, rounds: int, nursery: Nursery, tmp_path: Path
) -> None:
    """No answer that a caller had is asked for again, and the file is that of a recording that nothing disturbed.
    (180 kills)
    """
    chance = seeded()
    undisturbed, log = tmp_path / "undisturbed" / "tape.jsonl", tmp_path / "undisturbed.log"
    options = mode, cache_mode, plot
    longest = time_of(nursery.start("play", undisturbed, log, *options))
    questions = Counter(logged(log))
    for number in range(rounds):
        tape, log = tmp_path / f"{number}" / "tape.jsonl", tmp_path / f"{number}.log"
        worker = nursery.start("play", tape, log, *options)
        strike(worker, longest, chance)
        had = Counter(line[1] for line in worker.lines() if line[0] == "got")
        before = len(logged(log))
        nursery.start("play", tape, log, *options).done()
        asked_again = Counter(logged(log)[before:])
        assert asked_again <= questions - had
        assert same_records(tape, undisturbed, are_callers_sure=plot != "sharing")
        assert os.listdir(tape.parent) == ["tape.jsonl"]


def same_records(path: Path, other: Path, *, are_callers_sure: bool) -> bool:
    """Return whether two files are the same, perhaps but for whose an answer is among identical requests."""
    if are_callers_sure:
        return path.read_bytes() == other.read_bytes()
    found = [
        sorted((record.cache_key, record.answer) for record in read_records(file))
        for file in (path, other)
    ]
    return found[0] == found[1]


def logged(path: Path) -> list[str]:
    """Return the questions in a model's log."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
