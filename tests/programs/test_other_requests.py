"""A program's requests that are neither chats nor embeddings: recorded as they are, and counted."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import Server, http, lasting, program
from servers import event

import llmcall
from llmcall.testing import ScriptedClient

# no form of credential that anybody knows: 24 letters and digits
PLAIN_KEY = "q7w8e9r0t1y2u3i4o5p6a7s8"


@pytest.fixture
def server() -> Server:
    """A model's server."""
    return Server()


HOSTS = ("one.example", "two.example")


def posting(server: Server, url: str, mode: str = "auto", **asked: Any) -> Any:
    """Send a request to a host whose requests are recorded, and return the response."""
    method = "POST" if asked else "GET"
    with (
        llmcall.patched(hosts=HOSTS, cache_mode=mode),
        http.Client(transport=server.transport) as client,
    ):
        return client.request(method, url, **asked)


def test_requests_that_differ_in_host_or_query_have_different_keys(server: Server) -> None:
    """Method, host, port, path, query and body identify a request to a named host; the default port
    and the order of a query's names do not.
    """
    urls = [
        "https://one.example/lookup?item=bread&b=2",
        "https://two.example/lookup?item=bread&b=2",
        "https://one.example:8443/lookup?item=bread&b=2",
        "https://one.example/lookup?item=bread&item=salt",
        "https://one.example/look%2Fup",
    ]

    def run(mode: str) -> list[str]:
        posted = [posting(server, url, mode, json={"n": 1}).json()["id"] for url in urls]
        return posted + [posting(server, url, mode).json()["id"] for url in urls]

    live = run("auto")
    assert len(set(live)) == 2 * len(urls)
    assert run("replay") == live
    assert len(server.requests) == 2 * len(urls)
    same = posting(server, "https://one.example:443/lookup?b=2&item=bread", json={"n": 1})
    assert same.json()["id"] == live[0]


CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Bread?"}]}
BODIES: dict[str, Any] = {
    "responses": {"model": "m", "input": "Bread?"},
    "v1/messages": CHAT,
    "v1beta/models/g:generateContent": {"contents": [{"parts": [{"text": "Bread?"}]}]},
    "v1beta/models/g:streamGenerateContent": {"contents": [{"parts": [{"text": "Bread?"}]}]},
}


@pytest.mark.parametrize("path", BODIES)
def test_requests_of_the_three_apis_replay_whatever_the_base_url(path: str, server: Server) -> None:
    """Neither the host nor what stands before the API's part of the path counts, nor ``key``, ``alt``
    and ``api-version`` in the query.
    """
    answers = set()
    for base, mode in (
        ("https://api.example/v1/x/?alt=sse&key=one", "auto"),
        ("http://127.0.0.1:9/v1/?api-version=1", "replay"),
    ):
        url = base.replace("?", f"{path}?")
        with llmcall.patched(cache_mode=mode), http.Client(transport=server.transport) as client:
            answers.add(client.post(url, json=BODIES[path]).text)
    assert len(answers) == len(server.requests) == 1
    (record,) = llmcall.client("openai").cache.records()
    assert record.request.keys() == {"method", "path", "body"}


# Who pays, who may ask, what is kept: by the providers' references, no part of what is asked.
CIRCUMSTANCES = {
    "user": "u",
    "metadata": {"user_id": "u"},
    "store": True,
    "service_tier": "flex",
    "safety_identifier": "s",
    "prompt_cache_key": "agents-sdk:run:u",
    "prompt_cache_options": {"ttl": "1h"},
    "prompt_cache_retention": "24h",
    "serviceTier": "flex",
}
ASKING = {
    **BODIES,
    "v1/chat/completions": CHAT,
    "chat/completions": {**CHAT, "messages": [{"role": "judge", "content": "Bread?"}]},
    "v1/completions": {"model": "m", "prompt": "Bread?"},
    "v1/embeddings": {"model": "m", "input": "Bread?"},
    "embeddings": {"model": "m", "input": [[1], [2]]},
    "v1/moderations": {"model": "m", "input": "Bread?"},
}


@pytest.mark.parametrize("path", ASKING)
def test_fields_that_do_not_change_the_answer_are_sent_and_are_no_part_of_a_key(
    path: str, server: Server
) -> None:
    """In the bodies of every API and kind, at the provider's own address."""
    bodies = [ASKING[path] | {name: value} for name, value in CIRCUMSTANCES.items()]

    def answers(mode: str, *bodies: dict[str, Any]) -> list[Any]:
        with (
            llmcall.cassette("tape.jsonl", mode=mode),
            http.Client(transport=server.transport) as client,
        ):
            url = f"https://api.openai.com/{path}"
            return [lasting(client.post(url, json=body).text) for body in bodies]

    (recorded,) = answers("new", {**ASKING[path], **CIRCUMSTANCES})
    assert json.loads(server.requests[0].content) == {**ASKING[path], **CIRCUMSTANCES}
    for body in [ASKING[path], *bodies]:
        assert answers("none", body) == [recorded]


def test_metadata_of_what_asks_no_model_is_a_part_of_its_key(server: Server) -> None:
    """A conversation's metadata are all that a request may bring; another host's are its own matter."""
    named = {"model": "m", "metadata": {}}
    for url, body in (
        ("https://api.openai.com/v1/conversations/c", {"metadata": {}}),
        ("https://one.example/lookup", named),
    ):
        for _ in range(2):
            posting(server, url, json=body)
            posting(server, url, json={**body, "metadata": {"a": "1"}})
    assert len(list(llmcall.client("openai").cache.records())) == 4


def with_calls(path: str, ids: tuple[str, str, str]) -> dict[str, Any]:
    """Return a body of an API with two calls of a tool, and the result of one.

    :param ids: of the calls, and of the result.
    """
    *calls, result = ids
    if path == "v1/responses":
        items: list[Any] = [
            {
                "type": "function_call",
                "id": f"fc_{id}",
                "call_id": id,
                "name": "f",
                "arguments": "{}",
            }
            for id in calls
        ]
        items.append({"type": "function_call_output", "call_id": result, "output": "3"})
        return {"model": "m", "input": [{"role": "user", "content": "Bread?"}, *items]}
    if path == "v1/messages":
        blocks = [{"type": "tool_use", "id": id, "name": "f", "input": {"id": 1}} for id in calls]
        results = [{"type": "tool_result", "tool_use_id": result, "content": "3"}]
        turns = [{"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
        return {**BODIES[path], "messages": [*BODIES[path]["messages"], *turns]}
    parts = [{"functionCall": {"id": id, "name": "f", "args": {"id": 1}}} for id in calls]
    answered = {"functionResponse": {"id": result, "name": "f", "response": {"id": 1}}}
    turns = [{"role": "model", "parts": parts}, {"role": "user", "parts": [answered]}]
    return {"contents": [*BODIES[path]["contents"], *turns]}


WITH_CALLS = ["v1/responses", "v1/messages", "v1beta/models/g:generateContent"]


@pytest.mark.parametrize("path", WITH_CALLS)
def test_ids_of_tool_calls_do_not_enter_the_key(path: str, server: Server) -> None:
    """A program that makes ids of its own replays; the ids that it made are sent."""

    def answers(*ids: tuple[str, str, str], mode: str) -> list[str]:
        url = f"https://api.example/{path}"
        with llmcall.patched(cache_mode=mode), http.Client(transport=server.transport) as client:
            return [client.post(url, json=with_calls(path, call_ids)).text for call_ids in ids]

    first, second = answers(("a", "b", "a"), ("a", "b", "b"), mode="auto")
    assert first != second
    assert json.loads(server.requests[0].content) == with_calls(path, ("a", "b", "a"))
    replayed = answers(("x", "a", "x"), ("b", "a", "a"), mode="replay")
    assert replayed == [first, second]


@pytest.mark.parametrize("path", WITH_CALLS)
def test_arguments_and_results_of_tools_enter_the_key(path: str, server: Server) -> None:
    """An ``id`` among its arguments is none of the call's."""
    bodies = [with_calls(path, ("a", "b", "a"))]
    old, new = ('"arguments": "{}"', '"arguments": "{1}"'), ('{"id": 1}', '{"id": 2}')
    for one, other in (old, new):
        bodies.append(json.loads(json.dumps(bodies[0]).replace(one, other)))
    with llmcall.patched(), http.Client(transport=server.transport) as client:
        for body in bodies:
            client.post(f"https://api.example/{path}", json=body)
    records = llmcall.client("openai").cache.records()
    # one of the two changes concerns each API
    assert len({json.dumps(record.request) for record in records}) == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("v1/moderations", {"model": "m", "input": "Bread?"}),
        ("v1/responses", {"answers": ["yes"]}),
        ("v1/responses", ["Bread?"]),
        ("messages", BODIES["v1/messages"]),
        ("v1/models/g:generateContent", {"model": "g"}),
        ("v1/messages/count_tokens", BODIES["v1/messages"]),
    ],
    ids=str,
)
def test_requests_that_ask_no_model_pass(path: str, body: Any, server: Server) -> None:
    """Those to other paths, and those with other bodies."""
    with llmcall.patched(), http.Client(transport=server.transport) as client:
        for _ in range(2):
            client.post(f"https://api.example/{path}", json=body)
    assert len(server.requests) == 2
    assert not list(llmcall.client("openai").cache.records())


ODD_CHATS: list[dict[str, Any]] = [
    {"model": "m", "messages": [{"role": "critic", "content": "Bread?"}]},
    {"model": "m", "prompt": "Bread?"},
    {"model": "m", "messages": []},
    {"model": "m", "messages": ["Bread?"]},
    {**CHAT, "temperature": "hot"},
    {"model": "m", "messages": [{"role": "user", "content": 3}]},
    {**CHAT, "model": 3},
    {**CHAT, "tools": ["price_of"]},
    {**CHAT, "max_tokens": 9, "max_completion_tokens": 8},
]


@pytest.mark.parametrize("body", ODD_CHATS, ids=str)
def test_a_chat_body_of_another_form_is_recorded_as_it_is(
    body: dict[str, Any], server: Server
) -> None:
    answers = []
    for mode in ("auto", "replay"):
        with llmcall.patched(cache_mode=mode), http.Client(transport=server.transport) as client:
            answers.append(client.post("https://api.example/v1/chat/completions", json=body).text)
    assert answers[0] == answers[1]
    assert json.loads(server.requests[0].content) == body
    (record,) = llmcall.client("openai").cache.records()
    assert record.kind == "http"


@pytest.mark.parametrize("fault", [TypeError, ValueError])
def test_a_fault_of_llmcalls_own_in_preparing_a_chat_makes_no_other_record(
    fault: type[Exception], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body's form alone decides as what it is recorded."""

    def fail(*_: object) -> None:
        raise fault("a fault of llmcall's own")

    monkeypatch.setattr("llmcall.core.prepare.next_order", fail)
    with pytest.raises(openai.APIStatusError, match="a fault of llmcall's own"):
        program(server).chat.completions.create(**CHAT)
    with pytest.raises(openai.APIStatusError, match="a fault of llmcall's own"):
        program(server).embeddings.create(model="m", input="Bread?")
    assert not server.requests


def written() -> str:
    """Return all that is written below the working directory."""
    paths = [path for path in Path().rglob("*") if path.is_file()]
    return "".join(path.read_bytes().decode("latin-1") for path in paths)


@pytest.mark.parametrize("name", ["key", "api_key", "access_token", "X-Api-Key"])
def test_a_credential_in_a_query_is_sent_and_not_recorded(
    name: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning has its name, and it is no part of the request's key."""
    url = f"https://one.example/lookup?item=bread&{name}="
    first = posting(server, url + PLAIN_KEY, json={"n": 1}).json()
    assert server.requests[0].url.params[name] == PLAIN_KEY
    assert PLAIN_KEY not in written()
    assert PLAIN_KEY not in caplog.text
    assert f"judging by its name, the query parameter {name!r} is a credential" in caplog.text
    assert posting(server, f"{url}another", "replay", json={"n": 1}).json() == first


@pytest.mark.parametrize(
    "body",
    [
        {"api_key": PLAIN_KEY},
        {"config": {"password": PLAIN_KEY}},
        {"tools": [{"type": "mcp", "headers": {"X-Access-Token": PLAIN_KEY}}]},
    ],
    ids=str,
)
def test_a_credential_in_a_body_is_sent_and_not_recorded(
    body: dict[str, Any], server: Server
) -> None:
    """It is what a field holds whose name means nothing but a credential; another one has the same
    key.
    """
    url = "https://one.example/ask"
    first = posting(server, url, json=body).json()
    assert json.loads(server.requests[0].content) == body
    assert PLAIN_KEY not in written()
    other = json.loads(json.dumps(body).replace(PLAIN_KEY, "another"))
    assert posting(server, url, "replay", json=other).json() == first


@pytest.mark.parametrize(
    ("body", "field"),
    [({"key": PLAIN_KEY}, "key"), ({"deep": [{"token": PLAIN_KEY}]}, "deep[0].token")],
)
def test_a_field_that_may_be_a_credential_is_refused(
    body: dict[str, Any], field: str, server: Server
) -> None:
    """By the name of its field, before anything is sent, unless ALLOW matches it."""
    url = "https://one.example/ask"
    with pytest.raises(llmcall.CacheError, match=re.escape(f"its field {field!r} looks like")):
        posting(server, url, json=body)
    assert server.requests == []
    with llmcall.configured(cassette_allow=("q7w8.*",)):
        assert posting(server, url, json=body).status_code == 200


def test_a_credential_beyond_the_api_is_left_out_of_a_chats_record(server: Server) -> None:
    """It is sent, and is no part of the key either."""
    create = program(server).chat.completions.create
    first = create(**CHAT, extra_body={"api_key": PLAIN_KEY}).choices[0].message.content
    assert json.loads(server.requests[0].content)["api_key"] == PLAIN_KEY
    assert PLAIN_KEY not in written()
    assert create(**CHAT, extra_body={"api_key": "b"}).choices[0].message.content == first


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


@pytest.mark.parametrize("name", ["region", "publication_year_2024", "x"])
def test_a_field_named_key_is_no_credential_by_its_name(name: str) -> None:
    """OpenAI's guide "File search", "Metadata filtering": a filter names its attribute so."""
    chats = ScriptedClient(["ok", "ok"])
    attribute = {"type": "eq", "key": name, "value": "us"}
    tool = {"type": "file_search", "vector_store_ids": ["vs_1"], "filters": attribute}
    assert chats.send_message("Bread?", tools=[tool], on_error="raise") is not None
    assert chats.send_message("Bread?", extra_body={"key": name}, on_error="raise") is not None


def test_a_field_of_a_chat_that_may_be_a_credential_is_refused() -> None:
    """As in a request to any other API; the message does not repeat it."""
    with pytest.raises(llmcall.CacheError, match="looks like a credential") as caught:
        ScriptedClient([]).send_message("Bread?", extra_body={"deep": [{"key": PLAIN_KEY}]})
    assert PLAIN_KEY not in str(caught.value)


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
    {"type": "message_stop"},
]
PRICED: dict[str, Any] = {"prices": {"m": (1.0, 10.0, 0.5)}, "cache_mode": "off"}


def events_of(data: list[dict[str, Any]]) -> Any:
    """Return a streamed response."""
    lines = (f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n" for event in data)
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
    "messages": {**CHAT, "max_tokens": 20},
}


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streams(request: pytest.FixtureRequest) -> bool:
    """Return whether answers are streamed."""
    return bool(request.param)


@pytest.mark.parametrize("api", ASKED)
def test_usage_is_what_the_answer_of_an_api_reports(api: str, streams: bool) -> None:
    """Input, cached and output tokens are counted and priced by model, and for a budget."""
    with reporter() as client, llmcall.track() as usage, llmcall.budget(usd=1) as budget:
        client.post(f"{URL}/{api}", json={**ASKED[api], "stream": streams})
    part = usage.by_model["m"]
    assert (part.calls, part.input_tokens, part.cached_input_tokens) == (1, 100, 40)
    assert part.output_tokens == 10
    assert part.cost == pytest.approx((60 + 40 * 0.5 + 10 * 10) / 1e6)
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
def test_a_request_past_a_budget_is_refused_before_it_is_sent(limit: dict[str, Any]) -> None:
    with reporter() as client, llmcall.budget(**limit):
        answers = [
            client.post(f"{URL}/responses", json={**ASKED["responses"], "user": str(number)})
            for number in range(3)
        ]
    assert answers[0].status_code == 200
    assert answers[-1].status_code == 409
    assert answers[-1].json()["error"]["code"] == "BudgetExceededError"


@pytest.mark.parametrize(
    "fields",
    [{"previous_response_id": "r1"}, {"tools": [{"type": "web_search"}]}],
    ids=str,
)
def test_a_budget_refuses_what_it_cannot_reserve_for(fields: dict[str, Any]) -> None:
    """Nobody knows how many tokens or USD the request may use; a budget of calls allows it."""
    body = {**ASKED["responses"], **fields}
    with reporter() as client, llmcall.budget(usd=5):
        refused = client.post(f"{URL}/responses", json=body)
    assert refused.status_code == 409
    assert "does not say how much it may use" in refused.json()["error"]["message"]
    with reporter() as client, llmcall.budget(calls=1):
        assert client.post(f"{URL}/responses", json=body).status_code == 200


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
    client = program(server, retry_max_attempts=1, deadline=60).with_options(max_retries=0)
    with pytest.raises(openai.RateLimitError):
        client.responses.create(model="m", input="Bread?")
    with pytest.raises(openai.APIError, match="past the deadline"):
        client.responses.create(model="m", input="Salt?")
    assert len(server.requests) == 1


def test_failures_and_retries_are_counted(server: Server) -> None:
    """A retry counts as one, and what fails after all retries as an error."""
    server.failures = [(500, {}, {"error": {"message": "overloaded"}})] * 2
    settings: dict[str, Any] = {"retry_max_attempts": 2, "retry_waiting_time": 0}
    with llmcall.track() as usage, pytest.raises(openai.InternalServerError):
        program(server, **settings).responses.create(model="m", input="Bread?")
    assert (usage.calls, usage.retries, usage.errors) == (0, 1, 1)


# Answers that failed

ERROR = {"error": {"type": "overloaded_error", "message": "Overloaded"}}
STARTED = {"responses": RESPONSES_EVENTS[:2], "messages": MESSAGES_EVENTS[:2]}
GEMINI, GEMINI_STREAM = "models/g:generateContent", "models/g:streamGenerateContent"
TWO_ANSWERS = "models/two:streamGenerateContent"


def gemini(*texts: str, reason: str | None = "STOP", **fields: Any) -> dict[str, Any]:
    """Return an answer of Gemini's API, or a chunk of its stream."""
    content = {"parts": [{"text": text} for text in texts], "role": "model"}
    return {"candidates": [{"content": content, "finishReason": reason, **fields}]}


FAILED: dict[str, tuple[str, Any]] = {
    "failed": ("responses", {"status": "failed", "error": {"code": "server_error"}}),
    "error": ("messages", {"type": "error", **ERROR}),
    "failed stream": (
        "responses",
        [*STARTED["responses"], {"type": "response.failed", "response": {"status": "failed"}}],
    ),
    "error in a stream": (
        "messages",
        [*STARTED["messages"], {"type": "error", **ERROR}, MESSAGES_EVENTS[-1]],
    ),
    "cut stream": ("responses", STARTED["responses"]),
    "response of an unknown status": ("responses", {"status": "expired", "output": []}),
    "Gemini's error": (GEMINI, {"error": {"code": 503, "message": "overloaded"}}),
    "Gemini's cut stream": (GEMINI_STREAM, [gemini("Two", reason=None)]),
    "Gemini's stream cut in the second answer": (
        TWO_ANSWERS,
        [gemini("Two"), gemini("Three", reason=None, index=1)],
    ),
    "Gemini's error in an array": (
        GEMINI_STREAM,
        http.Response(200, json=[gemini("Two"), {"error": {"code": 500}}]),
    ),
    "completion's error": ("completions", {"error": {"message": "Overloaded"}}),
    "completions' cut stream": ("completions", [{"choices": [{"text": "Two"}]}]),
    "error in a stream of completions": (
        "completions",
        [{"choices": [{"text": "Two", "finish_reason": "stop"}]}, {"error": {"message": "no"}}],
    ),
}
BLOCKED = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
MALFORMED_CALL = {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "index": 0}]}
ANSWERED: dict[str, tuple[str, Any]] = {
    "cut": (
        "responses",
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
    ),
    "filtered": (
        "responses",
        {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
    ),
    "in the background": ("responses", {"status": "queued", "error": None}),
    "cut stream of responses": (
        "responses",
        [{"type": "response.incomplete", "response": {"status": "incomplete"}}],
    ),
    "no object": ("responses", http.Response(200, json=[])),
    "half an object": (
        "messages",
        http.Response(200, headers={"content-type": "application/json"}, content=b'{"content": ['),
    ),
    "message of an unknown ending": ("messages", {"content": [], "stop_reason": "network_error"}),
    "Gemini's cut answer": (GEMINI, gemini("Two", reason="MAX_TOKENS")),
    "Gemini's empty answer": (GEMINI, gemini(reason="STOP")),
    "Gemini's answer without an end": (GEMINI, gemini("Two", reason=None)),
    "Gemini's filtered answer": (GEMINI, gemini("Two", reason="SAFETY")),
    "Gemini's broken tool call": (GEMINI, MALFORMED_CALL),
    "Gemini's blocked prompt": (GEMINI, BLOCKED),
    "Gemini's blocked prompt, streamed": (GEMINI_STREAM, [BLOCKED]),
    "Gemini's stream": (
        GEMINI_STREAM,
        [gemini("Two", reason=None), gemini(""), {"usageMetadata": {}}],
    ),
    "Gemini's filtered stream": (GEMINI_STREAM, [gemini("Two"), gemini(reason="SAFETY")]),
    "Gemini's stream of fewer answers than asked for": (TWO_ANSWERS, [gemini("Two")]),
    "a stream of decisions": ("decisions", [{"type": "decision", "verdict": "yes"}]),
    "Gemini's array": (
        GEMINI_STREAM,
        http.Response(200, json=[gemini("Two", reason=None), gemini("")]),
    ),
    "filtered completion": ("completions", {"choices": [{"finish_reason": "content_filter"}]}),
    "cut completion": ("completions", [{"choices": [{"text": "Two", "finish_reason": "length"}]}]),
}
POSTED: dict[str, Any] = {
    **ASKED,
    GEMINI: {"contents": [{"parts": [{"text": "Bread?"}]}]},
    GEMINI_STREAM: {"contents": [{"parts": [{"text": "Bread?"}]}]},
    TWO_ANSWERS: {
        "contents": [{"parts": [{"text": "Bread?"}]}],
        "generationConfig": {"candidateCount": 2},
    },
    "completions": {"model": "m", "prompt": "Bread?"},
    "decisions": {"model": "m", "input": "Bread?"},
}
WHOLE: dict[str, Any] = {
    "responses": {"status": "completed", "output": []},
    "messages": {"content": []},
    GEMINI: gemini("Two"),
    GEMINI_STREAM: gemini("Two"),
    TWO_ANSWERS: gemini("Two"),
    "completions": {"choices": [{"text": "Two", "finish_reason": "stop"}]},
}


def response_of(answer: Any) -> Any:
    """Return a response with the status 200: JSON, the events of a stream, or what it is already."""
    if isinstance(answer, list):
        return events_of(answer)
    return http.Response(200, json=answer) if isinstance(answer, dict) else answer


def in_turn(*answers: Any, **overrides: Any) -> Any:
    """Return an HTTP client at a server that gives answers in turn."""
    remaining = list(answers)
    transport = http.MockTransport(lambda _: response_of(remaining.pop(0)))
    settings: dict[str, Any] = {"retry_max_attempts": 1, "retry_waiting_time": 0, **overrides}
    return llmcall.http_client(transport=transport, **settings)


def posts(client: Any, api: str, times: int = 2) -> list[str]:
    """Post the same request several times, and return the bodies of the answers."""
    return [client.post(f"{URL}/{api}", json=POSTED[api]).text for _ in range(times)]


@pytest.mark.parametrize("case", FAILED)
def test_an_answer_that_failed_is_not_recorded(case: str) -> None:
    """With the status 200, a failure that the server reports, and half a stream, are no answers either: the program
    has them as they came, and the next equal request is sent again.
    """
    api, answer = FAILED[case]
    with llmcall.cassette("run.jsonl") as tape, in_turn(answer, WHOLE[api]) as client:
        got = client.post(f"{URL}/{api}", json=POSTED[api])
        assert json.loads(posts(client, api, times=1)[0]) == WHOLE[api]
    came = response_of(answer)
    assert (got.status_code, got.content) == (200, came.content)
    assert tape.asked == tape.records == 1


def test_an_answer_that_failed_is_reported_as_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """At the end, with what to do about it."""
    with llmcall.cassette("run.jsonl"), in_turn({"status": "failed"}) as client:
        posts(client, "responses", times=1)
    assert "1 call failed" in caplog.text
    first = r"The first: http call \w+ of POST /v1/responses: ServiceError"
    assert re.search(first, caplog.text)


def test_an_answer_that_failed_is_asked_for_again() -> None:
    answers = {"status": "failed"}, {"error": {"message": "busy"}}, WHOLE["responses"]
    with llmcall.track() as usage, in_turn(*answers, retry_max_attempts=3) as client:
        assert json.loads(posts(client, "responses", times=1)[0]) == WHOLE["responses"]
    assert (usage.calls, usage.retries, usage.errors) == (1, 2, 0)


@pytest.mark.parametrize("case", ANSWERED)
def test_an_answer_with_status_200_is_recorded_as_it_came(case: str) -> None:
    """Whether it was cut, filtered, is empty or no answer that anybody understands: it is the program's to judge,
    and was paid, so it is not sent again.
    """
    api, answer = ANSWERED[case]
    with in_turn(answer, retry_max_attempts=3) as client:
        first, second = posts(client, api)
    assert first == second == response_of(answer).text


# Polling

POLLED: list[dict[str, Any]] = [
    {"status": "queued"},
    {"status": "in_progress"},
    {"status": "completed"},
]


SDK = {"x-stainless-lang": "python"}  # a header of the SDK


def poll(client: Any, times: int = 3) -> list[Any]:
    """Send the same GET several times, and return the answers."""
    return [client.get(f"{URL}/responses/r1", headers=SDK).json() for _ in range(times)]


def test_a_replay_of_a_program_that_polls_gets_the_last_answer() -> None:
    """In no scope, it is the only record of these calls, so the program's loop ends."""
    with llmcall.scope(None):
        with llmcall.cassette("run.jsonl") as tape, in_turn(*POLLED) as client:
            poll(client)
        assert (tape.records, tape.recorded, tape.asked) == (1, 1, 1)
        with llmcall.cassette("run.jsonl", mode="none"), in_turn() as client:
            assert poll(client, times=1) == POLLED[-1:]


def test_polling_in_a_cassette_replays_each_answer() -> None:
    """Each GET is a draw."""
    for mode, answers in (("once", POLLED), ("none", [])):
        with llmcall.cassette("run.jsonl", mode=mode), in_turn(*answers) as client:
            assert poll(client) == POLLED


def test_the_disk_cache_answers_no_get_that_may_be_sent() -> None:
    """Its record may be long past; a job would seem to be done."""
    for answer in POLLED[:2]:
        with in_turn(answer) as client, llmcall.scope("poll"):
            assert poll(client, times=1) == [answer]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "r1/input_items"), ("DELETE", "r1"), ("POST", "r1/cancel")],
)
def test_a_request_without_a_body_passes_and_replays(method: str, path: str) -> None:
    """A background response is cancelled and deleted while recording, and not in a replay; to the
    host of a model that was asked, without the SDK's header, too.
    """
    for mode, answers in (("once", [WHOLE["responses"], {"id": "r1"}]), ("none", [])):
        with llmcall.cassette("run.jsonl", mode=mode), in_turn(*answers) as client:
            posts(client, "responses", times=1)
            assert client.request(method, f"{URL}/responses/{path}").json() == {"id": "r1"}


# What passes on


class Dripping(http.SyncByteStream):  # type: ignore[misc]
    """The body of a stream, which notes what its reader has of it when it sends the next piece.

    :ivar had: how many events the reader had each time.
    """

    def __init__(self, events: list[Any]) -> None:
        self.events = events
        self.read = 0
        self.had: list[int] = []

    def __iter__(self) -> Any:
        for sent in self.events:
            self.had.append(self.read)
            name = sent.get("type") if isinstance(sent, dict) else None
            yield (f"event: {name}\n".encode() if name else b"") + event(sent)


def streaming(body: Callable[[], Any]) -> Any:
    """Return the transport of a server that answers each request with a stream."""
    headers = {"content-type": "text/event-stream"}
    return http.MockTransport(lambda _: http.Response(200, headers=headers, stream=body()))


def streamed(body: Dripping, api: str, mode: str = "once") -> list[bytes]:
    """Read a streamed answer of an API, or of a host that is named, and return its pieces."""
    url = f"https://{api}/ask" if api in HOSTS else f"{URL}/{api}"
    asked = {**ASKED.get(api, {}), "stream": True}
    pieces = []
    with (
        llmcall.cassette("run.jsonl", mode=mode, hosts=HOSTS),
        http.Client(transport=streaming(lambda: body)) as client,
        client.stream("POST", url, json=asked) as response,
    ):
        for piece in response.iter_bytes():
            pieces.append(piece)
            body.read += 1
    return pieces


@pytest.mark.parametrize(
    ("api", "events"),
    [
        ("responses", RESPONSES_EVENTS),
        ("messages", MESSAGES_EVENTS),
        ("one.example", MESSAGES_EVENTS),
    ],
)
def test_a_stream_passes_on_as_it_comes(api: str, events: list[dict[str, Any]]) -> None:
    """The reader has each event before the server sends the next one, but for what follows the end of an
    answer; a replay gives the same.
    """
    body = Dripping(events)
    live = streamed(body, api)
    assert body.had == ([0, 1, 2, 2] if api == "messages" else list(range(len(events))))
    assert b"".join(streamed(Dripping([]), api, "none")) == b"".join(live)


def test_a_stream_that_breaks_off_has_passed_on_and_is_not_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is not sent again either: the program has its beginning."""
    body = Dripping(RESPONSES_EVENTS[:2])
    assert len(streamed(body, "responses")) == 2
    assert "1 call failed" in caplog.text
    assert not Path("run.jsonl").exists()


GEMINI_EVENTS = [
    {"candidates": [{"content": {"parts": [{"text": "Yes"}]}}]},
    {"candidates": [{"content": {"parts": [{"text": "."}]}, "finishReason": "STOP"}]},
    {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 2}},
]
INTERACTION_EVENTS = [
    {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}},
    {"event_type": "interaction.completed", "interaction": {"status": "completed"}},
    b"[DONE]",
]
CHAT_EVENTS = [
    {"choices": [{"index": 1, "delta": {"content": "No"}, "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "delta": {"content": "Yes"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
    b"[DONE]",
]
COMPLETION_EVENTS = [
    {"choices": [{"index": 0, "text": "Yes", "finish_reason": None}]},
    {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
    b"[DONE]",
]
DONE_EVENTS = [*({"choices": [{"index": 0, "text": text}]} for text in "ab"), b"[DONE]"]
# By the path: the events, and how many of them a program reads that stops where the answer ends.
LEFT = {
    "v1/responses": (RESPONSES_EVENTS, 3),  # some frameworks stop at the last event
    "v1/messages": (MESSAGES_EVENTS, 3),
    "v1beta/models/g:streamGenerateContent": (GEMINI_EVENTS, 2),
    "v1beta/interactions": (INTERACTION_EVENTS, 2),
    "v1/chat/completions": (CHAT_EVENTS, 3),
    "v1/completions": (COMPLETION_EVENTS, 2),
    "openai/v1/completions": (DONE_EVENTS, 3),  # openai's SDK stops at [DONE]
}
unread: list[Any] = []  # responses that a program keeps and never closes


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("path", LEFT)
def test_a_stream_is_whole_when_its_answer_has_ended_whatever_the_program_reads_after_it(
    path: str, is_closed: bool
) -> None:
    """LiteLLM stops at ``message_delta``, reads no ``message_stop``, and closes nothing; many programs stop at
    a ``finish_reason``. What a replay gives is whole.
    """
    events, read = LEFT[path]
    body = {**ASKING.get(path, {"model": "m", "input": "Bread?"}), "stream": True, "n": 1}
    body["n"] += path == "v1/chat/completions"
    client = http.Client(transport=streaming(lambda: Dripping(events)))
    request = client.build_request("POST", f"https://api.example/{path}", json=body)
    with llmcall.cassette("run.jsonl") as tape:
        response = client.send(request, stream=True)
        pieces = response.iter_bytes()
        for _ in range(read):
            next(pieces)
        if is_closed:
            response.close()
        else:
            unread.append((response, pieces))
        assert tape.recorded == 1
    with llmcall.cassette("run.jsonl", mode="none"):
        replayed = client.send(request).text
    after_it = "[DONE]" if b"[DONE]" in events else json.dumps(events[-1])
    assert after_it in replayed


class Held(http.AsyncByteStream):  # type: ignore[misc]
    """The body of a stream, which notes that it was closed."""

    def __init__(self, events: list[Any]) -> None:
        self.body = Dripping(events)
        self.is_closed = False

    async def __aiter__(self) -> Any:
        for piece in self.body:
            yield piece

    async def aclose(self) -> None:
        """Note it."""
        self.is_closed = True


@pytest.mark.parametrize("path", LEFT)
def test_an_asynchronous_stream_that_is_left_early_has_closed_its_response(path: str) -> None:
    """As without llmcall, when the block around it ends: its connection is free again."""
    body = Held(LEFT[path][0])
    asked = {**ASKING.get(path, {"model": "m", "input": "Bread?"}), "stream": True}

    async def leave() -> bool:
        async with (
            http.AsyncClient(transport=streaming(lambda: body)) as client,
            client.stream("POST", f"https://api.example/{path}", json=asked) as response,
        ):
            await anext(response.aiter_bytes())
            await response.aclose()
            return body.is_closed

    with llmcall.patched():
        assert asyncio.run(leave())


@pytest.mark.parametrize("levels", [300, 450, 990])
def test_a_body_nested_too_deeply_for_a_file_passes_as_the_program_sent_it(levels: int) -> None:
    """Nothing is recorded of it."""
    body = b'{"model": "m", "messages": [], "x": %s}' % (b"[" * levels + b"]" * levels)
    sent = []

    def answer(request: Any) -> Any:
        sent.append(request.content)
        return http.Response(200, text="passed")

    def post() -> Any:
        with http.Client(transport=http.MockTransport(answer)) as client:
            headers = {"content-type": "application/json"}
            url = "https://api.openai.com/v1/chat/completions"
            return client.post(url, content=body, headers=headers)

    with llmcall.cassette("run.jsonl") as tape:
        assert post().text == "passed"
    assert (sent, tape.recorded) == ([body], 0)


def test_an_empty_stream_of_an_unchecked_api_reaches_the_program() -> None:
    """With its status, as without llmcall; a replay gives it, too."""
    headers = {"content-type": "text/event-stream"}
    transport = http.MockTransport(lambda _: http.Response(200, headers=headers, content=b""))
    asked = {"model": "m", "input": "Bread?", "stream": True}
    for mode in ("new", "none"):
        with llmcall.cassette("run.jsonl", mode=mode), http.Client(transport=transport) as client:
            got = client.post("https://api.openai.com/v1/agents/sessions", json=asked)
        assert (got.status_code, got.content) == (200, b"")
