"""The head of a request that the SDK made once, sent again: nobody can tell it from one that the SDK makes anew."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from pytest_httpserver import HTTPServer
from servers import OK, Answer, RawServer, ScriptedServer, Seen, answers, closes, refusal

from llmcall import AzureClient, OpenAIClient, ServiceError

OWN = ("content-length", "x-stainless-read-timeout")
CLIENTS = ("openai", "azure")


def client_of(kind: str, base_url: str, **settings: Any) -> OpenAIClient:
    """Return a client that tries once."""
    once = {"retry_max_attempts": 1, "api_key": "sk-0123456789abcdefghij", **settings}
    if kind == "openai":
        return OpenAIClient(base_url=base_url, **once)
    address = base_url.removesuffix("/v1")
    return AzureClient(azure_endpoint=address, azure_api_version="2024-10-21", **once)


def asked(client: OpenAIClient, asynchronous: bool, *questions: str, **arguments: Any) -> list[Any]:
    """Ask in turn on one connection pool; an error is what it gives back."""

    async def ask_all() -> list[Any]:
        async with client:
            return [await client.asend_message(each, on_error="return", **arguments) for each in questions]

    if asynchronous:
        return asyncio.run(ask_all())
    with client:
        return [client.send_message(each, on_error="return", **arguments) for each in questions]


def head(seen: Seen) -> tuple[str, dict[str, str]]:
    """Return where a request went, and those of its headers that are not its alone."""
    return seen.path, {name: value for name, value in seen.headers.items() if name not in OWN}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", CLIENTS)
def test_later_requests_are_like_the_first(kind: str, asynchronous: bool, httpserver: HTTPServer) -> None:
    """Address and headers of later requests are those of the first; the body is their own."""
    server = ScriptedServer(httpserver, OK)
    asked(client_of(kind, server.base_url), asynchronous, "Apples?", "Pears?", "Größe?", temperature=0.5)
    assert [head(seen) for seen in server.requests] == [head(server.requests[0])] * 3
    assert [seen.body["messages"][0]["content"] for seen in server.requests] == ["Apples?", "Pears?", "Größe?"]
    assert {seen.body["temperature"] for seen in server.requests} == {0.5}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_later_refusals_are_like_the_first(status: int, asynchronous: bool, httpserver: HTTPServer) -> None:
    """A refusal of a later request is the error that one of the first is, with the SDK's as its cause."""
    told = []
    for before in ([], [OK]):
        httpserver.clear()
        server = ScriptedServer(httpserver, *before, refusal(status, "not now", code="busy"))
        error = asked(
            client_of("openai", server.base_url, cache_mode="off"), asynchronous, *["Apples?"] * (len(before) + 1)
        )[-1]
        told.append((type(error), str(error), type(error.__cause__), error.status_code, error.request_id, error.code))
    assert told[0] == told[1]
    assert issubclass(told[0][2], openai.APIStatusError)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_later_connection_fails(asynchronous: bool) -> None:
    """A connection that fails later is the same error with the same cause."""
    with RawServer(answers(), closes) as server:
        found = asked(client_of("openai", server.base_url), asynchronous, "Apples?", "Pears?")
    assert isinstance(found[1], ServiceError)
    assert isinstance(found[1].__cause__, openai.APIConnectionError)


def test_what_differs_has_a_head_of_its_own(httpserver: HTTPServer) -> None:
    """Another model of Azure's has another address; a call's own headers are its own."""
    server = ScriptedServer(httpserver, OK)
    client = client_of("azure", server.base_url)

    async def ask_all() -> None:
        async with client:
            for number, model in enumerate(("gpt-4o", "gpt-4o-mini", "gpt-4o")):
                await client.asend_message(f"Question {number}", model=model)
            await client.asend_message("Question 3", model="gpt-4o", extra_headers={"X-Own": "one"})
            await client.asend_message("Question 4", model="gpt-4o")

    asyncio.run(ask_all())
    assert [seen.path.split("/")[3] for seen in server.requests] == ["gpt-4o", "gpt-4o-mini", *["gpt-4o"] * 3]
    assert [seen.headers.get("x-own") for seen in server.requests] == [None, None, None, "one", None]


def test_embeddings_have_theirs(httpserver: HTTPServer) -> None:
    """Embeddings and chats of one name do not share a head."""
    vector = {"data": [{"index": 0, "embedding": [0.5, 0.25]}], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    server = ScriptedServer(httpserver, OK, Answer(200, vector), Answer(200, vector))
    with client_of("openai", server.base_url) as client:
        client.send_message("Apples?", model="one")
        assert [client.get_embedding(text, "one") for text in ("a", "b")] == [[0.5, 0.25]] * 2
    assert [seen.path.rsplit("/")[-1] for seen in server.requests] == ["completions", "embeddings", "embeddings"]
    assert [seen.body.get("encoding_format") for seen in server.requests] == [None, "float", "float"]
