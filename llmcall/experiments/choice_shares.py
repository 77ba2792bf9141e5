"""The cells of a table of shares, and its columns: means of a model's probabilities, or counts of draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .intervals import share_interval

OTHER = "p_other"
NO_INTERVAL = (
    "shares that a model gives as probabilities have no 95 % interval (low_…, high_…): they are not counts of "
    "answers. method='draws' with repeats= counts answers"
)


def mean_shares(answers: Sequence[object], options: int) -> list[float] | Exception | None:
    """Return the cells of a row: the mean of its shares over the orders, without intervals; or the first
    order's failure.

    :param answers: for each order, the shares, an exception, or ``None`` for a logged failure.
    :param options: the number of options.
    """
    for answer in answers:
        if answer is None or isinstance(answer, Exception):
            return answer
    means = [math.fsum(shares) / len(answers) for shares in zip(*answers, strict=True)]
    return [*means, *[math.nan] * 2 * options]


def counted_shares(draws: Sequence[Any], options: int) -> list[float] | Exception | None:
    """Return the cells of a row: the shares among its draws, and their intervals; or the failure of the
    first draw that failed: an exception, or ``None`` for a logged one.

    :param options: the number of options.
    """
    counts = [0] * (options + 1)
    for draw in draws:
        if draw is None or isinstance(draw, Exception):
            return draw
        if draw.reply is None:  # an answer that names no option has a reply
            return draw.failure  # type: ignore[no-any-return]
        counts[-1 if draw.value is None else draw.fields["index"]] += 1
    intervals = [end for count in counts[:-1] for end in share_interval(count, len(draws))]
    return [*(count / len(draws) for count in counts), *intervals]


def share_columns(
    options: Sequence[object], row_columns: Sequence[object], others: Sequence[str]
) -> list[str]:
    """Return the names of the columns of the shares: the shares, then the ends of each option's interval.

    :param row_columns: the columns of the rows.
    :param others: the further columns of the table.
    :raises ValueError: if two columns would have the same name.
    """
    ends = (f"{end}_{option}" for option in options for end in ("low", "high"))
    names = [*(f"p_{option}" for option in options), OTHER, *ends]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValueError(
                f"two columns of shares would be named {name!r}: give the options codes, such as "
                "{'something else': 'other'}"
            )
    for name in (*names, *others):
        if name in row_columns:
            raise ValueError(f"the rows have a column {name!r}, which the shares need: rename it")
    return names
