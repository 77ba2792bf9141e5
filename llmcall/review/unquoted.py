"""Two texts of one program, compared but for the answers that they quote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .quotes import Admits, ChangedAnswerIndex, Quote, Rest, common_length
from .texts import Text, text_of

MOST_EDITS = 200  # tokens that are inserted or deleted; beyond them, texts differ as a whole


def quotes_between(
    before: str, after: str, answers: ChangedAnswerIndex, admits: Admits
) -> list[Quote] | None:
    """Return the quotes but for which two texts are the same, or ``None`` if there is more."""
    steps = _steps(text_of(before), text_of(after), answers, admits, 0) if answers else None
    return None if steps is None else [step.quote for step in steps if step.quote]


def without_quotes(before: str, after: str, answers: ChangedAnswerIndex, admits: Admits) -> str:
    """Return the other text with the first one's answers instead of its own."""
    text, other_text = text_of(before), text_of(after)
    steps = _steps(text, other_text, answers, admits, MOST_EDITS) if answers else None
    if steps is None:
        return after
    tokens: list[str] = []
    for step in steps:
        if step.quote:
            tokens += text.tokens[step.begin[0] : step.end[0]]
        else:
            tokens += other_text.tokens[step.begin[1] : step.end[1]]
    return "".join(tokens)


class Step(NamedTuple):
    """A step through two texts at once: from their tokens ``begin`` to their tokens ``end``."""

    begin: tuple[int, int]
    end: tuple[int, int]
    quote: Quote | None = None


def _steps(
    text: Text, other_text: Text, answers: ChangedAnswerIndex, admits: Admits, most: int
) -> list[Step] | None:
    """Return the path through two texts with the fewest words of their own.

    :param most: so many tokens that only one of them has are allowed.
    """
    goal = len(text.tokens), len(other_text.tokens)
    common = common_length(text.tokens, 0, other_text.tokens, 0)
    # No quote that contains a difference begins further before it.
    start = max(0, common - 4 * answers.longest - 8)
    steps_to: dict[tuple[int, int], Step | None] = {(start, start): None}
    frontier = [(start, start)]
    for _ in range(most + 1):
        stuck = []
        while frontier:
            state = frontier.pop()
            if state == goal:
                return [Step((0, 0), (start, start)), *_path(steps_to, state)]
            position, other_position = state
            is_inside = position < goal[0] and other_position < goal[1]
            is_same = is_inside and text.tokens[position] == other_text.tokens[other_position]
            if is_same:
                _reach(steps_to, frontier, Step(state, (position + 1, other_position + 1)))
            else:
                stuck.append(state)
            if not is_same or text.is_word(position):
                for quote in answers.quoted(
                    Rest(text, position), Rest(other_text, other_position), admits
                ):
                    _reach(steps_to, frontier, Step(state, (quote.end, quote.other_end), quote))
        for state in stuck:
            position, other_position = state
            if position < goal[0]:
                _reach(steps_to, frontier, Step(state, (position + 1, other_position)))
            if other_position < goal[1]:
                _reach(steps_to, frontier, Step(state, (position, other_position + 1)))
    return None


def _reach(
    steps_to: dict[tuple[int, int], Step | None], frontier: list[tuple[int, int]], step: Step
) -> None:
    if step.end not in steps_to:
        steps_to[step.end] = step
        frontier.append(step.end)


def _path(steps_to: Mapping[tuple[int, int], Step | None], state: tuple[int, int]) -> list[Step]:
    path = []
    while (step := steps_to[state]) is not None:
        path.append(step)
        state = step.begin
    return path[::-1]
