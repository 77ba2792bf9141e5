"""Checks that chats from other sources can be read, and that a cache keeps their answers."""

from __future__ import annotations

from types import NoneType

from ...apis.endings import ending_problem
from ...apis.message import holds_answer, unreadable_message
from ...support.display import as_json, shortened
from ..record import Record

LONGEST_QUOTE = 200  # characters of a record in a message


def unreadable(record: Record) -> str | None:
    """Return why a chat's record cannot be read, or ``None``; other kinds are not checked."""
    if record.kind != "chat":
        return None
    request, response = record.request, record.response
    messages, choices = request.get("messages"), response.get("choices")
    if not isinstance(messages, list):
        return f"the request of this chat has no list of messages: {_quoted(request)}"
    for number, message in enumerate(messages):
        if problem := unreadable_message(message):
            return f"messages[{number}] of this chat {problem}: {_quoted(message)}"
    if isinstance(response.get("output"), list):
        return None
    if not isinstance(choices, list) or not choices:
        return f"the response of this chat has no choices: {_quoted(response)}"
    for number, choice in enumerate(choices):
        fields = choice if isinstance(choice, dict) else {}
        if problem := unreadable_message(fields.get("message")):
            return f"the message of choices[{number}] of this chat {problem}: {_quoted(choice)}"
        if not isinstance(fields.get("finish_reason"), (str, NoneType)):
            return f"the finish_reason of choices[{number}] of this chat is not a string: {_quoted(choice)}"
    return None


def incomplete(record: Record) -> str | None:
    """Return why a cache keeps no such answer of a chat (it was filtered, broke off or is empty), or ``None``."""
    if record.kind != "chat":
        return None
    for choice in record.choices:
        if ending := ending_problem(choice.get("finish_reason"), "finish_reason"):
            return ending[1]
    if any(holds_answer(choice["message"]) for choice in record.choices):
        return None
    return "the answer is empty: neither text nor a tool call"


def _quoted(value: object) -> str:
    return shortened(as_json(value), LONGEST_QUOTE)
