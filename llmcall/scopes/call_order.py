"""The order of the calls, which decides the order of the records on a cassette.

A call's order is a sort key: numbers that are compared from the first on. An item of a ``map``, or an
arm, has one too, and the orders of its calls begin with that. So whichever thread is faster, the
calls of an item come before those of the next item.
"""

from __future__ import annotations

import itertools

CallOrder = tuple[int, ...]

_numbers = itertools.count()


def next_order_in(order: CallOrder) -> CallOrder:
    """Return the order of what comes next.

    :param order: that of the item or arm in which it comes; empty outside any.
    """
    return (*order, next(_numbers))
