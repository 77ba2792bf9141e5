"""Records in a few words: what was asked and answered, as text, and as a row of a table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..types import TokenUsage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..types import Record

__all__ = ["answer_text", "frame", "message_text", "prompt_text", "scope_and_draw"]

COLUMNS = (
    "scope", "draw", "kind", "model", "prompt", "answer", "input_tokens", "output_tokens", "cost", "cache_key",
)  # fmt: skip
ASKED = ("input", "arguments", "body")


def prompt_text(record: Record) -> str:
    """Return what was asked: a chat's last message, an embedding's text, a function's arguments, or what was posted."""
    messages = record.request.get("messages")
    if messages:
        return message_text(messages[-1])
    return _text(next((record.request[name] for name in ASKED if name in record.request), record.request))


def answer_text(record: Record) -> str:
    """Return what was answered: of several choices all, of an embedding its length, of a function its value."""
    choices = record.response.get("choices")
    if choices:
        return "\n\n".join(message_text(choice["message"]) for choice in choices)
    embedding = record.response.get("embedding")
    if isinstance(embedding, bytes):
        return f"{len(embedding) // 4} numbers"
    return _text(record.response.get("value", record.response))


def message_text(message: dict[str, Any]) -> str:
    """Return a message's text and its tool calls."""
    calls = [call.get("function") or call.get("custom") or call for call in message.get("tool_calls") or ()]
    called = [f"{call.get('name')}({call.get('arguments') or call.get('input') or ''})" for call in calls]
    return "\n".join([_text(message.get("content") or message.get("refusal") or ""), *called]).strip()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)


def scope_and_draw(sample: str | None) -> tuple[str | None, int | str | None]:
    """Return the scope path of a sample and its draw: a number, or the text that ``sample=`` was."""
    if sample is None:
        return None, None
    scope, _, draw = sample.partition("#")
    return scope or None, int(draw) if draw.isdecimal() else draw


def frame(records: Iterable[Record]) -> Any:
    """Return a pandas DataFrame with a row for each record."""
    import pandas

    return pandas.DataFrame([_row(record) for record in records], columns=list(COLUMNS))


def _row(record: Record) -> tuple[Any, ...]:
    usage = TokenUsage.of(record.response)
    return (
        *scope_and_draw(record.sample), record.kind, record.request.get("model"), prompt_text(record),
        answer_text(record), usage.input_tokens, usage.output_tokens, record.cost, record.cache_key,
    )  # fmt: skip
