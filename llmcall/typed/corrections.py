"""Conversations: a prompt, the answer, and corrections until an answer fits; and the final error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ..apis.message import message_text
from ..core.effects import Do
from ..core.parents import add_notes
from ..errors import APIError, OutputError
from ..keys.keys import short_key
from ..scopes.position import MakeNotes, NotesContext
from ..support.display import shortened
from ..support.loop_waits import InContext
from .notes import UNREAD

if TYPE_CHECKING:
    from ..clients.base import LLMClient
    from ..core.reply import Reply
    from ..keys.request import Data
GetReply: TypeAlias = Callable[["SendMessage"], Awaitable[Any]]


class Answer(NamedTuple):
    """The result of an :class:`llmcall.LLMCall`: the value, with its reply and messages.

    :param value: the answer, parsed into the output type.
    :param reply: the reply that holds this answer.
    :param messages: all messages, the answer included.

    >>> ask = llmcall.LLMCall(user="{{ greeting }}", max_tokens=16)
    >>> answer = ask.run(greeting="Good morning!")
    >>> answer.value, answer.reply.finish_reason, len(answer.messages)
    ('Good morning!', 'stop', 2)
    """

    value: Any
    reply: Reply | None
    messages: list[dict[str, Data]]

    def _repr_html_(self) -> str | None:
        return None if self.reply is None else self.reply._repr_html_()


class Conversation(NamedTuple):
    """A finished conversation; ``on_error`` is applied to its failure later.

    :param value: the last answer as the output type, or ``None`` without a value.
    :param failure: the API's error, or an ``OutputError`` for a refusal or an answer that does not
        fit. ``None`` also if the client logged the API's error.
    :param replies: the answers, in order.
    :param messages: all messages, the answers included.
    :param tries: the number of questions, corrections included.
    :param unread: the first answer if it did not fit the output type, or ``None``.
    :param fields: the values of the columns that a table has beside the value; ``None`` means the
        value's own fields.
    :param is_missing: ``True`` if the failure counts as an answer (a refusal), and so as a missing value
        in a table.
    """

    value: Any
    failure: Exception | None
    replies: list[Reply]
    messages: list[dict[str, Data]]
    tries: int
    unread: str | None = None
    fields: Mapping[str, Data] | None = None
    is_missing: bool = False

    @property
    def reply(self) -> Reply | None:
        """Return the answer to the last question, or ``None`` without one."""
        return self.replies[-1] if self.replies and self.tries == len(self.replies) else None

    @property
    def refusal(self) -> str | None:
        """Return the text of the model's refusal, or ``None``."""
        return None if self.reply is None else self.reply.refusal


class SendMessage(NamedTuple):
    """A request for the reply to some messages."""

    client: LLMClient
    messages: list[dict[str, Data]]
    params: dict[str, Data]
    make_notes: MakeNotes

    async def reply(self) -> Any:
        """Send it, in this thread or without blocking the event loop."""
        return await Do(self._send, self._asend)

    def _send(self) -> object:
        with NotesContext(self.make_notes):
            return self.client.send_message(self.messages, **self.params)

    def _asend(self) -> Awaitable[Any]:
        context = copy_context()
        context.run(NotesContext(self.make_notes).__enter__)
        return InContext(context, partial(self.client.asend_message, self.messages, **self.params))


async def converse(
    first: SendMessage,
    *,
    read: Callable[[Reply], object],
    correction: Callable[[], str],
    max_corrections: int,
    get_reply: GetReply,
) -> Conversation:
    """Call until an answer fits, the model refuses, or no corrections are left.

    Failures are returned, not raised.

    :param first: requests the first answer.
    :param read: returns an answer as the output type; raises an ``OutputError`` if it does
        not fit, and for a refusal.
    :param correction: returns the correction message.
    :param max_corrections: the most corrections of an answer that does not fit.
    :param get_reply: returns the reply to some messages.
    """
    question, messages = first, first.messages
    replies: list[Reply] = []
    value = failure = unread = None
    while True:
        tries = len(replies) + 1
        try:
            reply = await get_reply(question)
        except APIError as error:
            reply = error
        if reply is None or isinstance(reply, Exception):  # by the client's on_error
            failure = reply
            break
        replies.append(reply)
        messages = [*messages, reply]
        try:
            value = read(reply)
            break
        except OutputError as error:
            if reply.refusal is None:
                add_notes(reply.cache_key, {UNREAD.name: True})
                unread = message_text(reply) if tries == 1 else unread
            # The API accepts no question right after a tool call.
            is_last = reply.refusal is not None or reply.tool_calls is not None
            if is_last or tries > max_corrections:
                failure = error
                break
        messages = [*messages, {"role": "user", "content": correction()}]
        question = first._replace(messages=messages)
    return Conversation(value, failure, replies, messages, tries, unread)


def final_error(
    error: OutputError,
    replies: Sequence[Reply],
    variables: Mapping[str, object],
    *,
    unstructured_model: str | None,
) -> OutputError:
    """Return the error that a call raises after its last answer.

    Its message has the answer, the expected form, the scope, the item, the number of tries, and how to ask again.

    :param error: why the last answer cannot be used.
    :param replies: all answers.
    :param variables: the values that the templates used.
    :param unstructured_model: the model's name, if it got no schema because it is not known to
        support structured output; else ``None``.
    """
    last = replies[-1]
    lines = [str(error), f"answer: {shortened_repr(error.text, 300)}"]
    if error.expected:
        lines.append(f"expected: {shortened(error.expected, 300)}")
    if unstructured_model is not None:
        lines.append(
            f"structured output was not used: llmcall does not know that the model {unstructured_model!r} "
            "supports it. If its server does, set STRUCTURED_OUTPUT = yes in "
            f"[Model {unstructured_model}] of config.ini"
        )
    if last.finish_reason == "length":
        lines.append("the answer was cut at the token limit: raise max_tokens")
    if last.sample is not None:
        lines.append(f"scope: {last.sample}")
    if variables:
        item = ", ".join(f"{name}={shortened_repr(value)}" for name, value in variables.items())
        lines.append(f"item: {item}")
    lines.append("after 1 try" if len(replies) == 1 else f"after {len(replies)} tries")
    key = short_key(replies[0].cache_key)  # further answers are to questions that quote this one
    lines.append(f"to ask again: llmcall cassette forget FILE {key}, or llmcall cache delete {key}")
    final = OutputError("\n  ".join(lines), text=error.text, expected=error.expected)
    final.__cause__ = error.__cause__
    return final


def shortened_repr(value: object, limit: int = 60) -> str:
    """Return a value's ``repr``, cut to some characters."""
    return shortened(repr(value), limit)
