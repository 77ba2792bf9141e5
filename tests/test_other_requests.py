"""A program's requests that are neither chats nor embeddings: recorded as they are, and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from sdk_programs import Server, http, program

import llmcall
from llmcall.testing import ScriptedClient

# no form of credential that anybody knows: 24 letters and digits
PLAIN_KEY = "q7w8e9r0t1y2u3i4o5p6a7s8"


@pytest.fixture
def server() -> Server:
    """A model's server."""
    return Server()


def client(server: Server, **overrides: Any) -> Any:
    """Return an HTTP client whose requests are recorded."""
    return llmcall.http_client(transport=server.transport, **overrides)


def test_what_differs_in_host_or_query_is_another_request(server: Server) -> None:
    """Method, host, port, path, query and body identify a request."""
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
    assert run("replay") == live
    assert len(server.requests) == 2 * len(urls)


def test_a_relative_cache_path_starts_where_the_http_client_was_made(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where the program sends its first request."""
    start = Path.cwd()
    with client(server, cache_path="answers") as http_client:
        monkeypatch.chdir(tmp_path.parent)
        http_client.post("https://one.example/ask", json={"n": 1})
    assert len(llmcall.ResponseCache(start / "answers")) == 1


def test_the_default_port_and_the_order_of_a_query_do_not_matter(server: Server) -> None:
    """An address is the same with its default port, and its query in another order of names."""
    with client(server) as http_client:
        first = http_client.post("https://one.example/lookup?a=1&b=2", json={}).json()
        second = http_client.post("https://one.example:443/lookup?b=2&a=1", json={}).json()
    assert first == second
    assert len(server.requests) == 1


def written() -> str:
    """Return all that is written below the working directory."""
    paths = [path for path in Path().rglob("*") if path.is_file()]
    return "".join(path.read_bytes().decode("latin-1") for path in paths)


QUERY_KEYS = pytest.mark.parametrize(
    "name", ["key", "api-key", "api_key", "token", "access_token", "X-Api-Key", "sig"]
)
METHODS = pytest.mark.parametrize("method", ["GET", "POST"])


def look_up(server: Server, method: str, name: str, key: str, mode: str = "once") -> str:
    """Ask with a credential in the query, on a cassette, and return the answer's name."""
    url = f"https://one.example/lookup?item=bread&{name}={key}"
    asked: dict[str, Any] = {"json": {"n": 1}} if method == "POST" else {}
    with llmcall.cassette("run.jsonl", mode=mode), client(server) as http_client:
        return str(http_client.request(method, url, **asked).json()["id"])


@QUERY_KEYS
@METHODS
def test_a_credential_in_a_query_is_sent_and_not_recorded(
    name: str, method: str, server: Server
) -> None:
    """Whatever it looks like."""
    look_up(server, method, name, PLAIN_KEY)
    assert server.requests[0].url.params[name] == PLAIN_KEY
    assert PLAIN_KEY not in written()


@QUERY_KEYS
@METHODS
def test_a_credential_in_a_query_is_told_by_its_name(
    name: str, method: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """And not by its value."""
    look_up(server, method, name, PLAIN_KEY)
    assert f"the parameter {name!r} of the query is a credential by its name" in caplog.text
    assert PLAIN_KEY not in caplog.text


@QUERY_KEYS
@METHODS
def test_another_credential_in_a_query_replays_the_same_request(
    name: str, method: str, server: Server
) -> None:
    """It is no part of the request's key."""
    live = look_up(server, method, name, PLAIN_KEY)
    assert look_up(server, method, name, "another", mode="none") == live


BODY_KEYS = pytest.mark.parametrize(
    "body",
    [
        {"api_key": PLAIN_KEY},
        {"config": {"password": PLAIN_KEY}},
        {"tools": [{"type": "mcp", "authorization": PLAIN_KEY}]},
        {"tools": [{"type": "mcp", "headers": {"X-Access-Token": PLAIN_KEY}}]},
        {"clientSecret": PLAIN_KEY},
        {"data_sources": [{"authentication": {"type": "api_key", "key": PLAIN_KEY}}]},
    ],
    ids=str,
)


def post_body(server: Server, body: dict[str, Any], mode: str = "once") -> str:
    """Post a body on a cassette, and return the answer's name."""
    with llmcall.cassette("run.jsonl", mode=mode), client(server) as http_client:
        return str(http_client.post("https://one.example/ask", json=body).json()["id"])


@BODY_KEYS
def test_a_credential_in_a_body_is_sent_and_not_recorded(
    body: dict[str, Any], server: Server
) -> None:
    """It is what a field holds whose name means nothing but a credential."""
    post_body(server, body)
    assert json.loads(server.requests[0].content) == body
    assert PLAIN_KEY not in written()


@BODY_KEYS
def test_another_credential_in_a_body_replays_the_same_request(
    body: dict[str, Any], server: Server
) -> None:
    """It is no part of the request's key."""
    live = post_body(server, body)
    other = json.loads(json.dumps(body).replace(PLAIN_KEY, "another"))
    assert post_body(server, other, mode="none") == live


@pytest.mark.parametrize("name", ["key", "token"])
def test_what_may_be_a_credential_is_refused(name: str, server: Server) -> None:
    """By the name of its field, before anything is sent."""
    with client(server) as http_client:
        refused = http_client.post("https://one.example/ask", json={name: PLAIN_KEY})
    assert refused.status_code == 409
    assert f"POST one.example/ask: its field {name!r} looks like a credential" in refused.text
    assert PLAIN_KEY not in refused.text
    assert server.requests == []


@pytest.mark.parametrize("name", ["key", "token"])
def test_what_may_be_a_credential_may_be_allowed(name: str, server: Server) -> None:
    """If ALLOW matches its value."""
    with client(server, cassette_allow=("q7w8.*",)) as http_client:
        sent = http_client.post("https://one.example/ask", json={name: PLAIN_KEY})
    assert sent.status_code == 200


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"deep": {"token": PLAIN_KEY}}, "deep.token"),
        ({"rows": [{"name": "a"}, {"key": PLAIN_KEY}]}, "rows[1].key"),
    ],
    ids=["object", "list"],
)
def test_what_may_be_a_credential_deep_in_a_body_is_refused(
    body: dict[str, Any], place: str, server: Server
) -> None:
    """There, only if its value could be one: such names are common in data."""
    with client(server) as http_client:
        refused = http_client.post("https://one.example/ask", json=body)
    assert refused.status_code == 409
    assert f"its field {place!r} looks like a credential" in refused.text
    assert server.requests == []


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


def test_a_credential_beyond_the_api_is_left_out_of_a_chats_record(server: Server) -> None:
    """It is sent, and is no part of the key either."""
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "Bread?"}]}
    create = program(server).chat.completions.create
    first = create(**asked, extra_body={"api_key": PLAIN_KEY}).choices[0].message.content
    assert json.loads(server.requests[0].content)["api_key"] == PLAIN_KEY
    assert PLAIN_KEY not in written()
    assert create(**asked, extra_body={"api_key": "b"}).choices[0].message.content == first


CHAT_KEYS = pytest.mark.parametrize(
    "fields",
    [
        {"extra_body": {"data_sources": [{"authentication": authentication}]}}
        for authentication in (
            {"type": "api_key", "key": PLAIN_KEY},
            {"type": "key_and_key_id", "key": PLAIN_KEY, "key_id": "1"},
            {"type": "access_token", "access_token": PLAIN_KEY},
            {"type": "connection_string", "connection_string": PLAIN_KEY},
        )
    ]
    + [
        {"tools": [{"type": "mcp", "headers": {"Authorization": f"Bearer {PLAIN_KEY}"}}]},
        {"tools": [{"type": "mcp", "authorization": PLAIN_KEY}]},
    ],
    ids=str,
)


@CHAT_KEYS
def test_a_credential_in_a_chats_data_sources_or_tools_is_sent_and_not_recorded(
    fields: dict[str, Any],
) -> None:
    """Azure's data sources and MCP servers have keys of their own."""
    chats = ScriptedClient(["ok"], cache_mode="auto")
    with llmcall.cassette("run.jsonl"):
        chats.send_message("Bread?", **fields)
    assert PLAIN_KEY in json.dumps(chats.requests[0].body)
    assert PLAIN_KEY not in written()


@CHAT_KEYS
def test_another_credential_in_a_chat_has_the_same_key(fields: dict[str, Any]) -> None:
    """It is no part of the question."""
    chats = ScriptedClient([])
    other = json.loads(json.dumps(fields).replace(PLAIN_KEY, "another"))
    key = chats.build_request("Bread?", **fields).cache_key
    assert chats.build_request("Bread?", **other).cache_key == key


MAYBE_KEYS = pytest.mark.parametrize(
    "fields",
    [
        {"extra_body": {"token": PLAIN_KEY}},
        {"extra_body": {"deep": [{"key": PLAIN_KEY}]}},
        {"tools": [{"type": "mcp", "headers": {"token": PLAIN_KEY}}]},
    ],
    ids=str,
)


@MAYBE_KEYS
def test_what_may_be_a_credential_in_a_chat_is_refused(fields: dict[str, Any]) -> None:
    """As in a request to any other API; the message does not repeat it."""
    with pytest.raises(llmcall.CacheError, match="looks like a credential by its name") as caught:
        ScriptedClient([]).send_message("Bread?", **fields)
    assert PLAIN_KEY not in str(caught.value)


@MAYBE_KEYS
def test_what_may_be_a_credential_in_a_chat_may_be_allowed(fields: dict[str, Any]) -> None:
    """If ALLOW matches its value; then it is part of the question."""
    chats = ScriptedClient(["ok"], cassette_allow=("q7w8.*",))
    assert chats.send_message("Bread?", **fields) is not None
    assert PLAIN_KEY in json.dumps(chats.requests[0].asked)


def test_a_functions_schema_in_tools_is_part_of_the_key_as_it_is() -> None:
    """Its examples and defaults are no credentials."""
    schema = {"type": "object", "default": {"password": "bread", "token": PLAIN_KEY}}
    tools = [{"type": "function", "function": {"name": "enter", "parameters": schema}}]
    assert ScriptedClient([]).build_request("Bread?", tools=tools).asked["tools"] == tools


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


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streams(request: pytest.FixtureRequest) -> bool:
    """Whether answers are streamed."""
    return bool(request.param)


@pytest.mark.parametrize("api", ASKED)
def test_usage_is_what_the_answer_of_an_api_reports(api: str, streams: bool) -> None:
    """Input, cached and output tokens are counted and priced by model."""
    with reporter() as client, llmcall.track() as usage:
        client.post(f"{URL}/{api}", json={**ASKED[api], "stream": streams})
    part = usage.by_model["m"]
    assert (part.calls, part.input_tokens, part.cached_input_tokens) == (1, 100, 40)
    assert part.output_tokens == 10
    assert part.cost == pytest.approx((60 + 40 * 0.5 + 10 * 10) / 1e6)


@pytest.mark.parametrize("api", ASKED)
def test_a_budget_counts_what_the_answer_of_an_api_reports(api: str, streams: bool) -> None:
    """Calls, tokens and USD."""
    with reporter() as client, llmcall.budget(usd=1) as budget:
        client.post(f"{URL}/{api}", json={**ASKED[api], "stream": streams})
    assert (budget.spent.calls, budget.spent.tokens) == (1, 110)
    assert budget.spent.usd == pytest.approx((60 + 40 * 0.5 + 10 * 10) / 1e6)


def cost_of_flex(served: str) -> Any:
    """Return the usage of a request to ``/responses`` that asks for flex, and is served by a tier."""
    answer = {"usage": RESPONSES_USAGE, "service_tier": served}
    transport = http.MockTransport(lambda _: http.Response(200, json=answer))
    with (
        llmcall.http_client(transport=transport, **PRICED) as client,
        llmcall.track() as usage,
    ):
        client.post(f"{URL}/responses", json={**ASKED["responses"], "service_tier": "flex"})
    return usage


def test_an_answer_is_priced_at_the_tier_that_it_names() -> None:
    """Flex costs half."""
    assert cost_of_flex("flex").cost == pytest.approx(cost_of_flex("default").cost / 2)


def test_an_answer_of_another_tier_than_the_asked_one_counts_as_full_price() -> None:
    """One of the asked tier does not."""
    assert cost_of_flex("default").full_price_calls == 1
    assert cost_of_flex("flex").full_price_calls == 0


def test_a_request_that_gets_no_tier_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Only chat completions get the tier that the run asks for."""
    with reporter(service_tier="flex") as client:
        client.post(f"{URL}/responses", json=ASKED["responses"])
    assert "POST /v1/responses is sent without the service tier 'flex'" in caplog.text


def test_a_replayed_answer_of_an_api_is_a_hit() -> None:
    """It is free, no budget counts it, and what it cost is saved, as of a chat."""
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
def test_what_goes_past_a_budget_is_refused_before_it_is_sent(limit: dict[str, Any]) -> None:
    """As a chat is."""
    with reporter() as client, llmcall.budget(**limit):
        answers = [
            client.post(f"{URL}/responses", json={**ASKED["responses"], "user": str(number)})
            for number in range(3)
        ]
    assert answers[0].status_code == 200
    assert answers[-1].status_code == 409
    assert answers[-1].json()["error"]["code"] == "BudgetExceededError"


UNLIMITED = pytest.mark.parametrize(
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


@UNLIMITED
@pytest.mark.parametrize("limit", [{"tokens": 10_000}, {"usd": 5}], ids=str)
def test_a_budget_refuses_what_it_cannot_reserve_for(
    limit: dict[str, Any], path: str, body: dict[str, Any]
) -> None:
    """Nobody knows how many tokens or USD the request may use, and the message says so."""
    with reporter() as client, llmcall.budget(**limit):
        refused = client.post(f"{URL}/{path}", json=body)
    assert refused.status_code == 409
    assert "does not say how much it may use" in refused.json()["error"]["message"]


@UNLIMITED
def test_a_budget_of_calls_allows_any_request(path: str, body: dict[str, Any]) -> None:
    """It is one call, whatever it uses."""
    with reporter() as client, llmcall.budget(calls=1):
        assert client.post(f"{URL}/{path}", json=body).status_code == 200


def test_a_post_that_no_model_answers_counts_as_a_call_only() -> None:
    """Under its host's name, without tokens or cost; reading a page is no call."""
    with reporter() as client, llmcall.track() as usage, llmcall.budget(usd=0.01) as budget:
        assert client.post("https://tools.example/search", json={"q": "bread"}).status_code == 200
        assert client.get("https://tools.example/search", params={"q": "oil"}).status_code == 200
    part = usage.by_model["tools.example"]
    assert (part.calls, part.input_tokens, part.cost) == (1, 0, 0.0)
    assert (budget.spent.calls, budget.spent.usd) == (1, 0)


def test_the_limits_of_an_endpoint_hold_for_all_its_apis() -> None:
    """A call to another API takes a place among the calls of a minute."""
    with reporter(limits_requests_per_minute=1, deadline=30) as client:
        assert client.post(f"{URL}/responses", json=ASKED["responses"]).status_code == 200
        second = client.post(f"{URL}/messages", json=ASKED["messages"])
    assert second.status_code >= 400
    assert "past the deadline" in second.text


def test_an_endpoint_that_refuses_a_request_for_its_limits_rests(server: Server) -> None:
    """The next request waits as long as the server asked for, or is not sent."""
    server.failures = [(429, {"retry-after": "300"}, {"error": {"message": "slow down"}})]
    client = program(server, retry_max_attempts=1, deadline=60)
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
