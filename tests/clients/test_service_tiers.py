"""Service tiers: what is sent, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from clients import WAYS, Streamed, client_for
from pytest_httpserver import HTTPServer
from servers import OK, QUESTION, TWO_COINS, Answer, ScriptedServer, completion

import llmcall
from llmcall import OpenAIClient

PRICES = {"m": (1.0, 2.0)}
FULL = (12 * 1.0 + 3 * 2.0) / 1_000_000  # USD of an answer's 12 and 3 tokens at PRICES
HALF = FULL / 2
ASK = pytest.mark.parametrize("ask", WAYS.values(), ids=list(WAYS))


def served(tier: str | None, **fields: Any) -> Answer:
    """Return an answer that names the tier that served it, or none."""
    named = {} if tier is None else {"service_tier": tier}
    return Answer(200, completion(**named, **fields))


@pytest.fixture
def asking(httpserver: HTTPServer) -> Iterator[Any]:
    """A function that makes a client of a server with the answers that it is given, and the server."""
    clients: list[OpenAIClient] = []

    def make(*answers: Answer, **settings: Any) -> tuple[OpenAIClient, ScriptedServer]:
        server = ScriptedServer(httpserver, *answers)
        defaults = {"model": "m", "prices": PRICES, "cache_mode": "off", "on_error": "raise"}
        client = client_for(server.base_url, **{"api_key": "k", **defaults, **settings})
        clients.append(client)
        return client, server

    yield make
    for client in clients:
        client.close()


def tiers(server: ScriptedServer) -> list[str | None]:
    """Return the tier that each request named."""
    return [request.body.get("service_tier") for request in server.requests]


# What is sent


@pytest.mark.parametrize(("argument", "tier"), [(None, "flex"), ("default", "default")])
def test_an_argument_stands_above_the_setting(argument: str | None, tier: str, asking: Any) -> None:
    """``SERVICE_TIER`` is sent with each chat request, in no key, unless the call names a tier."""
    client, server = asking(served(tier), service_tier="flex")
    client.send_message(QUESTION, service_tier=argument)
    assert tiers(server) == [tier]
    plain, other = (client.build_request(QUESTION, service_tier=name) for name in (None, argument))
    assert plain.cache_key == other.cache_key


def test_an_unchanged_program_gets_the_tier_by_an_override(httpserver: HTTPServer) -> None:
    """``http_client(service_tier="flex")`` adds the tier to what the SDK sends."""
    server = ScriptedServer(httpserver, served("flex"))
    with openai.OpenAI(
        base_url=server.base_url, api_key="k", http_client=llmcall.http_client(service_tier="flex")
    ) as sdk:
        sdk.chat.completions.create(model="m", messages=QUESTION)  # type: ignore[arg-type]
        sdk.chat.completions.create(model="m", messages=QUESTION, n=2, service_tier="default")  # type: ignore[arg-type]
    assert tiers(server) == ["flex", "default"]


# What it costs


@pytest.mark.parametrize(
    ("tier", "cost"), [("flex", HALF), ("batch", HALF), ("default", FULL), (None, FULL)]
)
@ASK
def test_an_answer_costs_what_its_tier_costs(
    ask: Any, tier: str | None, cost: float, asking: Any
) -> None:
    """The tier that the response names decides, not the one that was asked for."""
    client, _ = asking(served(tier), service_tier="flex")
    reply = ask(client, QUESTION)
    assert reply.cost == pytest.approx(cost)


@pytest.mark.parametrize(("tier", "cost"), [("flex", HALF), (None, FULL)])
def test_a_streamed_answer_costs_what_its_tier_costs(tier: str | None, cost: float) -> None:
    """The chunks name the tier."""
    named = {} if tier is None else {"service_tier": tier}
    chunks = [{**piece, **named} for piece in TWO_COINS]
    client = Streamed(*chunks, model="m", prices=PRICES, cache_mode="off", service_tier="flex")
    with client.stream_message(QUESTION) as stream:
        "".join(stream)
    assert stream.reply is not None
    assert stream.reply.cost == pytest.approx(cost)


@pytest.mark.parametrize(
    ("tier", "prices", "cost"),
    [("flex", {"m flex": (0.25, 0.5)}, pytest.approx(FULL / 4)), ("priority", {}, None)],
)
def test_a_tier_may_have_a_price_of_its_own(tier: str, prices: Any, cost: Any, asking: Any) -> None:
    """``m flex = …`` in ``[Prices]`` is the price at flex; that of priority depends on the model, and is unknown
    until ``[Prices]`` says it.
    """
    client, _ = asking(served(tier), prices={**PRICES, **prices})
    assert client.send_message(QUESTION, service_tier=tier).cost == cost


@pytest.mark.feature("plans")
def test_a_plan_counts_at_the_tier_that_is_asked_for(asking: Any) -> None:
    """``dry_run`` at flex gives half of what it gives without."""
    client, _ = asking(OK)
    costs = []
    for tier in (None, "flex"):
        ask = llmcall.LLMCall(
            user="Hello {{ name }}", client=client, max_tokens=5, service_tier=tier
        )
        costs.append(ask.map([{"name": "Ann"}], dry_run=True).cost)
    (low, high), half = costs
    assert half == pytest.approx((low / 2, high / 2))
