"""Disks that are full, read-only, gone or somebody else's, and paths of all kinds: no paid answer
is lost.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST, start
from files import read_only, small
from test_crashes import keys_of, stored
from workers import client_at, fill

import llmcall
from llmcall import CacheError, ResponseCache
from llmcall.testing import ScriptedClient


def client_to(path: Path, answers: Any = ("one", "two", "three"), mode: str = "auto") -> Any:
    """Return a client that stores at a path."""
    return ScriptedClient(
        answers, cache_mode=mode, cache_path=path, on_error="raise", temperature=0
    )


def warned(log: pytest.LogCaptureFixture, words: str = "kept in memory") -> int:
    """Count the warnings that contain some words."""
    return sum(
        words in entry.getMessage() for entry in log.records if entry.levelno == logging.WARNING
    )


def lengthy(messages: Any) -> str:
    """Return an answer that takes an eighth of the small disk."""
    return "x" * (1 << 17) + str(messages[-1]["content"])


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for less than five long answers, beside a file that can be deleted."""
    with small(tmp_path / "disk", "4m") as disk:
        # without it, all answers fit in both the database and its log
        (disk / "filler").write_bytes(bytes(3584 * 1024))
        yield disk


@pytest.mark.parametrize("room", [0, 4, 16, 32, 64, 128])
def test_a_disk_that_fills_up_while_the_cache_is_made_loses_no_answer_and_stops_no_call(
    room: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite leaves half a database there.

    :param room: KiB.
    """
    with small(tmp_path / "disk", "1m") as disk:
        (disk / "filler").write_bytes(bytes((1024 - room) * 1024 - 8192))
        client = client_to(disk / "cache")
        for _ in range(2):
            assert [client.send_message(text).content for text in "abc"] == ["one", "two", "three"]
        assert (len(client.requests), warned(caplog)) == (3, 1)
        (disk / "filler").unlink()
        client.cache.close()
        assert len(client.cache) == 3


LONG_ANSWERS = [lengthy([{"content": number}]) for number in range(5)]


def ask_for_long_answers(client: Any) -> list[str]:
    """Ask for five long answers from four threads."""
    return llmcall.map(lambda number: client.send_message(str(number)).content, range(5), workers=4)


def test_no_answer_is_lost_or_asked_for_twice_on_a_full_disk(
    full_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning says that they are kept in memory."""
    client = client_to(full_disk / "cache", lengthy)
    for _ in range(2):
        assert ask_for_long_answers(client) == LONG_ANSWERS
    assert len(client.requests) == 5
    assert warned(caplog) == 1
    assert len(list(client.cache.records())) == len(client.cache) < 5


def test_the_warning_of_a_full_disk_names_it_whatever_error_the_program_handles(
    full_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Python gives the database's error that one as its context."""
    client = client_to(full_disk / "cache", lengthy)
    try:
        raise KeyError("a trouble of the program's own")
    except KeyError:
        for number in range(5):
            client.send_message(str(number))
    assert warned(caplog) == warned(caplog, "disk is full") == 1


def test_an_answer_that_a_full_disk_did_not_take_is_stored_as_soon_as_there_is_room(
    full_disk: Path,
) -> None:
    """A later run finds all answers."""
    client = client_to(full_disk / "cache", lengthy)
    ask_for_long_answers(client)
    (full_disk / "filler").unlink()
    client.send_message("after")
    client.cache.close()
    llmcall.reset()
    again = client_to(full_disk / "cache", (), "replay")
    assert [again.send_message(str(number)).content for number in range(5)] == LONG_ANSWERS


PROGRAM = """
import multiprocessing

cache, filler, then, process = sys.argv[1:]

def fill():
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto", cache_path=cache)
    for number in range(10):
        client.send_message(str(number))
    if then != "full":
        os.unlink(filler)
    if then == "closed":
        client.close()
        os._exit(0)

if process == "forked":                 # it leaves by os._exit, and has what the parent knew of its cache
    client = ScriptedClient(["before"], cache_mode="auto", cache_path=cache)
    client.send_message("before")
    child = multiprocessing.get_context("fork").Process(target=fill)
    child.start()
    child.join()
    os._exit(child.exitcode)
fill()
"""


@pytest.fixture
def without_room(tmp_path: Path) -> Iterator[Path]:
    """A disk on which nothing can be stored, until the file on it is deleted."""
    with small(tmp_path / "disk", "1m") as disk:
        (disk / "filler").write_bytes(bytes(1024 * 1024 - 8192))
        yield disk


@pytest.mark.parametrize("process", ["own", "forked"])
@pytest.mark.parametrize("then", ["mended", "closed"])
def test_answers_kept_in_memory_are_stored_at_the_end_of_the_process(
    process: str, then: str, without_room: Path
) -> None:
    """Closing the client stores it, too; only a first warning said that it was in memory."""
    arguments = without_room / "cache", without_room / "filler", then, process
    with start(PROGRAM, *arguments) as program:
        _, complaints = program.communicate(timeout=LONGEST)
    inherited = int(process == "forked")
    assert complaints.count("kept in memory until it can") == 1 + inherited  # each process says it
    assert "is lost" not in complaints
    assert len(ResponseCache(without_room / "cache")) == 10 + inherited


@pytest.mark.parametrize("process", ["own", "forked"])
def test_answers_that_could_never_be_stored_are_counted_at_the_end_of_the_process(
    process: str, without_room: Path
) -> None:
    """A second warning says how many, and that only a cassette can have them."""
    arguments = without_room / "cache", without_room / "filler", "full", process
    with start(PROGRAM, *arguments) as program:
        _, complaints = program.communicate(timeout=LONGEST)
    inherited = int(process == "forked")
    assert complaints.count("kept in memory until it can") == 1 + inherited
    lost = f"{10 + inherited} answers could not be stored in the cache; answers that are in no cassette are lost"
    assert lost in complaints


def below_a_file(folder: Path) -> Path:
    """Return a path below a file."""
    (folder / "below_a_file").write_text("mine")
    return folder / "below_a_file" / "inside"


def no_database(folder: Path) -> Path:
    """Return a folder whose database is none."""
    (folder / "no_database").mkdir()
    (folder / "no_database" / "cache.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    return folder / "no_database"


@pytest.fixture(params=[below_a_file, no_database])
def taking_nothing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A path that takes no answer while the test runs."""
    path = request.param(tmp_path)
    yield path
    if not (tmp_path / "away").exists():
        (tmp_path / request.param.__name__).rename(tmp_path / "away")


@pytest.mark.parametrize("mode", ["auto", "refresh"])
def test_answers_of_a_path_that_takes_nothing_are_kept_in_memory(
    taking_nothing: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is paid for once, and a warning says so; closing the cache says how many there are."""
    client = client_to(taking_nothing, mode=mode)
    kept_in_memory(client, caplog)
    client.cache.close()
    assert warned(caplog, "2 answers in memory only") == 1


@pytest.mark.parametrize("mode", ["auto", "refresh"])
def test_answers_in_memory_are_stored_once_the_path_takes_them(
    taking_nothing: Path, mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are stored when the cache is closed."""
    client = client_to(taking_nothing, mode=mode)
    kept_in_memory(client, caplog)
    blocking = taking_nothing.parent if taking_nothing.parent.is_file() else taking_nothing
    blocking.rename(tmp_path / "away")
    client.cache.close()
    assert len(client.cache) == 2


def test_a_refresh_replaces_an_answer_that_is_in_memory_alone(taking_nothing: Path) -> None:
    """Once in a process, as one on the disk."""
    assert client_to(taking_nothing, ["old"]).send_message("a").content == "old"
    refreshing = client_to(taking_nothing, ["new"], "refresh")
    for client in (refreshing, refreshing, client_to(taking_nothing, ())):
        assert client.send_message("a").content == "new"


def kept_in_memory(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Ask two questions twice each: two calls, the right answers, one warning, and copies."""
    replies = [client.send_message(question) for question in ("a", "a", "b", "b")]
    assert [(reply.content, reply.cached) for reply in replies] == [
        ("one", False),
        ("one", True),
        ("two", False),
        ("two", True),
    ]
    assert (len(client.requests), warned(caplog)) == (2, 1)
    replies[0].raw.clear()
    assert client.send_message("a").raw


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A cache of five answers on a disk that is read-only."""
    fill(tmp_path / "cache", 5)
    with read_only(tmp_path / "cache") as folder:
        yield folder


def test_a_cache_on_a_read_only_disk_is_an_error_that_names_the_export(locked: Path) -> None:
    """Nothing is asked: the records can be read where the disk can be written."""
    client = client_to(locked)
    with pytest.raises(CacheError, match=r"cache --path .* export FILE"):
        client.send_message("question 1")
    assert not client.requests


@pytest.mark.parametrize("mode", ["once", "new", "update", "rewrite"])
def test_a_cassette_that_cannot_be_written_is_refused_when_it_opens(
    mode: str, locked: Path, tmp_path: Path
) -> None:
    """Nothing is asked, and the error names the user's file; so does an export's."""
    message = r"tape\.jsonl cannot be written: you may not create files in .*cache\."
    with pytest.raises(CacheError, match=message), llmcall.cassette(locked / "tape.jsonl", mode):
        pass
    fill(tmp_path / "other", 1)
    with pytest.raises(CacheError, match=message):
        ResponseCache(tmp_path / "other").export(locked / "a" / "tape.jsonl")


@pytest.mark.parametrize("mode", ["none", "once", "new", "update"])
def test_a_cassette_that_cannot_be_written_replays_and_asks_nothing_new(
    mode: str, tmp_path: Path
) -> None:
    """Without the disk cache an answer that is asked for now would be lost."""
    client = client_to(tmp_path / "other", mode="off")
    folder = tmp_path / "cassettes"
    with llmcall.cassette(folder / "tape.jsonl"):
        client.send_message("Hi")
    with read_only(folder), llmcall.cassette(folder / "tape.jsonl", mode):
        client.send_message("Hi")
        if mode in ("new", "update"):
            with pytest.raises(CacheError, match=r"tape\.jsonl cannot be written"):
                client.send_message("Hello")
    assert len(client.requests) == 1


def fill_disk(disk: Path) -> None:
    """Leave no room."""
    handle = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    for size in (4096, 1):
        with pytest.raises(OSError, match="No space"):
            while True:
                os.write(handle, bytes(size))
    os.close(handle)


def test_a_cassette_on_a_full_disk_is_an_error_that_names_it(tmp_path: Path) -> None:
    """It says what to do; the answers are in the disk cache. An export says it, too."""
    message = r"tape\.jsonl was not written \(No space left on device\): make room"
    client = client_to(tmp_path / "cache")
    with small(tmp_path / "disk") as disk:
        fill_disk(disk)
        with pytest.raises(CacheError, match=message), llmcall.cassette(disk / "tape.jsonl"):
            client.send_message("a")
        with pytest.raises(CacheError, match=message):
            client.cache.export(disk / "tape.jsonl")
        assert os.listdir(disk) == ["filler"]
    with llmcall.cassette(tmp_path / "tape.jsonl"):
        assert client.send_message("a").content == "one"
    assert len(client.requests) == 1


def record_more(cache: ResponseCache, disk: Path) -> None:
    """Add an answer to the cassette."""
    with llmcall.cassette(disk / "tape.jsonl", mode="new"):
        client_at(str(disk.parent / "third"), "w").send_message("a new question")


def all_or_nothing(cache: ResponseCache, delete: Callable[[], int]) -> None:
    """Delete all; that may or may not need room, but leaves all or nothing."""
    try:
        assert (delete(), len(cache)) == (10, 0)
    except (OSError, CacheError):
        return
    assert len(list(cache.records())) == len(cache)


CHANGES: dict[str, Callable[[ResponseCache, Path], Any]] = {
    "export": lambda cache, disk: cache.export(disk / "tape.jsonl", where=lambda record: True),
    "cassette": record_more,
    "delete": lambda cache, disk: all_or_nothing(
        cache, lambda: cache.delete(where=lambda record: True)
    ),
    "clear": lambda cache, disk: all_or_nothing(cache, cache.clear),
    "salvage": lambda cache, disk: cache.salvage(disk / "salvaged"),
    "load": lambda cache, disk: cache.load(disk.parent / "other"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_that_needs_room_fails_on_a_full_disk_and_changes_nothing(
    what: str, tmp_path: Path
) -> None:
    """The old files stay; a deletion may need no room, and deletes all or nothing."""
    fill(tmp_path / "other", 40)
    with small(tmp_path / "disk", "2m") as disk:
        fill(disk / "cache", 10)
        tape = disk / "tape.jsonl"
        with ResponseCache(disk / "cache") as cache:
            cache.export(tape)
            cache.export(disk / "exported.jsonl")
        before, keys, files = stored(disk / "cache"), keys_of(disk / "cache"), {*disk.iterdir()}
        old = tape.read_bytes()
        fill_disk(disk)
        deletes = what in ("delete", "clear")
        fails = nullcontext() if deletes else pytest.raises((OSError, CacheError))
        with ResponseCache(disk / "cache") as cache, fails:
            CHANGES[what](cache, disk)
        (disk / "filler").unlink()
        assert tape.read_bytes() == old
        assert {*disk.iterdir()} - {disk / "salvaged"} == files
        assert deletes or (stored(disk / "cache"), keys_of(disk / "cache")) == (before, keys)


@pytest.fixture(params=["кэш-缓存 🧀", "-per%cent#and?quote'\"s"])
def strange(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with strange letters in its name."""
    (tmp_path / request.param).mkdir()
    return tmp_path / str(request.param)


def test_a_cache_works_below_a_path_of_any_letters(strange: Path) -> None:
    """So do export, load and salvage."""
    fill(strange / "cache", 3)
    with ResponseCache(strange / "cache") as cache, ResponseCache(strange / "loaded") as loaded:
        cache.export(strange / "exported.jsonl")
        assert cache.salvage(strange / "saved") == loaded.load(strange / "exported.jsonl") == 3
