"""What users meet on the network: hooks, addresses, headers, time limits and event loops."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from pytest_httpserver import HTTPServer
from servers import OK, Answer, ScriptedServer, refusal, refusing

import llmcall
from llmcall import AzureClient, ConfigError, OpenAIClient, aio

WAYS: dict[str, Callable[..., Any]] = {
    "sync": lambda client, **options: client.send_message("Hello", **options),
    "async": lambda client, **options: asyncio.run(client.asend_message("Hello", **options)),
    "stream": lambda client, **options: list(client.stream_message("Hello", **options)),
}
EVERY_WAY = pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS.keys())
LIBRARY: Any = __import__(openai.DefaultHttpxClient.__base__.__module__.partition(".")[0])


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_request_hook_sees_each_request(asynchronous: bool, httpserver: HTTPServer) -> None:
    """A hook that gives a request an identifier unless it has one gives each its own."""
    server, numbers = ScriptedServer(httpserver, OK), itertools.count(1)

    def identify(request: Any) -> None:
        request.headers.setdefault("x-correlation-id", str(next(numbers)))

    async def aidentify(request: Any) -> None:
        identify(request)

    async def ask_all() -> None:
        async with LIBRARY.AsyncClient(event_hooks={"request": [aidentify]}) as http_client:
            client = OpenAIClient(base_url=server.base_url, http_client=http_client)
            for question in "abcd":
                await client.asend_message(question, on_error="raise")

    if asynchronous:
        asyncio.run(ask_all())
    else:
        with LIBRARY.Client(event_hooks={"request": [identify]}) as http_client:
            client = OpenAIClient(base_url=server.base_url, http_client=http_client)
            for question in "abcd":
                client.send_message(question, on_error="raise")
            client.close()
            assert not http_client.is_closed
    assert [seen.headers["x-correlation-id"] for seen in server.requests] == ["1", "2", "3", "4"]


def test_an_event_loop_leaves_nothing_behind(httpserver: HTTPServer) -> None:
    """Whoever calls ``asyncio.run`` again and again keeps neither loops nor SDK clients."""
    server = ScriptedServer(httpserver, OK)
    client = OpenAIClient(base_url=server.base_url)

    async def ask(question: str) -> None:
        await client.asend_message(question, on_error="raise")

    def alive() -> int:
        gc.collect()
        return sum(isinstance(each, (asyncio.BaseEventLoop, openai.AsyncOpenAI)) for each in gc.get_objects())

    before = alive()
    for number in range(5):
        asyncio.run(ask(str(number)))
    for number in range(5, 10):  # without the shutdown that asyncio.run does
        loop = asyncio.new_event_loop()
        loop.run_until_complete(ask(str(number)))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    del loop
    assert len(server.requests) == 10
    assert alive() <= before


@EVERY_WAY
@pytest.mark.parametrize("on_error", ["raise", "none"])
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999/v1",
        "http://127.0.0.1:port/v1",
        f"http://{'x' * 64}.example.org/v1",
        "http://a..b/v1",
        "http://[::1/v1",
        "http:///v1",
        "ftp://127.0.0.1/v1",
    ],
)
def test_an_address_that_no_server_has(url: str, on_error: str, ask: Any) -> None:
    """It is a ConfigError before any call, whatever ``on_error`` says."""
    with pytest.raises(ConfigError, match=r"(?i)base_url"):
        ask(OpenAIClient(base_url=url, api_key="k"), on_error=on_error)


def test_an_address_of_azure_that_no_server_has() -> None:
    """It is a ConfigError that names the setting."""
    with pytest.raises(ConfigError, match=r"(?i)azure_endpoint"):
        AzureClient(azure_endpoint="http://127.0.0.1:99999", azure_api_version="2024-10-21", api_key="k").send_message(
            "Hello"
        )


@EVERY_WAY
@pytest.mark.parametrize("value", ["grün", "a\nb", "a\x00b"], ids=repr)
def test_a_header_that_cannot_be_sent(value: str, ask: Any, httpserver: HTTPServer) -> None:
    """It is an error of the tree that names the header, and nothing is sent."""
    server = ScriptedServer(httpserver, OK)
    with pytest.raises(ConfigError, match="x-colour"):
        ask(OpenAIClient(base_url=server.base_url), extra_headers={"x-colour": value})
    assert not server.requests


@pytest.mark.parametrize("timeout", [1e12, 1e300])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_timeout_that_never_comes(way: str, timeout: float, httpserver: HTTPServer) -> None:
    """A time that no clock of the system waits for is as good as none."""
    server = ScriptedServer(httpserver, OK)
    assert WAYS[way](OpenAIClient(base_url=server.base_url), timeout=timeout).content == "Two coins."


@pytest.mark.parametrize("path", ["/v1?tenant=a%20b", "/v1/?tenant=a%20b"])
def test_a_base_url_with_a_query(path: str) -> None:
    """The query stays behind the path, with that of the call."""
    seen: list[Any] = []

    def respond(request: Any) -> Any:
        seen.append(request.url)
        return LIBRARY.Response(200, json=OK.body)

    with LIBRARY.Client(transport=LIBRARY.MockTransport(respond)) as http_client:
        client = OpenAIClient(base_url="http://localhost" + path, http_client=http_client)
        client.send_message("Hello", extra_query={"trace": "1"}, on_error="raise")
    assert seen[0].path == "/v1/chat/completions"
    assert dict(seen[0].params) == {"tenant": "a b", "trace": "1"}


def test_an_extra_query_is_not_stored(httpserver: HTTPServer) -> None:
    """What goes into the address may be a key: it is neither in the record nor in the cassette, nor in the key."""
    server = ScriptedServer(httpserver, OK)
    client = OpenAIClient(base_url=server.base_url)
    with llmcall.cassette("tape.jsonl"):
        reply = client.send_message("Hello", extra_query={"code": "a-secret-77"}, on_error="raise")
    assert "a-secret-77" not in Path("tape.jsonl").read_text(encoding="utf-8")
    assert not [record for record in client.cache.records() if "a-secret-77" in str(record)]
    assert client.build_request("Hello").cache_key == reply.cache_key


def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    """The line in the log names the address, and what to look at."""
    with refusing() as base_url:
        assert OpenAIClient(base_url=base_url, retry_max_attempts=1).send_message("Hello") is None
        assert base_url in caplog.text and "Does the server" in caplog.text


def test_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    """``api_type = ollama`` is this machine's server, and needs no key."""
    seen: list[Any] = []

    def respond(request: Any) -> Any:
        seen.append(request)
        return LIBRARY.Response(200, json=OK.body)

    with LIBRARY.Client(transport=LIBRARY.MockTransport(respond)) as http_client:
        kind = type(llmcall.client("ollama"))
        assert issubclass(kind, OpenAIClient)
        assert kind(http_client=http_client, model="llama3.2").send_message("Hello", on_error="raise").content
        with pytest.raises(ConfigError, match=r"no key for models\.example\.org"):
            kind(http_client=http_client, base_url="https://models.example.org/v1").send_message("Hello")
    assert str(seen[0].url) == "http://localhost:11434/v1/chat/completions"
    assert len(seen) == 1


def test_an_unsupported_parameter_is_dropped(httpserver: HTTPServer) -> None:
    """Where the API says that it takes no such parameter, the call is repeated without it."""
    no = refusal(400, "Unsupported parameter", code="unsupported_parameter", param="temperature")
    server = ScriptedServer(httpserver, no, OK)
    OpenAIClient(base_url=server.base_url).send_message("Hello", temperature=1, on_error="raise")
    assert ["temperature" in seen.body for seen in server.requests] == [True, False]


@pytest.mark.parametrize("broken", ["data: {half\n\n", 'data: {"error": {"message": "too busy"}}\n\n'])
def test_a_raw_stream_that_breaks_inside(broken: str, httpserver: HTTPServer) -> None:
    """Whoever reads ``chat_completion_stream`` catches httpx's errors alone."""
    server = ScriptedServer(httpserver, Answer(200, 'data: {"choices": [{"delta": {"content": "a"}}]}\n\n' + broken))
    pieces: list[str] = []

    async def read() -> None:
        async for piece in aio.chat_completion_stream(f"{server.base_url}/chat/completions", {"model": "m"}):
            pieces.append(piece)

    with pytest.raises(httpx.RequestError):
        asyncio.run(read())
    assert pieces == ["a"]
