"""The order of the calls, which decides the order of the records on a cassette.

A place is a list of numbers that are compared from the first on. An item of a ``map``, or an arm,
has a place, and the places of its calls begin with that. So whichever thread is faster, the calls of
an item come before those of the next item.
"""

from __future__ import annotations

import itertools

Place = tuple[int, ...]

_numbers = itertools.count()


def next_within(place: Place) -> Place:
    """Return the place of what comes next.

    :param place: that of the item or arm in which it comes; empty outside any.
    """
    return (*place, next(_numbers))
