"""Clients over HTTP: which server is asked how, what is sent, whose key, and what a client is made of."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import openai
import pytest
from pytest_httpserver import HTTPServer
from servers import OK, QUESTION, Answer, ScriptedServer, completion, embeddings, refusal

import llmcall
from llmcall.errors import ConfigError

SECRET = "sk-proj-a-very-secret-key-0123456789"
DEPLOYED = "/openai/deployments/{}/chat/completions?api-version=2024-10-21"


@pytest.fixture
def server(httpserver: HTTPServer) -> ScriptedServer:
    """A server that always answers."""
    return ScriptedServer(httpserver, OK)


def plain(**settings: Any) -> llmcall.OpenAIClient:
    """Return a client that stores nothing."""
    http_client = openai.DefaultHttpxClient(verify=False)
    return llmcall.OpenAIClient(http_client=http_client, **{"cache_mode": "off", "retry_waiting_time": 0, **settings})


@pytest.mark.parametrize("kind", [llmcall.OpenAIClient, llmcall.AzureClient])
def test_a_misspelt_argument_of_a_client(kind: type[llmcall.OpenAIClient]) -> None:
    """The client that was called is named, and the setting that was meant."""
    with pytest.raises(TypeError, match=rf"^{kind.__name__}\(\) has no setting 'modle'; did you mean 'model'\?"):
        kind(modle="x")


def azure(server: ScriptedServer, **settings: Any) -> llmcall.AzureClient:
    """Return a client of a server that is taken for an Azure resource."""
    return llmcall.AzureClient(
        http_client=openai.DefaultHttpxClient(verify=False),
        **{
            "azure_endpoint": server.base_url.removesuffix("/v1"), "azure_api_version": "2024-10-21",
            "cache_mode": "off",
            "api_key": SECRET, **settings,
        },
    )  # fmt: skip


def test_what_is_sent(server: ScriptedServer) -> None:
    """Path, key, organization, own headers and the body are those of the API; extra_body goes into the body."""
    client = plain(base_url=server.base_url, api_key=SECRET, organization="org-1", model="m")
    client.send_message(
        QUESTION, temperature=1.0, stop="x", n=1, user="u1", metadata={"a": "b"}, service_tier="flex",
        extra_headers={"X-Run": "7"}, extra_body={"top_k": 40}, echo=True, sample=3, timeout=9,
    )  # fmt: skip
    (seen,) = server.requests
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {SECRET}"
    assert (seen.headers["openai-organization"], seen.headers["x-run"]) == ("org-1", "7")
    assert seen.body == {
        "model": "m", "messages": QUESTION, "temperature": 1.0, "stop": "x", "n": 1, "user": "u1",
        "metadata": {"a": "b"}, "service_tier": "flex", "top_k": 40,
    }  # fmt: skip


def test_what_is_not_given_is_not_sent(server: ScriptedServer) -> None:
    """Without parameters and defaults the body is model and messages."""
    plain(base_url=server.base_url).send_message("Hello")
    assert server.requests[0].body == {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


def test_defaults_of_the_settings_are_sent(server: ScriptedServer) -> None:
    """Sampling parameters of the settings are sent where the call says nothing else."""
    client = plain(base_url=server.base_url, temperature=0.5, max_tokens=7, top_p=0.9)
    client.send_message("Hello", max_tokens=8)
    assert {name: server.requests[0].body[name] for name in ("temperature", "max_tokens", "top_p")} == {
        "temperature": 0.5, "max_tokens": 8, "top_p": 0.9,
    }  # fmt: skip


def test_reasoning_models_get_their_own_parameters(server: ScriptedServer) -> None:
    """They get max_completion_tokens and none of the sampling parameters that they refuse."""
    client = plain(base_url=server.base_url, model="o3-mini")
    client.send_message("Hello", temperature=0.5, top_p=0.9, max_tokens=100, reasoning_effort="low")
    body = server.requests[0].body
    assert (body["max_completion_tokens"], body["reasoning_effort"]) == (100, "low")
    assert not {"temperature", "top_p", "max_tokens"} & body.keys()


def test_azure(server: ScriptedServer) -> None:
    """Azure's path names the deployment and the version, the key is in a header of its own."""
    reply = azure(server).send_message(QUESTION, on_error="raise", model="gpt-4o")
    (seen,) = server.requests
    assert seen.path == DEPLOYED.format("gpt-4o")
    assert seen.headers["api-key"] == SECRET
    assert seen.headers.get("authorization") in (None, f"Bearer {SECRET}")  # openai 2.0 sends it twice
    assert reply.content == "Two coins."


def test_azure_s_deployment_may_have_another_name(server: ScriptedServer) -> None:
    """An endpoint of the pool names the deployment; the key of the request is that of the model."""
    endpoint = llmcall.Endpoint(
        "east", ("gpt-4o",), azure_endpoint=server.base_url.removesuffix("/v1"), azure_api_version="2024-10-21",
        api_key=SECRET, api_type="azure", deployment="mine",
    )  # fmt: skip
    client = plain(endpoints=[endpoint], model="gpt-4o")
    reply = client.send_message(QUESTION, on_error="raise")
    assert server.requests[0].path == DEPLOYED.format("mine")
    assert reply.cache_key == plain(model="gpt-4o").build_request(QUESTION).cache_key
    assert reply.endpoint == "east"


def test_azure_streams_and_embeds(httpserver: HTTPServer) -> None:
    """Embeddings go to their own deployment."""
    server = ScriptedServer(httpserver, Answer(200, embeddings([0.5, 0.25])))
    assert azure(server).get_embedding("text", "text-embedding-3-large") == [0.5, 0.25]
    assert server.requests[0].path == "/openai/deployments/text-embedding-3-large/embeddings?api-version=2024-10-21"


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"azure_endpoint": None}, "AZURE_OPENAI_ENDPOINT"),
        ({"azure_api_version": None}, "OPENAI_API_VERSION"),
    ],
)
def test_azure_says_what_is_missing(server: ScriptedServer, settings: dict[str, Any], remedy: str) -> None:
    """A missing address or version is a ConfigError that names its variable, before any call."""
    given = {"azure_endpoint": server.base_url, "azure_api_version": "2024-10-21", "api_key": SECRET}
    client = llmcall.AzureClient(
        cache_mode="off", **{name: value for name, value in {**given, **settings}.items() if value}
    )
    with pytest.raises(ConfigError, match=remedy):
        client.send_message(QUESTION)
    assert server.requests == []


def test_embeddings(httpserver: HTTPServer) -> None:
    """Texts go as one list, with the model and dimensions, to the embeddings' path."""
    server = ScriptedServer(httpserver, Answer(200, embeddings([1.0], [2.0])))
    assert plain(base_url=server.base_url).get_embedding(["a", "b"], dimensions=1) == [[1.0], [2.0]]
    (seen,) = server.requests
    assert seen.path == "/v1/embeddings"
    assert {name: seen.body[name] for name in ("input", "model", "dimensions")} == {
        "input": ["a", "b"], "model": "text-embedding-3-small", "dimensions": 1,
    }  # fmt: skip


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_key_function_is_asked_before_every_attempt(httpserver: HTTPServer, asynchronous: bool) -> None:
    """A function gives the token of each attempt; a 401 asks once more, and no token is kept."""
    server = ScriptedServer(httpserver, refusal(503), refusal(401), OK)
    tokens = iter(f"{SECRET}-{number}" for number in range(9))

    def key() -> str:
        return next(tokens)

    async def akey() -> str:
        await asyncio.sleep(0)
        return next(tokens)

    client = plain(base_url=server.base_url, api_key=akey if asynchronous else key)
    client.send_message(QUESTION, on_error="raise")
    asyncio.run(client.asend_message(QUESTION, on_error="raise"))
    assert [seen.headers["authorization"] for seen in server.requests] == [
        f"Bearer {SECRET}-{number}" for number in range(4)
    ]


def test_keys_are_shown_nowhere(httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither repr nor log nor error nor record holds the key."""
    caplog.set_level(logging.DEBUG)
    server = ScriptedServer(httpserver, refusal(401, f"Incorrect API key provided: {SECRET}."), OK)
    client = plain(base_url=server.base_url, api_key=SECRET, cache_mode="auto")
    with pytest.raises(llmcall.AuthenticationError) as caught:
        client.send_message(QUESTION, on_error="raise")
    client.send_message(QUESTION)
    client.cache.close()
    shown = [
        repr(client),
        repr(client.settings),
        str(caught.value),
        repr(caught.value),
        *(r.getMessage() for r in caplog.records if r.name == "llmcall"),
    ]
    stored = [path.read_bytes().decode(errors="replace") for path in client.cache.path.iterdir()]
    assert not [text for text in [*shown, *stored] if SECRET in text]


def test_only_a_loopback_server_needs_no_key(server: ScriptedServer) -> None:
    """Another host without a key is a ConfigError that names host and variable, before any call."""
    assert plain(base_url=server.base_url).send_message(QUESTION) is not None
    for client in (plain(), plain(base_url="https://models.example.com/v1")):
        with pytest.raises(ConfigError, match=r"(api\.openai|models\.example)\.com.*OPENAI_API_KEY"):
            client.send_message(QUESTION)


def test_endpoints_take_turns(httpserver: HTTPServer) -> None:
    """Servers that list the same model are asked in turn; the reply names the one that answered."""
    server = ScriptedServer(httpserver, OK)
    endpoints = [
        llmcall.Endpoint(name, ("m",), base_url=server.base_url, api_key=f"{SECRET}-{name}")
        for name in ("east", "west")
    ]
    client = plain(endpoints=endpoints, model="m")
    assert [client.send_message(QUESTION, on_error="raise").endpoint for _ in range(4)] == ["east", "west"] * 2
    assert [seen.headers["authorization"][-4:] for seen in server.requests] == ["east", "west"] * 2


@pytest.mark.parametrize("kind", [llmcall.OpenAIClient, llmcall.AzureClient, llmcall.LocalClient, llmcall.LLMClient])
def test_wrong_settings_are_refused_when_a_client_is_made(kind: type[llmcall.LLMClient]) -> None:
    """A setting that there is not is a TypeError that suggests, a wrong value a ConfigError."""
    with pytest.raises(TypeError, match="temperature"):
        kind(temprature=1)
    with pytest.raises(ConfigError, match=r"(?i)mode"):
        kind(cache_mode="sometimes")


def test_making_a_client_does_nothing(server: ScriptedServer) -> None:
    """Making one, its repr, its settings, usage, cache and requests send nothing and store nothing."""
    client = plain(base_url=server.base_url, model="m", cache_mode="auto")
    assert repr(client) == "OpenAIClient(model='m')"
    assert (client.settings.model, client.usage.calls, client.cache.mode) == ("m", 0, "auto")
    assert client.build_request(QUESTION).body["model"] == "m"
    assert client.count_tokens("Hello") > 0
    assert server.requests == []
    assert not client.cache.path.exists()


def test_settings_that_a_client_stands_on(server: ScriptedServer) -> None:
    """Given settings take the place of the process's, and the client's own arguments stand above both."""
    given = llmcall.settings().replace(model="given", temperature=0.5, base_url=server.base_url)
    llmcall.configure(model="configured", temperature=0.9)
    client = llmcall.OpenAIClient(given, temperature=0.25, cache_mode="off")
    client.send_message(QUESTION)
    assert (server.requests[0].body["model"], server.requests[0].body["temperature"]) == ("given", 0.25)
    client.close()


def test_closed_clients_open_again(server: ScriptedServer) -> None:
    """A client is a context manager; a closed one connects again at its next call."""
    with llmcall.OpenAIClient(base_url=server.base_url, cache_mode="off") as client:
        assert client.send_message(QUESTION) is not None
    assert client.send_message(QUESTION) is not None
    client.close()
    client.close()


def test_what_an_api_says_beyond_the_message_is_in_raw(httpserver: HTTPServer) -> None:
    """Unknown fields of a response are kept, live and cached."""
    ScriptedServer(httpserver, Answer(200, completion(service_tier="default", x_grok={"a": [1]})))
    client = plain(base_url=f"http://127.0.0.1:{httpserver.port}/v1", cache_mode="auto")
    for _ in range(2):
        reply = client.send_message(QUESTION, on_error="raise")
        assert (reply.raw["service_tier"], reply.raw["x_grok"]) == ("default", {"a": [1]})
