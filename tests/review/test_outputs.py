"""The first difference of two outputs, and what it looks like."""

from __future__ import annotations

import pytest

from llmcall.review.outputs import first_difference

SET_OR_ARRIVAL = "an order of arrival or a set, whose order depends on the hash seed"
SET = "a set, whose order depends on the hash seed"


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("at 12:30:01", "at 12:30:02", "a time"),
        ("run 9e107d9d372bb6826bd81d3542a419d6", "run e4d909c290d0fb1ca068ffaddf22cbd0", "an id"),
        ("<Ann at 0x7f22aaba72c0>", "<Ann at 0x7fe510b4f2c0>", "an address in memory"),
        ("wrote /tmp/a1b2/x", "wrote /tmp/c3d4/x", "a temporary path"),
        ("at 12:30:01 /tmp/a1b2/x", "at 12:30:02 /tmp/c3d4/x", "a time or a temporary path"),
        ("{'a', 'b'}", "{'b', 'a'}", SET_OR_ARRIVAL),
        ("Ann\nBen", "Ben\nAnn", SET_OR_ARRIVAL),
        ("share 0.31", "share 0.37", "a random number or a time"),
        ("bread", "milk", ""),
        ("bread", "bread\nmilk", ""),
    ],
)
def test_a_difference_looks_like_what_commonly_differs(before: str, after: str, kind: str) -> None:
    """A text that looks like nothing known is shown alone."""
    found = first_difference(before.encode(), after.encode())
    assert found is not None
    assert found.kind == kind


def test_what_cannot_be_the_cause_is_not_named() -> None:
    """A seed fixes sets and random numbers; where one caller makes all calls, no order of arrival differs."""
    turned, numbers = (b"{'a', 'b'}", b"{'b', 'a'}"), (b"0.31", b"0.37")
    cases = [
        first_difference(*turned, has_seed=True),
        first_difference(*turned, is_alone=True),
        first_difference(*turned, has_seed=True, is_alone=True),
        first_difference(*numbers, has_seed=True),
    ]
    assert [it and it.kind for it in cases] == ["an order of arrival", SET, "", "a time or an id"]


def test_of_a_long_line_the_part_that_differs_is_shown() -> None:
    """And what stands before it."""
    found = first_difference(b"x" * 200 + b" bread", b"x" * 200 + b" milk")
    assert found is not None
    assert found.lines("a", "b")[1:] == [
        f"  a: …{'x' * 29} bread",
        f"  b: …{'x' * 29} milk",
    ]


def test_the_first_line_that_differs_is_shown_with_both_names() -> None:
    """Where an output has ended, that is said instead."""
    found = first_difference(b"bread\nmilk\n", b"bread\nmilk\nsalt\n")
    assert found is not None
    assert found.lines("replay 1", "run 12") == [
        "line 3 of the output differs:",
        "  replay 1: (the output has ended)",
        "  run 12:   salt",
    ]
    assert first_difference(b"bread", b"bread") is None
