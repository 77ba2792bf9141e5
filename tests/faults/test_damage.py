"""Damaged files, a few hundred of them drawn from a seed: the answer is right, or asked anew, or the error says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from processes import Nursery, seeded
from test_crashes import fill
from workers import client_at

from llmcall.cache.cache import ResponseCache, forget_shared
from llmcall.cache.record import pack
from llmcall.cache.sqlite import DATABASE
from llmcall.errors import CacheCorruptError
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

SLOW = pytest.mark.slow
RECORDS, PAGE, LEAF = 60, 4096, 13


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound cache in three states: closed; with some records in the write-ahead log alone; with deleted records."""
    folder = tmp_path_factory.mktemp("sound")
    with client_at(str(folder / "closed"), "w") as client:
        for number in range(RECORDS):
            client.send_message(f"question {number}")
        client.cache.close()
    shutil.copytree(folder / "closed", folder / "opened")
    with client_at(str(folder / "opened"), "w") as client:
        for number in range(RECORDS, RECORDS + 8):
            client.send_message(f"question {number}")
        shutil.copytree(folder / "opened", folder / "in use")
        client.cache.delete(where=lambda record: "question 1" in record.request["messages"][-1]["content"])
        client.cache.close()
    assert {path.name for path in (folder / "in use").iterdir()} >= {f"{DATABASE}-wal", f"{DATABASE}-shm"}
    return folder


def outcomes(lines: list[Any]) -> Counter[str]:
    """Count what came of all cases."""
    counts: Counter[str] = Counter(cases=sum(line[0] == "case" for line in lines))
    for name, _, count in (line for line in lines if line[0] != "case"):
        counts[name] += count
    return counts


@pytest.mark.parametrize("cases", [12, pytest.param(360, marks=SLOW)])
def test_damage_anywhere(cases: int, sound: Path, tmp_path: Path) -> None:
    """Each damaged cache gives right answers, or asks anew, or says what to do; salvage gives back what is whole."""
    seed = seeded().randrange(2**31)
    with Nursery(tmp_path) as nursery:
        workers = [nursery.start("damage", sound, tmp_path, seed, half * cases // 2, cases // 2) for half in range(2)]
        counts: Counter[str] = Counter()
        for worker in workers:
            assert worker.end() == 0, worker.lines()[-2:]
            counts += outcomes([line for line in worker.lines() if isinstance(line, list)])
    print(dict(counts))
    assert counts["cases"] == cases
    if cases > 100:
        assert min(counts[what] for what in ("right", "salvaged", "corrupt", "missed", "warned")) > 0


def swap(data: bytearray, one: slice, other: slice) -> None:
    """Put two regions of the same length in each other's place."""
    data[one], data[other] = data[other], data[one]


@pytest.mark.parametrize("mode", ["auto", "replay"])
def test_two_answers_whose_ends_are_swapped(mode: str, tmp_path: Path) -> None:
    """Pages in each other's place make one answer of another, whole: it belongs to its key, and is not given."""
    beginning = "Thank you for your question. " * 150

    def answer(messages: Any) -> str:
        return f"{beginning}{messages[-1]['content']}, then; {'yes ' * 10}"

    given: dict[str, Any] = {"cache_path": str(tmp_path / "cache"), "on_error": "raise"}
    with ScriptedClient(answer, cache_mode="auto", **given) as client:
        answers = {question: client.send_message(question).content for question in ("one", "two")}
        client.cache.close()
    database = tmp_path / "cache" / DATABASE
    data = bytearray(database.read_bytes())
    first, second = (data.index(f"{question}, then".encode()) // PAGE * PAGE for question in answers)
    swap(data, slice(first, first + PAGE), slice(second, second + PAGE))
    database.write_bytes(data)
    forget_shared()
    client = ScriptedClient(lambda messages: "anew", cache_mode=mode, **given)
    for question in answers:
        if mode == "auto":
            assert client.send_message(question).content == "anew"
        else:
            with pytest.raises(CacheCorruptError, match="llmcall cache salvage"):
                client.send_message(question)


@pytest.mark.parametrize("mode", ["auto", "replay"])
def test_each_byte_of_a_record(mode: str, tmp_path: Path) -> None:
    """A flipped bit in whatever byte of a record is noticed: it is asked anew and stored, or the error says so."""
    fill(tmp_path / "sound", 1)
    with ResponseCache(tmp_path / "sound") as cache:
        (record,) = cache.records()
    packed, data = pack(record), (tmp_path / "sound" / DATABASE).read_bytes()
    at = data.index(packed)
    for place in range(0, len(packed), 7):
        (tmp_path / "cache").mkdir(exist_ok=True)
        flipped = bytearray(data)
        flipped[at + place] ^= 1 << place % 8
        (tmp_path / "cache" / DATABASE).write_bytes(flipped)
        client = client_at(str(tmp_path / "cache"), "again", cache_mode=mode)
        if mode == "replay":
            with pytest.raises(CacheCorruptError, match="llmcall cache salvage"):
                client.send_message("question 0")
        else:
            assert [client.send_message("question 0").cached for _ in range(2)] == [False, True]
            assert client.cache.verify() == []
        forget_shared()
        shutil.rmtree(tmp_path / "cache")


CUT_SHORT = """
import os, sys
from llmcall.testing import ScriptedClient
client = ScriptedClient(lambda messages: "an answer " * 50, cache_mode="auto", cache_path=sys.argv[1])
replies = [client.send_message(f"question {number}") for number in [*range(600), 5]]
os.truncate(os.path.join(sys.argv[1], "cache.db"), 8192)
replies += [client.send_message(f"question {number}") for number in range(600)]
print({reply.content for reply in replies} == {"an answer " * 50})
"""


def test_a_database_that_is_cut_short_while_it_is_open(tmp_path: Path) -> None:
    """Whoever has it open asks anew; a mapped file would end the process."""
    command = [sys.executable, "-c", CUT_SHORT, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert done.stderr.count("the request is asked anew") == 1
