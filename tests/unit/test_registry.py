"""Which client speaks for which api_type: the built-in ones, those of one's own, plug-ins."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import llmcall
from llmcall.clients.registry import known_api_types
from llmcall.errors import ConfigError, RateLimitError
from llmcall.testing import ScriptedClient


class EchoClient(llmcall.LLMClient):
    """Answer with the last message: a client of one's own, as the README shows it."""

    api_type = "echo"

    def send(self, request: llmcall.Request, timeout: float | None) -> dict[str, Any]:
        """Return a response as the chat completions API gives it."""
        text = request.messages[-1]["content"].upper()
        message = {"role": "assistant", "content": text}
        return {"model": request.model, "choices": [{"message": message, "finish_reason": "stop"}]}

    def stream(self, request: llmcall.Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a response as the API streams them."""
        for letter in request.messages[-1]["content"].upper():
            yield {"model": request.model, "choices": [{"index": 0, "delta": {"content": letter}}]}
        yield {"model": request.model, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


class EchoTransport:
    """Be what speaks to a model, apart from any client."""

    def __init__(self) -> None:
        self.sent: list[llmcall.Request] = []
        self.closed = 0

    def send(self, request: llmcall.Request, timeout: float | None) -> dict[str, Any]:
        """Answer with the last message."""
        self.sent.append(request)
        message = {"role": "assistant", "content": request.messages[-1]["content"].upper()}
        return {"model": request.model, "choices": [{"message": message, "finish_reason": "stop"}]}

    def close(self) -> None:
        """Count how often it was closed."""
        self.closed += 1


class ByAttribute(llmcall.LLMClient):
    """Give the transport as an attribute."""

    api_type = "by-attribute"
    transport = EchoTransport()


class ByMethod(llmcall.LLMClient):
    """Make the transport when it is needed."""

    api_type = "by-method"

    def transport(self) -> EchoTransport:  # type: ignore[override]
        return EchoTransport()


def text(client: Any, message: str = "hello") -> str:
    """Ask and return the answer's text."""
    reply = client.send_message(message, on_error="raise")
    assert isinstance(reply, llmcall.Reply)
    return reply["content"]  # type: ignore[no-any-return]


def test_built_in_clients() -> None:
    """openai, azure, ollama and local are known, and openai is the configured one."""
    assert known_api_types()[:4] == ["azure", "local", "ollama", "openai"]
    assert type(llmcall.client("openai")) is llmcall.OpenAIClient
    assert type(llmcall.client("azure")) is llmcall.AzureClient
    assert type(llmcall.client("local")) is llmcall.LocalClient
    assert llmcall.client() is llmcall.client("openai")


@pytest.mark.parametrize(
    "make",
    [EchoClient, lambda: llmcall.LLMClient(transport=EchoTransport()), ByAttribute, ByMethod],
    ids=["send on the subclass", "transport=", "transport attribute", "transport method"],
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


def test_the_base_retries_what_one_s_own_client_raises() -> None:
    """An error of the tree that is worth another try gets one; any other exception passes through."""
    answers: list[Any] = [RateLimitError("slow down", retry_after=0.001), "hello", ZeroDivisionError("a bug")]

    class Failing(EchoClient):
        def send(self, request: llmcall.Request, timeout: float | None) -> dict[str, Any]:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return super().send(request, timeout)

    client = Failing(retry_waiting_time=0)
    assert text(client) == "HELLO"
    assert client.usage.retries == 1
    with pytest.raises(ZeroDivisionError):
        client.send_message("other")


def test_its_stream_is_the_same_record() -> None:
    """What it streams comes as it is yielded, and is recorded as the unstreamed call is."""
    streamed, unstreamed = EchoClient(cache_path="one"), EchoClient(cache_path="other")
    with streamed.stream_message("hello") as stream:
        assert list(stream) == list("HELLO")
    assert stream.reply == unstreamed.send_message("hello")
    ((one, other),) = zip(streamed.cache.records(), unstreamed.cache.records(), strict=True)
    assert (one.cache_key, one.response["choices"][0]["message"]) == (
        other.cache_key,
        other.response["choices"][0]["message"],
    )


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_transport_that_does_not_stream(asynchronous: bool) -> None:
    """Without ``stream`` the whole answer is sent for and comes in one piece; it is recorded as any other."""
    transport = EchoTransport()
    client = llmcall.LLMClient(transport=transport)

    async def acollected() -> tuple[list[str], Any]:
        async with client.astream_message("hello") as stream:
            pieces = [piece async for piece in stream]
        return pieces, stream.reply

    def collected() -> tuple[list[str], Any]:
        with client.stream_message("hello") as stream:
            pieces = list(stream)
        return pieces, stream.reply

    pieces, reply = asyncio.run(acollected()) if asynchronous else collected()
    assert (pieces, reply.content, reply.cached) == (["HELLO"], "HELLO", False)
    assert [request.body.keys() for request in transport.sent] == [{"model", "messages"}]
    again = client.send_message("hello")
    assert again is not None and (again.content, again.cached) == ("HELLO", True)


def test_a_transport_that_does_not_stream_and_fails() -> None:
    """Its failures are retried like those of an unstreamed call."""

    class Failing(EchoTransport):
        def send(self, request: llmcall.Request, timeout: float | None) -> dict[str, Any]:
            answer = super().send(request, timeout)
            if len(self.sent) == 1:
                raise RateLimitError("slow down", retry_after=0.001)
            return answer

    client = llmcall.LLMClient(transport=Failing(), retry_waiting_time=0)
    with client.stream_message("hello") as stream:
        assert list(stream) == ["HELLO"]
    assert client.usage.retries == 1


def test_a_transport_may_change_what_it_is_given() -> None:
    """The key and the record are those of what was asked, whatever a transport does to its request."""

    class Changing(EchoTransport):
        def send(self, request: llmcall.Request, timeout: float | None) -> dict[str, Any]:
            request.body["messages"][0]["content"] += " please"
            request.body["tools"][0]["function"]["name"] = "changed"
            return super().send(request, timeout)

    messages = [{"role": "user", "content": "hello"}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    client = llmcall.LLMClient(transport=Changing())
    replies = [client.send_message(messages, tools=[tool], on_error="raise") for _ in range(2)]
    assert [reply.cached for reply in replies] == [False, True]
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
    """A registered client is the shared one; a function is called once, with the settings."""
    given: list[llmcall.Settings] = []

    def make(settings: llmcall.Settings) -> llmcall.LLMClient:
        given.append(settings)
        return EchoClient(settings)

    mine = EchoClient()
    llmcall.register_client("mine", mine)
    llmcall.register_client("made", make)
    llmcall.register_client("a class", EchoClient)
    llmcall.configure(model="configured")
    assert llmcall.client("mine") is mine
    assert llmcall.client("made") is llmcall.client("made")
    assert type(llmcall.client("a class")) is EchoClient
    assert [settings.model for settings in given] == ["configured"]
    assert text(llmcall.client("made")) == "HELLO"


def test_registering_again_takes_its_place() -> None:
    """The last one registered speaks, in place of a built-in one too."""
    first, second = EchoClient(), EchoClient()
    for client in (first, second):
        llmcall.register_client("openai", client)
        assert llmcall.client() is client
    llmcall.reset()
    assert type(llmcall.client()) is llmcall.OpenAIClient


def test_a_client_with_a_length_is_one() -> None:
    """A client that is false is a client."""

    class Counting(EchoClient):
        def __len__(self) -> int:
            return 0

    mine = Counting()
    llmcall.register_client("counting", mine)
    assert llmcall.client("counting") is mine


@pytest.mark.parametrize(
    ("api_type", "client"), [("", EchoClient), (None, EchoClient), (3, EchoClient), ("x", None), ("x", "client")]
)
def test_wrong_registrations(api_type: Any, client: Any) -> None:
    """A name that is none, or what is no client, is a TypeError."""
    with pytest.raises(TypeError):
        llmcall.register_client(api_type, client)


def test_a_function_that_returns_no_client() -> None:
    """What it returned is named."""
    llmcall.register_client("wrong", lambda settings: "a client")  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigError, match="'wrong' returned str, not an LLMClient"):
        llmcall.client("wrong")


@pytest.mark.parametrize(
    "ask", [lambda: llmcall.client("opnai"), lambda: (llmcall.force_api_type("opnai"), llmcall.client())]
)
def test_an_unknown_api_type(ask: Any) -> None:
    """An unknown name lists the known ones and suggests the nearest."""
    llmcall.register_client("mine", EchoClient())
    with pytest.raises(
        ConfigError,
        match=r"unknown api_type 'opnai'; did you mean 'openai'\? Known are azure, local, mine, ollama, openai",
    ):
        ask()
    with pytest.raises(ConfigError, match=r"unknown api_type 'zzz'\. Known are"):
        llmcall.client("zzz")


def test_force_api_type() -> None:
    """It stands above everything until it is given back."""
    llmcall.register_client("mine", EchoClient())
    llmcall.configure(api_type="azure")
    assert type(llmcall.client()) is llmcall.AzureClient
    llmcall.force_api_type("mine")
    assert text(llmcall.client()) == "HELLO"
    llmcall.force_api_type(None)
    assert type(llmcall.client()) is llmcall.AzureClient


def test_the_configured_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Environment and config.ini choose, as for every setting, without a restart."""
    llmcall.register_client("mine", EchoClient())
    (tmp_path / "config.ini").write_text("[OpenAI]\nAPI_TYPE = azure\n")
    llmcall.settings()  # looks at once; client() does so once a second
    assert type(llmcall.client()) is llmcall.AzureClient
    monkeypatch.setenv("LLMCALL_API_TYPE", "mine")
    llmcall.settings()
    assert type(llmcall.client()) is EchoClient


def test_one_shared_client_for_all_threads() -> None:
    """Threads that ask at once get one client, made once."""
    made: list[llmcall.LLMClient] = []
    barrier = threading.Barrier(8)

    def make(settings: llmcall.Settings) -> llmcall.LLMClient:
        made.append(EchoClient())
        return made[-1]

    llmcall.register_client("made", make)
    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(lambda _: (barrier.wait(), llmcall.client("made"))[1], range(8)))
    assert len(made) == 1
    assert all(client is made[0] for client in found)


def test_reset_forgets_shared_clients() -> None:
    """After a reset the client is a new one, its transport was closed, and what was registered is gone."""
    transport = EchoTransport()
    shared = llmcall.LLMClient(transport=transport)
    llmcall.register_client("mine", shared)
    before = llmcall.client("openai")
    assert text(llmcall.client("mine")) == "HELLO"
    llmcall.reset()
    assert transport.closed == 1
    assert llmcall.client("openai") is not before
    with pytest.raises(ConfigError):
        llmcall.client("mine")


def test_scripted_clients_are_not_known_by_name() -> None:
    """The client for tests is made by hand."""
    assert ScriptedClient.api_type not in known_api_types()
