"""The answer to a request that is recorded as it is: its model, its tokens, its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from .billing import Bill
from .bodies import objects_of
from .shapes import TOOL_CALLS, message_in, object_in, objects_in, parts_in
from .usage import TokenUsage

# The ends of the paths at which a model answers, where the host is known.
MODEL_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/v1/messages")
ANSWERS_REMEMBERED = 64  # answers, each of which is asked for its tokens, its cost and its model


@lru_cache(maxsize=ANSWERS_REMEMBERED)
def http_as_chat(body: str) -> Mapping[str, Any]:
    """Return an answer as chat completions give it, as far as it tells: ``model``, ``usage`` (by its own
    names), ``service_tier``, ``system_fingerprint``, and a choice with its text and tool calls, its
    refusal, and why it ended in the words of its API (``"completed"``, ``"end_turn"`` …); ``created``, and
    its ``bill``.

    :param body: JSON, or an event stream.
    """
    objects = [*objects_of(body)]
    gemini = None
    if any("candidates" in each or "usageMetadata" in each for each in objects):
        gemini = _joined_gemini(objects)
        objects = [_of_gemini(gemini)]
    holders = [
        each
        for event in objects
        for each in (event, event.get("response"), event.get("message"), event.get("delta"))
        if isinstance(each, dict)
    ]
    fields = _merged(holders)
    choices = [choice for each in holders for choice in objects_in(each.get("choices"))]
    items = objects_in(fields.get("output"))
    blocks = objects_in(fields.get("content")) or _streamed_blocks(objects)
    texts = [{"type": "text", "text": choice.get("text")} for choice in choices]
    message = message_in([*parts_in(items), *blocks, *texts])
    calls = [each for each in (*items, *blocks) if each.get("type") in TOOL_CALLS]
    details = fields.get("incomplete_details")
    reasons = (
        _merged(choices).get("finish_reason"),
        fields.get("stop_reason"),
        details.get("reason") if isinstance(details, dict) else None,
        fields.get("status") if "output" in fields else None,
    )
    choice = {
        "message": {**message, "tool_calls": calls},
        "finish_reason": next(filter(None, map(_text, reasons)), None),
    }
    names = ("model", "service_tier", "system_fingerprint")
    # a stream tells of the output again and again, and of the input once
    usage = _merged(each["usage"] for each in holders if isinstance(each.get("usage"), dict))
    return {
        **{name: _text(fields.get(name)) or None for name in names},
        "created": fields.get("created") or fields.get("created_at"),
        "usage": usage,
        "choices": [choice],
        "bill": Bill.of(gemini or {**fields, "usage": usage, "choices": choices}),
    }


def model_answer(
    request: Mapping[str, Any], response: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """Return a model's recorded answer as chat completions give it; ``None`` if no model answered.

    A model answers at one of the paths of known APIs; elsewhere an answer that reports tokens is one.
    """
    value = response.get("value")
    body = value.get("body") if isinstance(value, dict) else None
    if not isinstance(body, str):
        return None
    answer = http_as_chat(body)
    path = str(request.get("path")).rstrip("/")
    is_at_model = "host" not in request or path.endswith(MODEL_PATHS)
    return answer if is_at_model or TokenUsage.of(answer) != TokenUsage() else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _merged(objects: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields of some objects; of a field that several have, the last value that is known."""
    return {name: each[name] for each in objects for name in each if each[name] is not None}


def _joined_gemini(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an answer of Gemini's API, whole or in the events of its stream, in one object."""
    candidates = [
        candidate for each in objects for candidate in objects_in(each.get("candidates"))[:1]
    ]
    return {**_merged(objects), "candidates": candidates}


def _of_gemini(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer of Gemini's API as the Messages API would give it."""
    candidates = fields["candidates"]
    content: list[dict[str, Any]] = []
    for candidate in candidates:
        for part in objects_in(object_in(candidate.get("content")).get("parts")):
            call = part.get("functionCall")
            if isinstance(call, dict):
                content.append(
                    {"type": "tool_use", "name": call.get("name"), "input": call.get("args")}
                )
            elif not part.get("thought"):
                content.append({"type": "text", "text": part.get("text")})
    answer: dict[str, Any] = {
        "model": fields.get("modelVersion"),
        "stop_reason": _merged(candidates).get("finishReason"),
        "content": content,
    }
    metadata = object_in(fields.get("usageMetadata"))
    if "promptTokenCount" in metadata:
        counts = Counter({name: count for name, count in metadata.items() if type(count) is int})
        thoughts = counts["thoughtsTokenCount"]
        answer["service_tier"] = _text(metadata.get("serviceTier")).lower()
        answer["usage"] = {
            "input_tokens": counts["promptTokenCount"] + counts["toolUsePromptTokenCount"],
            "output_tokens": counts["candidatesTokenCount"] + thoughts,
            "input_tokens_details": {"cached_tokens": metadata.get("cachedContentTokenCount")},
            "output_tokens_details": {"reasoning_tokens": thoughts},
        }
    return answer


def _streamed_blocks(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the blocks of a content that the events of the Messages API have in pieces; each piece of a
    text is one.
    """
    blocks: list[dict[str, Any]] = []
    for event in events:
        block, delta = event.get("content_block"), event.get("delta")
        if isinstance(block, dict):
            blocks.append({**block})
        elif isinstance(delta, dict) and delta.get("type") == "text_delta":
            blocks.append({"type": "text", "text": delta.get("text")})
        elif isinstance(delta, dict) and "partial_json" in delta and blocks:
            so_far = blocks[-1].get("arguments", "")
            blocks[-1]["arguments"] = so_far + _text(delta["partial_json"])
    return blocks
