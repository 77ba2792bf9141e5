"""Clients: which speaks for an api_type, those of one's own, what is sent to whom, and whose key."""

from __future__ import annotations

import asyncio
import itertools
import pydoc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from clients import RETRY_AT_ONCE, WAYS, client_for
from commands import LONGEST, ran
from pytest_httpserver import HTTPServer
from servers import OK, QUESTION, Answer, ScriptedServer, chunks_of, completion, embeddings, refusal

import llmcall
from llmcall import AzureClient, ConfigError, LLMClient, OpenAIClient


class EchoClient(llmcall.LLMClient):
    """Answer with the last message: a client of one's own, as the README shows it."""

    api_type = "echo"

    def send(self, request: llmcall.types.Request, timeout: float | None) -> dict[str, Any]:
        """Return a response as the chat completions API gives it."""
        return completion(request.messages[-1]["content"].upper())


class EchoTransport:
    """A transport of a test's own."""

    def __init__(self) -> None:
        self.sent: list[llmcall.types.Request] = []
        self.closed = 0

    def send(self, request: llmcall.types.Request, timeout: float | None) -> dict[str, Any]:
        """Answer with the last message."""
        self.sent.append(request)
        return completion(request.messages[-1]["content"].upper())

    def close(self) -> None:
        """Count how often it was closed."""
        self.closed += 1


class ByAttribute(llmcall.LLMClient):
    """A client that has its transport as an attribute."""

    api_type = "by-attribute"
    transport = EchoTransport()


def text(client: Any, message: str = "hello") -> str:
    """Ask and return the answer's text."""
    reply = client.send_message(message, on_error="raise")
    assert isinstance(reply, llmcall.types.Reply)
    return reply["content"]  # type: ignore[no-any-return]


def test_help_names_the_arguments_of_a_chat() -> None:
    shown = pydoc.plain(pydoc.render_doc(llmcall.OpenAIClient.send_message))
    assert "temperature: " in shown
    assert ":param on_error: " in shown


def test_each_api_type_has_its_client() -> None:
    """Ollama's is OpenAI's with another address; OpenAI's is the configured one. They are shared until a reset."""
    kinds = {"openai": OpenAIClient, "azure": AzureClient}
    assert {name: type(llmcall.client(name)) for name in kinds} == kinds
    assert isinstance(llmcall.client("ollama"), OpenAIClient)
    shared = llmcall.client("openai")
    assert llmcall.client() is shared
    llmcall.reset()
    assert llmcall.client() is not shared


@pytest.fixture(
    params=[EchoClient, lambda: llmcall.LLMClient(transport=EchoTransport()), ByAttribute],
    ids=["send on the subclass", "transport=", "transport attribute"],
)
def own(request: pytest.FixtureRequest) -> Any:
    """A client of one's own, in each of the ways to give its transport."""
    return request.param()


def test_a_client_of_ones_own_has_a_cache(own: Any) -> None:
    """Its records say which client it was."""
    assert [text(own), text(own)] == ["HELLO", "HELLO"]
    (record,) = own.cache.records()
    assert (record.api_type, record.host) == (own.api_type, own.api_type)


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_transport_without_stream_gives_its_whole_answer_in_one_piece(way: str) -> None:
    """It is asked for as a whole, and recorded."""
    transport = EchoTransport()
    client = llmcall.LLMClient(transport=transport, on_error="raise")
    replies = [WAYS[way](client, "hello"), client.send_message("hello")]
    assert [(reply.content, reply.cached) for reply in replies] == [
        ("HELLO", False),
        ("HELLO", True),
    ]
    assert [request.body.keys() for request in transport.sent] == [
        {"model", "messages", "reasoning_effort"}
    ]


class Changing(EchoTransport):
    """A transport that changes the requests that it is given."""

    def send(self, request: llmcall.types.Request, timeout: float | None) -> dict[str, Any]:
        """Add words, and rename a tool."""
        request.body["messages"][0]["content"] += " please"
        request.body["tools"][0]["function"]["name"] = "changed"
        request.headers["x-number"] += "1"
        return super().send(request, timeout)


def test_a_transport_that_changes_a_request_changes_no_argument_and_no_record() -> None:
    """Messages, tools and headers are those that were given, for the next call too."""
    transport = Changing()
    client = llmcall.LLMClient(transport=transport, on_error="raise")
    messages = [{"role": "user", "content": "hello"}]
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {}}}
    cached = [
        client.send_message(
            messages, tools=[tool], extra_headers={"x-number": ""}, cache=cache
        ).cached
        for cache in (False, False, None, None)
    ]
    assert cached == [False, False, False, True]
    assert [request.headers["x-number"] for request in transport.sent] == ["1"] * 3
    assert messages == [{"role": "user", "content": "hello"}]
    assert tool["function"]["name"] == "f"
    (record,) = client.cache.records()
    assert (record.request["messages"], record.request["tools"]) == (messages, [tool])


class Shouting:
    """What a subclass overrides to answer itself."""

    def send(self, request: llmcall.types.Request, timeout: float | None) -> dict[str, Any]:
        """Answer with the last message."""
        return completion(request.messages[-1]["content"].upper())


class Whispering:
    """What a subclass overrides to stream itself."""

    def stream(self, request: llmcall.types.Request, timeout: float | None) -> Iterator[Any]:
        """Stream the last message."""
        yield from chunks_of(request.messages[-1]["content"].lower())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name",
    [
        *("OpenAIClient", "AzureClient"),
        pytest.param("LocalClient", marks=pytest.mark.feature("local_model")),
    ],
)
def test_a_subclass_that_overrides_send_or_stream_is_asked_by_them(name: str, way: str) -> None:
    """No key, server or model is needed. Without a stream of its own it streams the whole answer."""
    options: Any = {"model": "m", "cache_mode": "off", "on_error": "raise"}
    for parts, streamed in ((Shouting,), "HELLO"), ((Shouting, Whispering), "hello"):
        client = type("Own", (*parts, getattr(llmcall, name)), {})(**options)
        expected = streamed if "stream" in way else "HELLO"
        assert WAYS[way](client, "Hello").content == expected  # type: ignore[union-attr]


@pytest.mark.parametrize("way", WAYS)
def test_a_subclass_that_overrides_only_stream_sends_as_before(way: str, server: Any) -> None:
    """Its streams alone are its own."""
    own = type("Own", (Whispering, OpenAIClient), {})
    with own(model="m", base_url=server.base_url, api_key="none", cache_mode="off") as client:
        reply = WAYS[way](client, "Hello", on_error="raise")
    assert (reply.content == "hello") == ("stream" in way)  # type: ignore[union-attr]
    assert len(server.requests) == ("stream" not in way)


@pytest.mark.parametrize(("method", "blocking"), [("asend", "send"), ("astream", "stream")])
def test_a_subclass_that_overrides_an_asynchronous_method_alone_sends_nothing(
    method: str, blocking: str, server: Any
) -> None:
    """Its blocking calls would pass it by, and ask the server in earnest."""
    own = type("Own", (OpenAIClient,), {method: None})
    client = own(model="m", base_url=server.base_url, api_key="none", cache_mode="off")
    with pytest.raises(ConfigError, match=f"Own defines {method} alone: also define {blocking}"):
        client.send_message("Hello")
    assert server.requests == []


def test_a_closed_client_closes_its_transport_once() -> None:
    """It served all calls."""
    transport = EchoTransport()
    with llmcall.LLMClient(transport=transport, cache_mode="off") as client:
        assert [text(client), text(client)] == ["HELLO"] * 2
    assert (len(transport.sent), transport.closed) == (2, 1)


def test_a_registered_function_is_called_once_with_the_settings() -> None:
    """Many threads that need the client at once get the same."""
    received: list[llmcall.types.Settings] = []
    barrier = threading.Barrier(8, timeout=LONGEST)

    def make(settings: llmcall.types.Settings) -> llmcall.LLMClient:
        received.append(settings)
        return EchoClient(settings)

    llmcall.register_client("made", make)
    llmcall.configure(model="configured")
    with ThreadPoolExecutor(8) as executor:
        found = executor.map(lambda _: (barrier.wait(), llmcall.client("made"))[1], range(8))
    assert len(set(found)) == 1
    assert [settings.model for settings in received] == ["configured"]
    assert text(llmcall.client("made")) == "HELLO"


def test_a_reset_closes_a_registered_client_and_keeps_it() -> None:
    """The registration stays."""
    transport = EchoTransport()
    shared = llmcall.LLMClient(transport=transport)
    llmcall.register_client("mine", shared)
    assert text(llmcall.client("mine")) == "HELLO"
    llmcall.reset()
    assert transport.closed == 1
    assert llmcall.client("mine") is shared


PLUGIN = """
from llmcall import LLMClient

class PluggedClient(LLMClient):
    api_type = "plugged"

    def send(self, request, timeout):
        return {"choices": [{"message": {"role": "assistant", "content": "plugged in"}, "finish_reason": "stop"}]}
"""


def test_the_client_of_an_installed_package_is_found_by_its_name(tmp_path: Path) -> None:
    """Its entry point names it; one that cannot be loaded is named."""
    (tmp_path / "llmcall_plugged.py").write_text(PLUGIN)
    (tmp_path / "llmcall_faulty.py").write_text("raise RuntimeError('no driver')")
    metadata = tmp_path / "llmcall_plugged-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: llmcall-plugged\nVersion: 1.0\n"
    )
    points = [
        "[llmcall.clients]",
        "plugged = llmcall_plugged:PluggedClient",
        "broken = llmcall_plugged:Missing",
        "absent = not_there:Client",
        "faulty = llmcall_faulty:Client",
    ]
    (metadata / "entry_points.txt").write_text("\n".join(points))
    program = """
        sys.path.insert(0, sys.argv[1])
        print(llmcall.client("plugged").send_message("Hello")["content"])
        for name in ("pluged", "broken", "absent", "faulty"):
            try:
                llmcall.client(name)
            except llmcall.ConfigError as error:
                print(error)
    """
    lines = ran(program, tmp_path, LLMCALL_CACHE_MODE="off").splitlines()
    expected = [
        "plugged in",
        "'pluged'. Did you mean 'plugged'?",
        "llmcall_plugged:Missing for the api_type 'broken' cannot be loaded: AttributeError",
        "not_there:Client for the api_type 'absent' cannot be loaded: ModuleNotFoundError",
        "llmcall_faulty:Client for the api_type 'faulty' cannot be loaded: RuntimeError: no driver",
    ]
    assert [words for words, line in zip(expected, lines, strict=True) if words not in line] == []


SECRET = "sk-proj-a-very-secret-key-0123456789"


@pytest.fixture
def server(httpserver: HTTPServer) -> ScriptedServer:
    """A server that always answers."""
    return ScriptedServer(httpserver, OK)


def test_a_call_goes_to_the_apis_path_with_its_headers_and_parameters(
    server: ScriptedServer,
) -> None:
    """Key, organization and extra headers are sent as headers; the body has none of llmcall's own arguments."""
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
    assert seen.headers["openai-organization"] == "org-1"
    assert seen.headers["x-run"] == "7"
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


def test_an_extra_body_replaces_neither_the_model_nor_the_messages(server: ScriptedServer) -> None:
    """The record is of the model and the messages that the call names."""
    client = client_for(server.base_url, api_key=SECRET, model="m")
    client.send_message(QUESTION, extra_body={"model": "other", "messages": [], "top_k": 40})
    (seen,) = server.requests
    assert seen.body == {"model": "m", "messages": QUESTION, "top_k": 40}


def azure_at(server: ScriptedServer) -> dict[str, Any]:
    """Return the settings by which a server is taken for an Azure resource."""
    return {
        "azure_endpoint": server.base_url.removesuffix("/v1"),
        "azure_api_version": "2024-10-21",
    }


@pytest.mark.parametrize(
    ("arguments", "header"),
    [
        ({"azure_ad_token": "a.token"}, ("authorization", "Bearer a.token")),
        ({"azure_ad_token_provider": lambda: "a.token"}, ("authorization", "Bearer a.token")),
        ({"azure_ad_token": "a.token", "api_key": "own-key"}, ("api-key", "own-key")),
        ({}, ("api-key", "key-of-the-environment")),
    ],
    ids=["token", "function", "key", "nothing"],
)
def test_what_an_azure_client_is_given_to_sign_in_goes_before_the_environments_key(
    server: ScriptedServer,
    arguments: dict[str, Any],
    header: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a key and a token of one layer, the key counts. openai 2 sends a key as ``authorization``, too."""
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "key-of-the-environment")
    AzureClient(**azure_at(server), **arguments).send_message("Hello", on_error="raise")
    headers = server.requests[0].headers
    name, credential = header
    assert headers[name] == credential
    assert ("api-key" in headers) == (name == "api-key")


def test_an_azure_embedding_goes_to_its_own_deployment(httpserver: HTTPServer) -> None:
    """The deployment has the model's name."""
    server = ScriptedServer(httpserver, Answer(200, embeddings([0.5, 0.25])))
    client = AzureClient(api_key=SECRET, **azure_at(server))
    assert client.get_embedding("text", "text-embedding-3-large") == [0.5, 0.25]
    path = "/openai/deployments/text-embedding-3-large/embeddings?api-version=2024-10-21"
    assert server.requests[0].path == path


def test_each_endpoint_of_a_pool_gets_the_key_of_its_kind(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Azure's key goes to Azure, and not to another server that serves the same model."""
    for variable in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(variable, variable)
    pool = [
        llmcall.types.Endpoint("other", ("m",), "openai", base_url=server.base_url),
        llmcall.types.Endpoint("azure", ("m",), **azure_at(server)),
    ]
    for kind in (AzureClient, OpenAIClient):
        client = kind(endpoints=pool, model="m", cache_mode="off", on_error="raise")
        text(client), text(client)
    headers = [seen.headers for seen in server.requests]
    # Azure's SDK may send both
    keys = [header.get("api-key", header.get("authorization")) for header in headers]
    assert keys == ["Bearer OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"] * 2


@pytest.mark.parametrize("section", ["OpenAI", "Endpoint east"])
def test_a_key_in_a_variable_is_the_one_that_it_holds_now(
    section: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.ini names the variable."""
    models = "MODELS = gpt-6-luna" if " " in section else ""
    lines = [f"[{section}]", "API_KEY = ${MINE}", f"BASE_URL = {server.base_url}", models]
    Path("config.ini").write_text("\n".join([*lines, "[Cache]", "MODE = off", ""]))
    for key in ("the-first-key", "the-second-key"):
        monkeypatch.setenv("MINE", key)
        llmcall.configure()
        llmcall.client().send_message(QUESTION, on_error="raise")
    assert [seen.headers["authorization"] for seen in server.requests] == [
        "Bearer the-first-key",
        "Bearer the-second-key",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", str),
        ("azure_ad_token", str),
        ("azure_ad_token_provider", lambda token: lambda: token),
    ],
    ids=["key", "token", "function"],
)
def test_an_endpoint_that_names_no_key_gets_what_is_configured_now(
    name: str, value: Callable[[str], Any], server: ScriptedServer
) -> None:
    """A key is replaced, and a token expires."""
    fields = {"base_url": server.base_url} if name == "api_key" else azure_at(server)
    llmcall.configure(endpoints=[llmcall.types.Endpoint("east", ("m",), **fields)], model="m")
    client = OpenAIClient(cache_mode="off", on_error="raise")
    for credential in ("first", "second"):
        llmcall.configure(**{name: value(credential)})
        client.send_message(QUESTION)
    assert [seen.headers["authorization"] for seen in server.requests] == [
        "Bearer first",
        "Bearer second",
    ]


def test_an_endpoint_has_what_the_settings_say_for_what_it_does_not_name(
    server: ScriptedServer,
) -> None:
    """Such as the address: its key goes to no other host."""
    llmcall.configure(base_url=server.base_url, organization="org-own")
    pool = [
        llmcall.types.Endpoint("one", ("m",), api_key="key-one"),
        llmcall.types.Endpoint("two", ("m",), api_key="key-two", organization="org-two"),
    ]
    client = OpenAIClient(endpoints=pool, model="m", cache_mode="off")
    text(client), text(client)
    headers = [seen.headers for seen in server.requests]
    names = "authorization", "openai-organization"
    assert [tuple(header[name] for name in names) for header in headers] == [
        ("Bearer key-one", "org-own"),
        ("Bearer key-two", "org-two"),
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
def test_a_key_function_is_asked_before_every_attempt_and_once_more_after_a_401(
    way: str, asynchronous: bool, kind: type[OpenAIClient], httpserver: HTTPServer
) -> None:
    """A recorded answer needs no token."""
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
def test_a_second_401_a_403_and_a_fixed_keys_401_are_authentication_errors(
    status: int, key: Any, count: int, way: str, httpserver: HTTPServer
) -> None:
    """The call is not tried again."""
    server = ScriptedServer(httpserver, refusal(status, "no"))
    with pytest.raises(llmcall.AuthenticationError):
        ASKS[way](OpenAIClient(base_url=server.base_url, api_key=key, **RETRY_AT_ONCE))
    assert len(server.requests) == count


@pytest.mark.parametrize("asynchronous", [False, True], ids=["function", "coroutine function"])
@pytest.mark.parametrize("ask", [ASKS["sync"], ASKS["async"]], ids=["sync", "async"])
def test_a_key_that_no_header_can_carry_is_refused_before_any_call(
    ask: Any, asynchronous: bool, httpserver: HTTPServer
) -> None:
    """The error does not show it."""
    server = ScriptedServer(httpserver, OK)
    values: list[Any] = []

    async def coroutine() -> Any:
        return values[-1]

    client = OpenAIClient(
        base_url=server.base_url, api_key=coroutine if asynchronous else lambda: values[-1]
    )
    for value in (None, b"secret", 5, "", " \n", ["secret"], "sec\nret", "sécret", "sec\x00ret"):
        values.append(value)
        with pytest.raises(llmcall.ConfigError, match="the api_key function returned") as raised:
            ask(client)
        assert "sec" not in str(raised.value)
    assert not server.requests


def test_what_a_key_function_raises_is_raised_whatever_on_error_says(
    httpserver: HTTPServer,
) -> None:
    """Nothing is sent."""
    server = ScriptedServer(httpserver, OK)

    def token() -> str:
        raise PermissionError("the vault is locked")

    client = OpenAIClient(base_url=server.base_url, api_key=token, **RETRY_AT_ONCE)
    with pytest.raises(PermissionError, match="vault"):
        client.send_message("Hello")
    assert not server.requests


def test_a_client_has_what_tinytroupe_s_registry_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``force_api_cache`` sets the cache of each client, and a world prints what they used."""
    client = llmcall.testing.ScriptedClient(["Hi", "Hello"])
    client.set_api_cache(True, str(tmp_path / "openai_api_cache.pickle"))
    assert [client.send_message("x").content for _ in range(2)] == ["Hi", "Hi"]
    assert client.cache.path == tmp_path / "openai_api_cache.cache"
    client.set_api_cache(False)
    assert client.send_message("x").content == "Hello"
    tokens = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 0)
    assert client.get_cost_stats() == {**tokens, "model_calls": 2, "cached_calls": 1}
    client.pretty_print_cost_stats()
    assert capsys.readouterr().out.strip() == str(client.usage).strip()
