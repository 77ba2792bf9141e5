"""What a call returns, and what each call returned last."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

if TYPE_CHECKING:
    from weakref import ReferenceType

    from ..types import Reply


class Answer(NamedTuple):
    """What a call returned.

    :param value: the answer, parsed into the output type.
    :param reply: the reply that it was parsed from.
    :param messages: all that was sent and answered, the answer included.

    >>> ask = llmcall.LLMCall(user="{{ greeting }}", max_tokens=16)
    >>> answer = ask.run(greeting="Good morning!")
    >>> answer.value, answer.reply.finish_reason, len(answer.messages)
    ('Good morning!', 'stop', 2)
    """

    value: Any
    reply: Reply | None
    messages: list[dict[str, Any]]


# The last answer of each call in a context. Tasks share the dict that they inherit, so each change
# makes a new one.
_last_answers: ContextVar[dict[ReferenceType[Any], Answer]] = ContextVar("llmcall last answers")


def last_answer(call: Any) -> Answer | None:
    """Return what a call returned last in this context; ``None`` before it is made."""
    return _last_answers.get({}).get(ref(call))


def remember(call: Any, answer: Answer) -> None:
    """Make an answer the last one of a call in this context."""
    last_answers = {
        each: last for each, last in _last_answers.get({}).items() if each() is not None
    }
    last_answers[ref(call)] = answer
    _last_answers.set(last_answers)
