"""Two texts of one program, compared but for the answers that they quote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .quotes import Admits, ChangedAnswerIndex, Quote, Rest, in_common
from .texts import Text, text_of

EDITS = 200  # tokens that are inserted or deleted; beyond them, texts differ as a whole


def quotes(
    before: str, after: str, answers: ChangedAnswerIndex, admits: Admits
) -> list[Quote] | None:
    """Return the quotes but for which two texts are the same, or ``None`` if there is more."""
    steps = _steps(text_of(before), text_of(after), answers, admits, 0) if answers else None
    return None if steps is None else [step.quote for step in steps if step.quote]


def without_quotes(before: str, after: str, answers: ChangedAnswerIndex, admits: Admits) -> str:
    """Return the other text with the first one's answers instead of its own."""
    one, other = text_of(before), text_of(after)
    steps = _steps(one, other, answers, admits, EDITS) if answers else None
    if steps is None:
        return after
    tokens: list[str] = []
    for step in steps:
        if step.quote:
            tokens += one.tokens[step.at[0] : step.to[0]]
        else:
            tokens += other.tokens[step.at[1] : step.to[1]]
    return "".join(tokens)


class Step(NamedTuple):
    """A step through two texts at once: from their tokens ``at`` to their tokens ``to``."""

    at: tuple[int, int]
    to: tuple[int, int]
    quote: Quote | None = None


def _steps(
    one: Text, other: Text, answers: ChangedAnswerIndex, admits: Admits, most: int
) -> list[Step] | None:
    """Return the way through two texts with the fewest words of their own.

    :param most: so many tokens that only one of them has are allowed.
    """
    goal = len(one.tokens), len(other.tokens)
    same = in_common(one.tokens, 0, other.tokens, 0)
    # No quote that contains a difference begins further before it.
    start = max(0, same - 4 * answers.longest - 8)
    came: dict[tuple[int, int], Step | None] = {(start, start): None}
    level = [(start, start)]
    for _ in range(most + 1):
        stuck = []
        while level:
            state = level.pop()
            if state == goal:
                return [Step((0, 0), (start, start)), *_way(came, state)]
            at, other_at = state
            is_inside = at < goal[0] and other_at < goal[1]
            is_same = is_inside and one.tokens[at] == other.tokens[other_at]
            if is_same:
                _reach(came, level, Step(state, (at + 1, other_at + 1)))
            else:
                stuck.append(state)
            if not is_same or one.is_word(at):
                for quote in answers.quoted(Rest(one, at), Rest(other, other_at), admits):
                    _reach(came, level, Step(state, (quote.end, quote.other_end), quote))
        for at, other_at in stuck:
            if at < goal[0]:
                _reach(came, level, Step((at, other_at), (at + 1, other_at)))
            if other_at < goal[1]:
                _reach(came, level, Step((at, other_at), (at, other_at + 1)))
    return None


def _reach(
    came: dict[tuple[int, int], Step | None], level: list[tuple[int, int]], step: Step
) -> None:
    if step.to not in came:
        came[step.to] = step
        level.append(step.to)


def _way(came: Mapping[tuple[int, int], Step | None], state: tuple[int, int]) -> list[Step]:
    found = []
    while (step := came[state]) is not None:
        found.append(step)
        state = step.at
    return found[::-1]
