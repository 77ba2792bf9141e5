"""The flex tier, and others: what is sent, what it costs, and what happens without capacity."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pytest_httpserver import HTTPServer
from servers import (
    OK,
    QUESTION,
    Answer,
    ScriptedServer,
    client_for,
    completion,
    embeddings,
    refusal,
)
from streaming import TWO_COINS, WAYS, Streamed

import llmcall
from llmcall import Endpoint, LLMClient, OpenAIClient
from llmcall.clients.sdk_exceptions import http_library
from llmcall.errors import (
    BudgetExceededError,
    ConfigError,
    InvalidRequestError,
    RateLimitError,
    RequestTimeoutError,
)

PRICES = {"m": (1.0, 2.0)}
FULL = (12 * 1.0 + 3 * 2.0) / 1_000_000  # USD of an answer's 12 and 3 tokens at PRICES
HALF = FULL / 2
# OpenAI's guide on flex processing: status 429, "Resource Unavailable", which is not charged.
NO_CAPACITY = refusal(
    429, "Resource Unavailable: no capacity for this tier", code="resource_unavailable"
)
NO_SUCH_TIER = refusal(400, "Unsupported service_tier: flex", param="service_tier")
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
        given = {"model": "m", "prices": PRICES, "cache_mode": "off", "on_error": "raise"}
        client = client_for(server.base_url, **{"api_key": "k", **given, **settings})
        clients.append(client)
        return client, server

    yield make
    for client in clients:
        client.close()


def tiers(server: ScriptedServer) -> list[str | None]:
    """Return the tier that each request named."""
    return [request.body.get("service_tier") for request in server.requests]


class Timed(LLMClient):
    """Note the seconds that each attempt may take."""

    def send(self, request: Any, timeout: float | None) -> Any:
        """Answer, and keep the time."""
        self.seconds = timeout
        return completion()


# What is sent


def test_a_setting_asks_for_the_tier(asking: Any) -> None:
    """``SERVICE_TIER`` is sent with each chat request."""
    client, server = asking(served("flex"), service_tier="flex")
    client.send_message(QUESTION)
    assert tiers(server) == ["flex"]


def test_an_argument_stands_above_the_setting(asking: Any) -> None:
    """``service_tier=`` of a call is sent in place of the setting's."""
    client, server = asking(served("default"), service_tier="flex")
    client.send_message(QUESTION, service_tier="default")
    assert tiers(server) == ["default"]


def test_the_tier_is_in_no_key(asking: Any) -> None:
    """The same request has the same key at any tier."""
    client, _ = asking(OK)
    plain, flex = (client.build_request(QUESTION, service_tier=each) for each in (None, "flex"))
    assert plain.cache_key == flex.cache_key


def test_an_answer_at_one_tier_is_replayed_at_another(asking: Any) -> None:
    """What flex answered is a hit without it."""
    client, server = asking(served("flex"), cache_mode="auto", service_tier="flex")
    client.send_message(QUESTION)
    with llmcall.configured(service_tier="default"):
        reply = client.send_message(QUESTION, service_tier="priority")
    assert reply is not None
    assert reply.cached
    assert len(server.requests) == 1


def test_embeddings_get_no_tier(asking: Any) -> None:
    """The embeddings API has no tiers."""
    client, server = asking(Answer(200, embeddings([1.0])), service_tier="flex")
    client.get_embedding("Hello", model="e")
    assert tiers(server) == [None]


def test_an_unchanged_program_gets_the_tier_by_an_override(httpserver: HTTPServer) -> None:
    """``http_client(service_tier="flex")`` adds the tier to what the SDK sends."""
    server = ScriptedServer(httpserver, served("flex"))
    with openai.OpenAI(
        base_url=server.base_url, api_key="k", http_client=llmcall.http_client(service_tier="flex")
    ) as sdk:
        sdk.chat.completions.create(model="m", messages=QUESTION)  # type: ignore[arg-type]
        sdk.chat.completions.create(model="m", messages=QUESTION, n=2, service_tier="default")  # type: ignore[arg-type]
    assert tiers(server) == ["flex", "default"]


def test_an_unchanged_program_gets_no_tier_of_the_settings(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the SDK sends stays as it is, whatever config.ini or the environment says."""
    monkeypatch.setenv("LLMCALL_SERVICE_TIER", "flex")
    server = ScriptedServer(httpserver, OK)
    with openai.OpenAI(
        base_url=server.base_url, api_key="k", http_client=llmcall.http_client()
    ) as sdk:
        sdk.chat.completions.create(model="m", messages=QUESTION)  # type: ignore[arg-type]
    assert tiers(server) == [None]


# How long it may take


def test_an_attempt_at_flex_has_900_seconds() -> None:
    """Flex answers more slowly; the guide's example waits 900 s."""
    client = Timed(cache_mode="off", service_tier="flex")
    client.send_message("Hello")
    assert client.seconds == 900.0


def test_an_attempt_that_asks_for_flex_itself_has_900_seconds() -> None:
    """It is the call's tier that counts, not the setting's."""
    client = Timed(cache_mode="off")
    client.send_message("Hello", service_tier="flex")
    assert client.seconds == 900.0


@pytest.mark.parametrize("given", [{"timeout": 30.0}, {"timeout": 60.0}])
def test_a_timeout_that_is_set_counts_at_flex_too(given: dict[str, float]) -> None:
    """A ``TIMEOUT`` of one's own holds, the default's value included."""
    client = Timed(cache_mode="off", service_tier="flex", **given)
    client.send_message("Hello")
    assert client.seconds == given["timeout"]


def test_the_sdks_own_timeout_counts_as_none_set() -> None:
    """The 600 s that the SDK takes by itself become 900; a number of the program's stays."""
    seen: list[Any] = []

    def respond(request: Any) -> Any:
        seen.append(request.extensions["timeout"]["read"])
        return http.Response(200, json=completion(service_tier="flex"))

    http = http_library()
    with (
        http.Client(transport=http.MockTransport(respond)) as inner,
        openai.OpenAI(base_url="http://a.example/v1", api_key="k", http_client=inner) as sdk,
        llmcall.patched(service_tier="flex", cache_mode="off"),
    ):
        sdk.chat.completions.create(model="m", messages=QUESTION)  # type: ignore[arg-type]
        sdk.chat.completions.create(model="m", messages=QUESTION, timeout=7)  # type: ignore[arg-type]
    assert seen == [900, 7]


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
    chunks = [{**each, **named} for each in TWO_COINS]
    client = Streamed(*chunks, model="m", prices=PRICES, cache_mode="off", service_tier="flex")
    with client.stream_message(QUESTION) as stream:
        "".join(stream)
    assert stream.reply is not None
    assert stream.reply.cost == pytest.approx(cost)
    assert client.usage.full_price_calls == (tier is None)


def test_a_stream_that_is_left_is_billed_at_its_tier() -> None:
    """What came until then counts at half price."""
    chunks = [{**each, "service_tier": "flex"} for each in TWO_COINS]
    client = Streamed(*chunks, model="m", prices=PRICES, cache_mode="off", service_tier="flex")
    with llmcall.budget(usd=1) as budget, client.stream_message(QUESTION) as stream:
        next(iter(stream))
    prompt = llmcall.count_tokens(QUESTION, "m")
    assert budget.spent.usd == pytest.approx((prompt * 1.0 + 1 * 2.0) / 2 / 1e6)


def test_a_tier_may_have_a_price_of_its_own(asking: Any) -> None:
    """``m flex = …`` in ``[Prices]`` is the price at flex."""
    client, _ = asking(served("flex"), prices={**PRICES, "m flex": (0.25, 0.5)})
    reply = client.send_message(QUESTION, service_tier="flex")
    assert reply.cost == pytest.approx(FULL / 4)


def test_a_tiers_price_stands_in_config_ini(tmp_path: Path) -> None:
    """The second entry is read from a file like the first."""
    Path("config.ini").write_text("[Prices]\nm = 1, 2\nm flex = 0.25, 0.5\n", encoding="utf-8")
    assert llmcall.settings().prices["m flex"] == (0.25, 0.5)


def test_the_price_of_priority_is_not_guessed(asking: Any) -> None:
    """It costs more by a factor that depends on the model: unknown until ``[Prices]`` says it."""
    client, _ = asking(served("priority"))
    assert client.send_message(QUESTION, service_tier="priority").cost is None


def test_a_budget_names_the_price_that_a_tier_lacks(asking: Any) -> None:
    """A budget in USD refuses a tier without a price before the call, and says what to write."""
    client, server = asking(served("priority"))
    with llmcall.budget(usd=1), pytest.raises(ConfigError, match="m priority = "):
        client.send_message(QUESTION, service_tier="priority")
    assert not server.requests


def test_usage_counts_the_calls_that_went_at_full_price(asking: Any) -> None:
    """Of those that asked for flex, the ones that another tier served."""
    client, _ = asking(served("flex"), served("default"), served(None), service_tier="flex")
    for _ in range(3):
        client.send_message(QUESTION)
    assert (client.usage.calls, client.usage.full_price_calls) == (3, 2)
    assert client.usage.cost == pytest.approx(HALF + 2 * FULL)
    assert "full_price_calls" in str(client.usage)


def test_usage_shows_no_full_price_calls_without_flex(asking: Any) -> None:
    """Whoever asks for no tier sees nothing of it."""
    client, _ = asking(OK)
    client.send_message(QUESTION)
    assert client.usage.full_price_calls == 0
    assert "full_price" not in str(client.usage)


@ASK
def test_a_budget_holds_exactly_at_half_price(ask: Any, asking: Any) -> None:
    """Money for two calls at half price is enough for two, and not for three."""
    prompt = llmcall.count_tokens(QUESTION, "m")
    usage = {"prompt_tokens": prompt, "completion_tokens": 3}
    client, server = asking(served("flex", usage=usage), service_tier="flex", max_tokens=3)
    half = (prompt * 1.0 + 3 * 2.0) / 2 / 1_000_000
    with llmcall.budget(usd=2 * half) as budget:
        ask(client, QUESTION)
        ask(client, QUESTION)
        with pytest.raises(BudgetExceededError):
            ask(client, QUESTION)
    assert budget.spent.usd == pytest.approx(2 * half)
    assert len(server.requests) == 2


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


# No capacity


@ASK
def test_a_tier_without_capacity_is_asked_again(ask: Any, asking: Any) -> None:
    """It is tried again as the retry settings say, at half price."""
    client, server = asking(NO_CAPACITY, NO_CAPACITY, served("flex"), service_tier="flex")
    assert ask(client, QUESTION) is not None
    assert tiers(server) == ["flex"] * 3


@pytest.fixture
def fallen_back(asking: Any) -> tuple[OpenAIClient, ScriptedServer]:
    """A client whose flex tier has no capacity, and the server."""
    made: tuple[OpenAIClient, ScriptedServer] = asking(
        *[NO_CAPACITY] * 3, served("default"), service_tier="flex"
    )
    return made


@ASK
def test_after_the_attempts_the_standard_tier_is_asked(
    ask: Any, fallen_back: tuple[OpenAIClient, ScriptedServer]
) -> None:
    """The call counts as one at full price."""
    client, server = fallen_back
    ask(client, QUESTION)
    assert tiers(server) == ["flex"] * 3 + ["default"]
    assert client.usage.full_price_calls == 1


@ASK
def test_that_a_tier_without_capacity_costs_the_full_price_is_told_once(
    ask: Any,
    fallen_back: tuple[OpenAIClient, ScriptedServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A second call at full price is counted, without a word."""
    client, _ = fallen_back
    ask(client, QUESTION)
    ask(client, QUESTION)
    assert client.usage.full_price_calls == 2
    assert sum("full price" in record.getMessage() for record in caplog.records) == 1


def test_fail_raises_what_the_api_said(asking: Any) -> None:
    """``FLEX_FALLBACK = fail`` asks no other tier."""
    client, server = asking(NO_CAPACITY, service_tier="flex", flex_fallback="fail")
    with pytest.raises(RateLimitError, match="no capacity"):
        client.send_message(QUESTION)
    assert tiers(server) == ["flex"] * 3


def test_wait_waits_past_the_attempts(asking: Any) -> None:
    """``FLEX_FALLBACK = wait`` asks until there is capacity."""
    client, server = asking(
        *[NO_CAPACITY] * 8, served("flex"), service_tier="flex", flex_fallback="wait"
    )
    client.send_message(QUESTION)
    assert tiers(server) == ["flex"] * 9


def test_wait_waits_no_longer_than_the_longest_wait(asking: Any) -> None:
    """However fast the waits grow, none is longer than ``[Retry] MAX_WAITING_TIME``."""
    client, server = asking(
        *[NO_CAPACITY] * 4, served("flex"), service_tier="flex", flex_fallback="wait"
    )
    with llmcall.configured(retry_max_waiting_time=0.01):
        client.send_message(QUESTION, exponential_backoff_factor=1e200, max_attempts=3)
    assert tiers(server) == ["flex"] * 5


def test_wait_ends_at_the_deadline(asking: Any) -> None:
    """A deadline bounds the waiting, in a wait or in an attempt."""
    client, server = asking(NO_CAPACITY, service_tier="flex", flex_fallback="wait")
    with pytest.raises((RateLimitError, RequestTimeoutError)):
        client.send_message(QUESTION, deadline=0.5, waiting_time=0.05)
    assert set(tiers(server)) <= {"flex"}


def test_no_capacity_lets_no_endpoint_rest(httpserver: HTTPServer) -> None:
    """Another call at the standard tier goes to the endpoint at once, though it said 429."""
    server = ScriptedServer(httpserver, NO_CAPACITY, OK)
    with client_for(
        server.base_url, api_key="k", cache_mode="off", model="m", retry_max_attempts=1
    ) as client:
        with llmcall.configured(flex_fallback="fail"):
            assert client.send_message(QUESTION, service_tier="flex", waiting_time=60) is None
        assert client.send_message(QUESTION, deadline=30) is not None


def test_an_ordinary_429_stays_a_rate_limit(asking: Any) -> None:
    """Only the API's own word for it means that the tier has no capacity."""
    client, server = asking(refusal(429, "Rate limit reached"), service_tier="flex")
    with pytest.raises(RateLimitError):
        client.send_message(QUESTION)
    assert tiers(server) == ["flex"] * 3


def test_the_fallback_reserves_at_full_price(asking: Any) -> None:
    """Money for a call at half price alone is not enough for the fallback."""
    client, server = asking(*[NO_CAPACITY] * 3, OK, service_tier="flex", max_tokens=3)
    prompt = client.count_tokens(QUESTION)
    with (
        llmcall.budget(usd=(prompt * 1.0 + 3 * 2.0) / 2 / 1_000_000),
        pytest.raises(BudgetExceededError),
    ):
        client.send_message(QUESTION)
    assert tiers(server) == ["flex"] * 3


def test_groqs_word_for_no_capacity_is_understood(asking: Any) -> None:
    """Groq answers 498 and ``capacity_exceeded``."""
    full = refusal(498, "Flex tier capacity exceeded", code="capacity_exceeded")
    client, server = asking(full, served("flex"), service_tier="flex")
    client.send_message(QUESTION)
    assert tiers(server) == ["flex"] * 2


# A model without the tier


@ASK
def test_a_model_without_the_tier_is_asked_without_it(
    ask: Any, asking: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The parameter is dropped with one notice, and not sent again in this process."""
    client, server = asking(NO_SUCH_TIER, OK, service_tier="flex", model="without-flex")
    with caplog.at_level(logging.WARNING, logger="llmcall"):
        ask(client, QUESTION)
        ask(client, QUESTION)
    assert tiers(server) == ["flex", None, None]
    assert sum("service_tier" in record.getMessage() for record in caplog.records) == 1


def test_a_tier_that_no_server_has_is_an_error(asking: Any) -> None:
    """It is misspelt, so nothing is asked in its place."""
    client, server = asking(NO_SUCH_TIER, OK, service_tier="flexible")
    with pytest.raises(InvalidRequestError, match="Unsupported service_tier"):
        client.send_message(QUESTION)
    assert tiers(server) == ["flexible"]


def test_two_endpoints_of_a_pool_are_asked_at_the_tier(httpserver: HTTPServer) -> None:
    """A pool's endpoint without capacity does not rest, and the pool is not passed over."""
    server = ScriptedServer(httpserver, NO_CAPACITY, served("flex"))
    pool = [Endpoint(name, models=("m",), base_url=server.base_url, api_key="k") for name in "ab"]
    with client_for(
        server.base_url, endpoints=pool, api_key="k", cache_mode="off", model="m", on_error="raise"
    ) as client:
        client.send_message(QUESTION, service_tier="flex")
    assert tiers(server) == ["flex"] * 2
