"""Bisection: where a condition begins to hold."""

from __future__ import annotations

from collections.abc import Callable

HALVINGS = 50


def smallest(condition: Callable[[float], bool], low: float, high: float) -> float:
    """Return the smallest number in a range for which a condition holds.

    :param condition: if it holds for a number, it holds for every larger one.
    :param low: the lower end of the range.
    :param high: its upper end, which is returned if the condition holds for no smaller number.
    """
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if condition(middle):
            high = middle
        else:
            low = middle
    return high
