"""Answers of the Responses API in the shape of chat completions, which every reader knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .usage import TokenUsage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .data import Data

# How a response of the Responses API says why it ended, and how chat completions say it.
FINISH_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
# The fields of a response that both APIs have.
SHARED_FIELDS = ("id", "model", "service_tier")


def as_chat(response: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a response as chat completions give it, whichever API it came from.

    :param response: of chat completions, which is returned as it is, or of the Responses API.
    """
    if not isinstance(response.get("output"), list):
        return response
    fields = {name: response[name] for name in SHARED_FIELDS if name in response}
    if "created_at" in response:
        fields["created"] = int(response["created_at"])
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
    items = _objects(response["output"])
    parts = [part for item in items for part in _objects(item.get("content"))]
    texts = [str(part.get("text") or "") for part in parts if part.get("type") == "output_text"]
    refusals = [str(part["refusal"]) for part in parts if part.get("refusal")]
    logprobs = [each for part in parts for each in part.get("logprobs") or ()]
    calls = [_tool_call(item) for item in items if item.get("type") in TOOL_CALLS]
    message: dict[str, Data] = {"role": "assistant", "content": "".join(texts) if texts else None}
    if refusals:
        message["refusal"] = "\n\n".join(refusals)
    if calls:
        message["tool_calls"] = calls
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if response.get("status") == "incomplete":
        finish_reason = FINISH_REASONS.get(str(reason), reason)
    else:
        finish_reason = "tool_calls" if calls else "stop"
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {**choice, "logprobs": {"content": logprobs}} if logprobs else choice


# The items of an output that call a tool of the program: their name for the tool's kind, and for
# what it is given.
TOOL_CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}


def _tool_call(item: Mapping[str, Any]) -> dict[str, Data]:
    kind, given = TOOL_CALLS[item["type"]]
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


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
