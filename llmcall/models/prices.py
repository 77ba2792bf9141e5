"""What models cost: as ``[Prices]`` says, else as the package ``genai-prices`` knows (the extra ``prices``).

genai-prices is kept by the makers of pydantic: its wheel holds the prices of hundreds of models with the dates from
which they hold, and those of today are taken. Nothing is looked up in the network.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Price", "price_of"]

MILLION = 1_000_000
OPEN_WEIGHTS = "gpt-oss"  # OpenAI's models that anybody may serve, at a price of their own


class Price(NamedTuple):
    """Hold a model's price.

    :param input: USD per million prompt tokens.
    :param output: USD per million tokens of answers.
    :param source: ``"[Prices]"``, or the package and its version, and the day whose price it is.
    """

    input: float
    output: float
    source: str

    @property
    def pair(self) -> tuple[float, float]:
        """Return input and output."""
        return self.input, self.output


def price_of(
    model: str, configured: Mapping[str, tuple[float, ...]], *, address: str | None = None, input_tokens: int = 0
) -> Price | None:
    """Return a model's price, or ``None`` where nobody knows it.

    :param model: its name after aliases.
    :param configured: ``[Prices]``, which goes first.
    :param address: that of the API. Where it is none of a provider that the package knows, only the names of OpenAI's
        own models have a price: anybody may serve the others.
    :param input_tokens: of the prompt: some models cost more for a long one.
    """
    found = configured.get(model)
    if found is not None:
        return Price(found[0], found[1], "[Prices]")
    if not _is_installed():
        return None
    from datetime import datetime, timezone

    return _packaged(model, address, input_tokens, datetime.now(timezone.utc).date().isoformat())


@lru_cache(maxsize=4096)
def _packaged(model: str, address: str | None, input_tokens: int, day: str) -> Price | None:
    from datetime import datetime, timezone

    import genai_prices

    tokens = max(1, input_tokens)
    usage = genai_prices.Usage(input_tokens=tokens, output_tokens=MILLION)
    when = datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
    for provider in _providers(model, address):
        try:
            found = genai_prices.calc_price(usage, model, genai_request_timestamp=when, **provider)
        except LookupError:
            continue
        source = f"genai-prices {_version()} for {day}"
        return Price(round(float(found.input_price) / tokens * MILLION, 9), float(found.output_price), source)
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
