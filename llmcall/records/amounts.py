"""Amounts that models' answers used: their tokens and cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .served import is_given_by_model

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..values import Record


class AnswerAmounts(NamedTuple):
    """What each of some answers used; ``None`` for an answer of which it is unknown.

    :param input_tokens: of all answers.
    :param output_tokens: of all answers but embeddings, which have none.
    :param cost: of all answers, in USD.
    """

    input_tokens: list[int | None]
    output_tokens: list[int | None]
    cost: list[float | None]


def amounts_of(records: Iterable[Record]) -> AnswerAmounts:
    """Return what the models' answers among some records used."""
    answers = list(filter(is_given_by_model, records))
    return AnswerAmounts(
        input_tokens=[answer.usage.input_tokens for answer in answers],
        output_tokens=[
            answer.usage.output_tokens for answer in answers if answer.kind != "embedding"
        ],
        cost=[answer.cost for answer in answers],
    )
