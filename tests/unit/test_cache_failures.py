"""A cache on a disk that fails: no paid answer is lost, no error comes after paying, and a warning says so once."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import read_only, small
from programs import ran, start

from llmcall.cache.cache import ResponseCache
from llmcall.cache.sqlite import DATABASE
from llmcall.errors import CacheCorruptError, CacheError, CacheMissError
from llmcall.testing import ScriptedClient

MEBIBYTE = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one mebibyte."""
    with small(tmp_path / "small") as place:
        yield place


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """A recorded answer to "Hello" in a directory that nobody can write."""
    place = tmp_path / "frozen"
    with ScriptedClient(["recorded"], cache_mode="auto", cache_path=place) as client:
        client.send_message("Hello")
        client.cache.close()
    with read_only(place):
        yield place


def client_at(path: Path, answers: Any = ("one", "two", "three"), mode: str = "auto") -> ScriptedClient:
    """Return a client that stores at a path."""
    return ScriptedClient(answers, cache_mode=mode, cache_path=path)


def warnings_in(log: pytest.LogCaptureFixture) -> list[str]:
    """List what was warned of."""
    return [record.getMessage() for record in log.records if record.levelno == logging.WARNING]


def assert_kept_in_memory(client: ScriptedClient, log: pytest.LogCaptureFixture) -> None:
    """Ask two questions twice each: two calls, the right answers, one warning."""
    replies = [client.send_message(question) for question in ("a", "a", "b", "b")]
    assert [(reply["content"], reply.cached) for reply in replies if reply] == [
        ("one", False), ("one", True), ("two", False), ("two", True),
    ]  # fmt: skip
    assert len(client.requests) == 2
    assert [text for text in warnings_in(log) if "kept in memory" in text] == [warnings_in(log)[0]]
    replies[0]["content"] = "changed"  # type: ignore[index]
    replies[0].raw.clear()  # type: ignore[union-attr]
    again = client.send_message("a")
    assert again is not None
    assert again["content"] == "one"


def test_a_directory_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Below a file there is no directory; in /proc nobody makes one."""
    (tmp_path / "file").write_text("mine")
    assert_kept_in_memory(client_at(tmp_path / "file" / "inside" / "cache"), caplog)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_file_system_that_takes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """In /proc nobody makes a directory."""
    assert_kept_in_memory(client_at(Path("/proc/llmcall/cache")), caplog)


def test_a_read_only_cache_answers_and_loses_nothing(frozen: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is recorded there is read; what is new is kept in memory."""
    client = client_at(frozen)
    recorded = client.send_message("Hello")
    assert recorded is not None
    assert (recorded["content"], recorded.cached) == ("recorded", True)
    assert_kept_in_memory(client, caplog)
    assert client_at(frozen, mode="replay").send_message("Hello") is not None
    assert len(client.cache) == 1
    assert client.cache.verify() == []


def test_a_full_disk(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Answers that the disk does not take any more are kept; the earlier ones stay sound."""
    long = "x" * (MEBIBYTE // 8)
    client = client_at(small_disk / "cache", lambda messages: long + messages[-1]["content"])
    first = [client.send_message(str(number)) for number in range(20)]
    again = [client.send_message(str(number)) for number in range(20)]
    assert first == again
    assert all(reply is not None and reply.cached for reply in again)
    assert len(client.requests) == 20
    assert len([text for text in warnings_in(caplog) if "kept in memory" in text]) == 1
    stored = len(client.cache)
    assert 0 < stored < 20
    assert client.cache.verify() == []
    with ResponseCache(small_disk / "cache") as another:
        assert len(list(another.records())) == stored


def test_load_on_a_full_disk_is_all_or_none(small_disk: Path, tmp_path: Path) -> None:
    """Loading more than fits is an error that names the place, and stores nothing."""
    source = client_at(tmp_path / "source", lambda messages: "x" * (MEBIBYTE // 4))
    for number in range(8):
        source.send_message(str(number))
    with ResponseCache(small_disk / "cache") as target:
        with pytest.raises(OSError, match="full"):
            target.load(tmp_path / "source")
        assert (len(target), target.verify()) == (0, [])


def test_a_file_in_the_way_is_said_before_paying(tmp_path: Path) -> None:
    """A path that is a file is an error with its remedy, and no call is made."""
    (tmp_path / "cache").write_text("mine")
    for mode in ("auto", "replay"):
        client = client_at(tmp_path / "cache", mode=mode)
        with pytest.raises(CacheError, match=r"is a file; .* must name a directory"):
            client.send_message("a")
        assert not client.requests


def test_refresh_with_a_file_in_the_way_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A mode that does not read first pays once for each question all the same."""
    (tmp_path / "cache").write_text("mine")
    assert_kept_in_memory(client_at(tmp_path / "cache", mode="refresh"), caplog)


@pytest.mark.parametrize("content", [b"\x00garbage" * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_database(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Replay names the command that salvages; otherwise the question is asked once, and its answer kept."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / DATABASE).write_bytes(content)
    replaying = client_at(tmp_path / "cache", mode="replay")
    with pytest.raises(CacheCorruptError, match="llmcall cache salvage"):
        replaying.send_message("a")
    asking = client_at(tmp_path / "cache")
    replies = [asking.send_message("a") for _ in range(3)]
    assert [reply and reply["content"] for reply in replies] == ["one"] * 3
    assert len(asking.requests) == 1
    assert ["asked anew" in text for text in warnings_in(caplog)] == [True, False]
    assert "kept in memory" in warnings_in(caplog)[1]
    assert (tmp_path / "cache" / DATABASE).read_bytes() == content


def test_refresh_keeps_the_newer_answer_where_the_disk_takes_nothing(frozen: Path) -> None:
    """Each key is called once, and what is read from then on is the new answer, not the old one on the disk."""
    client = client_at(frozen, mode="refresh")
    replies = [client.send_message("Hello") for _ in range(3)]
    assert [reply and (reply["content"], reply.cached) for reply in replies] == [
        ("one", False),
        ("one", True),
        ("one", True),
    ]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_process_lost_nothing(tmp_path: Path) -> None:
    """An answer that was returned is on the disk, though the process is killed the next instant."""
    program = """
        client = ScriptedClient(lambda messages: "paid", cache_mode="auto", cache_path=sys.argv[1])
        for number in range(5):
            print(client.send_message(str(number), on_error="raise")["content"], flush=True)
            if number == int(sys.argv[2]):
                os.kill(os.getpid(), 9)
    """
    for killed_at in (0, 3):
        process = start(program, tmp_path / str(killed_at), killed_at)
        printed, _ = process.communicate(timeout=60)
        assert (process.returncode, printed) == (-9, "paid\n" * (killed_at + 1))
        replaying = client_at(tmp_path / str(killed_at), mode="replay")
        assert all(replaying.send_message(str(number)) for number in range(killed_at + 1))
        with pytest.raises(CacheMissError):
            replaying.send_message(str(killed_at + 1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_while_a_call_is_under_way(tmp_path: Path) -> None:
    """The child asks for itself: whoever led the call in the parent does not exist in it."""
    program = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, from Python 3.12 on
        asked, answer = threading.Event(), threading.Event()
        def slow(messages):
            asked.set()
            answer.wait()
            return "of the parent"
        client = ScriptedClient(slow, cache_mode="auto", cache_path=sys.argv[1])
        thread = threading.Thread(target=client.send_message, args=("a",))
        thread.start()
        asked.wait()
        child = os.fork()
        if not child:
            answer.set()
            reply = client.send_message("a", on_error="raise")
            assert not reply.cached
            os._exit(0)
        _, status = os.waitpid(child, 0)
        answer.set()
        thread.join()
        print(status, len(client.requests), client.send_message("a").cached)
    """
    assert ran(program, tmp_path / "cache") == "0 1 True"
