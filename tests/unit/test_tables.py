"""Rows of cells as aligned columns."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from llmcall.tables import columns

CELLS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters=" "), min_size=1, max_size=9)
ROWS = st.integers(1, 5).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1))


def test_alignment() -> None:
    """Columns are as wide as their widest cell, to the left unless told, and lines end without blanks."""
    rows = [("name", "tokens"), ("a", "5"), ("longest", "1,000")]
    assert columns(rows).splitlines() == ["name     tokens", "a        5", "longest  1,000"]
    assert columns(rows, right=[1]).splitlines() == ["name     tokens", "a             5", "longest   1,000"]


def test_nothing() -> None:
    """No rows are an empty text."""
    assert columns([]) == ""


def test_ragged_rows() -> None:
    """Rows of different lengths are an error, not a table that lacks cells."""
    with pytest.raises(ValueError):
        columns([("a", "b"), ("c",)])


@given(rows=ROWS)
def test_nothing_is_lost(rows: list[list[str]]) -> None:
    """Every cell is found again, in its place."""
    assert [line.split() for line in columns(rows).splitlines()] == rows
    assert [line.split() for line in columns(rows, right=range(9)).splitlines()] == rows
