"""Prices of models.

Prices come from ``[Prices]``, or else from the package ``genai-prices``. Its wheel, by the makers of
pydantic, has the prices of hundreds of models, with dates. Nothing is looked up in the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeAlias

from ..apis.billing import Bill
from ..apis.shapes import object_in
from ..apis.usage import TokenUsage
from ..support.notices import warn_once

# The share of the standard price of tokens that is paid.
# "Flex processing", OpenAI's guide: tokens are priced at the rates of the Batch API. "Batch API",
# OpenAI's guide: 50 % of the standard price. Azure's "Use Flex processing" says 50 %, too.
# "Background mode", OpenAI's guide: 30 % and 40 % below it for answers within 2 and 8 hours.
SHARES = {"flex": 0.5, "batch": 0.5, "2h": 0.7, "8h": 0.6}
# These cost more than the standard tier, by a factor that depends on the model: OpenAI's price list,
# "Service tiers"; Anthropic's "Fast mode" and "Data residency" (``us``).
DEARER_TIERS = frozenset({"priority", "fast", "us"})
# The providers whose tiers SHARES describes, as genai-prices names them.
PROVIDERS_WITH_SHARES = frozenset({"openai", "azure"})
MILLION = 1_000_000
OPEN_WEIGHTS = "gpt-oss"  # OpenAI's models that anybody may serve, at a price of their own

# What is used, by what genai-prices calls it: input_tokens, of which cache_read_tokens, output_tokens …
Parts: TypeAlias = Mapping[str, int]

# The extractors of genai-prices that read what an API reports: those of the provider by these names,
# or else that of the API's maker.
EXTRACTORS: dict[str, tuple[tuple[str, ...], tuple[str, str]]] = {
    "chat": (("chat", "default"), ("openai", "chat")),
    "responses": (("responses",), ("openai", "responses")),
    "messages": (("anthropic",), ("anthropic", "default")),
    "gemini": ((), ("google", "default")),
    "embeddings": (("embeddings",), ("openai", "embeddings")),
}
# The price that a model must have for what it used. genai-prices gives a part that has none the price of
# the whole, which is right for text that was cached or thought. For these it is too low, or nothing.
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
# Google's price list has one price for text, images, video and audio unless it names another.
PROVIDER_OF_MEDIA_AT_ONE_PRICE = "google"


class Cost(NamedTuple):
    """The cost of a call, in USD.

    :param prompt: for the prompt's tokens.
    :param total: for all: the answer's tokens and what the provider bills besides, such as searches, too.
    """

    prompt: float
    total: float


class Price(Protocol):
    """The price of a model, at one provider and tier."""

    @property
    def source(self) -> str:
        """``"[Prices]"``, or the package with its version and the price's day."""
        ...

    def cost_of_parts(self, parts: Parts) -> Cost:
        """Return what some tokens cost; a part without a price of its own costs what the whole does."""
        ...

    def cost_of_answer(self, response: Mapping[str, Any]) -> Cost | None:
        """Return what an answer cost by all that it reports; ``None`` if it reports no tokens, or something
        that has no price.
        """
        ...


class ConfiguredPrice(NamedTuple):
    """A price in ``[Prices]``, in USD per million tokens.

    :param input: for the prompt's tokens, also those of images and audio, and those written to the
        provider's cache.
    :param output: for the answer's tokens.
    :param cached_input: for those prompt tokens that the provider had cached.
    """

    input: float
    output: float
    cached_input: float
    source: str = "[Prices]"

    @classmethod
    def of(cls, numbers: Sequence[float], share: float = 1) -> ConfiguredPrice:
        """Return a share of the price that two or three numbers are."""
        shared = [round(number * share, 12) for number in numbers]
        return cls(shared[0], shared[1], shared[2] if len(shared) > 2 else shared[0])

    def cost_of_parts(self, parts: Parts) -> Cost:
        """Return what some tokens cost."""
        input_tokens = parts["input_tokens"]
        cached = min(parts.get("cache_read_tokens", 0), input_tokens)
        prompt = (input_tokens - cached) * self.input + cached * self.cached_input
        answer = parts.get("output_tokens", 0) * self.output
        return Cost(prompt / MILLION, (prompt + answer) / MILLION)

    def cost_of_answer(self, response: Mapping[str, Any]) -> Cost | None:
        """Return what an answer cost; ``None`` if it reports no tokens, or anything but tokens."""
        tokens, bill = TokenUsage.of(response), Bill.of(response)
        if tokens.input_tokens is None or bill.tools:
            return None
        return self.cost_of_parts(
            {
                "input_tokens": tokens.input_tokens,
                "cache_read_tokens": tokens.cached_tokens or 0,
                "output_tokens": tokens.output_tokens or 0,
            }
        )


class PackagedPrice(NamedTuple):
    """A price in genai-prices.

    :param model: the model.
    :param provider: the provider, by the package's name for it.
    :param time: the time whose price it is.
    :param share: the share of it that is paid for tokens.
    """

    model: str
    provider: str
    time: datetime
    share: float

    @property
    def source(self) -> str:
        """The package with its version and the price's day."""
        from ..support.libraries import genai_prices

        return f"genai-prices {genai_prices.__version__} for {self.time.date().isoformat()}"

    def cost_of_parts(self, parts: Parts) -> Cost:
        """Return what some tokens cost; a part without a price of its own costs what the whole does."""
        return _calculated_cost(self, tuple(parts.items()))

    def cost_of_answer(self, response: Mapping[str, Any]) -> Cost | None:
        """Return what an answer cost by all that it reports; ``None`` if it reports no tokens, or something
        that has no price.
        """
        bill = Bill.of(response)
        if (
            TokenUsage.of(response).input_tokens is None
            or bill.tools.keys() - NECESSARY_PRICES.keys()
        ):
            return None
        try:
            usage = _usage(bill, self.provider)
            calculation = self.calculate(usage)
        # What a server reports may contradict itself; and where warnings are errors, the package raises them.
        except (ValueError, Warning) as error:
            warn_once(
                f"the cost of {self.model}'s answers is unknown where genai-prices refuses what the server reports: "
                f"{error}",
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

    def calculate(self, usage: Any) -> Any:
        """Return what genai-prices says that a usage costs."""
        from ..support.libraries import genai_prices

        return genai_prices.calc_price(
            usage, self.model, provider_id=self.provider, genai_request_timestamp=self.time
        )

    def shared(self, calculation: Any) -> Cost:
        """Return a cost that genai-prices calculated; a tier lowers that of the tokens alone."""
        share = Decimal(str(self.share))
        tokens = calculation.input_price + calculation.output_price
        besides = calculation.total_price - tokens
        return Cost(float(calculation.input_price * share), float(tokens * share + besides))


class HighestPrice(NamedTuple):
    """The highest of the prices that several providers of a model ask.

    :param prices: theirs.
    """

    prices: tuple[Price, ...]

    @property
    def source(self) -> str:
        """The sources of all."""
        return ", ".join(sorted({price.source for price in self.prices}))

    def cost_of_parts(self, parts: Parts) -> Cost:
        """Return the most that some tokens cost."""
        return max(
            (price.cost_of_parts(parts) for price in self.prices), key=lambda cost: cost.total
        )

    def cost_of_answer(self, response: Mapping[str, Any]) -> Cost | None:
        """Return the most that an answer may have cost; ``None`` if a cost is unknown."""
        costs = [price.cost_of_answer(response) for price in self.prices]
        known = [cost for cost in costs if cost is not None]
        return max(known, key=lambda cost: cost.total) if len(known) == len(costs) else None


@lru_cache(maxsize=4096)
def _calculated_cost(price: PackagedPrice, parts: tuple[tuple[str, int], ...]) -> Cost:
    from ..support.libraries import genai_prices

    return price.shared(price.calculate(genai_prices.Usage(**dict(parts))))


def _usage(bill: Bill, provider: str) -> Any:
    """Return the whole usage of an answer, as genai-prices has it.

    :raises ValueError: if none can be read.
    """
    from ..support.libraries import genai_prices

    names, makers = EXTRACTORS[bill.api]
    for provider_id, flavor in [*((provider, name) for name in names), makers]:
        try:
            extracted = genai_prices.extract_usage(
                bill.reported, provider_id=provider_id, api_flavor=flavor
            )
        except ValueError:  # the provider has none of this name, or it is for another API
            if (provider_id, flavor) == makers:
                raise
        else:
            break
    return extracted.usage + genai_prices.Usage(**bill.tools)


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
    of_gemini = object_in(data.get("usageMetadata")).get("serviceTier")
    tier = (
        window_of(data)
        or data.get("service_tier")
        or _dearer(data)
        or _dearer(data.get("usage"))
        or str(of_gemini or "").lower()
        or None
    )
    return tier if isinstance(tier, str) else None


def _dearer(fields: Any) -> str | None:
    """Return the dearer tier that a body of the Messages API, or a usage of its, names in its own way."""
    if not isinstance(fields, dict):
        return None
    if fields.get("speed") == "fast":
        return "fast"
    return "us" if fields.get("inference_geo") == "us" else None


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
    service_tier: str | None = None,
    time: datetime | None = None,
) -> Price | None:
    """Return a model's price, or ``None`` if nobody knows it.

    :param model: its name after aliases.
    :param configured: ``[Prices]``, which goes first: USD per million tokens in and out and, as a
        third number, of input that the provider had cached; without that, cached input costs what
        input does. ``"gpt-6-luna flex"`` is the price of a tier, ``"gpt-6-luna 8h"`` of a window.
    :param address: that of the API. If it is none of a provider that the package knows, only the
        names of OpenAI's own models have a price: anybody may serve the others.
    :param service_tier: as the API names it, or a window. The tiers flex and batch cost half;
        a dearer one has a price only if ``configured`` names it; any other tier costs what the
        model costs.
    :param time: whose price it is; ``None`` is now.
    """
    if f"{model} {service_tier}" in configured:
        return ConfiguredPrice.of(configured[f"{model} {service_tier}"])
    if service_tier in DEARER_TIERS:
        return None
    share = SHARES.get(service_tier or "", 1)
    if model in configured:
        return ConfiguredPrice.of(configured[model], share)
    provider = _provider_of(model, address)
    if provider is None:
        return None
    # In whole minutes, so that equal costs are calculated once.
    time = (time or datetime.now(timezone.utc)).replace(second=0, microsecond=0)
    return PackagedPrice(model, provider, time, share if provider in PROVIDERS_WITH_SHARES else 1)


@lru_cache(maxsize=4096)
def _provider_of(model: str, address: str | None) -> str | None:
    """Return the provider whose price genai-prices knows, by its name there, or ``None``."""
    try:
        from ..support.libraries import genai_prices
    except ImportError as error:
        warn_once(f"costs are unknown: genai-prices cannot be imported ({error}); install it again")
        return None
    # The provider at the address; and OpenAI, if only OpenAI's models have such names.
    providers = [{"provider_api_url": address}] if address else []
    providers += [] if model.startswith(OPEN_WEIGHTS) else [{"provider_id": "openai"}]
    for provider in providers:
        try:
            found = genai_prices.calc_price(genai_prices.Usage(), model, **provider)
        except LookupError:  # it does not know the provider or the model
            continue
        return str(found.provider.id)
    return None
