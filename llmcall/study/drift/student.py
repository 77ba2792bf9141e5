"""Student's distribution for whole degrees of freedom.

The standard library has the normal distribution alone, and a check for drift needs no extra package.
"""

from __future__ import annotations

import math
from functools import lru_cache

from .bisection import smallest


def student_cdf(value: float, freedom: int) -> float:
    """Return the probability that Student's distribution is at most a value.

    For whole degrees of freedom it is a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4).

    :param freedom: the degrees of freedom.
    """
    angle = math.atan(value / math.sqrt(freedom))
    squared = math.cos(angle) ** 2
    is_odd = freedom % 2 == 1
    term = math.cos(angle) if is_odd else 1.0
    total = 0.0
    for step in range(2 if is_odd else 1, freedom, 2):
        total += term
        term *= squared * step / (step + 1)
    inside = math.sin(angle) * total
    if is_odd:
        inside = 2 / math.pi * (angle + inside)
    return 0.5 + inside / 2


@lru_cache(maxsize=1024)
def student_quantile(share: float, freedom: int) -> float:
    """Return a quantile of Student's distribution.

    :param share: the probability below it, at least 0.5.
    :param freedom: the degrees of freedom.
    """
    high = 1.0
    while student_cdf(high, freedom) < share:
        high *= 2
    return smallest(lambda value: student_cdf(value, freedom) >= share, 0.0, high)
