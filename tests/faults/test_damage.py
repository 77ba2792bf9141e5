"""Damaged files, a few hundred of them drawn from a seed: the answer is right, or asked for again, or
the error says why.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST, run
from workers import client_at, fill, seeded

import llmcall
from llmcall import CacheCorruptError, CacheMissError, ConfigError, ResponseCache
from llmcall.testing import ScriptedClient

RECORDS, PAGE = 60, 4096
REMEDY = "salvage NEW_FOLDER'"
NEW = "asked again"
FILES = (
    "cache.db",
    "cache.db",
    "cache.db",
    "cache.db-wal",
    "cache.db-wal",
    "cache.db-shm",
    ".gitignore",
)
REFUSED = (CacheCorruptError, ConfigError)  # the latter: a damaged limit is another program's
Damage = Callable[[bytearray, random.Random], None]


def flip(data: bytearray, chance: random.Random) -> None:
    """Flip a few bits."""
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def overwrite(data: bytearray, chance: random.Random) -> None:
    """Put zeros, ones or junk in the place of a region, which may be a page as a disk loses it."""
    begin, length = chance.randrange(len(data)), chance.choice((1, 16, 512, PAGE, 3 * PAGE))
    begin = begin // PAGE * PAGE if length == PAGE else begin
    length = min(length, len(data) - begin)
    data[begin : begin + length] = chance.choice(
        (bytes(length), b"\xff" * length, chance.randbytes(length))
    )


def swap_pages(data: bytearray, chance: random.Random) -> None:
    """Put two pages in each other's place."""
    one, other = (chance.randrange(len(data)) // PAGE * PAGE for _ in range(2))
    first, second = data[one : one + PAGE], data[other : other + PAGE]
    if len(first) == len(second):
        data[one : one + PAGE], data[other : other + PAGE] = second, first


def truncate(data: bytearray, chance: random.Random) -> None:
    """Cut the end off, at a page's end or within one."""
    end = chance.randrange(len(data))
    del data[end // PAGE * PAGE if chance.random() < 0.5 else end :]


DAMAGES: tuple[Damage, ...] = (flip, flip, overwrite, overwrite, swap_pages, truncate)


def damage(folder: Path, chance: random.Random) -> None:
    """Damage one file of a cache, or remove it."""
    path = folder / chance.choice([name for name in FILES if (folder / name).exists()])
    data = bytearray(path.read_bytes())
    if chance.random() < 0.05:
        path.unlink()
    elif data:
        chance.choice(DAMAGES)(data, chance)
        path.write_bytes(data)


def question_of(record: llmcall.types.Record) -> str:
    """Return what was asked."""
    return str(record.request["messages"][-1]["content"])


def answers_in(cache: ResponseCache) -> dict[str, str]:
    """Return what a cache holds: answers by their questions."""
    return {
        question_of(record): record.response["choices"][0]["message"]["content"]
        for record in cache.records()
    }


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, str]]:
    """A sound cache in three states: closed; with some records in the log alone; with deleted ones;
    and its answers.
    """
    folder = tmp_path_factory.mktemp("sound")
    fill(folder / "closed", RECORDS)
    shutil.copytree(folder / "closed", folder / "opened")
    with client_at(str(folder / "opened"), "w") as client:
        for number in range(RECORDS, RECORDS + 8):
            client.send_message(f"question {number}")
        shutil.copytree(folder / "opened", folder / "in use")
        client.cache.delete(where=lambda record: "question 1" in question_of(record))
        client.cache.close()
    assert {path.name for path in (folder / "in use").iterdir()} >= {"cache.db-wal", "cache.db-shm"}
    found = {}
    for path in sorted(folder.iterdir()):
        shutil.copytree(path, folder / "copy")
        with ResponseCache(folder / "copy") as cache:
            found[path] = answers_in(cache)
        shutil.rmtree(folder / "copy")
    return found


@pytest.mark.parametrize("cases", [4, pytest.param(150, marks=pytest.mark.slow)])
def test_damage_gives_right_answers_or_an_error_that_says_what_to_do(
    cases: int, sound: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each damaged cache gives right answers, or asks again, or says what to do; salvage gives back
    what is whole.
    """
    seed, counts = seeded().randrange(2**31), Counter[str]()
    for number in range(cases):
        chance = random.Random(f"{seed} {number}")
        path = chance.choice(list(sound))
        shutil.copytree(path, tmp_path / "damaged")
        damage(tmp_path / "damaged", chance)
        questions = chance.sample(sorted(sound[path]), 12)
        for use in (salvage, replay, read_all, ask):
            shutil.copytree(tmp_path / "damaged", tmp_path / "used")
            caplog.clear()
            use(tmp_path / "used", sound[path], questions, counts)
            counts["warned"] += bool(caplog.records)
            llmcall.reset()
            shutil.rmtree(tmp_path / "used")
            shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        shutil.rmtree(tmp_path / "damaged")
    outcomes = ("right", "salvaged", "corrupt", "missed", "warned", "again")
    assert cases < 100 or min(counts[what] for what in outcomes) > 0


def salvage(
    folder: Path, answers: dict[str, str], questions: list[str], counts: Counter[str]
) -> None:
    """Check that no record comes back that is not right, and each one does that a look-up finds."""
    with ResponseCache(folder) as cache, ResponseCache(folder.parent / "saved") as saved:
        if not cache.exists():
            return
        found = looked_up(cache, answers)
        try:
            cache.salvage(folder.parent / "saved")
        except CacheCorruptError:
            counts["corrupt"] += 1
            assert not found
            return
        assert answers_in(saved).items() <= answers.items()
        # the key of a row may be damaged, and not that of the index
        assert len(found - looked_up(saved, answers)) <= 1
        counts["salvaged"] += len(saved)


def looked_up(cache: ResponseCache, questions: Iterable[str]) -> set[str]:
    """Return the questions whose records a look-up finds."""
    found = set()
    asking = ScriptedClient(cache_mode="replay")
    for question in questions:
        with suppress(*REFUSED):
            if cache.get(asking.build_request(question)) is not None:
                found.add(question)
    return found


def replay(
    folder: Path, answers: dict[str, str], questions: list[str], counts: Counter[str]
) -> None:
    """Each question has its right answer, or the error says what to do."""
    client = ScriptedClient(cache_mode="replay", cache_path=folder, on_error="raise")
    for question in questions:
        try:
            assert client.send_message(question).content == answers[question]
            counts["right"] += 1
        except REFUSED as error:
            assert REMEDY in str(error), error
            counts["corrupt"] += 1
        except CacheMissError:
            counts["missed"] += 1


def read_all(
    folder: Path, answers: dict[str, str], questions: list[str], counts: Counter[str]
) -> None:
    """Read a damaged cache: records are right, and the error says what to do about the rest."""
    with ResponseCache(folder) as cache:
        try:
            assert answers_in(cache).items() <= answers.items()
        except REFUSED as error:
            assert REMEDY in str(error), error
            counts["corrupt"] += 1


def ask(folder: Path, answers: dict[str, str], questions: list[str], counts: Counter[str]) -> None:
    """Check that each question has its right answer, or is asked once more."""
    client = ScriptedClient(
        lambda messages: NEW, cache_mode="auto", cache_path=folder, on_error="raise"
    )
    for question in questions:
        try:
            first, second = (client.send_message(question) for _ in range(2))
        except ConfigError as error:
            assert REMEDY in str(error), error
            return
        assert first.content == second.content
        assert second.cached
        assert first.content == (answers[question] if first.cached else NEW)
        counts["right" if first.cached else "again"] += 1


@pytest.mark.parametrize("command", [["show", "0"], ["delete", "0", "--yes"]])
def test_a_command_that_seeks_a_key_ends_with_a_sentence_whichever_page_is_lost(
    command: list[str], tmp_path: Path
) -> None:
    """A part of the keys may still be read."""
    client = ScriptedClient(lambda messages: NEW, cache_mode="auto", cache_path=tmp_path / "cache")
    for number in range(RECORDS):
        client.send_message(f"question {number}")
    llmcall.reset()
    file = tmp_path / "cache" / "cache.db"
    data = file.read_bytes()
    for begin in range(PAGE, len(data), PAGE):
        file.write_bytes(data[:begin] + bytes(PAGE) + data[begin + PAGE :])
        ended = run("cache", "--path", file.parent, *command)
        assert isinstance(ended.exception, (SystemExit, type(None))), begin
        llmcall.reset()


CUT_SHORT = """
import os, sys
from llmcall.testing import ScriptedClient
client = ScriptedClient(lambda messages: "an answer " * 2000, cache_mode="auto", cache_path=sys.argv[1])
replies = [client.send_message(f"question {number}") for number in [*range(600), 5]]
os.truncate(os.path.join(sys.argv[1], "cache.db"), 8192)
replies += [client.send_message(f"question {number}") for number in range(600)]
print({reply.content for reply in replies} == {"an answer " * 2000})
"""


@pytest.mark.slow
def test_a_database_that_is_cut_short_while_it_is_open_is_asked_again(tmp_path: Path) -> None:
    """A process that has it open goes on; a mapped file would end it."""
    command = [sys.executable, "-c", CUT_SHORT, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert "llmcall requests the answer again" in done.stderr
