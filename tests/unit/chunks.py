"""Chunks of a stream, and the responses that they come together to, for tests."""

from __future__ import annotations

from typing import Any

from llmcall.responses.streaming import Assembler

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
NAMES = {"id": "chatcmpl-1", "created": 1700000000, "model": "gpt-4o-mini"}


def chunk(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**NAMES, "object": "chat.completion.chunk", "choices": list(choices), **fields}


def piece(delta: Any, index: int = 0, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish_reason, **fields}


def response(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**NAMES, "object": "chat.completion", "choices": list(choices), **fields}


def choice(message: dict[str, Any], finish_reason: str = "stop", index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"index": index, "message": {"role": "assistant", **message}, "finish_reason": finish_reason, **fields}


def assembled(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    assembler = Assembler()
    for each in chunks:
        assembler.add(each)
    return assembler.response()


def message_of(*deltas: dict[str, Any]) -> dict[str, Any]:
    whole = assembled([*(chunk(piece(delta)) for delta in deltas), chunk(piece({}, finish_reason="stop"))])
    message: dict[str, Any] = whole["choices"][0]["message"]
    return message


def call(name: str, arguments: str, identifier: str | None = None) -> dict[str, Any]:
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return made if identifier is None else {"id": identifier, **made}
