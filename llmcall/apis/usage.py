"""The tokens and the cost of answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from ..support.display import money
from .interactions import usage_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..keys.request import Data


# The counts of Gemini's API; input and output are the sums of two each.
OF_GEMINI = (
    "promptTokenCount",
    "toolUsePromptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
)


class TokenUsage(NamedTuple):
    """The tokens of one answer as the server reported them; unreported counts are ``None``.

    >>> llmcall.client().send_message("Good morning!", max_tokens=16).usage.output_tokens
    4
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    @classmethod
    def of(cls, response: Mapping[str, Data]) -> TokenUsage:
        """Return the tokens that a response reports; anything that is not a count is unknown.

        Chat completions and embeddings name their counts one way, the Responses and Messages APIs
        another, Gemini a third. Anthropic reports the input that its cache read or wrote separately, and
        Google the input of its tools.
        """
        metadata = usage_metadata(response)
        if metadata is not None and "promptTokenCount" in metadata:
            prompt, tools, answer, thoughts = (
                _count(metadata.get(name)) or 0 for name in OF_GEMINI
            )
            cached = _count(metadata.get("cachedContentTokenCount"))
            return cls(prompt + tools, answer + thoughts, cached, thoughts)
        if "eval_count" in response:  # Ollama's own API
            return cls(_count(response.get("prompt_eval_count")), _count(response["eval_count"]))
        usage = response.get("usage")
        if not isinstance(usage, dict):
            return cls()
        read_from_cache = _count(usage.get("cache_read_input_tokens"))
        if "prompt_tokens" not in usage and usage.keys() & {"input_tokens", "output_tokens"}:
            prompt_field, completion_field = "input_tokens", "output_tokens"
            written_to_cache = _count(usage.get("cache_creation_input_tokens"))
            beside_input = (read_from_cache or 0) + (written_to_cache or 0)
        else:
            # Proxies that pass on Anthropic's two fields already count them as prompt tokens.
            prompt_field, completion_field = "prompt_tokens", "completion_tokens"
            beside_input = 0
        input_tokens = _count(usage.get(prompt_field))
        if input_tokens is not None:
            input_tokens += beside_input
        cached = _detail(usage, f"{prompt_field}_details", "cached_tokens")
        return cls(
            input_tokens,
            _count(usage.get(completion_field)),
            read_from_cache if cached is None else cached,
            _detail(usage, f"{completion_field}_details", "reasoning_tokens"),
        )


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _detail(usage: Mapping[str, object], details_name: str, name: str) -> int | None:
    details = usage.get(details_name)
    return _count(details.get(name)) if isinstance(details, dict) else None


def total_cost(costs: Iterable[float | None]) -> float | None:
    """Return the sum of costs in USD, or ``None`` if one is unknown."""
    known_costs = []
    for cost in costs:
        if cost is None:
            return None
        known_costs.append(cost)
    return math.fsum(known_costs)


def spent_words(usage: TokenUsage, cost: float | None) -> list[str]:
    """Return the known tokens and cost in words."""
    counts = []
    if usage.input_tokens is not None:
        counts.append(f"{usage.input_tokens:,} input")
    if usage.output_tokens is not None:
        counts.append(f"{usage.output_tokens:,} output")
    words = []
    if counts:
        words.append(f"{', '.join(counts)} tokens")
    if cost is not None:
        words.append(money(cost))
    return words
