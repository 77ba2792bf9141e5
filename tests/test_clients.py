"""Clients: which speaks for an api_type, those of one's own, what is sent to whom, and whose key."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from programs import ran
from pytest_httpserver import HTTPServer
from servers import (
    OK,
    QUESTION,
    RETRY_AT_ONCE,
    Answer,
    ScriptedServer,
    client_for,
    completion,
    embeddings,
    refusal,
)
from streaming import WAYS

import llmcall
from llmcall import AzureClient, ConfigError, LLMClient, OpenAIClient


class EchoClient(llmcall.LLMClient):
    """Answer with the last message: a client of one's own, as the README shows it."""

    api_type = "echo"

    def send(self, request: llmcall.Request, timeout: float | None) -> dict[str, Any]:
        """Return a response as the chat completions API gives it."""
        return completion(request.messages[-1]["content"].upper())


class EchoTransport:
    """Be what speaks to a model, apart from any client."""

    def __init__(self) -> None:
        self.sent: list[llmcall.Request] = []
        self.closed = 0

    def send(self, request: llmcall.Request, timeout: float | None) -> dict[str, Any]:
        """Answer with the last message."""
        self.sent.append(request)
        return completion(request.messages[-1]["content"].upper())

    def close(self) -> None:
        """Count how often it was closed."""
        self.closed += 1


class ByAttribute(llmcall.LLMClient):
    """Give the transport as an attribute."""

    api_type = "by-attribute"
    transport = EchoTransport()


def text(client: Any, message: str = "hello") -> str:
    """Ask and return the answer's text."""
    reply = client.send_message(message, on_error="raise")
    assert isinstance(reply, llmcall.Reply)
    return reply["content"]  # type: ignore[no-any-return]


def test_built_in_clients() -> None:
    """openai, azure, ollama and local are known, and openai is the configured one; each is shared."""
    kinds = {"openai": OpenAIClient, "azure": AzureClient, "local": llmcall.LocalClient}
    assert {name: type(llmcall.client(name)) for name in kinds} == kinds
    assert isinstance(llmcall.client("ollama"), OpenAIClient)
    assert llmcall.client() is llmcall.client("openai")


@pytest.mark.parametrize(
    "make",
    [EchoClient, lambda: llmcall.LLMClient(transport=EchoTransport()), ByAttribute],
    ids=["send on the subclass", "transport=", "transport attribute"],
)
def test_a_client_of_one_s_own(make: Any) -> None:
    """However it gives its transport, the base does all the rest: cache, scopes, usage."""
    client = make()
    with llmcall.track() as usage:
        assert [text(client), text(client)] == ["HELLO", "HELLO"]
        with llmcall.scope("a"):
            assert client.send_message("hello").sample == "a#0"  # type: ignore[union-attr]
    assert (usage.calls, usage.cached_calls) == (2, 1)
    assert len(client.cache) == 2
    (record, _) = client.cache.records()
    assert (record.api_type, record.host) == (client.api_type, client.api_type)


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_transport_that_does_not_stream(way: str) -> None:
    """Without ``stream`` the whole answer is sent for and comes in one piece; it is recorded as any
    other.
    """
    transport = EchoTransport()
    client = llmcall.LLMClient(transport=transport)

    reply = WAYS[way](client, "hello")
    assert (reply.content, reply.cached) == ("HELLO", False)
    assert [request.body.keys() for request in transport.sent] == [{"model", "messages"}]
    again = client.send_message("hello")
    assert again is not None and (again.content, again.cached) == ("HELLO", True)


def test_a_transport_may_change_what_it_is_given() -> None:
    """The key and the record are those of what was asked, whatever a transport does to its request."""

    class Changing(EchoTransport):
        def send(self, request: llmcall.Request, timeout: float | None) -> dict[str, Any]:
            request.body["messages"][0]["content"] += " please"
            request.body["tools"][0]["function"]["name"] = "changed"
            request.headers["x-number"] += "1"
            return super().send(request, timeout)

    messages = [{"role": "user", "content": "hello"}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    transport = Changing()
    client = llmcall.LLMClient(transport=transport, on_error="raise")
    given: dict[str, Any] = {"tools": [tool], "extra_headers": {"x-number": ""}}
    replies = [
        client.send_message(messages, **given, cache=cache) for cache in (None, None, False, False)
    ]
    assert [reply.cached for reply in replies] == [False, True, False, False]  # type: ignore[union-attr]
    assert [request.headers["x-number"] for request in transport.sent] == ["1"] * 3
    assert (messages[0]["content"], tool["function"]["name"]) == ("hello", "f")  # type: ignore[index]
    (record,) = client.cache.records()
    assert (record.request["messages"], record.request["tools"]) == (messages, [tool])
    assert client.cache.verify() == []


def test_a_client_without_a_transport() -> None:
    """A client that gives none says what is missing, at the first call."""
    client = llmcall.LLMClient()
    with pytest.raises(ConfigError, match=r"define send\(request, timeout\), or pass transport="):
        client.send_message("hello")


def test_a_transport_is_made_once_and_closed() -> None:
    """One transport serves all calls, close() closes it, and the next call goes on."""
    transport = EchoTransport()
    with llmcall.LLMClient(transport=transport, cache_mode="off") as client:
        assert [text(client), text(client)] == ["HELLO"] * 2
    assert (len(transport.sent), transport.closed) == (2, 1)
    assert text(client) == "HELLO"


def test_registering_a_client_and_a_function() -> None:
    """A registered client is the shared one; a function is called once, with the settings, also for
    many threads.
    """
    given: list[llmcall.Settings] = []
    barrier = threading.Barrier(8)

    def make(settings: llmcall.Settings) -> llmcall.LLMClient:
        given.append(settings)
        return EchoClient(settings)

    mine = EchoClient()
    llmcall.register_client("mine", mine)
    llmcall.register_client("made", make)
    llmcall.register_client("a class", EchoClient)
    llmcall.configure(model="configured")
    assert llmcall.client("mine") is mine
    with ThreadPoolExecutor(8) as executor:
        found = executor.map(lambda _: (barrier.wait(), llmcall.client("made"))[1], range(8))
    assert len(set(found)) == 1
    assert type(llmcall.client("a class")) is EchoClient
    assert [settings.model for settings in given] == ["configured"]
    assert text(llmcall.client("made")) == "HELLO"


@pytest.mark.parametrize(
    "ask",
    [lambda: llmcall.client("opnai"), lambda: (llmcall.force_api_type("opnai"), llmcall.client())],
)
def test_an_unknown_api_type(ask: Any) -> None:
    """An unknown name lists the known ones and suggests the nearest."""
    llmcall.register_client("mine", EchoClient())
    with pytest.raises(
        ConfigError, match=r"'opnai'; did you mean 'openai'\? Known: azure, local, mine, ollama"
    ):
        ask()
    with pytest.raises(ConfigError, match=r"unknown api_type 'zzz'\. Known:"):
        llmcall.client("zzz")


@pytest.mark.parametrize(
    ("registered", "said"),
    [(3, "is 3"), (None, "is None"), (lambda settings: [settings.model], r"returned \['")],
)
def test_what_is_no_client(registered: Any, said: str) -> None:
    """What is registered and is no client is named where it is first needed."""
    llmcall.register_client("mine", registered)
    with pytest.raises(
        ConfigError, match=f"registered for the api_type 'mine' {said}.*, not an LLMClient"
    ):
        llmcall.client("mine")
    with pytest.raises(TypeError, match="it must be a name"):
        llmcall.register_client(EchoClient(), "mine")  # type: ignore[arg-type]


def test_reset_forgets_shared_clients() -> None:
    """After a reset the client is a new one and its transport was closed; what was registered
    stays.
    """
    transport = EchoTransport()
    shared = llmcall.LLMClient(transport=transport)
    llmcall.register_client("mine", shared)
    before = llmcall.client("openai")
    assert text(llmcall.client("mine")) == "HELLO"
    llmcall.reset()
    assert transport.closed == 1
    assert llmcall.client("openai") is not before
    assert llmcall.client("mine") is shared


PLUGIN = """
from llmcall import LLMClient

class PluggedClient(LLMClient):
    api_type = "plugged"

    def send(self, request, timeout):
        return {"choices": [{"message": {"role": "assistant", "content": "plugged in"}, "finish_reason": "stop"}]}
"""


def test_a_plug_in_package(tmp_path: Path) -> None:
    """An installed package's entry point is found by its name, listed among the known, and its
    failure named.
    """
    (tmp_path / "llmcall_plugged.py").write_text(PLUGIN)
    metadata = tmp_path / "llmcall_plugged-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: llmcall-plugged\nVersion: 1.0\n"
    )
    points = "plugged = llmcall_plugged:PluggedClient\nbroken = llmcall_plugged:Missing\nabsent = not_there:Client\n"
    (metadata / "entry_points.txt").write_text(f"[llmcall.clients]\n{points}")
    program = """
        sys.path.insert(0, sys.argv[1])
        print(llmcall.client("plugged").send_message("Hello")["content"])
        for name in ("pluged", "broken", "absent"):
            try:
                llmcall.client(name)
            except llmcall.ConfigError as error:
                print(error)
    """
    printed = ran(program, tmp_path, LLMCALL_CACHE_MODE="off").splitlines()
    assert printed[0] == "plugged in"
    assert (
        "did you mean 'plugged'? Known: absent, azure, broken, local, ollama, openai, plugged"
        in printed[1]
    )
    assert "llmcall_plugged:Missing for the api_type 'broken' cannot be loaded" in printed[2]
    assert "not_there:Client for the api_type 'absent' cannot be loaded" in printed[3]


SECRET = "sk-proj-a-very-secret-key-0123456789"


@pytest.fixture
def server(httpserver: HTTPServer) -> ScriptedServer:
    """A server that always answers."""
    return ScriptedServer(httpserver, OK)


def test_what_is_sent(server: ScriptedServer) -> None:
    """Path, key, organization, own headers and the body are those of the API; extra_body goes into
    the body.
    """
    client = client_for(server.base_url, api_key=SECRET, organization="org-1", model="m")
    client.send_message(
        current_messages=QUESTION,
        temperature=1.0,
        stop="x",
        n=1,
        user="u1",
        metadata={"a": "b"},
        service_tier="flex",
        extra_headers={"X-Run": "7"},
        extra_body={"top_k": 40},
        echo=True,
        sample=3,
        timeout=9,
    )
    (seen,) = server.requests
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {SECRET}"
    assert (seen.headers["openai-organization"], seen.headers["x-run"]) == ("org-1", "7")
    assert seen.body == {
        "model": "m",
        "messages": QUESTION,
        "temperature": 1.0,
        "stop": "x",
        "n": 1,
        "user": "u1",
        "metadata": {"a": "b"},
        "service_tier": "flex",
        "top_k": 40,
    }


def azure_at(server: ScriptedServer) -> dict[str, Any]:
    """Return the settings by which a server is taken for an Azure resource."""
    return {
        "azure_endpoint": server.base_url.removesuffix("/v1"),
        "azure_api_version": "2024-10-21",
    }


def test_azure_embeds(httpserver: HTTPServer) -> None:
    """Embeddings go to their own deployment."""
    server = ScriptedServer(httpserver, Answer(200, embeddings([0.5, 0.25])))
    client = AzureClient(api_key=SECRET, **azure_at(server))
    assert client.get_embedding("text", "text-embedding-3-large") == [0.5, 0.25]
    assert (
        server.requests[0].path
        == "/openai/deployments/text-embedding-3-large/embeddings?api-version=2024-10-21"
    )


def test_each_endpoint_of_a_pool_gets_the_key_of_its_kind(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Azure's key goes to Azure, and not to another server that serves the same model."""
    for variable in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(variable, variable)
    pool = [
        llmcall.Endpoint("other", ("m",), "openai", base_url=server.base_url),
        llmcall.Endpoint("azure", ("m",), **azure_at(server)),
    ]
    for kind in (AzureClient, OpenAIClient):
        client = kind(endpoints=pool, model="m", cache_mode="off", on_error="raise")
        text(client), text(client)
    headers = [seen.headers for seen in server.requests]
    # Azure's SDK may send both
    keys = [each.get("api-key", each.get("authorization")) for each in headers]
    assert keys == ["Bearer OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"] * 2


@pytest.mark.parametrize("section", ["OpenAI", "Endpoint east"])
def test_a_key_that_changes(
    section: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where config.ini names a variable, the next call takes the key that it holds then."""
    lines = f"API_KEY = ${{MINE}}\nBASE_URL = {server.base_url}\n{'MODELS = gpt-4o-mini' if ' ' in section else ''}\n"
    Path("config.ini").write_text(f"[{section}]\n{lines}[Cache]\nMODE = off\n", encoding="utf-8")
    for key in ("the-first-key", "the-second-key"):
        monkeypatch.setenv("MINE", key)
        llmcall.configure()
        llmcall.client().send_message(QUESTION, on_error="raise")
    assert [seen.headers["authorization"] for seen in server.requests] == [
        "Bearer the-first-key",
        "Bearer the-second-key",
    ]


# Keys that a function gives


def tokens(asynchronous: bool = False) -> Callable[[], Any]:
    """Return a function that gives another token each time, with a line end behind it, as files
    have it.
    """
    numbers = itertools.count(1)

    async def token() -> str:
        await asyncio.sleep(0)
        return f"header.payload-{next(numbers)}.signature\n"

    return token if asynchronous else lambda: f"header.payload-{next(numbers)}.signature\n"


def in_a_loop(client: LLMClient) -> Any:
    """Call the synchronous method where an event loop is running."""

    async def call() -> Any:
        return client.send_message("Hello", on_error="raise")

    return asyncio.run(call())


ASKS: dict[str, Callable[[LLMClient], Any]] = {
    "sync": lambda client: client.send_message("Hello", on_error="raise"),
    "async": lambda client: asyncio.run(client.asend_message("Hello", on_error="raise")),
    "sync in a loop": in_a_loop,
    "embedding": lambda client: client.get_embedding("Hello", on_error="raise"),
}
EVERY_WAY = pytest.mark.parametrize("way", ASKS)


def sent(server: ScriptedServer) -> list[str]:
    """Return the numbers of the tokens that a server saw."""
    headers = [seen.headers["authorization"] for seen in server.requests]
    assert all(header.startswith("Bearer header.payload-") for header in headers)
    return [header.split("-")[1].split(".")[0] for header in headers]


@EVERY_WAY
@pytest.mark.parametrize("asynchronous", [False, True], ids=["function", "coroutine function"])
@pytest.mark.parametrize("kind", [OpenAIClient, AzureClient])
def test_a_key_function(
    way: str, asynchronous: bool, kind: type[OpenAIClient], httpserver: HTTPServer
) -> None:
    """It is asked before every attempt, and once more within one after a 401; a recorded answer
    needs no token.
    """
    answer = Answer(200, embeddings([1.0])) if way == "embedding" else OK
    server = ScriptedServer(httpserver, refusal(500), refusal(401, "expired"), answer)
    settings = {"base_url": server.base_url, "api_key": tokens(asynchronous)}
    if kind is AzureClient:
        settings = {**azure_at(server), "azure_ad_token_provider": tokens(asynchronous)}
    client = kind(**{**settings, "retry_waiting_time": 0, "retry_max_attempts": 2})
    for _ in range(2):
        ASKS[way](client)
    assert sent(server) == ["1", "2", "3"]
    assert all("api-key" not in seen.headers for seen in server.requests)


@pytest.mark.parametrize(
    ("status", "key", "count"),
    [(401, tokens(), 2), (403, tokens(), 1), (401, "header.payload-0.signature", 1)],
    ids=["expired twice", "no matter of time", "a fixed key"],
)
@EVERY_WAY
def test_what_is_not_asked_again(
    status: int, key: Any, count: int, way: str, httpserver: HTTPServer
) -> None:
    """A second 401, a 403, and a fixed key's are AuthenticationErrors."""
    server = ScriptedServer(httpserver, refusal(status, "no"))
    with pytest.raises(llmcall.AuthenticationError):
        ASKS[way](OpenAIClient(base_url=server.base_url, api_key=key, **RETRY_AT_ONCE))
    assert len(server.requests) == count


@pytest.mark.parametrize(
    "value",
    [None, b"secret", 5, "", " \n", ["secret"], "sec\nret", "sécret", "sec\x00ret"],
    ids=repr,
)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["function", "coroutine function"])
@pytest.mark.parametrize("ask", [ASKS["sync"], ASKS["async"]], ids=["sync", "async"])
def test_what_is_no_token(ask: Any, value: Any, asynchronous: bool, httpserver: HTTPServer) -> None:
    """What no header can carry is a ConfigError before any call, which does not show it."""
    server = ScriptedServer(httpserver, OK)

    async def coroutine() -> Any:
        return value

    client = OpenAIClient(
        base_url=server.base_url, api_key=coroutine if asynchronous else lambda: value
    )
    with pytest.raises(llmcall.ConfigError, match="the api_key function returned") as raised:
        ask(client)
    assert "sec" not in str(raised.value) and not server.requests


@pytest.mark.parametrize("ask", [ASKS["sync"], ASKS["async"]], ids=["sync", "async"])
def test_what_is_no_project(
    ask: Any, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the SDK reads from the environment by itself is checked as well, before any call."""
    monkeypatch.setenv("OPENAI_PROJECT_ID", "pr\u00f6j")
    server = ScriptedServer(httpserver, OK)
    with pytest.raises(ConfigError, match="environment variable OPENAI_PROJECT_ID: not a project"):
        ask(OpenAIClient(base_url=server.base_url))
    assert not server.requests


def test_a_function_that_fails(httpserver: HTTPServer) -> None:
    """What the function itself raises is raised, whatever on_error says, and nothing is sent."""
    server = ScriptedServer(httpserver, OK)

    def token() -> str:
        raise PermissionError("the vault is locked")

    client = OpenAIClient(base_url=server.base_url, api_key=token, **RETRY_AT_ONCE)
    with pytest.raises(PermissionError, match="vault"):
        client.send_message("Hello")
    assert not server.requests
