"""A program's requests that are neither chats nor embeddings: recorded as they are, and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sdk_programs import Server, program

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
    [
        {"max_tokens": 5, "key": 3, "tokens": "a b", "keyword": "bread", "monkey": "Lisa"},
        {"rows": [{"key": "bread", "token": "salt"}], "secretary": "Bart"},
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
