"""A user's own answer as a response: a chat's smallest one, or another API's recorded one with the text put in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ...apis.message import content_text, holds_answer, unreadable_message
from ...errors import ArgumentError
from ...keys.plain_data import plain
from ...keys.request import Data, Request
from ...stores.record import Record
from ...support.data import check_unicode

Message = dict[str, Any]
IDENTIFIER = "llmcall_override"  # stands where an API gives a tool call a name of its own
TEXT_FIELDS = (
    "text",
    "delta",
    "content",
    "response",
)  # where other APIs have an answer's text, whole and streamed
NOT_TEXT = re.compile(
    "reasoning|thinking|arguments"
)  # in the types of objects that have other texts there


def message_of(answer: object, place: str) -> Message:
    """Return an answer as an assistant message.

    :param answer: its text, or the message as Chat Completions has it.
    :param place: what messages call the answer.
    :raises TypeError: if it is neither.
    :raises ValueError: if it holds no text, tool call or refusal, or one that cannot be read.
    """
    if isinstance(answer, str):
        answer = {"content": answer}
    if not isinstance(answer, Mapping):
        raise TypeError(
            f"{place} is {type(answer).__name__}; it must be text or an assistant message (a dict)"
        )
    fields: Message = plain(dict(answer), place)
    check_unicode(json.dumps(fields, ensure_ascii=False), place)
    if fields.get("role", "assistant") != "assistant":
        raise ArgumentError(f"{place} has the role {fields['role']!r}; it must be 'assistant'")
    if problem := unreadable_message(fields):
        raise ArgumentError(f"{place} {problem}")
    calls = [_tool_call(call, number, place) for number, call in enumerate(_calls_in(fields))]
    message = {"content": None, **fields, "role": "assistant"}
    if calls:
        message["tool_calls"] = calls
    if not holds_answer(message):
        raise ArgumentError(f"{place} is empty; give it text or tool_calls")
    return message


def _calls_in(message: Message) -> list[Message]:
    return message.get("tool_calls") or []


def _tool_call(call: Message, number: int, place: str) -> Message:
    """Return a tool call with an id and a type, and with its arguments as the text that the API sends."""
    function = call.get("function")
    if function is None:  # of another type, as it is
        return call
    if not isinstance(function.get("name"), str):
        raise ArgumentError(f"{place} has a tool call whose function has no name")
    arguments = function.get("arguments") or "{}"
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    try:
        json.loads(text)
    except ValueError:
        raise ArgumentError(
            f"{place} has a tool call whose arguments are not JSON: {text!r:.80}"
        ) from None
    called = {**function, "arguments": text}
    return {"id": f"call_{IDENTIFIER}_{number}", "type": "function", **call, "function": called}


def chat_response(request: Request, message: Message) -> dict[str, Data]:
    """Return the response to a chat that holds a message, as it is recorded."""
    end = "tool_calls" if _calls_in(message) else "stop"
    choices = [
        {"index": index, "message": dict(message), "finish_reason": end}
        for index in range(int(request.hashed.get("n") or 1))
    ]
    # A program reads zeros; readers of records take them, beside a text, for no report.
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {"model": str(request.hashed["model"]), "choices": choices, "usage": usage}


def other_response(recorded: Record, message: Message, place: str) -> dict[str, Data]:
    """Return the recorded response of another API with a message's text in place of its own, whole or streamed.

    :param place: what messages call the answer.
    :raises ValueError: if the message is not only a text, or the response has none.
    """
    text = content_text(message["content"])
    if text is None or _calls_in(message) or message.get("refusal"):
        raise ArgumentError(
            f"{place} must be a text: only in a Chat Completions call may it be more"
        )
    value = recorded.response.get("value")
    if isinstance(value, dict) and isinstance(body := value.get("body"), str):
        for choice in recorded.choices:
            body = _Exchange(choice["message"].get("content") or "", text).in_body(body)
        response: dict[str, Data] = {"value": {**value, "body": body}}
        made = Record(None, recorded.kind, None, recorded.request, response)
        if [choice["message"].get("content") for choice in made.choices[:1]] == [text]:
            return response
    raise ArgumentError(f"{place} has no place: the recorded response to that call has no text")


class _Exchange:
    """The exchange of an answer's text, which a body has whole, in pieces that follow one another, or both."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new, self._rest = old, new, old

    def in_body(self, body: str) -> str:
        """Return a body, JSON or a stream of events or lines, with the new text."""
        with suppress(ValueError):
            return self._dumped(json.loads(body))
        return "\n".join(map(self._in_line, body.split("\n")))

    def _in_line(self, line: str) -> str:
        head, brace, rest = line.partition("{")
        with suppress(ValueError):
            return head + self._dumped(json.loads(brace + rest))
        return line

    def _dumped(self, value: Data) -> str:
        return json.dumps(self._in(value), ensure_ascii=False)

    def _in(self, value: Data) -> Data:
        if isinstance(value, list):
            return [*map(self._in, value)]
        if not isinstance(value, dict):
            return value
        if value.get("thought") or NOT_TEXT.search(str(value.get("type"))):
            return value
        return {
            name: self._in_text(item)
            if name in TEXT_FIELDS and isinstance(item, str)
            else self._in(item)
            for name, item in value.items()
        }

    def _in_text(self, text: str) -> str:
        if text == self._old:
            return self._new
        if not text or not self._rest.startswith(text):
            return text
        is_first = self._rest == self._old
        self._rest = self._rest[len(text) :] or self._old
        return self._new if is_first else ""
