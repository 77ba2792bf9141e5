"""A program's requests that are neither chats nor embeddings: recorded as they are, and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from sdk_programs import Server, http, program

import llmcall

# no form of credential that anybody knows: 24 letters and digits
PLAIN_KEY = "q7w8e9r0t1y2u3i4o5p6a7s8"


@pytest.fixture
def server() -> Server:
    """Make a server."""
    return Server()


def client(server: Server, **overrides: Any) -> Any:
    """Return an HTTP client whose requests are recorded."""
    return llmcall.http_client(transport=server.transport, **overrides)


def test_what_differs_in_host_or_query_is_another_request(server: Server) -> None:
    """Method, host, port, path, query and body identify a request: each of them asks anew."""
    urls = [
        "https://one.example/lookup?item=bread",
        "https://two.example/lookup?item=bread",
        "https://one.example:8443/lookup?item=bread",
        "https://one.example/lookup?item=salt",
        "https://one.example/lookup?item=bread&item=salt",
        "https://one.example/lookup",
        "https://one.example/look%2Fup",
    ]

    def run(mode: str) -> list[str]:
        with client(server, cache_mode=mode) as http_client:
            posted = [http_client.post(url, json={"n": 1}).json()["id"] for url in urls]
            return posted + [http_client.get(url).json()["id"] for url in urls]

    live = run("auto")
    assert len(set(live)) == 2 * len(urls)
    assert run("replay") == live and len(server.requests) == 2 * len(urls)


def test_the_default_port_and_the_order_of_a_query_do_not_matter(server: Server) -> None:
    """An address is the same with its default port, and its query in another order of names."""
    with client(server) as http_client:
        first = http_client.post("https://one.example/lookup?a=1&b=2", json={}).json()
        again = http_client.post("https://one.example:443/lookup?b=2&a=1", json={}).json()
    assert first == again and len(server.requests) == 1


def written() -> str:
    """Return all that is written below the working directory."""
    paths = [path for path in Path().rglob("*") if path.is_file()]
    return "".join(path.read_bytes().decode("latin-1") for path in paths)


@pytest.mark.parametrize(
    "name", ["key", "api-key", "api_key", "token", "access_token", "X-Api-Key", "sig"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_credential_in_a_query_is_left_out(
    name: str, method: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It is sent, and stands neither in the record nor in the key, whatever it looks like."""
    url = "https://one.example/lookup?item=bread"
    asked: dict[str, Any] = {"json": {"n": 1}} if method == "POST" else {}

    def run(mode: str, key: str) -> str:
        with llmcall.cassette("run.jsonl", mode=mode), client(server) as http_client:
            made = http_client.request(method, f"{url}&{name}={key}", **asked)
            return str(made.json()["id"])

    live = run("once", PLAIN_KEY)
    assert server.requests[0].url.params[name] == PLAIN_KEY
    assert PLAIN_KEY not in written()
    assert f"the parameter {name!r} of the query is a credential by its name" in caplog.text
    assert PLAIN_KEY not in caplog.text
    assert run("none", "another") == live


@pytest.mark.parametrize(
    "body",
    [
        {"api_key": PLAIN_KEY},
        {"config": {"password": PLAIN_KEY}},
        {"tools": [{"type": "mcp", "authorization": PLAIN_KEY}]},
        {"tools": [{"type": "mcp", "headers": {"X-Access-Token": PLAIN_KEY}}]},
        {"clientSecret": PLAIN_KEY},
    ],
    ids=str,
)
def test_a_credential_in_a_body_is_left_out(body: dict[str, Any], server: Server) -> None:
    """So is what a field of the body holds whose name means nothing but a credential."""

    def run(mode: str, key: str) -> str:
        asked = json.loads(json.dumps(body).replace(PLAIN_KEY, key))
        with llmcall.cassette("run.jsonl", mode=mode), client(server) as http_client:
            return str(http_client.post("https://one.example/ask", json=asked).json()["id"])

    live = run("once", PLAIN_KEY)
    assert json.loads(server.requests[0].content) == body
    assert PLAIN_KEY not in written()
    assert run("none", "another") == live


@pytest.mark.parametrize("name", ["key", "token"])
def test_what_may_be_a_credential_is_refused(name: str, server: Server) -> None:
    """A name that may mean a credential is refused before anything is sent, unless ALLOW matches."""
    body = {name: PLAIN_KEY}
    with client(server) as http_client:
        refused = http_client.post("https://one.example/ask", json=body)
    assert refused.status_code == 409 and server.requests == []
    assert f"POST one.example/ask: its field {name!r} looks like a credential" in refused.text
    assert PLAIN_KEY not in refused.text
    with client(server, cassette_allow=("q7w8.*",)) as http_client:
        assert http_client.post("https://one.example/ask", json=body).status_code == 200


@pytest.mark.parametrize(
    "body",
    [{"deep": {"token": PLAIN_KEY}}, {"rows": [{"name": "a"}, {"key": PLAIN_KEY}]}],
    ids=["object", "list"],
)
def test_what_may_be_a_credential_deep_in_a_body_is_refused(
    body: dict[str, Any], server: Server
) -> None:
    """There, only if its value could be one: such names are common in data."""
    with client(server) as http_client:
        refused = http_client.post("https://one.example/ask", json=body)
    assert refused.status_code == 409 and server.requests == []
    place = "deep.token" if "deep" in body else "rows[1].key"
    assert f"its field {place!r} looks like a credential" in refused.text


@pytest.mark.parametrize(
    "body",
    [
        {"max_tokens": 5, "key": 3, "tokens": "a b", "keyword": "bread", "monkey": "Lisa"},
        {"rows": [{"key": "bread", "token": "salt"}], "secretary": "Bart"},
        {"content": [{"type": "thinking", "signature": PLAIN_KEY}]},
        {"properties": {"password": {"type": "string"}}},
    ],
    ids=str,
)
def test_other_fields_are_recorded(body: dict[str, Any], server: Server) -> None:
    """Names that only contain such words, values that are no texts, and data deeper in the body
    count.
    """
    with client(server) as http_client:
        assert http_client.post("https://one.example/ask", json=body).status_code == 200
    (record,) = llmcall.client("openai").cache.records()
    assert record.request["body"] == body


def test_a_credential_beyond_the_api_is_left_out_of_a_chat(server: Server) -> None:
    """A chat's own field for a credential is sent, and stands neither in the record nor in the key."""
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "Bread?"}]}
    create = program(server).chat.completions.create
    first = create(**asked, extra_body={"api_key": PLAIN_KEY}).choices[0].message.content
    assert json.loads(server.requests[0].content)["api_key"] == PLAIN_KEY
    assert PLAIN_KEY not in written()
    assert create(**asked, extra_body={"api_key": "b"}).choices[0].message.content == first


# What they use

RESPONSES_USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 40},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 110,
}
MESSAGES_USAGE = {
    "input_tokens": 50,
    "cache_read_input_tokens": 40,
    "cache_creation_input_tokens": 10,
    "output_tokens": 10,
}
RESPONSES_EVENTS = [
    {"type": "response.created", "response": {"usage": None}},
    {"type": "response.output_text.delta", "delta": "Two."},
    {"type": "response.completed", "response": {"usage": RESPONSES_USAGE}},
]
MESSAGES_EVENTS = [
    {"type": "message_start", "message": {"usage": {**MESSAGES_USAGE, "output_tokens": 1}}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Two."}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 10}},
]
PRICED: dict[str, Any] = {"prices": {"m": (1.0, 10.0, 0.5)}, "cache_mode": "off"}


def events_of(data: list[dict[str, Any]]) -> Any:
    """Return a streamed response."""
    lines = (f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in data)
    headers = {"content-type": "text/event-stream"}
    return http.Response(200, headers=headers, content="".join(lines).encode())


def reporting(request: Any) -> Any:
    """Answer as the Responses or the Messages API does, with its usage."""
    is_message = request.url.path.endswith("/messages")
    if json.loads(request.content or b"{}").get("stream"):
        return events_of(MESSAGES_EVENTS if is_message else RESPONSES_EVENTS)
    if request.url.path.endswith(("/messages", "/responses")):
        return http.Response(200, json={"usage": MESSAGES_USAGE if is_message else RESPONSES_USAGE})
    return http.Response(200, json={"id": "other"})


def reporter(**overrides: Any) -> Any:
    """Return an HTTP client at such a server."""
    transport = http.MockTransport(reporting)
    return llmcall.http_client(transport=transport, **{**PRICED, **overrides})


URL = "https://api.example/v1"
ASKED = {
    "responses": {"model": "m", "input": "Bread?", "max_output_tokens": 20},
    "messages": {
        "model": "m",
        "messages": [{"role": "user", "content": "Bread?"}],
        "max_tokens": 20,
    },
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", ASKED)
def test_usage_is_what_the_answer_reports(api: str, stream: bool) -> None:
    """Input, cached and output tokens are counted and priced by model, streamed or not."""
    with reporter() as client, llmcall.track() as usage, llmcall.budget(usd=1) as budget:
        client.post(f"{URL}/{api}", json={**ASKED[api], "stream": stream})
    part = usage.by_model["m"]
    assert (part.calls, part.input_tokens, part.cached_input_tokens) == (1, 100, 40)
    assert part.output_tokens == 10
    assert part.cost == pytest.approx((60 + 40 * 0.5 + 10 * 10) / 1e6)
    assert budget.spent.calls == 1 and budget.spent.tokens == 110
    assert budget.spent.usd == pytest.approx(part.cost)


def test_an_answer_is_priced_at_the_tier_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """``/responses`` at flex costs half."""
    asked = {**ASKED["responses"], "service_tier": "flex"}
    costs = []
    for served in ("default", "flex"):
        answer = {"usage": RESPONSES_USAGE, "service_tier": served}
        transport = http.MockTransport(lambda _, answer=answer: http.Response(200, json=answer))
        with (
            llmcall.http_client(transport=transport, **PRICED) as client,
            llmcall.track() as usage,
        ):
            client.post(f"{URL}/responses", json=asked)
        costs.append(usage.cost)
        assert usage.full_price_calls == (served == "default")
    assert costs[1] == pytest.approx(costs[0] / 2)


def test_a_request_that_gets_no_tier_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Only chat completions get the tier that the run asks for."""
    with reporter(service_tier="flex") as client:
        client.post(f"{URL}/responses", json=ASKED["responses"])
    assert "POST /v1/responses is sent without the service tier 'flex'" in caplog.text


def test_a_replayed_answer_is_a_hit(tmp_path: Path) -> None:
    """It is free, and what it cost is saved, as of a chat; its cost stands in the record."""
    for mode, calls, cached in (("auto", 1, 0), ("replay", 0, 1)):
        with (
            reporter(cache_mode=mode) as client,
            llmcall.track() as usage,
            llmcall.budget(calls=calls),
        ):
            client.post(f"{URL}/responses", json=ASKED["responses"])
        assert (usage.calls, usage.cached_calls) == (calls, cached)
    assert usage.saved == pytest.approx(180 / 1e6)


@pytest.mark.parametrize("limit", [{"calls": 1}, {"tokens": 200}, {"usd": 0.0004}], ids=str)
def test_a_budget_ends_them(limit: dict[str, Any]) -> None:
    """What goes past a budget is refused before it is sent, as a chat is."""
    with reporter() as client, llmcall.budget(**limit):
        answers = [
            client.post(f"{URL}/responses", json={**ASKED["responses"], "user": str(number)})
            for number in range(3)
        ]
    codes = [each.status_code for each in answers]
    assert codes[0] == 200 and codes[-1] == 409
    assert answers[-1].json()["error"]["code"] == "BudgetExceededError"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("responses", {"model": "m", "input": "And?", "previous_response_id": "r1"}),
        ("responses", {"model": "m", "input": "Look.", "tools": [{"type": "web_search"}]}),
        ("responses", {"model": "m", "input": [{"type": "input_image", "file_id": "f"}]}),
        (
            "messages",
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "image"}]}]},
        ),
    ],
    ids=str,
)
def test_a_budget_refuses_what_it_cannot_reserve_for(path: str, body: dict[str, Any]) -> None:
    """If nobody can know what a request may use, a budget of tokens or USD refuses it, and says so;
    one of calls lets it pass.
    """
    for limit in ({"tokens": 10_000}, {"usd": 5}):
        with reporter() as client, llmcall.budget(**limit):  # type: ignore[arg-type]
            refused = client.post(f"{URL}/{path}", json=body)
        assert refused.status_code == 409
        assert "does not say how much it may use" in refused.json()["error"]["message"]
    with reporter() as client, llmcall.budget(calls=1):
        assert client.post(f"{URL}/{path}", json=body).status_code == 200


def test_posts_to_hosts_count_as_calls_only() -> None:
    """What no model answers counts under its host's name as a call, without tokens or cost."""
    with reporter() as client, llmcall.track() as usage, llmcall.budget(usd=0.01) as budget:
        assert client.post("https://tools.example/search", json={"q": "bread"}).status_code == 200
        assert client.get("https://tools.example/search", params={"q": "oil"}).status_code == 200
    part = usage.by_model["tools.example"]
    assert (part.calls, part.input_tokens, part.cost) == (1, 0, 0.0)
    assert (budget.spent.calls, budget.spent.usd) == (1, 0)


def test_limits_hold_for_them() -> None:
    """A call to another API of an endpoint takes a place among its calls of a minute."""
    with reporter(limits_requests_per_minute=1, deadline=0.5) as client:
        assert client.post(f"{URL}/responses", json=ASKED["responses"]).status_code == 200
        second = client.post(f"{URL}/messages", json=ASKED["messages"])
    assert second.status_code >= 400 and "past the deadline" in second.text


def test_an_endpoint_that_refuses_one_for_its_limits_rests(server: Server) -> None:
    """The next request waits as long as the server asked for, or is not sent."""
    server.failures = [(429, {"retry-after": "300"}, {"error": {"message": "slow down"}})]
    client = program(server, retry_max_attempts=1, deadline=0.5)
    with pytest.raises(openai.RateLimitError):
        client.responses.create(model="m", input="Bread?")
    with pytest.raises(openai.APIError, match="past the deadline"):
        client.responses.create(model="m", input="Salt?")
    assert len(server.requests) == 1


def test_an_answer_of_a_cassette_counts_as_replayed() -> None:
    """Apart from those of the disk cache, as a chat's does."""
    for _ in range(2):
        with (
            llmcall.cassette("tape.jsonl"),
            reporter(cache_mode="off") as client,
            llmcall.track() as usage,
        ):
            client.post(f"{URL}/responses", json=ASKED["responses"])
    assert (usage.cached_calls, usage.replayed_calls) == (1, 1)


def test_failures_and_retries_are_counted(server: Server) -> None:
    """A retry counts as one, and what fails for good as an error."""
    server.failures = [(500, {}, {"error": {"message": "overloaded"}})] * 2
    settings: dict[str, Any] = {"retry_max_attempts": 2, "retry_waiting_time": 0}
    with llmcall.track() as usage, pytest.raises(openai.InternalServerError):
        program(server, **settings).responses.create(model="m", input="Bread?")
    assert (usage.calls, usage.retries, usage.errors) == (0, 1, 1)


def test_a_429_of_a_body_that_is_a_list_reaches_the_program() -> None:
    """Any JSON may be posted; one that names nothing asks for no tier."""
    transport = http.MockTransport(lambda request: http.Response(429, json={"error": "busy"}))
    with llmcall.http_client(transport=transport, **PRICED, retry_max_attempts=1) as client:
        assert client.post(f"{URL}/responses", json=["Bread?"]).status_code == 429
