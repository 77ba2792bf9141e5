"""Answers of the Responses API in the shape of chat completions, which every reader knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .usage import TokenUsage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..keys.request import Data

# How a response of the Responses API says why it ended, and how chat completions say it.
FINISH_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
# The fields of a response that both APIs have.
SHARED_FIELDS = ("id", "model", "service_tier")
TEXTS = ("output_text", "text")  # the types of parts that are texts
# The types of the objects that call a tool.
TOOL_CALLS = (
    "function_call",
    "custom_tool_call",
    "mcp_call",
    "tool_use",
    "server_tool_use",
    "mcp_tool_use",
)
# For those that call a tool of the program: its kind, and the name of what it is given.
PROGRAMS_CALLS = {
    "function_call": ("function", "arguments"),
    "custom_tool_call": ("custom", "input"),
}


def as_chat(response: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a response as chat completions give it, whichever API it came from.

    :param response: of chat completions, which is returned as it is, or of the Responses API.
    """
    if not isinstance(response.get("output"), list):
        return response
    fields = {name: response[name] for name in SHARED_FIELDS if name in response}
    if isinstance(created := response.get("created_at"), (int, float)):
        fields["created"] = int(created)
    usage = TokenUsage.of(response)
    if usage.input_tokens is not None:
        fields["usage"] = _usage(usage)
    return {**fields, "object": "chat.completion", "choices": [_choice(response)]}


def choices_of(response: Mapping[str, Any]) -> list[dict[str, Data]]:
    """Return the choices of a response as chat completions give them, whichever API it came from;
    none of a response without an answer.
    """
    return as_chat(response).get("choices") or []


def _choice(response: Mapping[str, Any]) -> dict[str, Data]:
    items = objects_in(response["output"])
    parts = parts_in(items)
    message = message_in(parts)
    calls = [_tool_call(item) for item in items if str(item.get("type")) in PROGRAMS_CALLS]
    if calls:
        message["tool_calls"] = calls
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if response.get("status") == "incomplete":
        finish_reason = FINISH_REASONS.get(str(reason), reason)
    else:
        finish_reason = "tool_calls" if calls else "stop"
    logprobs = [each for part in parts for each in objects_in(part.get("logprobs"))]
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {**choice, "logprobs": {"content": logprobs}} if logprobs else choice


def parts_in(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts of the items of an output."""
    return [part for item in items for part in objects_in(item.get("content"))]


def message_in(parts: Sequence[Mapping[str, Any]]) -> dict[str, Data]:
    """Return the message that some parts are: its text and its refusal."""
    texts = [str(part.get("text") or "") for part in parts if part.get("type") in TEXTS]
    refusals = [str(part["refusal"]) for part in parts if part.get("refusal")]
    message: dict[str, Data] = {"role": "assistant", "content": "".join(texts) if texts else None}
    return {**message, "refusal": "\n\n".join(refusals)} if refusals else message


def _tool_call(item: Mapping[str, Any]) -> dict[str, Data]:
    kind, given = PROGRAMS_CALLS[item["type"]]
    called = {"name": item.get("name"), given: item.get(given) or ""}
    return {"id": item.get("call_id"), "type": kind, kind: called}


def _usage(usage: TokenUsage) -> dict[str, Data]:
    input_tokens, output_tokens = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def objects_in(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list; none of anything else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def object_in(value: Any) -> dict[str, Any]:
    """Return an object, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}
