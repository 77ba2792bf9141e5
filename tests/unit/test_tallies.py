"""The tally of digests."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llmcall.parallel.tallies import SMALLEST, Tally

# Many that meet at one place of the table, and any others.
digests = st.integers(0, 6).map(lambda number: number * 2**32) | st.integers(0, 2**64 - 1)


@given(st.lists(digests, max_size=5 * SMALLEST))
def test_it_counts(given: list[int]) -> None:
    """Each digest comes with how often it came before, however many there are and wherever they meet."""
    tally, seen = Tally(), Counter[int]()
    for digest in given:
        digest = digest or 1
        assert tally.count(digest) == seen[digest]
        seen[digest] += 1


def test_it_grows() -> None:
    """All are known again after the table has grown many times."""
    tally = Tally()
    numbers = [(number * 0x9E3779B97F4A7C15) % 2**64 for number in range(1, 5000)]
    assert {tally.count(number) for number in numbers} == {0}
    assert {tally.count(number) for number in numbers} == {1}
    assert {tally.count(number) for number in numbers} == {2}
