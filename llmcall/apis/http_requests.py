"""The messages in the body of a raw HTTP request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .decisions import question_texts
from .message import as_text, tool_call_text
from .shapes import TOOL_CALLS

if TYPE_CHECKING:
    from ..keys.request import Data

SYSTEMS = ("system", "instructions", "systemInstruction", "system_instruction")
QUESTIONS = ("messages", "input", "prompt", "contents")
# The fields of a body that hold its texts, in the Responses, Messages, Gemini and completions APIs.
CONTENT_FIELDS = (*SYSTEMS, *QUESTIONS, "questions")
# Gemini's names, and the types of an interaction's steps
ROLES = {"model": "assistant", "model_output": "assistant", "thought": "assistant"}
RESULTS = ("_output", "_result")  # the ends of the types of tools' results
CONTENTS = ("content", "summary")  # of a step
MEDIA = ("text", "image", "audio", "video", "document")  # the types of an interaction's contents


def messages_asked(body: object) -> Iterator[dict[str, object]]:
    """Yield the messages in a body, each with role and content.

    :param body: the parsed JSON body of a request.
    """
    fields: Mapping[str, Data] = body if isinstance(body, dict) else {}
    for name in SYSTEMS:
        if fields.get(name) is not None:
            yield {"role": "system", "content": _content(fields[name])}
    for name in QUESTIONS:
        asked = fields.get(name)
        if isinstance(asked, list) and all(isinstance(item, dict) for item in asked):
            if asked and all(item.get("type") in MEDIA for item in asked):
                yield {"role": "user", "content": asked}
            else:
                yield from map(_message, asked)
        elif isinstance(asked, dict) and "parts" in asked:
            yield _message(asked)
        elif isinstance(asked, dict) and asked.get("type") in MEDIA:
            yield {"role": "user", "content": [asked]}
        elif asked is not None:
            yield {"role": "user", "content": as_text(asked)}
    if questions := question_texts(fields):
        yield {"role": "user", "content": "\n".join(questions)}


def joined_text(content: object) -> str:
    """Return the text of a message's content; the texts of its parts are joined by line ends."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str))


def _message(item: dict[str, object]) -> dict[str, object]:
    kind = str(item.get("type"))
    if isinstance(item.get("role"), str) and "content" in item:
        return item
    if isinstance(item.get("parts"), list):
        role = str(item.get("role") or "user")
        return {"role": ROLES.get(role, role), "content": _content(item)}
    if kind in TOOL_CALLS:
        arguments = item.get("arguments") or item.get("input") or ""
        return {"role": "assistant", "content": tool_call_text(item.get("name"), arguments)}
    if kind.endswith(RESULTS):
        return {"role": "tool", "content": as_text(item.get("output", item.get("result")))}
    for name in CONTENTS:
        if isinstance(item.get(name), list):  # a step of an interaction
            return {"role": ROLES.get(kind, "user"), "content": item[name]}
    return {"role": "user", "content": as_text(item)}


def _content(value: object) -> object:
    """Return a content in the form of the other APIs; Gemini's parts have no type."""
    if not (isinstance(value, dict) and isinstance(value.get("parts"), list)):
        return value
    return [
        {"type": "text", "text": part["text"]}
        if isinstance(part, dict) and isinstance(part.get("text"), str)
        else {"type": "text", "text": as_text(part)}
        for part in value["parts"]
    ]
