"""Prices of models, from ``[Prices]``, else from the package ``genai-prices``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ..apis.token_usage import MILLION, Bill, Cost, Parts, TokenUsage
from ..support.notices import warn_once

if TYPE_CHECKING:
    from .packaged_prices import PackagedPrice

# The share of the standard price of tokens that is paid.
# "Flex processing", OpenAI's guide: tokens are priced at the rates of the Batch API. "Batch API",
# OpenAI's guide: 50% of the standard price. Azure's "Use Flex processing" says 50%, too.
SHARES = {"flex": 0.5, "batch": 0.5}
# These tiers cost more than the standard one, by a factor that depends on the model: OpenAI's price list,
# "Service tiers"; Anthropic's "Fast mode" and "Data residency" (``us``).
DEARER_TIERS = frozenset({"priority", "fast", "us"})


# Of a model, at one provider and tier: with its source, and the costs of tokens and of an answer.
Price: TypeAlias = "ConfiguredPrice | HighestPrice | PackagedPrice"


class ConfiguredPrice(NamedTuple):
    """A price in ``[Prices]``, in USD per million tokens.

    :param input: for prompt tokens, including images, audio, and tokens written to the provider's cache.
    :param output: for answer tokens.
    :param cached_input: for prompt tokens read from the provider's cache.
    """

    input: float
    output: float
    cached_input: float
    source: str = "[Prices]"

    @classmethod
    def of(cls, numbers: Sequence[float], share: float = 1) -> ConfiguredPrice:
        """Return a share of the price in two or three numbers."""
        shared = [round(number * share, 12) for number in numbers]
        return cls(shared[0], shared[1], shared[2] if len(shared) > 2 else shared[0])

    def cost_of_parts(self, parts: Parts) -> Cost:
        """Return the cost of tokens."""
        input_tokens = parts["input_tokens"]
        cached = min(parts.get("cache_read_tokens", 0), input_tokens)
        prompt = (input_tokens - cached) * self.input + cached * self.cached_input
        answer = parts.get("output_tokens", 0) * self.output
        return Cost(prompt / MILLION, (prompt + answer) / MILLION)

    def cost_of_answer(self, response: Mapping[str, object]) -> Cost | None:
        """Return the cost of an answer; ``None`` if it reports no tokens, or calls of billed tools."""
        tokens, bill = TokenUsage.of(response), Bill.of(response)
        if bill.tools or (tokens.input_tokens is None and any(self[:3])):
            return None
        return self.cost_of_parts(
            {
                "input_tokens": tokens.input_tokens or 0,
                "cache_read_tokens": tokens.cached_tokens or 0,
                "output_tokens": tokens.output_tokens or 0,
            }
        )


FREE = ConfiguredPrice(0.0, 0.0, 0.0, "local model")


class HighestPrice(NamedTuple):
    """The highest of several providers' prices of a model.

    :param prices: the providers' prices.
    """

    prices: tuple[Price, ...]

    @property
    def source(self) -> str:
        """The sources of all prices."""
        return ", ".join(sorted({price.source for price in self.prices}))

    def cost_of_parts(self, parts: Parts) -> Cost:
        """Return the highest cost of tokens."""
        return max(
            (price.cost_of_parts(parts) for price in self.prices), key=lambda cost: cost.total
        )

    def cost_of_answer(self, response: Mapping[str, object]) -> Cost | None:
        """Return the highest cost of an answer; ``None`` if one is unknown."""
        costs = [price.cost_of_answer(response) for price in self.prices]
        known = [cost for cost in costs if cost is not None]
        return max(known, key=lambda cost: cost.total) if len(known) == len(costs) else None


def price_of(
    model: str,
    configured: Mapping[str, Sequence[float]],
    *,
    address: str | None = None,
    service_tier: str | None = None,
    time: datetime | None = None,
) -> Price | None:
    """Return a model's price, or ``None`` if it is unknown.

    :param model: its name after aliases.
    :param configured: ``[Prices]``, which comes first: USD per million tokens of input, of output
        and optionally of cached input, which otherwise costs as much as input. A tier's price has a
        name such as ``"gpt-6-luna flex"``.
    :param address: the API's address. If the package does not know its provider, only OpenAI's own models
        have a price, since others may serve the rest at any price.
    :param service_tier: the API's name for the tier. The tiers flex and batch cost half; a
        more expensive one has a price only in ``configured``; any other tier costs the standard price.
    :param time: the time of the call; ``None`` is now.
    """
    if f"{model} {service_tier}" in configured:
        return ConfiguredPrice.of(configured[f"{model} {service_tier}"])
    if service_tier in DEARER_TIERS:
        return None
    share = SHARES.get(service_tier or "", 1)
    if model in configured:
        return ConfiguredPrice.of(configured[model], share)
    try:
        from .packaged_prices import PROVIDERS_WITH_SHARES, PackagedPrice, provider_of

        provider = provider_of(model, address)
    except ImportError as error:
        warn_once(f"costs are unknown: genai-prices cannot be imported ({error}); install it again")
        return None
    if provider is None:
        return None
    # In whole minutes, so that equal costs are calculated once.
    time = (time or datetime.now(timezone.utc)).replace(second=0, microsecond=0)
    return PackagedPrice(model, provider, time, share if provider in PROVIDERS_WITH_SHARES else 1)
