"""What is to be seen of an answer apart from its text: it was cut, refused, or asked again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..outputs import CORRECTION

if TYPE_CHECKING:
    from ..types import Record
    from .conversations import Call

CUT, REFUSED, ASKED_AGAIN = "cut", "refused", "asked again"
MARKS = (REFUSED, CUT, ASKED_AGAIN)


def find_marks(calls: Iterable[Sequence[Call]]) -> dict[int, list[str]]:
    """Return the marks of each record, by its ``id``.

    :param calls: those of each actor.
    """
    found = {}
    for its in calls:
        again = asked_again(its)
        for call in its:
            key = id(call.record)
            found[key] = marks_of(call.record, is_asked_again=key in again)
    return found


def marks_of(record: Record, *, is_asked_again: bool) -> list[str]:
    """Return whether an answer was refused, cut or asked again."""
    choices = record.response.get("choices") or ()
    ends = {choice.get("finish_reason") for choice in choices}
    is_refused = any((choice.get("message") or {}).get("refusal") for choice in choices)
    found = {REFUSED: is_refused or "content_filter" in ends, CUT: "length" in ends}
    found[ASKED_AGAIN] = is_asked_again
    return [mark for mark, is_so in found.items() if is_so]


def asked_again(calls: Iterable[Call]) -> set[int]:
    """Return the records of the answers that an ``LLMCall`` could not use and asked for again, by
    their ``id``.

    :param calls: those of one actor.
    """
    found: set[int] = set()
    by_messages: dict[Sequence[object], Call] = {}
    for call in calls:
        last = call.messages[-1] if call.messages else None
        if last is not None and any(text.startswith(CORRECTION) for text in last.texts):
            before = by_messages.get(call.messages[:-2])
            if before is not None:
                found.add(id(before.record))
        by_messages[call.messages] = call
    return found
