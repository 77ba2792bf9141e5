"""The order in which a respondent reads a closed question's options.

It depends only on the scope path without the repeats of a ``map``, the repeat, and the options that
move, as they were given. So the same respondent reads the same order in every framing of a question, model
and arm, another row changes no other row's order, and two questions have orders of their own.
"""

from __future__ import annotations

import hashlib
from math import factorial
from typing import TYPE_CHECKING, NamedTuple

from .. import scopes
from ..support.notices import warn_once

if TYPE_CHECKING:
    from collections.abc import Sequence


class Respondent(NamedTuple):
    """The respondent's name and repeat, which decide the order.

    :param path: the scope path without the repeats, or, outside a scope, the item's name; empty
        without both.
    :param repeat: the number of the repeat, from 0. Where a ``map`` runs inside another, it is the sum
        of both: while only one of them repeats, it counts up by one.
    """

    path: str
    repeat: int

    @classmethod
    def current(cls) -> Respondent:
        """Return the respondent of the current context.

        :raises ScopeError: in a thread or process without a scope while another has one open.
        """
        active = scopes.scope_of_call()
        path, repeats = scopes.without_repeats(active.path)
        return cls(path or active.item_name, sum(repeats))


def moving_order(
    order: str, options: Sequence[str], respondent: Respondent, *, alternates: bool = False
) -> tuple[int, ...]:
    """Return the order in which a respondent reads the options that move.

    :param order: its name, one of ``ORDERS``.
    :param options: the texts of the options that move, as they were given.
    :param alternates: whether each repeat changes the direction of ``"reverse"``.
    :returns: the order as given, if the respondent has no path.
    """
    count = len(options)
    given_order = tuple(range(count))
    if order == "given" or not respondent.path:
        return given_order
    if order == "shuffle":
        number = _number(respondent.path, options, respondent.repeat)
        return permutation(count, number % factorial(count))
    number = _number(respondent.path, options)
    if order == "rotate":
        return rotated(count, number % count + respondent.repeat)
    direction = number + (respondent.repeat if alternates else 0)
    return given_order[::-1] if direction % 2 else given_order


def warn_if_order_has_no_effect(order: str, respondent: Respondent) -> None:
    """Warn once if an order was set, but the respondent has no name to choose one by."""
    if order != "given" and not respondent.path:
        warn_once(
            f"open a scope for each respondent, or ask with .map or .table; otherwise order={order!r} has no "
            "effect, and the options of a question keep their given order"
        )


def all_orders(order: str, count: int) -> list[tuple[int, ...]]:
    """Return the orders over which shares are averaged: all rotations, or both directions for
    ``reverse``, or the only one for ``given``.
    """
    given_order = tuple(range(count))
    if order == "given":
        return [given_order]
    if order == "reverse":
        return [given_order, given_order[::-1]]
    return [rotated(count, start) for start in given_order]


def rotated(count: int, start: int) -> tuple[int, ...]:
    """Return the numbers below ``count``, from ``start`` on, and then those before it."""
    return tuple((start + step) % count for step in range(count))


def permutation(count: int, index: int) -> tuple[int, ...]:
    """Return a permutation of the numbers below ``count``, by its index in lexicographic order."""
    remaining = list(range(count))
    numbers = []
    for size in range(count, 0, -1):
        position, index = divmod(index, factorial(size - 1))
        numbers.append(remaining.pop(position))
    return tuple(numbers)


def _number(path: str, options: Sequence[str], repeat: int | None = None) -> int:
    """Return the number that decides an order."""
    text = "\n".join(("choice", path, *options))
    if repeat is not None:
        text += f"\n{repeat}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
