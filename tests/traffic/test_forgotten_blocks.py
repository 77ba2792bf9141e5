"""Blocks that a program made and never entered: a word says so, since a forgotten budget limits nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def _entered_later(block: Any) -> None:
    with block:
        pass


def _read_alone() -> None:
    pytest.importorskip("pandas")
    llmcall.cassette("a.jsonl").to_frame()


@pytest.mark.parametrize(
    "use",
    [
        *(lambda make=param.values[0]: _entered_later(make()) for param in MAKERS),
        _read_alone,
        lambda: llmcall.cassette("a.jsonl")(_read_alone),  # as a decorator
        lambda: llmcall.map(str, [], scope="town"),
    ],
)
def test_a_block_that_is_used_says_nothing(
    use: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    """One may be entered later, read, decorate a function that is never called, or be a map's to enter."""
    use()
    assert "never entered" not in caplog.text
