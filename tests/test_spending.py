"""What users limit and count: requests a minute at the server, what a pool and cached input cost, usage by scope."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from servers import client_for, completion
from werkzeug import Request, Response

import llmcall
from llmcall.testing import ScriptedClient


def test_requests_a_minute_are_counted_where_they_are_sent(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever takes time between the admission of a call and its sending, no window at the server holds too many.

    The window is shortened, as nobody waits a minute for a test; a token that takes longer than it to come stands for
    the import of the SDK and the first connection.
    """
    monkeypatch.setattr("llmcall.engine.limits.WINDOW", 1.0)
    arrivals: list[float] = []
    asked, lock = [], threading.Lock()

    def handle(_: Request) -> Response:
        arrivals.append(time.monotonic())
        return Response(json.dumps(completion()), content_type="application/json")

    def token() -> str:
        with lock:
            asked.append(None)
            is_early = len(asked) <= 3
        if is_early:
            time.sleep(1.5)
        return "a-token"

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(handle)
    settings: dict[str, Any] = {"api_key": token, "cache_mode": "off", "limits_requests_per_minute": 3}
    with client_for(httpserver.url_for("/v1"), **settings) as client:
        texts = [f"call {number}" for number in range(6)]
        llmcall.map(lambda text: client.send_message(text, on_error="raise"), texts, workers=6)
    arrivals.sort()
    assert len(arrivals) == 6
    assert arrivals[3] - arrivals[0] >= 0.95


class Reporting(ScriptedClient):
    """Report 1,000 prompt tokens, 800 of them cached by the provider, and 100 of the answer."""

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Return the next answer with its usage."""
        usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 800}}
        return {**super().send(request, timeout), "usage": usage}


@pytest.mark.parametrize(("price", "cost"), [((10.0, 20.0), 0.012), ((10.0, 20.0, 1.0), 0.0048)])
def test_cached_input_has_a_price_of_its_own(price: tuple[float, ...], cost: float) -> None:
    """The third number of [Prices] is that of cached input; reply, usage and budget keep to it."""
    client = Reporting(["yes"], model="m", prices={"m": price})
    with llmcall.budget(usd=1) as budget:
        reply = client.send_message("Hello", max_tokens=100, on_error="raise")
    assert reply.cost == pytest.approx(cost)
    assert client.usage.cost == budget.spent.usd == pytest.approx(cost)
    assert client.usage.cached_input_tokens == 800
    assert "cached_input_tokens" in str(client.usage)


def test_the_price_is_that_of_the_endpoint_that_answered(httpserver: HTTPServer) -> None:
    """Of a pool, a call costs what the endpoint asks that answered, not what the first one does."""
    pytest.importorskip("genai_prices")

    class Pooled(llmcall.OpenAIClient):
        """Answer without a network."""

        def make_transport(self, endpoint: Any) -> Any:
            """Return what answers for every endpoint."""
            return Reporting(lambda messages: "yes")

    names = {"groq": "https://api.groq.com/openai/v1", "deepinfra": "https://api.deepinfra.com/v1/openai"}
    model = "openai/gpt-oss-120b"
    endpoints = [{"name": name, "models": [model], "api_key": "k", "base_url": url} for name, url in names.items()]
    client = Pooled(model=model, endpoints=endpoints, cache_mode="off", on_error="raise")
    costs = {reply.endpoint: reply.cost for reply in (client.send_message(text) for text in ("one", "two"))}
    assert len(set(costs.values())) == 2, costs


def test_usage_sums_up_each_level_of_scopes() -> None:
    """A scope's usage has that of the scopes inside it, whatever they are called; the frame has each path once."""
    client = ScriptedClient(lambda messages: "yes")
    with llmcall.scope("village"):
        client.send_message("Hello")
        with llmcall.scope("0123456789abcdef"):
            client.send_message("Hello")
    calls = {scope: part.calls for scope, part in client.usage.by_scope.items()}
    assert calls == {"village": 2, "village/0123456789abcdef": 1}
    pytest.importorskip("pandas")
    frame = client.usage.to_frame()
    assert list(frame["scope"]) == ["village", "village/0123456789abcdef"]
    assert list(frame["calls"]) == [1, 1]


def test_the_error_of_a_budget_says_what_is_left_and_what_to_do() -> None:
    """It shows the money that is left and that the next call may cost, and how to go on."""
    client = ScriptedClient(["yes"], model="m", prices={"m": (1.0, 100.0)})
    said = r"^\$0\.0003 left; the next call may cost up to \$0\.0\d+: set max_tokens, or raise the budget$"
    with llmcall.budget(usd=0.0003), pytest.raises(llmcall.BudgetExceededError, match=said):
        client.send_message("Hello", max_tokens=98)
