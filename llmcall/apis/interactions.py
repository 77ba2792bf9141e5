"""Gemini's Interactions API: its steps, its events and its counts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..support.data import Data
from .message import object_in, objects_in

OUTPUT = "model_output"
CALLS = ("function_call", "mcp_server_tool_call")
# The statuses of an answer, of the Responses API, too: whole, cut by the token limit, or one
# that goes on, by the results of the program's tools, by another request or in the background. Any other
# one is a failure.
ANSWERED = (
    *("completed", "incomplete"),
    *("requires_action", "requires_continuation", "idle", "in_progress", "queued"),
)
# The counts, and Gemini's names for them in its older API.
COUNTS = {
    "total_input_tokens": "promptTokenCount",
    "total_output_tokens": "candidatesTokenCount",
    "total_thought_tokens": "thoughtsTokenCount",
    "total_tool_use_tokens": "toolUsePromptTokenCount",
    "total_cached_tokens": "cachedContentTokenCount",
}
COUNTS_BY_MODALITY = {
    "input_tokens_by_modality": "promptTokensDetails",
    "output_tokens_by_modality": "candidatesTokensDetails",
    "tool_use_tokens_by_modality": "toolUsePromptTokensDetails",
    "cached_tokens_by_modality": "cacheTokensDetails",
}


def usage_metadata(response: Mapping[str, object]) -> dict[str, object] | None:
    """Return the tokens that a Gemini response reports, under the older API's names, or ``None``."""
    metadata, usage = response.get("usageMetadata"), response.get("usage")
    if isinstance(metadata, dict):
        return metadata
    if not (isinstance(usage, dict) and "total_input_tokens" in usage):
        return None
    counts = {ours: usage[name] for name, ours in COUNTS.items() if usage.get(name) is not None}
    for name, ours in COUNTS_BY_MODALITY.items():
        if details := objects_in(usage.get(name)):
            counts[ours] = [
                {"modality": str(part.get("modality")).upper(), "tokenCount": part.get("tokens")}
                for part in details
            ]
    return counts


def streamed_steps(events: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return the steps that the events of a stream bring in pieces."""
    steps: dict[Any, dict[str, Data]] = {}
    for event in events:
        index, kind = event.get("index"), event.get("event_type")
        if kind == "step.start":
            steps[index] = {**object_in(event.get("step"))}
        elif kind == "step.delta" and index in steps:
            _add_delta(steps[index], object_in(event.get("delta")))
    return list(steps.values())


def _add_delta(step: dict[str, object], delta: Mapping[str, object]) -> None:
    if delta.get("type") == "arguments_delta":
        text = step.get("arguments")
        step["arguments"] = f"{text if isinstance(text, str) else ''}{delta.get('arguments') or ''}"
    elif delta.get("type") == "text":
        step["content"] = [*objects_in(step.get("content")), dict(delta)]


def output_parts(response: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the texts and images of a response's last output, joined as the SDK's ``output_text``, and its
    tool calls.
    """
    texts: list[dict[str, Data]] = []
    steps = objects_in(response.get("steps"))
    for step in reversed(steps):
        kind = step.get("type")
        if kind == "user_input" or (texts and kind not in (OUTPUT, "thought")):
            break
        if kind == OUTPUT:
            texts[:0] = [
                part
                for part in objects_in(step.get("content"))
                if part.get("type") in ("text", "image")
            ]
    return [*texts, *(_call(step) for step in steps if step.get("type") in CALLS)]


def _call(step: Mapping[str, object]) -> dict[str, object]:
    """Return a tool call with its arguments as data, as an unstreamed answer has them."""
    arguments = step.get("arguments")
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):
            arguments = json.loads(arguments)
    return {**step, "type": "function_call", "arguments": arguments}
