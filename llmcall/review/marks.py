"""What is to be seen of an answer apart from its text: it was cut, refused, or asked again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..outputs import CORRECTION

if TYPE_CHECKING:
    from ..types import Record
    from .conversations import Call

CUT, REFUSED, ASKED_AGAIN = "cut", "refused", "asked again"
# Why answers end, in the words of chat completions, of the Responses API and of the Messages API.
ENDS_OF_CUT = {"length", "max_output_tokens", "max_tokens"}
ENDS_OF_REFUSED = {"content_filter", "refusal"}
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
    ends = set(ends_of(record))
    found = {
        REFUSED: record.refusal is not None or not ends.isdisjoint(ENDS_OF_REFUSED),
        CUT: not ends.isdisjoint(ENDS_OF_CUT),
        ASKED_AGAIN: is_asked_again,
    }
    return [mark for mark, is_so in found.items() if is_so]


def ends_of(record: Record) -> list[str]:
    """Return why each choice of an answer ended, as far as the server said."""
    reasons: list[Any] = [record.finish_reason]
    if record.kind == "chat":
        reasons = [choice.get("finish_reason") for choice in record.response.get("choices") or ()]
    return [reason for reason in reasons if isinstance(reason, str)]


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
