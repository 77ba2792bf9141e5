"""The ids of tool calls, which match results to calls.

Servers and programs make new ids in each run, so the key numbers them in the order of their first
appearance in the conversation. The numbers are written as ids that every API accepts (Mistral wants nine
letters and digits), so that recorded requests can be asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..apis.message import has_only_text

# The fields that refer to a call: of the Responses API, chat completions and the Messages API.
REFERENCES = ("call_id", "tool_call_id", "tool_use_id")
# The ends of the types of calls and results, whose own "id" is such an id.
CALLS = ("_call", "_output", "tool_use")
# The fields of a message that are lists of calls, results and other parts.
PARTS = ("content", "parts", "tool_calls")
# The fields that show a call without such a type: in chat completions, and in Gemini's API.
CALLED = frozenset({"function", "custom", "args"})
ARGUMENTS = ("input", "args")  # the tool's own data
CONVERSATIONS = ("messages", "input", "contents")  # the fields of a body

Number = Callable[[Any], Any]


def numbered_calls(messages: list[object]) -> list[Any]:
    """Return messages with the ids of tool calls replaced by numbers.

    :param messages: messages of any API, or items of the Responses API; not changed.
    """
    if all(map(has_only_text, messages)):
        return messages
    numbers: dict[str, str] = {}

    def number(call_id: object) -> Any:
        if not isinstance(call_id, str):
            return call_id
        return numbers.setdefault(call_id, f"call{len(numbers) + 1:05}")

    return [_numbered_message(message, number) for message in messages]


def numbered_body(body: object) -> Any:
    """Return the body of a request with the tool calls of its conversations numbered."""
    if not isinstance(body, dict):
        return body
    conversations = {
        name: numbered_calls(body[name])
        for name in CONVERSATIONS
        if isinstance(body.get(name), list)
    }
    return {**body, **conversations}


def _numbered_message(message: object, number: Number) -> object:
    if not isinstance(message, dict):
        return message
    parts = {
        name: [_numbered_part(part, number, is_call=name == "tool_calls") for part in message[name]]
        for name in PARTS
        if isinstance(message.get(name), list)
    }
    return {**_numbered(message, number), **parts}


def _numbered_part(part: object, number: Number, *, is_call: bool) -> object:
    """Return a part of a message with its ids numbered; a tool's arguments stay unchanged."""
    if not isinstance(part, dict):
        return part
    if is_call or "type" in part:
        return _numbered(part, number, is_call=is_call)
    # A part of Gemini's API is a single field, whose object has the id.
    return {
        name: _numbered(field, number, is_call=True) if isinstance(field, dict) else field
        for name, field in part.items()
    }


def _numbered(
    data: dict[str, object], number: Number, *, is_call: bool = False
) -> dict[str, object]:
    """Return an object with its own ids numbered.

    :param is_call: whether it is a call or a result whatever its type.
    """
    is_call = is_call or str(data.get("type")).endswith(CALLS)
    names = ("id", *REFERENCES) if is_call else REFERENCES
    return {**data, **{name: number(data[name]) for name in names if name in data}}


def without_call_ids(answer: object) -> object:
    """Return an answer of any of the APIs without the ids of its tool calls."""
    if isinstance(answer, list):
        return [without_call_ids(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    is_call = str(answer.get("type")).endswith(CALLS) or not CALLED.isdisjoint(answer)
    omitted = ("id", *REFERENCES) if is_call else REFERENCES
    return {
        name: item if name in ARGUMENTS else without_call_ids(item)
        for name, item in answer.items()
        if name not in omitted
    }
