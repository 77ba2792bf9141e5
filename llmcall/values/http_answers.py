"""The answer to a request that is recorded as it is: its model, its tokens, its end."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from ..errors import ServiceError
from .bodies import events_of
from .message import tool_call
from .usage import TokenUsage

# The ends of the paths at which a model answers, where the host is known.
MODEL_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/v1/messages")
# The fields of these APIs that are new in each answer, and the objects whose ids are new in each.
# Tool calls are none of them: later requests name their ids.
VOLATILE_BODY_FIELDS = {
    "created",
    "created_at",
    "createTime",
    "completed_at",
    "system_fingerprint",
    "item_id",
    "obfuscation",
    "responseId",
}
WITH_NEW_IDS = {"response", "message", "reasoning", "text_completion"}
# The types of the objects that call a tool.
TOOL_CALLS = (
    "function_call",
    "custom_tool_call",
    "mcp_call",
    "tool_use",
    "server_tool_use",
    "mcp_tool_use",
)
ANSWERS_REMEMBERED = 64  # answers, each of which is asked for its tokens, its cost and its model


@lru_cache(maxsize=ANSWERS_REMEMBERED)
def http_as_chat(body: str) -> Mapping[str, Any]:
    """Return an answer as chat completions give it, as far as it tells: ``model``, ``usage`` (by its own
    names), ``service_tier``, ``system_fingerprint``, and a choice with its text and tool calls, its
    refusal, and why it ended in the words of its API (``"completed"``, ``"end_turn"`` …).

    :param body: JSON, or an event stream.
    """
    objects = [
        each
        for parsed in _in_shape_of_messages(list(_parsed_objects(body)))
        for each in (parsed, parsed.get("response"), parsed.get("message"), parsed.get("delta"))
        if isinstance(each, dict)
    ]
    usage: dict[str, Any] = {}
    for each in objects:
        if isinstance(each.get("usage"), dict):
            # a stream tells of the output again and again, and of the input once
            reported = each["usage"].items()
            usage.update({name: count for name, count in reported if count is not None})
    models = _texts(objects, "model")
    refusals = [text for each in objects for text in _refusals(each)]
    texts = [text for each in objects if (text := _whole_text(each))]
    message = {
        "content": _last(texts) or _streamed_text(objects),
        "refusal": "\n\n".join(dict.fromkeys(refusals)) or None,
    }
    finish_reason = _last([reason for each in objects for reason in _finish_reasons(each)])
    chat = {
        "model": models[0] if models else None,
        "usage": usage or None,
        "service_tier": _last(_texts(objects, "service_tier")),
        "system_fingerprint": _last(_texts(objects, "system_fingerprint")),
    }
    return {**chat, "choices": [{"message": message, "finish_reason": finish_reason}]}


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


def lasting_parts(response: Mapping[str, Any], also_omitted: Collection[str] = ()) -> Any:
    """Return a recorded answer without the fields that are new in each: its objects, or the whole
    response if it holds none.

    :param also_omitted: further fields to leave out.
    """
    value = response.get("value")
    body = value.get("body") if isinstance(value, dict) else None
    objects = list(_parsed_objects(body)) if isinstance(body, str) else []
    return [without_new_fields(each, also_omitted) for each in objects] or response


def without_new_fields(value: Any, also_omitted: Collection[str] = ()) -> Any:
    """Return plain data of the Responses or the Messages API without the fields that are new in each
    answer.

    :param also_omitted: further fields to leave out.
    """
    if isinstance(value, list):
        return [without_new_fields(each, also_omitted) for each in value]
    if not isinstance(value, dict):
        return value
    omitted_names = {*VOLATILE_BODY_FIELDS, *also_omitted}
    if WITH_NEW_IDS & {_text(value.get("type")), _text(value.get("object"))}:
        omitted_names.add("id")
    return {
        name: without_new_fields(each, also_omitted)
        for name, each in value.items()
        if name not in omitted_names
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _parsed_objects(body: str) -> Iterator[dict[str, Any]]:
    """Yield the object that a body is, or the objects of its events."""
    with suppress(ValueError):
        data = json.loads(body)
        yield from _objects(data if isinstance(data, list) else [data])
        return
    with suppress(ServiceError):  # no JSON: it tells nothing of its usage
        yield from events_of(body.encode())


def _in_shape_of_messages(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return an answer of Gemini's API, whole or in the events of its stream, as the Messages API would
    give it; all others as they are.
    """
    if not any("candidates" in each or "usageMetadata" in each for each in objects):
        return objects
    candidates = [
        candidate for each in objects for candidate in _objects(each.get("candidates"))[:1]
    ]
    parts = [
        part
        for candidate in candidates
        for part in _objects((candidate.get("content") or {}).get("parts"))
    ]
    calls = [part["functionCall"] for part in parts if isinstance(part.get("functionCall"), dict)]
    text = "".join(_text(part.get("text")) for part in parts if not part.get("thought"))
    counts = [
        each["usageMetadata"] for each in objects if isinstance(each.get("usageMetadata"), dict)
    ]
    count = counts[-1] if counts else {}
    answer: dict[str, Any] = {
        "model": _last(_texts(objects, "modelVersion")),
        "stop_reason": _last(_texts(candidates, "finishReason")),
        "content": [
            {"type": "text", "text": text},
            *(
                {"type": "tool_use", "name": each.get("name"), "input": each.get("args")}
                for each in calls
            ),
        ],
    }
    if "promptTokenCount" in count:
        thoughts = count.get("thoughtsTokenCount") or 0
        answer["usage"] = {
            "input_tokens": count["promptTokenCount"],
            "output_tokens": (count.get("candidatesTokenCount") or 0) + thoughts,
            "input_tokens_details": {"cached_tokens": count.get("cachedContentTokenCount")},
            "output_tokens_details": {"reasoning_tokens": thoughts},
        }
    return [answer]


def _texts(objects: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    values = (each.get(name) for each in objects)
    return [value for value in values if isinstance(value, str) and value]


def _last(texts: list[str]) -> str | None:
    return texts[-1] if texts else None


def _finish_reasons(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield why an answer ended, as the Responses, the Messages or the completions API says it."""
    details = answer.get("incomplete_details")
    reasons = [
        answer.get("status") if "output" in answer else None,
        details.get("reason") if isinstance(details, dict) else None,
        answer.get("stop_reason"),
        *(each.get("finish_reason") for each in _objects(answer.get("choices"))),
    ]
    yield from (reason for reason in reasons if isinstance(reason, str))


def _refusals(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts in which a model refused, as the Responses API has them."""
    for item in _objects(answer.get("output")):
        for part in _objects(item.get("content")):
            refusal = part.get("refusal")
            if isinstance(refusal, str) and refusal:
                yield refusal


def _whole_text(answer: Mapping[str, Any]) -> str:
    """Return the text of a whole answer of the Responses, the Messages or the completions API, and
    its tool calls.
    """
    items, content = _objects(answer.get("output")), _objects(answer.get("content"))
    parts = [part for item in items for part in _objects(item.get("content"))]
    text = "\n\n".join(_texts([*parts, *content, *_objects(answer.get("choices"))], "text"))
    calls = [
        tool_call(each.get("name"), each.get("arguments") or each.get("input") or "")
        for each in (*items, *content)
        if each.get("type") in TOOL_CALLS
    ]
    return "\n".join(filter(None, [text, *calls]))


def _streamed_text(events: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the text whose pieces the events of the Messages API have, and the tool calls."""
    text = ""
    calls: list[list[str]] = []  # of each, the tool's name and the pieces of its arguments
    for each in events:
        if each.get("type") == "text_delta":
            text += _text(each.get("text"))
        block = each.get("content_block")
        if isinstance(block, dict) and block.get("type") in TOOL_CALLS:
            calls.append([_text(block.get("name"))])
        if calls and each.get("type") == "input_json_delta":
            calls[-1].append(_text(each.get("partial_json")))
    called = [tool_call(name, "".join(pieces)) for name, *pieces in calls]
    return "\n".join(filter(None, [text, *called])) or None


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list; none of anything else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
