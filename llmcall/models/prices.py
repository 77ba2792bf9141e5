"""Prices of models.

Prices come from ``[Prices]``, or else from the package ``genai-prices``. Its wheel, by the makers of
pydantic, has the prices of hundreds of models, with dates; today's are taken. Nothing is looked up
in the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ..values import TokenUsage

# The share of the standard price that is paid.
# "Flex processing", OpenAI's guide: tokens are priced at the rates of the Batch API. "Batch API",
# OpenAI's guide: 50 % of the standard price. Azure's "Use Flex processing" says 50 %, too.
# "Background mode", OpenAI's guide: 30 % and 40 % below it for answers within 2 and 8 hours.
SHARES = {"flex": 0.5, "batch": 0.5, "2h": 0.7, "8h": 0.6}
# "Service tiers" in OpenAI's price list: these cost more than the standard tier, by a factor that
# depends on the model.
DEARER_TIERS = frozenset({"priority", "fast"})
# The providers whose tiers the lines above describe, as genai-prices names them.
PROVIDERS_WITH_SHARES = frozenset({"openai", "azure"})
MILLION = 1_000_000
OPEN_WEIGHTS = "gpt-oss"  # OpenAI's models that anybody may serve, at a price of their own


class Price(NamedTuple):
    """A model's price, in USD per million tokens.

    :param input: for the prompt's tokens.
    :param output: for the answer's tokens.
    :param cached_input: for those prompt tokens that the provider had cached.
    :param source: ``"[Prices]"``, or the package with its version and the price's day.
    """

    input: float
    output: float
    cached_input: float
    source: str = "[Prices]"

    def times(self, share: float) -> Price:
        """Return a share of the price."""
        return Price(
            round(self.input * share, 12),
            round(self.output * share, 12),
            round(self.cached_input * share, 12),
            self.source,
        )

    def of_tokens(self, tokens: TokenUsage) -> float:
        """Return the price of an answer's tokens in millionths of a USD; unknown numbers count as 0."""
        input_tokens = tokens.input_tokens or 0
        cached_tokens = min(tokens.cached_tokens or 0, input_tokens)
        return (
            (input_tokens - cached_tokens) * self.input
            + cached_tokens * self.cached_input
            + (tokens.output_tokens or 0) * self.output
        )

    def cost(self, tokens: TokenUsage) -> float | None:
        """Return the price of an answer's tokens in USD, or ``None`` if the server reported none."""
        return None if tokens.input_tokens is None else self.of_tokens(tokens) / MILLION


def tier_of(data: Any, window: str | None = None) -> str | None:
    """Return the service tier that a request's body or a response names, or ``None``; the window is
    one, too.

    :param window: the one in which the response was made, if it says that it was made in the
        background.
    """
    if not isinstance(data, dict):
        return None
    if window is not None and data.get("background") is True:
        return window
    tier = window_of(data) or data.get("service_tier")
    return tier if isinstance(tier, str) else None


def window_of(body: Mapping[str, Any]) -> str | None:
    """Return the window in which a request is to be answered, or ``None`` if it is answered at once.

    :param body: what is sent.
    """
    options = body.get("background_options")
    return options.get("completion_window") if isinstance(options, dict) else None


def price_of(
    model: str,
    configured: Mapping[str, Sequence[float]],
    *,
    address: str | None = None,
    input_tokens: int = 0,
    service_tier: str | None = None,
) -> Price | None:
    """Return a model's price, or ``None`` if nobody knows it.

    :param model: its name after aliases.
    :param configured: ``[Prices]``, which goes first: USD per million tokens in and out and, as a
        third number, of input that the provider had cached; without that, cached input costs what
        input does. ``"gpt-6-luna flex"`` is the price of a tier, ``"gpt-6-luna 8h"`` of a window.
    :param address: that of the API. If it is none of a provider that the package knows, only the
        names of OpenAI's own models have a price: anybody may serve the others.
    :param input_tokens: of the prompt: some models cost more for a long one.
    :param service_tier: as the API names it, or a window. The tiers flex and batch cost half;
        ``priority`` has a price only if ``configured`` names it; any other tier costs what the
        model costs.
    """
    if f"{model} {service_tier}" in configured:
        return _configured(configured[f"{model} {service_tier}"])
    price: Price | None
    if model in configured:
        price, has_shares = _configured(configured[model]), True
    else:
        from datetime import datetime, timezone

        day = datetime.now(timezone.utc).date().isoformat()
        price, has_shares = _packaged(model, address, input_tokens, day)
    if price is None or service_tier in DEARER_TIERS:
        return None
    return price.times(SHARES.get(service_tier or "", 1)) if has_shares else price


def _configured(numbers: Sequence[float]) -> Price:
    return Price(numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else numbers[0])


@lru_cache(maxsize=4096)
def _packaged(
    model: str, address: str | None, input_tokens: int, day: str
) -> tuple[Price | None, bool]:
    """Return a model's price as genai-prices knows it, for one day, and whether ``SHARES`` are its
    provider's.
    """
    from datetime import datetime, timezone
    from importlib.metadata import version

    import genai_prices

    timestamp = datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
    tokens = max(1, input_tokens)
    # The provider at the address; and OpenAI, if only OpenAI's models have such names.
    providers = [{"provider_api_url": address}] if address else []
    providers += [] if model.startswith(OPEN_WEIGHTS) else [{"provider_id": "openai"}]
    for provider in providers:
        try:
            whole, cached = (
                genai_prices.calc_price(
                    genai_prices.Usage(
                        input_tokens=tokens, cache_read_tokens=cached_tokens, output_tokens=MILLION
                    ),
                    model,
                    genai_request_timestamp=timestamp,
                    **provider,
                )
                for cached_tokens in (0, tokens)
            )
        except LookupError:  # it does not know the provider or the model
            continue
        price = Price(
            round(float(whole.input_price) / tokens * MILLION, 9),
            float(whole.output_price),
            round(float(cached.input_price) / tokens * MILLION, 9),
            f"genai-prices {version('genai-prices')} for {day}",
        )
        return price, whole.provider.id in PROVIDERS_WITH_SHARES
    return None, False
