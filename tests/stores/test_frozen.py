"""Recordings of an earlier version are read as they were: keys, cassettes, a cache.

``tests/stores/frozen/`` holds the recordings of ``frozen_program.py`` and of ``script.py``, and what came
of their calls. They are never made again: a change here takes recordings away from their users.
"""

from __future__ import annotations

import json
import os
import random
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST
from frozen_program import SEARCH, SETTINGS, Model, play

import llmcall

FROZEN = Path(__file__).with_name("frozen")
EXPECTED = json.loads((FROZEN / "told.json").read_text(encoding="utf-8"))
OTHER_WAITS = (0, 6, 3)  # the tasks ask in another order than when they were recorded


def replayed(**settings: Any) -> Any:
    """Run the program again without a server, and return what came of its calls as JSON has it."""
    client = Model(**settings)
    with llmcall.patched(hosts=(SEARCH,)):
        results = play(client, waits=OTHER_WAITS)
    assert client.asked == 0
    return json.loads(json.dumps(results))


def lines_of(path: Path) -> list[str]:
    """Return the lines of a cassette after its header."""
    return path.read_text(encoding="utf-8").split("\n")[1:]


def test_a_frozen_cassette_replays_with_its_keys() -> None:
    """Its header brings the settings; each record is used."""
    with llmcall.cassette(FROZEN / "tape.jsonl", mode="none") as tape:
        assert replayed() == EXPECTED
    assert tape.records == 55
    assert tape.unused() == []


def test_a_frozen_cache_replays(tmp_path: Path) -> None:
    """Its settings are given."""
    (tmp_path / "cache").mkdir()
    shutil.copy(FROZEN / "cache.db", tmp_path / "cache")
    cache = llmcall.ResponseCache(tmp_path / "cache")
    with llmcall.configured(cache_path=tmp_path / "cache", cache_mode="replay", **SETTINGS):
        assert replayed() == EXPECTED
        assert len(cache) == 55


def test_a_frozen_export_fills_a_cache(tmp_path: Path) -> None:
    """A cassette recorded from that cache has the same lines, but for the arms and templates, which the frozen one
    does not name; an export of it has the same, and says that it does not know what callers asked before.
    """
    cache = llmcall.ResponseCache(tmp_path / "cache")
    with llmcall.configured(cache_path=tmp_path / "cache", cache_mode="replay", **SETTINGS):
        assert cache.load(FROZEN / "tape.jsonl") == 55
        with llmcall.cassette(tmp_path / "again.jsonl"):
            assert replayed() == EXPECTED
        cache.export(tmp_path / "export.jsonl")
    recorded = lines_of(FROZEN / "tape.jsonl")
    again = lines_of(tmp_path / "again.jsonl")
    assert again != recorded
    names = r'"arms": \[[^\]]*\], |"form": \{[^}]*\}\}, '
    assert [re.sub(names, "", line) for line in again] == recorded
    exported = [line.replace('"after": "?", ', "") for line in lines_of(tmp_path / "export.jsonl")]
    assert sorted(exported) == sorted(recorded)


@pytest.mark.ci
def test_a_frozen_recording_of_run_replays(tmp_path: Path) -> None:
    """The header brings actor, normalizers and seed."""
    environment = {**os.environ, "MODEL_AT": "http://127.0.0.1:9/v1"}
    command = ["run", "--cassette", FROZEN / "run.jsonl", "--mode", "none", FROZEN / "script.py"]
    run = subprocess.run(
        [sys.executable, "-m", "llmcall", *command],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=LONGEST,
    )
    assert run.stdout == (FROZEN / "run.txt").read_text(encoding="utf-8"), run.stderr


def test_a_block_replays_a_frozen_recording_of_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its header brings them there, too."""
    monkeypatch.setenv("MODEL_AT", "http://127.0.0.1:9/v1")
    state = random.getstate()
    with llmcall.cassette(FROZEN / "run.jsonl", mode="none"):
        runpy.run_path(str(FROZEN / "script.py"))
    assert capsys.readouterr().out == (FROZEN / "run.txt").read_text(encoding="utf-8")
    assert random.getstate() == state


def test_a_frozen_cassette_is_a_run() -> None:
    """It can be read and compared without being replayed."""
    comparison = llmcall.compare(FROZEN / "tape.jsonl", FROZEN / "tape.jsonl")
    assert (comparison.same, comparison.changed) == (55, 0)


@pytest.mark.parametrize("mode", ["none", "new", "once"])
def test_a_replay_leaves_a_frozen_cassettes_bytes(mode: str, tmp_path: Path) -> None:
    """Nothing of it is written otherwise than it was."""
    path = tmp_path / "tape.jsonl"
    shutil.copy(FROZEN / "tape.jsonl", path)
    with llmcall.cassette(path, mode=mode):
        replayed()
    assert path.read_bytes() == (FROZEN / "tape.jsonl").read_bytes()
