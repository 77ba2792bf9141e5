"""Damages to the files of a cache, each drawn from a seed, and what a damaged cache is asked for afterwards."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workers import Journal

from llmcall.cache.cache import ResponseCache, forget_shared
from llmcall.cache.record import pack
from llmcall.cache.sqlite import DATABASE
from llmcall.errors import CacheCorruptError, CacheMissError
from llmcall.testing import ScriptedClient
from llmcall.types import Record

PAGE = 4096
LOG = f"{DATABASE}-wal"
FILES = (DATABASE, DATABASE, DATABASE, LOG, LOG, f"{DATABASE}-shm", ".gitignore")
REMEDY = "llmcall cache salvage"
PRICES = {"gpt-4o-mini": (1.0, 1.0)}
NEW = "asked anew"
ASKED = 12  # questions that each damaged cache is asked

Damage = Callable[[bytearray, random.Random], None]


def flip(data: bytearray, chance: random.Random) -> None:
    """Flip a few bits."""
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def overwrite(data: bytearray, chance: random.Random) -> None:
    """Put zeros, ones or junk in the place of a region."""
    begin, length = chance.randrange(len(data)), chance.choice((1, 16, 100, 512, PAGE, 3 * PAGE))
    length = min(length, len(data) - begin)
    data[begin : begin + length] = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))


def zero_page(data: bytearray, chance: random.Random) -> None:
    """Lose a page, as a disk does."""
    begin = chance.randrange(len(data)) // PAGE * PAGE
    data[begin : begin + PAGE] = bytes(len(data[begin : begin + PAGE]))


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


def remove_middle(data: bytearray, chance: random.Random) -> None:
    """Take out some bytes, so that all behind them is out of place."""
    begin = chance.randrange(len(data))
    del data[begin : begin + chance.choice((1, 7, PAGE))]


def damage_header(data: bytearray, chance: random.Random) -> None:
    """Damage the first bytes, which say how all others are to be read."""
    data[chance.randrange(min(100, len(data)))] ^= chance.randrange(1, 256)


def append(data: bytearray, chance: random.Random) -> None:
    """Add junk to the end."""
    data += chance.randbytes(chance.choice((1, 100, PAGE)))


DAMAGES: tuple[Damage, ...] = (
    flip, flip, overwrite, overwrite, zero_page, swap_pages, truncate, remove_middle, damage_header, append,
)  # fmt: skip


def damage(folder: Path, chance: random.Random) -> str:
    """Damage one file of a cache, or remove it; return in words what was done."""
    name = chance.choice([name for name in FILES if (folder / name).exists()])
    path = folder / name
    if chance.random() < 0.05:
        path.unlink()
        return f"remove {name}"
    data = bytearray(path.read_bytes())
    kind = chance.choice(DAMAGES)
    if data:
        kind(data, chance)
    path.write_bytes(data)
    return f"{kind.__name__} {name}"


def try_all(journal: Journal, sound: str, folder: str, seed: int, numbers: Sequence[int]) -> None:
    """Damage a copy of a sound cache for each number, and use it; write down what came of it."""
    states = [State(path, Path(folder) / f"{path.name} {numbers[0]}") for path in sorted(Path(sound).iterdir())]
    for number in numbers:
        chance = random.Random(f"{seed} {number}")
        state = chance.choice(states)
        case = Case(state, Path(folder) / f"case {number}", chance)
        journal.write("case", number, state.folder.name, case.done)
        case.use(chance)
        for name, count in case.counts.items():
            journal.write(name, number, count)
        shutil.rmtree(case.folder)


class State:
    """Hold a sound cache.

    :ivar folder: where it lies; it is only copied.
    :ivar answers: its answers by their questions.
    """

    def __init__(self, folder: Path, copy: Path) -> None:
        self.folder = folder
        shutil.copytree(folder, copy)
        with ResponseCache(copy) as cache:
            records = {question_of(record): record for record in cache.records()}
        shutil.rmtree(copy)
        self.packed = {question: pack(record) for question, record in records.items()}
        self.answers = {
            question: record.response["choices"][0]["message"]["content"] for question, record in records.items()
        }


def question_of(record: Record) -> str:
    """Return what was asked."""
    return str(record.request["messages"][-1]["content"])


class Case:
    """Damage a copy of a sound cache.

    :ivar done: in words, what was done to it.
    :ivar counts: how often what came of using it.
    """

    def __init__(self, state: State, folder: Path, chance: random.Random) -> None:
        self.state = state
        self.folder = folder
        shutil.copytree(state.folder, folder / "damaged")
        self.done = damage(folder / "damaged", chance)
        self.counts = {"right": 0, "corrupt": 0, "missed": 0, "warned": 0, "silent": 0, "salvaged": 0}
        self.questions = chance.sample(sorted(state.answers), ASKED)

    def use(self, chance: random.Random) -> None:
        """Salvage it, replay it, look it through and ask it: each with a copy, since some of them change it."""
        for use in (self.salvage, self.replay, self.verify, self.ask):
            copy = self.folder / use.__name__
            shutil.copytree(self.folder / "damaged", copy)
            use(copy)
            forget_shared()

    def salvage(self, folder: Path) -> None:
        """No record comes back that is not right."""
        with ResponseCache(folder) as cache, ResponseCache(self.folder / "saved") as saved:
            if not cache.exists():
                return
            try:
                cache.salvage(self.folder / "saved")
            except CacheCorruptError:
                self.counts["corrupt"] += 1
                return
            answers = {question_of(record): pack(record) for record in saved.records()}
            assert saved.verify() == []
        assert answers.items() <= self.state.packed.items()
        self.counts["salvaged"] += len(answers)

    def replay(self, folder: Path) -> None:
        """Each question has its right answer, or the error says what to do."""
        client = ScriptedClient(cache_mode="replay", cache_path=str(folder), on_error="raise")
        for question in self.questions:
            try:
                reply: Any = client.send_message(question)
                assert reply["content"] == self.state.answers[question]
                self.counts["right"] += 1
            except CacheCorruptError as error:
                assert REMEDY in str(error), error
                self.counts["corrupt"] += 1
            except CacheMissError:
                self.counts["missed"] += 1

    def verify(self, folder: Path) -> None:
        """What it yields is right, and it says what to do about the rest."""
        with ResponseCache(folder) as cache:
            try:
                cache.verify()
                for record in cache.records():
                    assert pack(record) == self.state.packed[question_of(record)]
            except CacheCorruptError as error:
                assert REMEDY in str(error), error
                self.counts["corrupt"] += 1

    def ask(self, folder: Path) -> None:
        """Each question has its right answer, or is asked anew once; damage that is noticed is said."""
        log = Listening()
        logging.getLogger("llmcall").addHandler(log)
        client = ScriptedClient(
            lambda messages: NEW, cache_mode="auto", cache_path=str(folder), on_error="raise", prices=PRICES
        )
        for question in self.questions:
            first, second = (client.send_message(question, on_error="raise") for _ in range(2))
            assert first["content"] == second["content"] and second.cached
            assert first["content"] == (self.state.answers[question] if first.cached else NEW)
            self.counts["right" if first.cached else "warned" if log.messages else "silent"] += 1
        logging.getLogger("llmcall").removeHandler(log)


class Listening(logging.Handler):
    """Keep what is warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.messages.append(record.getMessage())
