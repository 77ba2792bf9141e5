"""Holm's method: p-values and intervals of several comparisons."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the same order."""
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(_ranked(p_values)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def holm_levels(p_values: Sequence[float], level: float) -> list[float]:
    """Return the level at which each interval excludes 0 if and only if the method rejects.

    A rejected hypothesis has the level at which it was tested; the others have the level at which
    the method stopped.

    :param level: of all comparisons together.
    """
    levels = [0.0] * len(p_values)
    remaining = len(p_values)
    has_stopped = False
    for index in _ranked(p_values):
        levels[index] = level / remaining
        has_stopped = has_stopped or p_values[index] >= levels[index]
        if not has_stopped:
            remaining -= 1
    return levels


def _ranked(p_values: Sequence[float]) -> list[int]:
    """Return the indexes of p-values, from the smallest on."""
    return sorted(range(len(p_values)), key=lambda index: (p_values[index], index))
