"""What a simulation relies on in its cassettes: recordings that break off, notebooks, forks, recorded functions."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

import llmcall
from llmcall import CacheCorruptError, CacheError, CacheMissError, cassette, recorded, scope
from llmcall.testing import ScriptedClient

HEADER = '{"llmcall": 1, "settings": {}}'


def model(numbers: Any = None, **settings: Any) -> ScriptedClient:
    """Return a model that says what it is asked, or counts."""
    return ScriptedClient(lambda messages: str(next(numbers)) if numbers else messages[-1]["content"], **settings)


def played(client: ScriptedClient, *, until: int = 99) -> list[str]:
    """Run three actors over two rounds; fail before a call."""
    said, number = [], itertools.count()
    with scope("trial"):
        for turn in range(2):
            for name in ("zoe", "adam", "lisa"):
                with scope(name):
                    if next(number) == until:
                        raise ZeroDivisionError
                    said.append(client.send_message(f"{name} in round {turn}", on_error="raise").content)
    return said


def header(path: Path) -> dict[str, Any]:
    """Return the first line of a cassette."""
    found: dict[str, Any] = json.loads(path.read_text().splitlines()[0])
    return found


def test_a_recording_that_an_exception_ended_goes_on(tmp_path: Path) -> None:
    """The header says that it broke off; the next run asks for the rest, and the file is that of an undisturbed one."""
    undisturbed, broken = tmp_path / "undisturbed.jsonl", tmp_path / "broken.jsonl"
    with cassette(undisturbed):
        expected = played(model())
    for until in (2, 4):
        with pytest.raises(ZeroDivisionError), cassette(broken):
            played(model(), until=until)
        assert header(broken)["complete"] is False
    client = model()
    with cassette(broken) as tape:
        assert played(client) == expected
    assert (tape.replayed, tape.recorded, len(client.requests)) == (4, 2, 2)
    assert broken.read_bytes() == undisturbed.read_bytes()
    assert "complete" not in header(broken)
    with pytest.raises(CacheMissError), cassette(broken):
        model().send_message("something else", on_error="raise")


def test_a_recording_that_broke_off_after_its_last_call(tmp_path: Path) -> None:
    """The next run has nothing to ask, and completes the file; "none" only reads it."""
    path = tmp_path / "tape.jsonl"
    with pytest.raises(ZeroDivisionError), cassette(path):
        played(model())
        raise ZeroDivisionError
    before = path.read_bytes()
    with cassette(path, mode="none"):
        played(model())
    assert path.read_bytes() == before
    with cassette(path):
        played(model())
    assert "complete" not in header(path)


def test_a_program_that_ends_itself_has_ended_well(tmp_path: Path) -> None:
    """sys.exit() and sys.exit(0) inside the block are no failures; sys.exit(1) is one."""
    for code, complete in ((None, True), (0, True), (1, False)):
        path = tmp_path / f"{code}.jsonl"
        with pytest.raises(SystemExit), cassette(path):
            model().send_message("Hello")
            raise SystemExit(code)
        assert header(path).get("complete", True) is complete


def test_a_failed_rewrite_leaves_the_old_file(tmp_path: Path) -> None:
    """Neither a block nor a notebook's cells touch it before the end."""
    path = tmp_path / "tape.jsonl"
    with cassette(path):
        model().send_message("Hello")
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), cassette(path, mode="rewrite"):
        model().send_message("Bye")
        raise ZeroDivisionError
    tape = cassette(path, mode="rewrite").open()
    model().send_message("Bye")
    assert path.read_bytes() == before
    tape.close()
    assert b"Bye" in path.read_bytes()


def test_a_cassette_across_the_cells_of_a_notebook_is_written_as_it_goes(tmp_path: Path) -> None:
    """Each answer is on the disk when it is there; the closed file is that of a block."""
    path, block = tmp_path / "tape.jsonl", tmp_path / "block.jsonl"
    with cassette(block):
        played(model())
    tape = llmcall.cassette(path)
    tape.open()
    with scope("trial"):
        with scope("zoe"):
            model().send_message("zoe in round 0")
        assert "zoe in round 0" in path.read_text()
        with scope("adam"):
            model().send_message("x" * 600)
        assert header(path)["complete"] is False
        assert len(path.read_text().splitlines()) == 4
    # The kernel dies here; what it has written is read in the next one.
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    tape.close()
    assert "complete" not in header(path)
    with cassette(copy) as again:
        with scope("trial"), scope("adam"):
            assert model(iter(())).send_message("x" * 600, on_error="raise").cached
        assert again.replayed == 1
    path.unlink()
    tape.open()
    played(model())
    tape.close()
    assert path.read_bytes() == block.read_bytes()
    assert not model(itertools.count()).send_message("Hello", on_error="raise").cached


def test_an_empty_cassette_is_not_corrupt(tmp_path: Path) -> None:
    """An empty file is recorded by "once", and misses in "none"; a file without records likewise."""
    path = tmp_path / "tape.jsonl"
    for mode in ("once", "new"):
        path.write_bytes(b"")
        with pytest.raises(CacheMissError), cassette(path, mode="none"):
            model().send_message("Hello", on_error="raise")
        with cassette(path, mode=mode) as tape:
            model().send_message("Hello", on_error="raise")
        assert tape.recorded == 1
    path.write_text("\n")
    with pytest.raises(CacheCorruptError, match="no header"), cassette(path):
        pass


def test_a_wrong_mark_of_completeness_is_named(tmp_path: Path) -> None:
    """Written by hand, it must be true or false."""
    path = tmp_path / "tape.jsonl"
    path.write_text('{"llmcall": 1, "complete": "no", "settings": {}}\n')
    with pytest.raises(CacheCorruptError, match=r"tape.jsonl:1: 'complete' in the header must be true or false"):
        cassette(path).__enter__()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_calls_of_a_forked_process_do_not_pass_a_recording_by(tmp_path: Path) -> None:
    """What is recorded replays there; what is not is an error that says what to do, before anything is asked."""
    path = tmp_path / "tape.jsonl"

    def in_a_fork() -> str:
        read, write = os.pipe()
        child = os.fork()
        if not child:
            client = model()
            known = client.send_message("known", on_error="raise").content
            try:
                new = client.send_message("new", on_error="raise").content
            except CacheError as error:
                new = f"{type(error).__name__} {len(client.requests)} {error}"
            os.write(write, f"{known} {new}".encode())
            os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        with os.fdopen(read) as file:
            return file.read()

    with cassette(path):
        model().send_message("known")
        said = in_a_fork()
        assert said.startswith("known CacheError 0 the cassette")
        assert "llmcall.map" in said
    with cassette(path, mode="none"):
        assert in_a_fork().startswith("known CacheMissError 0")


def test_a_recorded_function_s_own_calls_are_used_with_it(tmp_path: Path) -> None:
    """They stand in its scope and are not asked when its result replays; others that nobody used are unused."""
    path = tmp_path / "tape.jsonl"

    @recorded(name="plan")
    def plan(day: int) -> str:
        client = model()
        client.get_embedding("text") if day else None
        return str(client.send_message(f"Plan day {day}", on_error="raise").content)

    with cassette(path), scope("lisa"):
        plan(0)
        model().send_message("How are you?")
    with cassette(path) as tape, scope("lisa"):
        assert plan(0) == "Plan day 0"
        assert [record.request["messages"][0]["content"] for record in tape.unused()] == ["How are you?"]
        model().send_message("How are you?")
        assert tape.unused() == []
    outside = tmp_path / "outside.jsonl"
    with cassette(outside):
        plan(0)
    with cassette(outside) as tape:
        plan(0)
        assert tape.unused() == []


def test_a_table_of_the_records(tmp_path: Path) -> None:
    """A row per record, open or not."""
    pytest.importorskip("pandas")
    pytest.importorskip("llmcall.cache.summary")
    path = tmp_path / "tape.jsonl"
    with cassette(path) as tape, scope("lisa"):
        model().send_message("Hello", model="m")
        assert len(tape.to_frame()) == 1
    for found in (tape, cassette(path)):
        (row,) = found.to_frame().to_dict("records")
        assert (row["scope"], str(row["draw"]), row["model"], row["prompt"], row["answer"]) == (
            "lisa",
            "0",
            "m",
            "Hello",
            "Hello",
        )
    assert cassette(tmp_path / "none.jsonl").to_frame().columns[0] == "scope"
