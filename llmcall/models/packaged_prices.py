"""Prices in the package ``genai-prices``, and what answers cost by them.

The package's wheel, by the makers of pydantic, has the prices of hundreds of models, with dates. The
network is not used. The package takes long to import, so this module is imported when the first price is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from ..apis.token_usage import MILLION, Bill, Cost, Parts, TokenUsage
from ..support import libraries
from ..support.notices import warn_once

# The providers whose tiers SHARES describes, as genai-prices names them.
PROVIDERS_WITH_SHARES = frozenset({"openai", "azure"})
OPEN_WEIGHTS = "gpt-oss"  # OpenAI's models that others serve, too, at their own prices
# The extractors of genai-prices for the usage that an API reports: first the provider's own by these names,
# then the one of the API's maker.
EXTRACTORS: dict[str, tuple[tuple[str, ...], tuple[str, str]]] = {
    "chat": (("chat", "default"), ("openai", "chat")),
    "responses": (("responses",), ("openai", "responses")),
    "messages": (("anthropic",), ("anthropic", "default")),
    "gemini": ((), ("google", "default")),
    "embeddings": (("embeddings",), ("openai", "embeddings")),
}
# The prices that a model must have for these parts. genai-prices charges a part without a price like the
# whole, which is right for cached text and reasoning, but too low, or nothing, for these.
NECESSARY_PRICES = {
    "input_tokens": "input_mtok",
    "output_tokens": "output_mtok",
    "cache_write_tokens": "cache_write_mtok",
    "cache_write_1h_tokens": "cache_write_1h_mtok",
    "web_searches": "web_searches_kcount",
    "social_searches": "social_searches_kcount",
    "storage_searches": "storage_searches_kcount",
    "code_executions": "code_executions_kcount",
}
NECESSARY_PRICES_OF_MEDIA = {
    "input_audio_tokens": "input_audio_mtok",
    "output_audio_tokens": "output_audio_mtok",
    "input_image_tokens": "input_image_mtok",
    "output_image_tokens": "output_image_mtok",
    "input_video_tokens": "input_video_mtok",
    "output_video_tokens": "output_video_mtok",
}
# The counts of a usage in which tokens say all that is billed.
PLAIN = frozenset(
    {
        *("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens"),
        *("cached_tokens", "reasoning_tokens"),
    }
)
# Google's price list has one price for text, images, video and audio unless it names another.
PROVIDER_OF_MEDIA_AT_ONE_PRICE = "google"


class PackagedPrice(NamedTuple):
    """A price in genai-prices.

    :param model: the model.
    :param provider: the package's name for the provider.
    :param time: the time of the call, since prices change.
    :param share: the share of the price that is paid for tokens.
    """

    model: str
    provider: str
    time: datetime
    share: float

    @property
    def source(self) -> str:
        """The package with its version and the date of the price."""
        return (
            f"genai-prices {libraries.genai_prices.__version__} for {self.time.date().isoformat()}"
        )

    def cost_of_parts(self, parts: Parts) -> Cost:
        """Return the cost of tokens; a part without its own price costs as much as the whole."""
        return _calculated_cost(self, tuple(parts.items()))

    def cost_of_answer(self, response: Mapping[str, object]) -> Cost | None:
        """Return the cost of everything that an answer reports; ``None`` if it reports no tokens, or
        something without a price.
        """
        bill, tokens = Bill.of(response), TokenUsage.of(response)
        if tokens.input_tokens is None or bill.tools.keys() - NECESSARY_PRICES.keys():
            return None
        rates = _rates(self) if _is_plain(bill, tokens) else None
        if rates is not None:
            return rates.cost(tokens)
        try:
            usage = _usage(bill, self.provider)
            calculation = self.calculate(usage)
        # A server's report may contradict itself. Where warnings are errors, the package raises them.
        except (ValueError, Warning) as error:
            warn_once(
                f"the cost of some answers of {self.model} is unknown, because genai-prices rejects the usage that the "
                f"server reports: {error}",
                about=("refused usage", self.model),
            )
            return None
        necessary = NECESSARY_PRICES
        if self.provider != PROVIDER_OF_MEDIA_AT_ONE_PRICE:
            necessary = {**necessary, **NECESSARY_PRICES_OF_MEDIA}
        for part, name in necessary.items():
            if usage.reported_value(part) and getattr(calculation.model_price, name) is None:
                return None
        return self.shared(calculation)

    def calculate(self, usage: object) -> Any:
        """Return the calculation of genai-prices for a usage."""
        return libraries.genai_prices.calc_price(
            usage, self.model, provider_id=self.provider, genai_request_timestamp=self.time
        )

    def shared(self, calculation: Any) -> Cost:
        """Return the cost from a calculation of genai-prices; a tier lowers only the price of tokens."""
        share = Decimal(str(self.share))
        tokens = calculation.input_price + calculation.output_price
        besides = calculation.total_price - tokens
        return Cost(float(calculation.input_price * share), float(tokens * share + besides))


class Rates(NamedTuple):
    """The prices of a model at some time, as genai-prices gives them: USD per million tokens, with the
    prompts from which they rise.

    :param paid: the share that is paid, for one token.
    """

    input: object
    cached_input: object
    output: object
    paid: Decimal

    def cost(self, tokens: TokenUsage) -> Cost:
        """Return the cost of tokens, to the last digit as genai-prices calculates it."""
        whole, cached = tokens.input_tokens or 0, tokens.cached_tokens or 0
        *prices, paid = self
        input, cached_input, output = [_at_length(price, whole) for price in prices]
        prompt = (input * (whole - cached) + cached_input * cached) * paid
        return Cost(float(prompt), float(prompt + output * (tokens.output_tokens or 0) * paid))


def _at_length(price: Any, input_tokens: int) -> Decimal:
    """Return the price for a prompt of that many tokens."""
    if isinstance(price, Decimal):
        return price
    chosen: Decimal = price.base
    for tier in price.tiers:
        if input_tokens > tier.start:
            chosen = tier.price
    return chosen


@lru_cache(maxsize=4096)
def _rates(price: PackagedPrice) -> Rates | None:
    """Return a model's prices of plain usage; ``None`` if genai-prices has to calculate them."""
    if price.provider not in PROVIDERS_WITH_SHARES:  # others count reasoning apart
        return None
    prices = price.calculate(libraries.genai_prices.Usage()).model_price
    beside = prices.output_reasoning_mtok, prices.requests_kcount
    if None in (prices.input_mtok, prices.output_mtok) or beside != (None, None):
        return None
    cached_input = prices.cache_read_mtok
    if cached_input is None:
        cached_input = prices.input_mtok
    paid = Decimal(str(price.share)) / MILLION
    return Rates(prices.input_mtok, cached_input, prices.output_mtok, paid)


def _is_plain(bill: Bill, tokens: TokenUsage) -> bool:
    """Return whether tokens say all that is billed, as in nearly every answer of OpenAI's two APIs."""
    if bill.tools or bill.api not in ("chat", "responses") or tokens.output_tokens is None:
        return False
    counts = _counts(bill.reported.get("usage", {}))
    return (tokens.cached_tokens or 0) <= (tokens.input_tokens or 0) and all(
        name in PLAIN and type(count) is int and count > 0 for name, count in counts
    )


def _counts(usage: Mapping[str, object]) -> Iterator[tuple[str, Any]]:
    """Yield what a usage reports, except zeros."""
    for name, value in usage.items():
        if isinstance(value, dict):
            yield from _counts(value)
        elif value:
            yield name, value


@lru_cache(maxsize=4096)
def _calculated_cost(price: PackagedPrice, parts: tuple[tuple[str, int], ...]) -> Cost:
    return price.shared(price.calculate(libraries.genai_prices.Usage(**dict(parts))))


def _usage(bill: Bill, provider: str) -> Any:
    """Return the whole usage of an answer as an object of genai-prices."""
    names, makers = EXTRACTORS[bill.api]
    for provider_id, flavor in [*((provider, name) for name in names), makers]:
        try:
            extracted = libraries.genai_prices.extract_usage(
                bill.reported, provider_id=provider_id, api_flavor=flavor
            )
        except ValueError:  # the provider has no extractor of this name, or one for another API
            if (provider_id, flavor) == makers:
                raise
        else:
            break
    return extracted.usage + libraries.genai_prices.Usage(**bill.tools)


@lru_cache(maxsize=4096)
def provider_of(model: str, address: str | None) -> str | None:
    """Return the name in genai-prices of the provider whose price applies, or ``None``."""
    # First the provider at the address, then OpenAI, unless the model is one that others serve, too.
    providers = [{"provider_api_url": address}] if address else []
    providers += [] if model.startswith(OPEN_WEIGHTS) else [{"provider_id": "openai"}]
    for provider in providers:
        try:
            found = libraries.genai_prices.calc_price(
                libraries.genai_prices.Usage(), model, **provider
            )
        except LookupError:  # it does not know the provider or the model
            continue
        return str(found.provider.id)
    return None
