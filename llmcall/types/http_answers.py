"""What the answer to a request that is recorded as it is tells: its model, its tokens, its end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import ServiceError
from ..responses.event_stream import EventStreamDecoder
from .usage import TokenUsage

# The ends of the paths at which a model answers; programs.connections, which child processes load by
# itself, has the same.
MODEL_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/v1/messages")
# The fields of these APIs that are new in each answer, and the objects whose ids are so. The ids of
# calls of tools are none of them: later requests name them.
VOLATILE = {"created", "created_at", "completed_at", "system_fingerprint", "item_id", "obfuscation"}
WITH_NEW_IDS = {"response", "message", "reasoning", "text_completion"}
KEPT = 64  # answers, each of which is asked for its tokens, its cost and its model


class HttpAnswer(NamedTuple):
    """What an answer tells, in its body or in the events of its stream; ``None`` if it does not.

    :param model: by the server's name.
    :param usage: the tokens that it reports.
    :param service_tier: at which it was served.
    :param fingerprint: of the model's configuration.
    :param finish_reason: why it ended, in the words of its API: ``"completed"``,
        ``"max_output_tokens"``, ``"end_turn"`` ….
    :param refusal: the text in which the model refused.
    :param text: what it said.
    """

    model: str | None
    usage: TokenUsage
    service_tier: str | None
    fingerprint: str | None
    finish_reason: str | None
    refusal: str | None
    text: str | None


@lru_cache(maxsize=KEPT)
def read_answer(body: str) -> HttpAnswer:
    """Return what an answer tells.

    :param body: JSON, or an event stream.
    """
    told = [
        each
        for part in _parts(body)
        for each in (part, part.get("response"), part.get("message"), part.get("delta"))
        if isinstance(each, dict)
    ]
    usage: dict[str, Any] = {}
    for each in told:
        if isinstance(each.get("usage"), dict):
            # a stream tells of the output again and again, and of the input once
            reported = each["usage"].items()
            usage.update({name: count for name, count in reported if count is not None})
    models = _texts(told, "model")
    refusals = [text for each in told for text in _refusals(each)]
    return HttpAnswer(
        model=models[0] if models else None,
        usage=TokenUsage.of({"usage": usage} if usage else {}),
        service_tier=_last(_texts(told, "service_tier")),
        fingerprint=_last(_texts(told, "system_fingerprint")),
        finish_reason=_last([reason for each in told for reason in _ends(each)]),
        refusal="\n\n".join(dict.fromkeys(refusals)) or None,
        text=_last([text for each in told if (text := _said(each))]) or _streamed(told),
    )


def model_answer(request: Mapping[str, Any], response: Mapping[str, Any]) -> HttpAnswer | None:
    """Return what a model's recorded answer tells, or ``None`` if no model answered.

    A model answers at one of the paths of known APIs; elsewhere an answer that reports tokens is one.
    """
    value = response.get("value")
    body = value.get("body") if isinstance(value, dict) else None
    if not isinstance(body, str):
        return None
    found = read_answer(body)
    is_at_model = str(request.get("path")).rstrip("/").endswith(MODEL_PATHS)
    return found if is_at_model or found.usage != TokenUsage() else None


def lasting_parts(response: Mapping[str, Any]) -> Any:
    """Return a recorded answer without the fields that are new in each: its objects, or the whole
    response if it holds none.
    """
    value = response.get("value")
    body = value.get("body") if isinstance(value, dict) else None
    parts = list(_parts(body)) if isinstance(body, str) else []
    return [_lasting(part) for part in parts] or response


def _lasting(value: Any) -> Any:
    if isinstance(value, list):
        return [_lasting(each) for each in value]
    if not isinstance(value, dict):
        return value
    left_out = set(VOLATILE)
    if WITH_NEW_IDS & {_text(value.get("type")), _text(value.get("object"))}:
        left_out.add("id")
    return {name: _lasting(each) for name, each in value.items() if name not in left_out}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _parts(body: str) -> Iterator[dict[str, Any]]:
    """Yield the object that a body is, or the objects of its events."""
    with suppress(ValueError):
        whole = json.loads(body)
        if isinstance(whole, dict):
            yield whole
        return
    decoder = EventStreamDecoder()
    with suppress(ServiceError):  # no JSON: it tells nothing of its usage
        for event in (*decoder.feed(body.encode()), *decoder.close()):
            if isinstance(event, dict):
                yield event


def _texts(told: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    values = (each.get(name) for each in told)
    return [value for value in values if isinstance(value, str) and value]


def _last(texts: list[str]) -> str | None:
    return texts[-1] if texts else None


def _ends(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield why an answer ended, as the Responses, the Messages or the completions API says it."""
    details = told.get("incomplete_details")
    reasons = [
        told.get("status") if "output" in told else None,
        details.get("reason") if isinstance(details, dict) else None,
        told.get("stop_reason"),
        *(each.get("finish_reason") for each in _objects(told.get("choices"))),
    ]
    yield from (reason for reason in reasons if isinstance(reason, str))


def _refusals(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts in which a model refused, as the Responses API has them."""
    for item in _objects(told.get("output")):
        for part in _objects(item.get("content")):
            refusal = part.get("refusal")
            if isinstance(refusal, str) and refusal:
                yield refusal


def _said(told: Mapping[str, Any]) -> str:
    """Return the text of a whole answer of the Responses, the Messages or the completions API."""
    parts = [
        part for item in _objects(told.get("output")) for part in _objects(item.get("content"))
    ]
    choices = _objects(told.get("choices"))
    return "\n\n".join(_texts([*parts, *_objects(told.get("content")), *choices], "text"))


def _streamed(told: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the text whose pieces the events of the Messages API have."""
    return (
        "".join(_texts((each for each in told if each.get("type") == "text_delta"), "text")) or None
    )


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list; none of anything else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
