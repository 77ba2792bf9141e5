"""Estimates of a call's tokens and cost, before it is made or if the server does not report them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..models.tokens import count_tokens
from ..values import TokenUsage, choices_of

if TYPE_CHECKING:
    from ..models.catalog import Capabilities
    from ..values import Request

# Tokens reserved for an answer that neither the request nor what is known of the model bounds: the
# most that the models before 2024 gave, and several times what a short answer takes.
DEFAULT_MAX_OUTPUT = 4096
# What the server adds by itself to the input of the Responses API.
SERVER_SIDE_INPUTS = ("previous_response_id", "conversation", "prompt", "background")
# Types of input that have tokens beside their text.
MEDIA_TYPES = ("image", "file", "audio", "document", "item_reference")


def estimate(kind: str, body: Mapping[str, Any], capabilities: Capabilities) -> tuple[int, int]:
    """Return the most tokens that a call may use: those of its prompt, and those of all its answers:
    ``max_tokens``, else the model's largest output.

    :param kind: ``"chat"`` or ``"embedding"``.
    :param body: what is sent.
    :param capabilities: what is known of the model.
    """
    model = body.get("model", "")  # which an address may name instead
    if kind == "embedding":
        tokens = sum(
            count_tokens(text, model, encoding=capabilities.encoding) for text in body["input"]
        )
        return tokens, 0
    messages = body["messages"]
    prompt = int(
        count_tokens(messages, model, encoding=capabilities.encoding, tools=body.get("tools"))
    )
    response_format = body.get("response_format")
    if isinstance(response_format, dict) and "json_schema" in response_format:
        # A schema is billed as part of the prompt.
        prompt += count_tokens(json.dumps(response_format), model, encoding=capabilities.encoding)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    answers = body.get("n") or 1
    longest = limit or _longest_answer(prompt, capabilities)
    return prompt, longest * answers


def _longest_answer(prompt: int, capabilities: Capabilities) -> int:
    """Return the most tokens that an answer without a limit may have."""
    most: int = capabilities.max_output_tokens or DEFAULT_MAX_OUTPUT
    if not capabilities.context_window:
        return min(most, DEFAULT_MAX_OUTPUT)
    return min(most, max(1, capabilities.context_window - prompt))


def estimate_of_http(body: Any, capabilities: Capabilities) -> tuple[int, int] | None:
    """Return what a request to the Responses, the Messages or the older completions API may use at
    most; ``None`` if nobody can know it before it is answered.

    :param body: what is sent.
    :param capabilities: what is known of the model.
    """
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return None
    inputs = [body[name] for name in ("input", "messages", "prompt", "system") if name in body]
    if not inputs or any(_has_media(each) for each in inputs):
        return None
    if "input" in body and any(body.get(name) for name in SERVER_SIDE_INPUTS):
        return None
    if any(_runs_at_server(tool) for tool in body.get("tools") or ()):
        return None
    further_inputs = [
        body[name] for name in ("instructions", "tools", "text", "suffix") if body.get(name)
    ]
    text = json.dumps([*inputs, *further_inputs], ensure_ascii=False)
    chat = {
        "model": body["model"],
        "messages": [{"role": "user", "content": text}],
        "max_tokens": body.get("max_output_tokens") or body.get("max_tokens"),
        "n": max(body.get("n") or 1, body.get("best_of") or 1),
    }
    return estimate("chat", chat, capabilities)


def _has_media(data: Any) -> bool:
    """Return whether plain data holds what has tokens beside its text."""
    if isinstance(data, list):
        return any(_has_media(item) for item in data)
    if not isinstance(data, dict):
        return False
    type_name = data.get("type")
    if isinstance(type_name, str) and any(each in type_name for each in MEDIA_TYPES):
        return True
    return any(_has_media(item) for item in data.values())


def _runs_at_server(tool: Any) -> bool:
    """Return whether the server runs a tool, and bills what the tool reads."""
    return isinstance(tool, dict) and tool.get("type", "custom") not in ("function", "custom")


def tokens_used(
    response: Mapping[str, Any], request: Request, capabilities: Capabilities
) -> TokenUsage:
    """Return the tokens that a stream used: as the server reports them, else as counted here.

    Reasoning whose text the server does not send cannot be counted: there may have been more.

    :param response: the server's, or as much of one as came.
    :param request: as it was sent.
    """
    reported = TokenUsage.of(response)
    if reported.input_tokens is not None and reported.output_tokens is not None:
        return reported
    texts = [_text_of(choice["message"]) for choice in choices_of(response)]
    output = sum(
        count_tokens(text, request.model, encoding=capabilities.encoding) for text in texts if text
    )
    return TokenUsage(estimate(request.kind, request.body, capabilities)[0], output)


def _text_of(message: Mapping[str, Any]) -> str:
    """Return what a model wrote: its text, its reasoning, which has two names, and its calls."""
    texts = [message.get(name) for name in ("reasoning_content", "reasoning", "content", "refusal")]
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        texts += [function.get("name"), function.get("arguments")]
    return "".join(text for text in texts if isinstance(text, str))
