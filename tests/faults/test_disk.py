"""Disks that are full, read-only, gone or somebody else's, and paths of all kinds: no paid answer is lost."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from disks import read_only, small
from processes import SECONDS, Nursery
from test_crashes import fill, keys_of, stored
from workers import client_at, is_answer_to

import llmcall
from llmcall.cache.cache import ResponseCache, forget_shared
from llmcall.errors import CacheCorruptError, CacheError
from llmcall.testing import ScriptedClient

PART = "x" * (1 << 17)  # an eighth of the small disk


def lengthy(path: Path) -> ScriptedClient:
    """Return a client whose answers fill the small disk soon."""
    answer = lambda messages: PART + messages[-1]["content"]  # noqa: E731
    return ScriptedClient(answer, cache_mode="auto", cache_path=path, on_error="raise")


def said(log: pytest.LogCaptureFixture, words: str) -> int:
    """Count the warnings that contain some words."""
    return sum(words in entry.getMessage() for entry in log.records if entry.levelno == logging.WARNING)


def test_a_disk_that_has_room_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a full disk did not take is stored as soon as there is room, and each question was asked once."""
    with small(tmp_path / "disk") as disk:
        filler = disk / "filler"
        filler.write_bytes(bytes(512 * 1024))
        client = lengthy(disk / "cache")
        asked = [client.send_message(str(number)) for number in range(5)]
        assert said(caplog, "kept in memory") == 1
        filler.unlink()
        client.send_message("after")
        client.cache.close()
        again = lengthy(disk / "cache")
        forget_shared()
        assert [again.send_message(str(number)) for number in range(5)] == asked
        assert (len(client.requests), len(again.requests)) == (6, 0)


def test_a_map_on_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A map in threads loses no answer: what is not on the disk is in memory, and asked once."""
    with small(tmp_path / "disk") as disk:
        client = lengthy(disk / "cache")
        for _ in range(2):
            answers = llmcall.map(lambda number: client.send_message(str(number))["content"], range(20), workers=8)
            assert answers == [PART + str(number) for number in range(20)]
        assert len(client.requests) == 20
        assert said(caplog, "kept in memory") == 1
        assert client.cache.verify() == []


def fill_disk(disk: Path) -> None:
    """Leave no room."""
    handle = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    for size in (4096, 1):
        with pytest.raises(OSError, match="No space"):
            while True:
                os.write(handle, bytes(size))
    os.close(handle)


@pytest.mark.parametrize("what", ["export", "cassette", "rekey", "delete", "clear", "salvage", "load"])
def test_a_change_on_a_full_disk(what: str, tmp_path: Path) -> None:
    """What needs room fails by the system's error and changes nothing; the old files stay as they were."""
    fill(tmp_path / "other", 40)
    with small(tmp_path / "disk", "2m") as disk:
        fill(disk / "cache", 10)
        tape = disk / "tape.jsonl"
        with ResponseCache(disk / "cache") as cache:
            cache.export(tape)
            cache.export(disk / "exported.jsonl")
        before, keys, files = stored(disk / "cache"), keys_of(disk / "cache"), names(disk)
        old = tape.read_bytes()
        fill_disk(disk)
        with ResponseCache(disk / "cache") as cache:
            if what in ("delete", "clear"):
                undone_or_done(cache, what)
            else:
                with pytest.raises((OSError, CacheError)):
                    change(cache, what, disk, tmp_path)
        (disk / "filler").unlink()
        assert tape.read_bytes() == old
        assert names(disk) - {"salvaged"} == files
        if what not in ("delete", "clear"):
            assert (stored(disk / "cache"), keys_of(disk / "cache")) == (before, keys)


def names(disk: Path) -> set[str]:
    """Return the names of what lies on a disk."""
    return {path.name for path in disk.iterdir()}


def change(cache: ResponseCache, what: str, disk: Path, folder: Path) -> None:
    """Do what needs room."""
    if what == "export":
        cache.export(disk / "tape.jsonl", where=lambda record: True)
    elif what == "cassette":
        with llmcall.cassette(disk / "tape.jsonl", mode="new"):
            client_at(str(folder / "third"), "w").send_message("a new question")
    elif what == "rekey":
        with llmcall.configured(cache_namespace="another"):
            cache.rekey()
    elif what == "load":
        cache.load(folder / "other")
    else:
        cache.salvage(disk / "salvaged")


def undone_or_done(cache: ResponseCache, what: str) -> None:
    """Delete all; that may or may not need room, but leaves all or nothing."""
    try:
        count = cache.clear() if what == "clear" else cache.delete(where=lambda record: True)
        assert (count, len(cache)) == (10, 0)
    except OSError:
        assert len(cache) == 10
    assert cache.verify() == []


def test_a_read_only_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A cache on it answers, new answers stay in memory, and what changes it is an error that names the place."""
    fill(tmp_path / "cache", 5)
    with read_only(tmp_path / "cache") as place:
        client = client_at(str(place), "new")
        assert client.send_message("question 1").cached
        first, second = (client.send_message("another question") for _ in range(2))
        assert (first["content"], first.cached, second.cached) == (second["content"], False, True)
        assert said(caplog, "kept in memory") == 1
        with pytest.raises(OSError, match="cache"):
            client.cache.clear()
        with pytest.raises(OSError), llmcall.cassette(place / "tape.jsonl"):
            client_at(str(tmp_path / "third"), "w").send_message("Hi")
        client.cache.close()
        assert len(ResponseCache(place)) == 5


@pytest.mark.parametrize("how", ["deleted", "moved away", "replaced"])
def test_a_cache_that_vanishes_while_it_is_open(how: str, tmp_path: Path) -> None:
    """Threads go on asking; each gets a right answer, and what is stored afterwards is on the disk."""
    folder = tmp_path / "cache"
    fill(folder, 20)
    fill(tmp_path / "another", 20)
    client = client_at(str(folder), "new")
    gone, begun, wrong = threading.Event(), threading.Barrier(5), []

    def work(thread: int) -> None:
        number = 0
        while not gone.is_set() or number < 60:
            question = f"question {number % 20}" if number % 3 else f"question {thread} {number}"
            reply: Any = client.send_message(question)
            if not is_answer_to(question, reply["content"]):
                wrong.append(question)
            number += 1
            if number == 10:
                begun.wait(SECONDS)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    begun.wait(SECONDS)
    folder.rename(tmp_path / "away")
    if how == "deleted":
        shutil.rmtree(tmp_path / "away")
    elif how == "replaced":
        with suppress(OSError):  # one of the threads has made it anew already
            (tmp_path / "another").rename(folder)
    gone.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    client.send_message("the last question")
    client.cache.close()
    forget_shared()
    with ResponseCache(folder) as cache:
        assert any(record.request["messages"][-1]["content"] == "the last question" for record in cache.records())


@pytest.mark.parametrize("name", ["with a space", "кэш-缓存-🧀", "per%cent#and?mark", "-dash", "quote'\"s"])
def test_a_path_of_any_letters(name: str, tmp_path: Path) -> None:
    """Cache, export, cassette and salvage work there."""
    folder = tmp_path / name
    folder.mkdir()
    fill(folder / "cache", 3)
    whole = stored(folder / "cache")
    with ResponseCache(folder / "cache") as cache:
        cache.export(folder / "exported.jsonl")
        assert cache.salvage(folder / "saved") == 3
    assert stored(folder / "saved") == whole
    with ResponseCache(folder / "loaded") as cache:
        assert cache.load(folder / "exported.jsonl") == 3
    for mode in ("once", "none"):
        with llmcall.cassette(folder / "tapes" / f"{name}.jsonl", mode=mode):
            assert ScriptedClient(["one"]).send_message("Hi")["content"] == "one"  # type: ignore[index]


def test_a_link_to_a_folder(tmp_path: Path) -> None:
    """A link is as good as what it leads to, also for a cassette, which stays a link."""
    fill(tmp_path / "real" / "cache", 3)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert client_at(str(tmp_path / "link" / "cache"), "w").send_message("question 1").cached
    (tmp_path / "tape.jsonl").symlink_to(tmp_path / "real" / "tape.jsonl")
    with llmcall.cassette(tmp_path / "tape.jsonl"):
        ScriptedClient(["one"]).send_message("Hi")
    assert (tmp_path / "tape.jsonl").is_symlink()
    assert (tmp_path / "real" / "tape.jsonl").stat().st_size > 0


@pytest.mark.parametrize("kind", ["to nowhere", "to itself"])
def test_a_link_that_leads_nowhere(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Answers are kept in memory, and a warning says why."""
    (tmp_path / "link").symlink_to(tmp_path / ("nowhere" if kind == "to nowhere" else "link"))
    client = client_at(str(tmp_path / "link"), "w")
    first, second = (client.send_message("Hi") for _ in range(2))
    assert (first["content"], second.cached) == (second["content"], True)
    assert said(caplog, "kept in memory") == 1


@pytest.mark.parametrize("kind", ["a file", "a pipe"])
def test_a_path_that_is_no_folder(kind: str, tmp_path: Path) -> None:
    """That is said before anything is paid for, with the remedy."""
    path = tmp_path / "cache"
    path.write_text("mine") if kind == "a file" else os.mkfifo(path)
    client = client_at(str(path), "w")
    with pytest.raises(CacheError, match=r"\[Cache\] PATH must name a directory"):
        client.send_message("Hi")
    assert not client.requests
    assert stat.S_ISREG(path.stat().st_mode) == (kind == "a file")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only a superuser can become another user")
def test_a_folder_of_another_user(public: Path) -> None:
    """What may be read is read; what may not is an error in replay, and nobody loses a paid answer."""
    for name, mode in (("closed", 0o700), ("open", 0o755)):
        fill(public / name, 3)
        (public / name).chmod(mode)
    with Nursery(public) as nursery:
        worker = nursery.start("as_another_user", public / "closed", public / "open")
        written = worker.done()
    found = dict(line for line in written if isinstance(line, list))
    warnings = [line["warning"] for line in written if isinstance(line, dict)]
    assert found == {"closed": [False, True], "open": [True, True], "replay": CacheCorruptError.__name__}
    assert sum("kept in memory" in warning for warning in warnings) == 1
    assert any("Permission denied" in warning for warning in warnings)
