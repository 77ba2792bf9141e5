"""Marks of answers: cut, refused, corrected, unread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..answers.instructions import CORRECTION
from ..apis.endings import is_cut, is_refused

if TYPE_CHECKING:
    from ..stores.record import Record
    from .conversations import RecordedCall, Utterance

CUT, REFUSED, ASKED_AGAIN, UNREAD = "cut", "refused", "asked again", "unread"
MARKS = (REFUSED, CUT, ASKED_AGAIN, UNREAD)


def with_marks(calls: Sequence[RecordedCall]) -> list[RecordedCall]:
    """Return the calls of one actor with the marks of their answers."""
    asked_again = _asked_again(calls)
    return [
        call._replace(marks=marks_of(call.record, is_asked_again=call.number in asked_again))
        for call in calls
    ]


def marks_of(record: Record, *, is_asked_again: bool) -> tuple[str, ...]:
    """Return the marks of an answer. An answer that was refused or corrected is not also marked
    as unread.
    """
    ends = ends_of(record)
    is_refusal = record.refusal is not None or any(map(is_refused, ends))
    has_mark = {
        REFUSED: is_refusal,
        CUT: any(map(is_cut, ends)),
        ASKED_AGAIN: is_asked_again,
        UNREAD: record.unread and not is_refusal and not is_asked_again,
    }
    return tuple(mark for mark, is_marked in has_mark.items() if is_marked)


def ends_of(record: Record) -> list[str]:
    """Return the reason why each choice of an answer ended, where the server gave one."""
    reasons = [choice.get("finish_reason") for choice in record.choices]
    return [reason for reason in reasons if isinstance(reason, str)]


def _asked_again(calls: Iterable[RecordedCall]) -> set[int]:
    """Return the numbers of the calls whose answers an ``LLMCall`` could not use and corrected.

    :param calls: the calls of one actor.
    """
    numbers: set[int] = set()
    by_messages: dict[Sequence[Utterance], list[RecordedCall]] = {}
    for call in calls:
        last = call.messages[-1] if call.messages else None
        if last is not None and any(text.startswith(CORRECTION) for text in last.texts):
            draws = by_messages.get(call.messages[:-2], [])
            quoted = [
                draw
                for draw in draws
                if draw.number not in numbers
                and any(answer.texts == call.messages[-2].texts for answer in draw.answers)
            ]
            numbers.update(draw.number for draw in (quoted or draws)[-1:])
        by_messages.setdefault(call.messages, []).append(call)
    return numbers
