"""Tests of the cinema. ``cassettes`` holds the model's answers, so they need no key or network."""

from __future__ import annotations

from pathlib import Path

import pytest
from cinema import bad_reviews, greetings, mood

import llmcall

CASSETTES = Path(__file__).parent / "cassettes" / "test_cinema"
WONDERFUL = "What a wonderful, funny film!"
TERRIBLE = "Terrible food, rude staff, never again."


@pytest.mark.llm
@pytest.mark.parametrize(
    ("review", "expected"), [(WONDERFUL, "good"), (TERRIBLE, "bad")], ids=["good", "bad"]
)
def test_mood(review: str, expected: str) -> None:
    """A review is good or bad."""
    assert mood(review=review) == expected


@pytest.fixture(scope="module")
def bad(request: pytest.FixtureRequest) -> list[str]:
    """Read the reviews once for all tests of this module; the fixture opens a cassette of its own."""
    mode = request.config.getoption("llm_record") or "none"
    with llmcall.cassette(CASSETTES / "bad.jsonl", mode=mode):
        return bad_reviews([WONDERFUL, TERRIBLE])


@pytest.mark.llm
def test_bad_reviews(bad: list[str]) -> None:
    """Only the bad reviews are returned."""
    assert bad == [TERRIBLE]


def test_greetings(llm_cassette: llmcall.types.Cassette) -> None:
    """Each greeting is a new draw and has its own record."""
    assert len(set(greetings("Lisa", 3))) == 3
    assert llm_cassette.records == llm_cassette.replayed + llm_cassette.recorded == 3
