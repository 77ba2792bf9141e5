"""Connections of programs that fail: the program gets what it gets without llmcall."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from clients import KEY, QUESTION, Server, program
from clients import http as library
from servers import (
    OK,
    TWO_COINS,
    RawServer,
    answers,
    cut_chunk,
    event,
    http,
    refusing,
    resets,
    stays_silent,
)

import llmcall

BODY: dict[str, Any] = {"model": "gpt-4o-mini", "messages": QUESTION}
TIMEOUT = 0.3  # seconds: how long to wait for a server that is silent
ENOUGH_TO_SEND = 3  # seconds: a deadline before which a slow machine, too, has sent a request
LONGEST = 60.0  # seconds: how long to wait for anything else
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
HALF = event(TWO_COINS[1])
Ask = Callable[[str, float], Any]
BEHAVIOURS: dict[str, Any] = {
    "silent": stays_silent,
    "reset": resets,
    "cut chunk": cut_chunk(),
    "short body": lambda connection, _: connection.sendall(http(b"{}", length=9)),
    "no HTTP": lambda connection, _: connection.sendall(b"Good morning!\r\n\r\n"),
    "bad gzip": lambda connection, _: connection.sendall(
        http(b"{}", stays=False, **{"Content-Encoding": "gzip"})
    ),
}


@contextlib.contextmanager
def failing(name: str) -> Iterator[tuple[str, list[Any]]]:
    """Provide the base URL of a server that fails in a way, and what it sees."""
    if name == "refused":
        with refusing() as url:
            yield url, []
        return
    with RawServer(BEHAVIOURS[name]) as server:
        yield server.base_url, server.requests


def reads_within(seconds: float, module: Any = library) -> Any:
    """Return the timeouts of httpx or httpx2 that bound only how long to wait for an answer."""
    return module.Timeout(LONGEST, read=seconds)


def sdk(call: Callable[[Any], Any], retries: int = 0) -> Ask:
    """Return a function that asks by the SDK, whose second attempt comes at once."""

    def ask(url: str, seconds: float = LONGEST) -> Any:
        options: Any = {"timeout": reads_within(seconds), "max_retries": retries}
        with openai.OpenAI(api_key=KEY, base_url=url, **options) as client:
            return call(client)

    return ask


def async_sdk(call: Callable[[Any], Any]) -> Ask:
    """Return a function that asks by the asynchronous SDK."""

    async def ask(url: str, seconds: float) -> Any:
        options: Any = {"timeout": reads_within(seconds), "max_retries": 0}
        async with openai.AsyncOpenAI(api_key=KEY, base_url=url, **options) as client:
            return await call(client)

    return lambda url, seconds: asyncio.run(ask(url, seconds))


by_sdk = sdk(lambda client: client.chat.completions.create(**BODY), 1)


def by_library(name: str) -> Ask:
    """Return a function that posts by httpx, httpx2 or requests."""

    def post(url: str, seconds: float) -> Any:
        module = pytest.importorskip(name)
        is_requests = name == "requests"
        timeout = (LONGEST, seconds) if is_requests else reads_within(seconds, module)
        return module.post(f"{url}/chat/completions", json=BODY, timeout=timeout)

    return post


def by_async_httpx(url: str, seconds: float) -> Any:
    """Post by an asynchronous client of httpx."""

    async def post() -> Any:
        httpx = importlib.import_module("httpx")
        async with httpx.AsyncClient(timeout=reads_within(seconds, httpx)) as client:
            return await client.post(f"{url}/responses", json={"model": "m", "input": "Bread?"})

    return asyncio.run(post())


WAYS: dict[str, Ask] = {
    "SDK": by_sdk,
    "embedding": sdk(lambda client: client.embeddings.create(model="e", input=["bread", "oil"])),
    "response": sdk(lambda client: client.responses.create(model="m", input="Bread?")),
    "async SDK": async_sdk(lambda client: client.chat.completions.create(**BODY)),
    "httpx": by_library("httpx"),
    "httpx2": by_library("httpx2"),
    "requests": by_library("requests"),
    "async httpx": by_async_httpx,
}
# Each way fails once, and one way fails in each manner; the others repeat it.
CASES = [
    pytest.param(way, failure, marks=() if way == "httpx" or failure == "reset" else pytest.mark.ci)
    for way in WAYS
    for failure in ("refused", *BEHAVIOURS)
]


def raised_by(ask: Ask, url: str, failure: str) -> Exception:
    """Return the error that asking raises."""
    with pytest.raises(Exception) as caught:
        ask(url, TIMEOUT if failure == "silent" else LONGEST)
    return caught.value


@pytest.mark.parametrize(("way", "failure"), CASES)
def test_a_connection_that_fails_raises_what_it_raises_without_llmcall(
    way: str, failure: str
) -> None:
    """In ``patched`` and in a cassette, so a program's ``except openai.APIConnectionError`` works; the server sees as
    many requests.
    """
    found = []
    blocks = contextlib.nullcontext(), llmcall.patched(), llmcall.cassette("run.jsonl")
    for block in blocks:
        with failing(failure) as (url, seen), block:
            error = raised_by(WAYS[way], url, failure)
        found.append((type(error), type(error.__cause__ or error.__context__), len(seen)))
    assert found[0] == found[1] == found[2]


def test_an_http_client_of_llmcall_passes_the_librarys_exception_on() -> None:
    """Its cause is that of the library."""
    server = Server()
    server.broken = library.ConnectError
    with pytest.raises(openai.APIConnectionError) as caught:
        program(server, retry_max_attempts=3).with_options(max_retries=0).responses.create(
            model="m", input="Bread?"
        )
    assert type(caught.value.__cause__) is library.ConnectError
    assert len(server.requests) == 1


async def parts(client: Any) -> list[Any]:
    """Read a stream by the asynchronous SDK."""
    return [part async for part in await client.chat.completions.create(**BODY, stream=True)]


def stream_by_requests(url: str, seconds: float) -> Any:
    """Read a stream by requests."""
    asked = {**BODY, "stream": True}
    with pytest.importorskip("requests").post(
        f"{url}/chat/completions", json=asked, stream=True, timeout=(LONGEST, seconds)
    ) as answer:
        return list(answer.iter_lines())


def stream_of_responses(url: str, seconds: float) -> Any:
    """Read a stream of another API by httpx."""
    asked = {"model": "m", "input": "Bread?", "stream": True}
    httpx = importlib.import_module("httpx")
    timeout = reads_within(seconds, httpx)
    with httpx.stream("POST", f"{url}/responses", json=asked, timeout=timeout) as answer:
        return list(answer.iter_lines())


@pytest.mark.parametrize("ends", ["cut", "silent"])
@pytest.mark.parametrize(
    "read",
    [
        sdk(lambda client: list(client.chat.completions.create(**BODY, stream=True))),
        async_sdk(parts),
        stream_by_requests,
        stream_of_responses,
    ],
    ids=["SDK", "async SDK", "requests", "responses"],
)
def test_a_stream_whose_connection_breaks_raises_what_it_raises_without_llmcall(
    read: Ask, ends: str
) -> None:
    def break_off(connection: Any, stopped: Any) -> None:
        connection.sendall(HEAD + b"%x\r\n%b\r\n" % (len(HALF), HALF))
        if ends == "silent":
            stays_silent(connection, stopped)

    found = []
    for block in (contextlib.nullcontext(), llmcall.patched()):
        with RawServer(break_off) as server, block:
            error = raised_by(read, server.base_url, ends)
        port = server.base_url.rpartition(":")[2].removesuffix("/v1")
        found.append((type(error), str(error).replace(port, "PORT"), len(server.requests)))
    assert found[0] == found[1]
    assert llmcall.client("openai").cache.stats().records == 0


def test_a_connection_that_fails_gives_budgets_and_limits_back() -> None:
    """It spends nothing, and the next call finds a place."""
    limits: dict[str, Any] = {"limits_max_concurrent_calls": 1, "deadline": 20}
    with (
        RawServer(resets, answers(OK)) as server,
        llmcall.patched(**limits),
        llmcall.budget(calls=1) as budget,
        llmcall.track() as usage,
    ):
        assert by_sdk(server.base_url).choices[0].message.content == "Two coins."
    assert budget.spent.calls == 1
    assert (usage.calls, usage.errors, usage.retries) == (1, 0, 1)  # what the SDK tried again


def test_a_failed_attempt_is_never_taken_back() -> None:
    """No listener gets a number below 0, and a block that opens between two attempts counts the second."""
    used: list[dict[str, Any]] = []
    between = llmcall.track()

    class Attempts(llmcall.types.Listener):
        def used(self, call: object, amounts: Any) -> None:
            used.append(amounts)

        def failed(self, call: object, error: object) -> None:
            tracked.append(stack.enter_context(between))

    tracked: list[Any] = []
    with (
        RawServer(resets, answers(OK)) as server,
        llmcall.patched(),
        Attempts(),
        contextlib.ExitStack() as stack,
    ):
        by_sdk(server.base_url)
    [usage] = tracked
    assert (usage.calls, usage.errors, usage.retries) == (1, 0, 1)
    assert sum(amounts.get("retries", 0) for amounts in used) == 1
    assert not [amounts for amounts in used if "errors" in amounts]


@pytest.mark.parametrize("way", ["SDK", "requests"])
def test_a_connection_that_fails_is_reported_once_at_the_end(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    with failing("reset") as (url, _), llmcall.cassette("run.jsonl") as tape:
        raised_by(WAYS[way], url, "reset")
    assert caplog.text.count("1 call failed") == 1
    # the program's own address may be another
    assert "Try again later; 'llmcall doctor' checks the configured address" in caplog.text
    assert (tape.asked, tape.records) == (0, 0)


def test_a_connection_that_fails_is_not_reported_if_the_sdks_next_attempt_is_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The file holds the answer, and replays."""
    with RawServer(resets, answers(OK)) as server, llmcall.cassette("run.jsonl"):
        live = by_sdk(server.base_url)
    assert "failed" not in caplog.text
    with llmcall.cassette("run.jsonl", mode="none"):
        assert by_sdk(server.base_url).choices == live.choices


def test_an_error_of_the_programs_own_transport_is_not_reported_if_the_next_attempt_is_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client that two event loops share has connections of the first, which is closed: asyncio raises a
    RuntimeError, after which SDKs (openai 2, LangChain) try again.
    """
    answer = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
    outcomes: list[Any] = [RuntimeError("Event loop is closed"), library.Response(200, json=answer)]

    def respond(request: Any) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with (
        llmcall.cassette("run.jsonl") as tape,
        library.Client(transport=library.MockTransport(respond)) as client,
    ):
        with pytest.raises(RuntimeError):
            client.post("http://localhost/v1/chat/completions", json=BODY)
        response = client.post("http://localhost/v1/chat/completions", json=BODY)
    assert response.json()["choices"][0]["message"]["content"] == "yes"
    assert tape.records == 1
    assert "failed" not in caplog.text


@pytest.mark.ci
@pytest.mark.parametrize(
    ("api", "client_class"),
    [
        ("chat", openai.OpenAI),
        pytest.param("chat", openai.AsyncOpenAI, marks=pytest.mark.ci),
        pytest.param("responses", openai.OpenAI, marks=pytest.mark.ci),
        ("responses", openai.AsyncOpenAI),
    ],
)
def test_the_deadline_of_a_call_is_no_timeout_that_the_sdk_tries_again(
    api: str, client_class: Any
) -> None:
    """It is llmcall's own, in threads and event loops."""
    with RawServer(stays_silent) as server, llmcall.patched(deadline=ENOUGH_TO_SEND):
        client = client_class(api_key=KEY, base_url=server.base_url, timeout=30)
        with pytest.raises(openai.InternalServerError) as caught:
            if api == "chat":
                asked = client.chat.completions.create(**BODY)
            else:
                asked = client.responses.create(model="m", input="Bread?")
            asyncio.run(asked)
        assert caught.value.status_code == 504
        assert len(server.requests) == 1
