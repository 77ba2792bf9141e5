"""The amounts that calls use of budgets, or reserve."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..apis.usage import TokenUsage

# USD are counted in whole 10^-12 USD: sums of floats would pass a limit that they only reach, or
# not reach it.
PICO = 10**12
NEVER = float("inf")


class Amounts(NamedTuple):
    """The amounts that calls use or reserve.

    :param usd: in 10^-12 USD.
    :param tokens: of prompts and answers together.
    :param calls: calls answered by a model.
    :param unknown: how many of them have an unknown price.
    """

    usd: int = 0
    tokens: int = 0
    calls: int = 0
    unknown: int = 0


NOTHING = Amounts()


def spending_of(tokens: int, cost: float | None) -> Amounts:
    """Return what a call spends.

    :param cost: USD, or ``None`` if it is unknown.
    """
    if cost is None:
        return Amounts(0, tokens, calls=1, unknown=1)
    return Amounts(round(cost * PICO), tokens, calls=1)


def total(tokens: TokenUsage) -> int | None:
    """Return the tokens of a prompt and its answer together, or ``None`` if the server reports no usage."""
    if tokens.input_tokens is None:
        return None
    return tokens.input_tokens + (tokens.output_tokens or 0)
