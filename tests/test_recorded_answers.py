"""What becomes of recorded answers: on a disk that fails for a while, in tables, and on a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from disks import small

import llmcall
from llmcall import ResponseCache
from llmcall.cli.main import main
from llmcall.testing import ScriptedClient

PROGRAM = """
import os, sys
from llmcall.testing import ScriptedClient

client = ScriptedClient(lambda messages: "yes", cache_mode="refresh", cache_path=sys.argv[1])
open(sys.argv[1], "w").close()          # a file where the directory should be: nothing can be stored
for number in range(10):
    client.send_message(str(number))
if sys.argv[2] == "mended":
    os.unlink(sys.argv[1])
"""


def test_a_full_disk_that_has_room_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What it did not take is written when the cache is closed."""
    with small(tmp_path / "small") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(850_000))
        client = ScriptedClient(lambda messages: "x" * 25_000, cache_mode="auto", cache_path=disk / "cache")
        for number in range(10):
            client.send_message(str(number))
        assert len(client.cache) < 10
        ballast.unlink()
        client.cache.close()
        with ResponseCache(disk / "cache") as cache:
            assert len(list(cache.records())) == 10 and cache.verify() == []
    assert caplog.text.count("kept in memory until it can") == 1


@pytest.mark.parametrize(("then", "stored"), [("mended", 10), ("broken", 0)])
def test_what_was_not_stored_at_the_end_of_the_process(then: str, stored: int, tmp_path: Path) -> None:
    """It is written then, where that is possible; else a second warning says how many answers are lost."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "cache"), then]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "kept in memory until it can" in done.stderr
    assert ("10 answers could not be stored and are lost" in done.stderr) is (then == "broken")
    if stored:
        with ResponseCache(tmp_path / "cache") as cache:
            assert len(cache) == stored


def test_a_frame(tmp_path: Path) -> None:
    """A row for each record, in the order of storing."""
    pytest.importorskip("pandas")
    client = ScriptedClient(lambda messages: "Two.", cache_mode="auto", cache_path=tmp_path / "cache", model="gpt-4o")
    client.send_message("How many?")
    with llmcall.scope("trial"), llmcall.scope("lisa"):
        for _ in range(2):
            client.send_message("And now?")
    frame = client.cache.to_frame()
    assert list(frame.columns) == [
        "scope", "draw", "kind", "model", "prompt", "answer", "input_tokens", "output_tokens", "cost", "cache_key",
    ]  # fmt: skip
    assert list(frame["prompt"]) == ["How many?", "And now?", "And now?"] and set(frame["answer"]) == {"Two."}
    assert list(frame["scope"])[1:] == ["trial/lisa"] * 2 and list(frame["draw"])[1:] == [0, 1]
    assert len(client.cache.to_frame(lambda record: record.sample is None)) == 1


@pytest.mark.parametrize("command", [["ls"], ["show"]])
def test_control_characters_are_not_printed(command: list[str], tmp_path: Path) -> None:
    """A terminal obeys nothing in an answer, a question, a role's parameters or a scope."""
    evil = "\x1b[2J\x07\x9b31m\u202eevil"
    client = ScriptedClient(lambda messages: f"a{evil}", cache_mode="auto", cache_path=tmp_path / "cache")
    with llmcall.scope(f"s{evil}"):
        reply = client.send_message(f"q{evil}", stop=[f"t{evil}"], on_error="raise")
    key = [reply.cache_key] if command == ["show"] else []
    done = CliRunner().invoke(main, ["cache", "--path", str(tmp_path / "cache"), *command, *key])
    assert done.exit_code == 0 and "evil" in done.output
    assert all(character.isprintable() or character == "\n" for character in done.output)


def test_a_damaged_record_is_asked_anew_and_mended(tmp_path: Path) -> None:
    """A record of another key's bytes, as a damaged index gives, is damage; ``verify`` names it until then."""
    client = ScriptedClient(lambda messages: messages[-1]["content"], cache_mode="auto", cache_path=tmp_path / "cache")
    one, two = (client.send_message(question, on_error="raise") for question in ("one", "two"))
    storage = client.cache.storage
    found = storage.get(one.cache_key)
    assert found is not None and found[0] is not None
    storage.set(two.cache_key, found[0])
    assert client.cache.verify() == [two.cache_key]
    assert client.send_message("two", on_error="raise").content == "two"
    assert client.cache.verify() == []
