"""Blocks that a program made and never entered: a word says so, since a forgotten budget limits nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import llmcall

MAKERS = [
    pytest.param(lambda: llmcall.budget(usd=5), "llmcall.budget(usd=5)", id="budget"),
    pytest.param(lambda: llmcall.scope("Ben"), "llmcall.scope('Ben')", id="scope"),
    pytest.param(lambda: llmcall.cassette("a.jsonl"), "llmcall.cassette('a.jsonl')", id="cassette"),
    pytest.param(llmcall.track, "llmcall.track()", id="track"),
]


@pytest.mark.parametrize(("make", "written"), MAKERS)
def test_a_block_that_nobody_entered_says_so(
    make: Callable[[], object], written: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A statement alone opens nothing."""
    make()
    assert f"{written} was never entered, so it did nothing. Write 'with {written}:'" in caplog.text


@pytest.mark.parametrize("make", [param.values[0] for param in MAKERS])
def test_a_block_that_is_entered_later_says_nothing(
    make: Callable[[], object],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One may be kept in a variable first."""
    monkeypatch.chdir(tmp_path)
    block = make()
    with block:  # type: ignore[attr-defined]
        pass
    del block
    assert "never entered" not in caplog.text


def test_a_cassette_that_is_only_read_says_nothing(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Its frame needs no open cassette."""
    pytest.importorskip("pandas")
    llmcall.cassette(tmp_path / "a.jsonl").to_frame()
    assert "never entered" not in caplog.text


def test_a_cassette_as_a_decorator_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The function may never be called."""

    @llmcall.cassette("a.jsonl")
    def play() -> None:
        raise NotImplementedError

    del play
    assert "never entered" not in caplog.text


def test_a_map_that_ends_before_its_scope_is_entered_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The scope that ``scope=`` names is the map's to enter."""
    assert llmcall.map(str, [], scope="town") == []
    assert "never entered" not in caplog.text
