"""What a call may use at most, known before it is made: the tokens of its prompt, and those of the longest answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from ..models.tokens import count_tokens
from ..types import TokenUsage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..models.capabilities import Capabilities

__all__ = ["DEFAULT_MAX_OUTPUT", "Estimate", "estimate", "partial_response", "tokens_used"]

# Tokens reserved for an answer where neither the request nor what is known of the model bounds it: the most that the
# models before 2024 gave (models.json), and several times what a short answer takes.
DEFAULT_MAX_OUTPUT = 4096


class Estimate(NamedTuple):
    """Hold what a call may use at most.

    :param input_tokens: the prompt's count.
    :param output_tokens: the tokens of its answers together.
    :param stated: what the request itself says that it may use, which servers count: without a ``max_tokens`` of its
        own, its prompt.
    """

    input_tokens: int
    output_tokens: int
    stated: int

    @property
    def tokens(self) -> int:
        """Return the sum."""
        return self.input_tokens + self.output_tokens


def estimate(kind: str, body: Mapping[str, Any], known: Capabilities) -> Estimate:
    """Return what a call may use at most: the prompt's count and ``max_tokens``, else the model's largest output.

    :param kind: ``"chat"`` or ``"embedding"``.
    :param body: what is sent.
    :param known: what is known of the model.
    """
    model = body["model"]
    if kind == "embedding":
        whole = sum(count_tokens(text, model, encoding=known.encoding) for text in _texts(body["input"]))
        return Estimate(whole, 0, whole)
    prompt = _prompt(body, known)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    answers = body.get("n") or 1
    longest = limit or _longest(known, prompt)
    return Estimate(prompt, longest * answers, prompt + (limit or 0) * answers)


def _prompt(body: Mapping[str, Any], known: Capabilities) -> int:
    counted = count_tokens(body["messages"], body["model"], encoding=known.encoding, tools=body.get("tools"))
    schema = body.get("response_format")
    if not isinstance(schema, dict) or "json_schema" not in schema:
        return int(counted)
    return counted + count_tokens(json.dumps(schema), body["model"], encoding=known.encoding)  # it is billed as prompt


def _longest(known: Capabilities, prompt: int) -> int:
    room = max(1, known.context_window - prompt) if known.context_window else DEFAULT_MAX_OUTPUT
    return min(room, known.max_output_tokens or DEFAULT_MAX_OUTPUT)


def _texts(given: Any) -> Iterable[str]:
    return [given] if isinstance(given, str) else given


def tokens_used(response: Mapping[str, Any], kind: str, body: Mapping[str, Any], known: Capabilities) -> TokenUsage:
    """Return the tokens that an answer used: as the server reported them, else as they are counted here.

    :param response: the server's, or as much of one as :func:`partial_response` returns;
        the others as of :func:`estimate`.
    """
    told = TokenUsage.of(response)
    if told.input_tokens is not None and (told.output_tokens is not None or kind == "embedding"):
        return told._replace(output_tokens=told.output_tokens or 0)
    texts = [_said(choice) for choice in response.get("choices") or ()]
    output = sum(count_tokens(text, body["model"], encoding=known.encoding) for text in texts if text)
    return TokenUsage(estimate(kind, body, known).input_tokens, output)


def partial_response(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return, of the chunks of an answer whose reader left, as much of a response as :func:`tokens_used` looks at.

    Reasoning of which the server sends no text cannot be counted, so the answer may have had more tokens.
    """
    texts: dict[int, list[str]] = {}
    for chunk in chunks:
        for position, choice in enumerate(chunk.get("choices") or ()):
            texts.setdefault(choice.get("index", position), []).extend(_pieces(choice.get("delta") or {}))
    reported = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    choices = [{"message": {"content": "".join(pieces)}} for pieces in texts.values()]
    return {"choices": choices, "usage": reported[-1] if reported else None}


def _pieces(delta: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a chunk adds to an answer: to its text, to its reasoning, which has two names, and to its calls."""
    yield delta.get("reasoning_content") or delta.get("reasoning") or ""
    yield delta.get("content") or delta.get("refusal") or ""
    for call in delta.get("tool_calls") or ():
        function = call.get("function") or {}
        yield f"{function.get('name') or ''}{function.get('arguments') or ''}"


def _said(choice: Any) -> str:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return ""
    calls = message.get("tool_calls")
    return f"{message.get('content') or ''}{json.dumps(calls) if calls else ''}"
