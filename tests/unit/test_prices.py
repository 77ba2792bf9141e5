"""What models cost: as configured, else as a maintained package knows, else unknown."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from llmcall.models import prices
from llmcall.models.prices import price_of
from llmcall.testing import ScriptedClient


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Look every price up anew, and leave nothing to the tests that follow."""
    _forget()
    yield
    _forget()


def _forget() -> None:
    prices._packaged.cache_clear()
    prices._is_installed.cache_clear()


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be without the extra."""
    monkeypatch.setitem(sys.modules, "genai_prices", None)


def test_the_configured_price_goes_first(without_package: None) -> None:
    """What [Prices] says counts, whatever else is known."""
    found = price_of("gpt-4o-mini", {"gpt-4o-mini": (5.0, 7.0)})
    assert found is not None
    assert (found[:2], found.source) == ((5.0, 7.0), "[Prices]")


def test_without_the_extra_a_price_is_unknown(without_package: None) -> None:
    """A model that is not in [Prices] has no price."""
    assert price_of("gpt-4o-mini", {}) is None
    assert ScriptedClient(["yes"]).send_message("Hello", on_error="raise").cost is None


class Reporting(ScriptedClient):
    """Report a million prompt tokens with each answer."""

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Return the next answer with its usage."""
        return {**super().send(request, timeout), "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0}}


PACKAGED = [
    ("gpt-4o-mini", None, (0.15, 0.6)),
    ("gpt-4o-mini-2024-07-18", None, (0.15, 0.6)),
    ("text-embedding-3-small", None, (0.02, 0.0)),
    ("gpt-4o-mini", "https://api.openai.com/v1", (0.15, 0.6)),
    ("gpt-4o-mini", "http://127.0.0.1:8000/v1", (0.15, 0.6)),
    ("gpt-4o-mini", "https://name.openai.azure.com", (0.15, 0.6)),
]


@pytest.mark.parametrize(("model", "address", "expected"), PACKAGED)
def test_packaged_prices(model: str, address: str | None, expected: tuple[float, float]) -> None:
    """The package knows OpenAI's models wherever they are served, and says of what day the price is."""
    pytest.importorskip("genai_prices")
    found = price_of(model, {}, address=address)
    assert found is not None
    assert found[:2] == expected
    assert re.fullmatch(r"genai-prices [\d.]+ for \d{4}-\d\d-\d\d", found.source)


@pytest.mark.parametrize(("model", "address"), [
    ("gpt-oss-20b", "http://127.0.0.1:8000/v1"), ("llama-3.1-8b-instant", None), ("SmolLM2-135M-Instruct.Q4_1", None),
    ("ft:gpt-4o-mini:org::id", None), ("", None),
])  # fmt: skip
def test_what_the_package_does_not_say(model: str, address: str | None) -> None:
    """A model that anybody may serve has no price where it is not known who does."""
    pytest.importorskip("genai_prices")
    assert price_of(model, {}, address=address) is None


def test_a_provider_s_own_price() -> None:
    """Where the address is a provider's, its price of an open model counts."""
    pytest.importorskip("genai_prices")
    found = price_of("llama-3.1-8b-instant", {}, address="https://api.groq.com/openai/v1")
    assert found is not None
    assert 0 < found.input < found.output < 1


def test_a_long_prompt_may_cost_more() -> None:
    """Some models have a higher price for long prompts, which then holds for the whole call."""
    pytest.importorskip("genai_prices")
    address = "https://generativelanguage.googleapis.com/v1beta/openai/"
    short, long = (price_of("gemini-2.5-pro", {}, address=address, input_tokens=count) for count in (1000, 300_000))
    assert (short and short[:2], long and long[:2]) == ((1.25, 10.0), (2.5, 15.0))


def test_a_call_costs_what_the_package_says() -> None:
    """A client takes the price from the package where [Prices] has none."""
    pytest.importorskip("genai_prices")
    client = ScriptedClient(["yes"])
    assert (client.price("gpt-4o-mini") or ())[:3] == (0.15, 0.6, 0.075)


def test_a_usage_says_of_what_day_its_prices_are() -> None:
    """Below the table stands the version of the package and the day whose prices it gave."""
    pytest.importorskip("genai_prices")
    client = Reporting(["yes"])
    assert client.send_message("Hello", on_error="raise").cost == pytest.approx(0.15)
    note = str(client.usage).splitlines()[-1]
    assert re.fullmatch(r"priced by genai-prices [\d.]+ for \d{4}-\d\d-\d\d", note)
    assert client.usage.priced_by == (note.removeprefix("priced by "),)


def test_an_unknown_price_has_no_day(without_package: None) -> None:
    """Where the price is unknown the cost is a question mark, and nothing says whose it is."""
    client = Reporting(["yes"])
    assert client.send_message("Hello", on_error="raise").cost is None
    row = str(client.usage).splitlines()[-1].split()
    assert (row[0], row[-2]) == ("gpt-4o-mini", "?")
