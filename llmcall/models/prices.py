"""What models cost: as ``[Prices]`` says, else as the package ``genai-prices`` knows (the extra ``prices``).

genai-prices is kept by the makers of pydantic: its wheel holds the prices of hundreds of models with the dates from
which they hold, and those of today are taken. Nothing is looked up in the network.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..types import TokenUsage

__all__ = ["Price", "price_of"]

MILLION = 1_000_000
OPEN_WEIGHTS = "gpt-oss"  # OpenAI's models that anybody may serve, at a price of their own


class Price(NamedTuple):
    """Hold a model's price, in USD per million tokens.

    :param input: of the prompt.
    :param output: of the answer.
    :param cached_input: of those tokens of the prompt that the provider had cached.
    :param source: ``"[Prices]"``, or the package and its version, and the day whose price it is.
    """

    input: float
    output: float
    cached_input: float
    source: str = "[Prices]"

    def of_tokens(self, tokens: TokenUsage) -> float:
        """Return the price of an answer's tokens, in millionths of a USD; a number that is unknown is 0."""
        whole = tokens.input_tokens or 0
        cached = min(tokens.cached_tokens or 0, whole)
        return (whole - cached) * self.input + cached * self.cached_input + (tokens.output_tokens or 0) * self.output

    def cost(self, tokens: TokenUsage) -> float | None:
        """Return the USD of an answer's tokens, or ``None`` where the server did not report them."""
        return None if tokens.input_tokens is None else self.of_tokens(tokens) / MILLION


def price_of(
    model: str, configured: Mapping[str, Sequence[float]], *, address: str | None = None, input_tokens: int = 0
) -> Price | None:
    """Return a model's price, or ``None`` where nobody knows it.

    :param model: its name after aliases.
    :param configured: ``[Prices]``, which goes first: USD per million tokens in and out and, as a third number, of
        input that the provider had cached; without that, cached input costs what input does.
    :param address: that of the API. Where it is none of a provider that the package knows, only the names of OpenAI's
        own models have a price: anybody may serve the others.
    :param input_tokens: of the prompt: some models cost more for a long one.
    """
    found = configured.get(model)
    if found is not None:
        return Price(found[0], found[1], found[2] if len(found) > 2 else found[0])
    if not _is_installed():
        return None
    from datetime import datetime, timezone

    return _packaged(model, address, input_tokens, datetime.now(timezone.utc).date().isoformat())


@lru_cache(maxsize=4096)
def _packaged(model: str, address: str | None, input_tokens: int, day: str) -> Price | None:
    from datetime import datetime, timezone

    import genai_prices

    tokens = max(1, input_tokens)
    when = datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
    for provider in _providers(model, address):

        def usd(field: str, cached: int, of: dict[str, str] = provider) -> float:
            """Return the USD of the prompt, or of a million tokens of an answer."""
            usage = genai_prices.Usage(input_tokens=tokens, cache_read_tokens=cached, output_tokens=MILLION)
            found = genai_prices.calc_price(usage, model, genai_request_timestamp=when, **of)
            return float(getattr(found, field))

        try:
            whole, cached = (round(usd("input_price", count) / tokens * MILLION, 9) for count in (0, tokens))
        except LookupError:
            continue
        return Price(whole, usd("output_price", 0), cached, f"genai-prices {_version()} for {day}")
    return None


def _providers(model: str, address: str | None) -> Iterator[dict[str, str]]:
    """Yield whose prices may hold: those at the address; OpenAI's where only OpenAI's models have such names."""
    if address:
        yield {"provider_api_url": address}
    if not model.startswith(OPEN_WEIGHTS):
        yield {"provider_id": "openai"}


@lru_cache(maxsize=1)
def _is_installed() -> bool:
    """Look for the package once: every failed import walks through all of the path."""
    from importlib.util import find_spec

    return find_spec("genai_prices") is not None


@lru_cache(maxsize=1)
def _version() -> str:
    from importlib.metadata import version

    return version("genai-prices")
