"""A response in the shape that the SDK's ``model_dump()`` gives it."""

from __future__ import annotations

from typing import Any

from ..values import as_chat

# The fields that model_dump() always has, whether the API sent them or not (openai 3.51).
LOGPROBS = ("content", "refusal")
MESSAGE = ("content", "refusal", "role", "annotations", "audio", "function_call", "tool_calls")
CHOICE = ("finish_reason", "index", "logprobs", "message")
USAGE = (
    "completion_tokens",
    "prompt_tokens",
    "total_tokens",
    "completion_tokens_details",
    "prompt_tokens_details",
)
RESPONSE = (
    "id",
    "choices",
    "created",
    "model",
    "object",
    "metadata",
    "moderation",
    "service_tier",
    "system_fingerprint",
    "usage",
)


def model_dump(response: dict[str, Any]) -> dict[str, Any]:
    """Return a response with ``None`` for each field that the API left out."""
    chat = as_chat(response)
    dumped: dict[str, Any] = _filled(RESPONSE, chat)
    dumped["usage"] = _filled(USAGE, dumped["usage"])
    dumped["choices"] = [_dumped_choice(choice) for choice in chat["choices"]]
    return dumped


def _dumped_choice(choice: dict[str, Any]) -> dict[str, Any]:
    dumped: dict[str, Any] = _filled(CHOICE, choice)
    dumped["message"] = _filled(MESSAGE, dumped["message"])
    dumped["logprobs"] = _filled(LOGPROBS, dumped["logprobs"])
    return dumped


def _filled(names: tuple[str, ...], value: Any) -> Any:
    """Return an object with ``None`` for each of its fields that is missing; other data as it is."""
    return {**dict.fromkeys(names), **value} if isinstance(value, dict) else value
