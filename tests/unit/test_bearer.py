"""Keys that a function gives: asked before every attempt, once more after a 401, never kept."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from servers import OK, RETRY_AT_ONCE, Answer, ScriptedServer, embeddings, refusal

import llmcall
from llmcall import AzureClient, LLMClient, OpenAIClient

EXPIRED = refusal(401, "token expired")
BUSY = refusal(500, "busy")

Tokens = Callable[[], Any]
Ask = Callable[[LLMClient], Any]


def tokens() -> Tokens:
    """Return a function that gives another token each time."""
    numbers = itertools.count(1)
    return lambda: f"header.payload-{next(numbers)}.signature"


def async_tokens() -> Tokens:
    """Return an asynchronous one."""
    numbers = itertools.count(1)

    async def token() -> str:
        await asyncio.sleep(0)
        return f"header.payload-{next(numbers)}.signature"

    return token


def in_a_loop(client: LLMClient) -> Any:
    """Call the synchronous method where an event loop is running."""

    async def call() -> Any:
        return client.send_message("Hello", on_error="raise")

    return asyncio.run(call())


def stream(client: LLMClient) -> Any:
    """Call the streaming method, whose first answer must be a failure."""
    with client.stream_message("Hello", on_error="raise") as found:
        list(found)
    return found.reply


ASKS: dict[str, Ask] = {
    "sync": lambda client: client.send_message("Hello", on_error="raise"),
    "async": lambda client: asyncio.run(client.asend_message("Hello", on_error="raise")),
    "sync in a loop": in_a_loop,
    "embedding": lambda client: client.get_embedding("Hello", on_error="raise"),
}
EVERY_WAY = pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
BOTH = pytest.mark.parametrize("make", [tokens, async_tokens], ids=["function", "coroutine function"])


def sent(server: ScriptedServer) -> list[str]:
    """Return the numbers of the tokens that a server saw."""
    headers = [seen.headers["authorization"] for seen in server.requests]
    assert all(header.startswith("Bearer header.payload-") for header in headers)
    return [header.split("-")[1].split(".")[0] for header in headers]


def answer_to(ask: Ask) -> Answer:
    """Return what the way of asking expects."""
    return Answer(200, embeddings([1.0])) if ask is ASKS["embedding"] else OK


@EVERY_WAY
@BOTH
def test_asked_before_every_attempt(ask: Ask, make: Callable[[], Tokens], httpserver: HTTPServer) -> None:
    """Every attempt has a token of its own; a recorded answer needs none."""
    server = ScriptedServer(httpserver, BUSY, BUSY, answer_to(ask))
    client = OpenAIClient(base_url=server.base_url, api_key=make(), **RETRY_AT_ONCE)
    for _ in range(2):
        ask(client)
    assert sent(server) == ["1", "2", "3"]


@EVERY_WAY
@BOTH
def test_asked_once_more(ask: Ask, make: Callable[[], Tokens], httpserver: HTTPServer) -> None:
    """After a 401 the function is asked once more, within the same attempt."""
    server = ScriptedServer(httpserver, EXPIRED, answer_to(ask))
    ask(OpenAIClient(base_url=server.base_url, api_key=make(), retry_max_attempts=1))
    assert sent(server) == ["1", "2"]


@EVERY_WAY
def test_asked_once_more_only(ask: Ask, httpserver: HTTPServer) -> None:
    """A second 401 is an AuthenticationError."""
    server = ScriptedServer(httpserver, EXPIRED)
    with pytest.raises(llmcall.AuthenticationError):
        ask(OpenAIClient(base_url=server.base_url, api_key=tokens(), **RETRY_AT_ONCE))
    assert sent(server) == ["1", "2"]


@pytest.mark.parametrize(("status", "key", "count"), [(403, tokens(), 1), (401, "header.payload-0.signature", 1)])
def test_what_is_not_asked_again(status: int, key: Any, count: int, httpserver: HTTPServer) -> None:
    """A 403 is no matter of time, and a fixed key will be no better."""
    server = ScriptedServer(httpserver, refusal(status, "no"))
    with pytest.raises(llmcall.AuthenticationError):
        ASKS["sync"](OpenAIClient(base_url=server.base_url, api_key=key, **RETRY_AT_ONCE))
    assert len(server.requests) == count


@EVERY_WAY
@BOTH
def test_azure_ad_token_provider(ask: Ask, make: Callable[[], Tokens], httpserver: HTTPServer) -> None:
    """Azure's token provider is asked likewise, and its token goes where Azure expects it."""
    server = ScriptedServer(httpserver, BUSY, EXPIRED, answer_to(ask))
    address = server.base_url.removesuffix("/v1")
    client = AzureClient(
        azure_endpoint=address, azure_api_version="2024-10-21", azure_ad_token_provider=make(), **RETRY_AT_ONCE
    )
    ask(client)
    assert sent(server) == ["1", "2", "3"]
    assert all("api-key" not in seen.headers for seen in server.requests)
    assert server.requests[0].path.startswith("/openai/deployments/")


def test_from_many_threads(httpserver: HTTPServer) -> None:
    """Every call of every thread has a token of its own."""
    server = ScriptedServer(httpserver, OK)
    lock, numbers = threading.Lock(), itertools.count(1)

    def token() -> str:
        with lock:
            return f"header.payload-{next(numbers)}.signature"

    client = OpenAIClient(base_url=server.base_url, api_key=token)
    threads = [threading.Thread(target=client.send_message, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, sent(server))) == list(range(1, 9))


def test_never_kept_nor_told(httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    """No token is in the cache, the log, a repr or an error, even if the server repeats it."""
    secret = "header.payload-1.signature"
    server = ScriptedServer(httpserver, refusal(500, f"busy; you sent {secret}"), OK, refusal(401, f"{secret} is bad"))
    client = OpenAIClient(base_url=server.base_url, api_key=lambda: secret, **RETRY_AT_ONCE)
    with caplog.at_level(logging.DEBUG, "llmcall"):
        reply = client.send_message("Hello", on_error="raise")
        with pytest.raises(llmcall.AuthenticationError) as raised:
            client.send_message("Again", on_error="raise")
    told = [
        caplog.text,
        str(raised.value),
        repr(client),
        repr(client.settings),
        repr(reply),
        repr(client.endpoints("x")),
    ]
    assert not [text for text in told if "payload-1" in text]
    assert "you sent ***" in caplog.text
    stored = [path.read_bytes() for path in Path(".llmcall").rglob("*") if path.is_file()]
    assert stored and not [data for data in stored if b"payload-1" in data]


@pytest.mark.parametrize(
    "value", [None, b"secret", 5, "", " \n", ["secret"], "sec\nret", "sécret", "sec\x00ret"], ids=repr
)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["function", "coroutine function"])
@pytest.mark.parametrize("ask", [ASKS["sync"], ASKS["async"]], ids=["sync", "async"])
def test_what_is_no_token(ask: Ask, value: Any, asynchronous: bool, httpserver: HTTPServer) -> None:
    """What no header can carry is a ConfigError before any call, which does not show it."""
    server = ScriptedServer(httpserver, OK)

    async def coroutine() -> Any:
        return value

    client = OpenAIClient(base_url=server.base_url, api_key=coroutine if asynchronous else lambda: value)
    with pytest.raises(llmcall.ConfigError, match="the api_key function returned") as raised:
        ask(client)
    assert "sec" not in str(raised.value) and not server.requests


@pytest.mark.parametrize("ask", [ASKS["sync"], ASKS["async"]], ids=["sync", "async"])
def test_a_token_from_a_file(ask: Ask, httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    """The line end behind a token, as files have it, is no part of it."""
    server = ScriptedServer(httpserver, OK)
    ask(OpenAIClient(base_url=server.base_url, api_key=lambda: "a-token-of-a-file\n"))
    assert server.requests[0].headers["authorization"] == "Bearer a-token-of-a-file"
    assert "a-token" not in caplog.text


@pytest.mark.parametrize("wrong", ["schlüssel-77", "key\x00-77", "key\r\nx: 77"], ids=repr)
@pytest.mark.parametrize("setting", ["api_key", "organization"])
@pytest.mark.parametrize("on_error", ["raise", "none"])
def test_a_key_that_no_header_carries(wrong: str, setting: str, on_error: str, httpserver: HTTPServer) -> None:
    """A key or an organization of other characters is a ConfigError before any call, which does not show it."""
    server = ScriptedServer(httpserver, OK)
    with pytest.raises(llmcall.ConfigError) as raised:
        OpenAIClient(base_url=server.base_url, **{"api_key": "k", setting: wrong}).send_message("Hi", on_error=on_error)
    assert (setting == "organization" or "77" not in str(raised.value)) and not server.requests


def test_a_function_that_fails(httpserver: HTTPServer) -> None:
    """What the function itself raises is raised, whatever on_error says, and nothing is sent."""
    server = ScriptedServer(httpserver, OK)

    def token() -> str:
        raise PermissionError("the vault is locked")

    client = OpenAIClient(base_url=server.base_url, api_key=token, **RETRY_AT_ONCE)
    with pytest.raises(PermissionError, match="vault"):
        client.send_message("Hello")
    assert not server.requests
