"""Estimates of a call's tokens and cost, before it is made or if the server does not report them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from ..apis.shapes import choices_of
from ..apis.token_usage import TokenUsage
from ..keys.request import Data, Request
from ..models.catalog import Capabilities
from ..models.tokens import count_tokens

# Tokens reserved for an answer that neither the request nor what is known of the model bounds: the
# most that the models before 2024 gave, and several times what a short answer takes.
DEFAULT_MAX_OUTPUT = 4096
# Parameters by which the server itself adds to the input of the Responses API.
SERVER_SIDE_INPUTS = ("previous_response_id", "conversation", "prompt", "background")
# Types of input that have tokens beside their text.
MEDIA_TYPES = ("image", "file", "audio", "video", "document", "item_reference")


def estimate(kind: str, body: Mapping[str, Data], capabilities: Capabilities) -> tuple[int, int]:
    """Estimate the most tokens of a call's prompt and answers: per answer ``max_tokens``, or the model's
    largest output.

    :param kind: ``"chat"`` or ``"embedding"``.
    :param body: the body that is sent.
    :param capabilities: the model's capabilities.
    """
    # an address may name the model instead
    count = partial(count_tokens, model=body.get("model", ""), encoding=capabilities.encoding)
    if kind == "embedding":
        return sum(map(count, body["input"])), 0
    prompt = int(count(body["messages"], tools=body.get("tools")))
    response_format = body.get("response_format")
    if isinstance(response_format, dict) and "json_schema" in response_format:
        # A schema is billed as part of the prompt.
        prompt += count(json.dumps(response_format))
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


def estimate_http(body: object, capabilities: Capabilities) -> tuple[int, int] | None:
    """Estimate the most that a Responses, Messages or older completions request may use; ``None`` if it
    cannot be known in advance.

    :param body: the body that is sent.
    :param capabilities: the model's capabilities.
    """
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return None
    inputs = [body[name] for name in ("input", "messages", "prompt", "system") if name in body]
    if not inputs or any(_has_media(data) for data in inputs):
        return None
    if "input" in body and any(body.get(name) for name in SERVER_SIDE_INPUTS):
        return None
    if uses_server_tools(body):
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


def _has_media(data: object, types: Collection[str] = MEDIA_TYPES) -> bool:
    """Return whether plain data holds what has tokens beside its text."""
    if isinstance(data, list):
        return any(_has_media(item, types) for item in data)
    if not isinstance(data, dict):
        return False
    type_name = data.get("type")
    if isinstance(type_name, str) and any(media in type_name for media in types):
        return True
    return any(_has_media(item, types) for item in data.values())


def uses_server_tools(body: Mapping[str, Data]) -> bool:
    """Return whether a body lets the server run tools: it bills their calls, and what they read."""
    if body.get("web_search_options") is not None:
        return True
    tools = body.get("tools")
    return isinstance(tools, Sequence) and any(
        isinstance(tool, dict) and tool.get("type", "custom") not in ("function", "custom")
        for tool in tools
    )


def costliest_parts(
    body: Mapping[str, Data], input_tokens: int, output_tokens: int
) -> dict[str, int]:
    """Return the most expensive kinds of tokens: a prompt kept in the provider's cache for the longest time,
    or audio.

    :param body: the body that is sent.
    :returns: numbers of tokens, by genai-prices' names.
    """
    parts = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    if _has_media(body.get("messages"), ("audio",)):
        parts["input_audio_tokens"] = input_tokens
    else:
        parts["cache_write_tokens"] = parts["cache_write_1h_tokens"] = input_tokens
    if "audio" in (body.get("modalities") or ()):
        parts["output_audio_tokens"] = output_tokens
    return parts


def with_tokens_used(
    response: Mapping[str, Data], request: Request, capabilities: Capabilities
) -> Mapping[str, Data]:
    """Return the part of a response that a stream brought, with the tokens that it used: as the server
    reports them, else as counted here.

    Reasoning whose text the server does not send cannot be counted: there may have been more.

    :param response: the server's, or the part of it that arrived.
    :param request: as it was sent.
    """
    reported = TokenUsage.of(response)
    if reported.input_tokens is not None and reported.output_tokens is not None:
        return response
    texts = [_written_text(choice["message"]) for choice in choices_of(response)]
    output = sum(
        count_tokens(text, request.model, encoding=capabilities.encoding) for text in texts if text
    )
    prompt, _ = estimate(request.kind, request.body, capabilities)
    return {**response, "usage": {"prompt_tokens": prompt, "completion_tokens": output}}


def _written_text(message: Mapping[str, Data]) -> str:
    """Return what a model wrote: its text, its reasoning, which has two names, and its calls."""
    texts = [message.get(name) for name in ("reasoning_content", "reasoning", "content", "refusal")]
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        texts += [function.get("name"), function.get("arguments")]
    return "".join(text for text in texts if isinstance(text, str))
