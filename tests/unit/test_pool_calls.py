"""Calls over several endpoints of one model: in turn, resting, left out, fair."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from project_files import written
from pytest_httpserver import HTTPServer
from servers import OK, Answer, ScriptedServer, completion, refusal

import llmcall
from llmcall import Endpoint, OpenAIClient, Reply
from llmcall.engine.limits import NO_LIMITS, Pool, Waiter

NAMES = ("east", "west", "north")
MODEL = "gpt-4o"
BUSY = refusal(429, "slow down", headers={"retry-after": "30"})
BRIEFLY_BUSY = refusal(429, "slow down", headers={"retry-after-ms": "20"})
REFUSED = refusal(401, "Incorrect API key provided: secret-of-east")

Serve = Callable[..., dict[str, ScriptedServer]]


def ask_sync(client: OpenAIClient, text: str) -> Reply:
    """Ask by the synchronous method."""
    return client.send_message(text, on_error="raise")


def ask_async(client: OpenAIClient, text: str) -> Reply:
    """Ask by the asynchronous method."""
    return asyncio.run(client.asend_message(text, on_error="raise"))


BOTH = pytest.mark.parametrize("ask", [ask_sync, ask_async], ids=["sync", "async"])


@pytest.fixture(scope="module")
def http_servers() -> Iterator[dict[str, HTTPServer]]:
    """Start a server for each endpoint; stopping one takes half a second, so they serve all tests."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(HTTPServer()) for name in NAMES}


@pytest.fixture
def serve(http_servers: dict[str, HTTPServer]) -> Serve:
    """Give each endpoint's server a script of its own, and configure those that have one as a pool."""

    def start(**scripts: Answer | tuple[Answer, ...]) -> dict[str, ScriptedServer]:
        servers = {}
        for name, script in scripts.items():
            http_servers[name].clear()
            servers[name] = ScriptedServer(http_servers[name], *([script] if isinstance(script, Answer) else script))
        llmcall.configure(model=MODEL, endpoints=[endpoint(name, servers[name]) for name in servers])
        return servers

    return start


def endpoint(name: str, server: ScriptedServer) -> Endpoint:
    """Return an endpoint of the pool with a key of its own."""
    return Endpoint(name, (MODEL,), api_key=f"secret-of-{name}", base_url=server.base_url)


def client() -> OpenAIClient:
    """Return a client of little patience."""
    return OpenAIClient(retry_max_attempts=1)


def asked(servers: dict[str, ScriptedServer]) -> dict[str, int]:
    """Return how many requests each server saw."""
    return {name: len(server.requests) for name, server in servers.items()}


@BOTH
def test_round_robin(ask: Any, serve: Serve) -> None:
    """Calls go to one endpoint after the other, each with its key; the reply names it."""
    servers = serve(east=OK, west=OK, north=OK)
    caller = client()
    assert [ask(caller, str(number)).endpoint for number in range(6)] == [*NAMES, *NAMES]
    for name, server in servers.items():
        assert {seen.headers["authorization"] for seen in server.requests} == {f"Bearer secret-of-{name}"}


@BOTH
def test_a_busy_endpoint_rests(ask: Any, serve: Serve) -> None:
    """A 429 sends the call on at once, and its endpoint gets no call for the time that it said."""
    servers = serve(east=BUSY, west=OK, north=OK)
    caller = client()
    begun = time.monotonic()
    assert [ask(caller, str(number)).endpoint for number in range(4)] == ["west", "north", "west", "north"]
    assert asked(servers) == {"east": 1, "west": 2, "north": 2}
    assert time.monotonic() - begun < 20


@BOTH
def test_a_rested_endpoint_goes_on(ask: Any, serve: Serve) -> None:
    """After its rest an endpoint has its turn again."""
    servers = serve(east=(BRIEFLY_BUSY, OK), west=OK)
    caller = client()
    ask(caller, "first")
    while ask(caller, f"number {len(servers['west'].requests)}").endpoint == "west":
        assert len(servers["west"].requests) < 10_000
    assert len(servers["east"].requests) == 2


@BOTH
def test_all_rest(ask: Any, serve: Serve) -> None:
    """Where all rest, the call waits for the first of them, within its attempt."""
    servers = serve(east=(BRIEFLY_BUSY, OK), west=BUSY)
    caller = OpenAIClient(retry_max_attempts=2, retry_waiting_time=0)
    assert ask(caller, "Hello").endpoint == "east"
    assert asked(servers) == {"east": 2, "west": 1}


@BOTH
def test_all_stay_busy(ask: Any, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Where each endpoint answers 429 again and again, the attempts end, and each one asked in vain is in the log."""
    servers = serve(east=(BRIEFLY_BUSY,) * 30 + (OK,), west=(BRIEFLY_BUSY,) * 30 + (OK,))
    with pytest.raises(llmcall.RateLimitError) as raised:
        ask(OpenAIClient(retry_max_attempts=2, retry_waiting_time=0), "Hello")
    assert raised.value.attempts == 2 and asked(servers) == {"east": 3, "west": 3}
    messages = [record.getMessage() for record in caplog.records if "slow down" in record.getMessage()]
    passed_on = [message for message in messages if "rests for 0.02 s" in message and "another is asked" in message]
    assert (len(passed_on), len(messages)) == (4, 5)


@BOTH
def test_all_rest_for_too_long(ask: Any, serve: Serve) -> None:
    """Where no endpoint is free before the deadline, the call fails at once, and says for how long they rest."""
    servers = serve(east=BUSY, west=BUSY)
    caller = OpenAIClient(retry_max_attempts=5, deadline=10)
    begun = time.monotonic()
    with pytest.raises(llmcall.RateLimitError):
        ask(caller, "Hello")
    with pytest.raises(llmcall.RateLimitError, match="past the deadline"):
        ask(caller, "again")
    assert asked(servers) == {"east": 1, "west": 1} and time.monotonic() - begun < 8


@BOTH
def test_a_refused_key(ask: Any, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """An endpoint that refuses its key leaves the pool with one warning that names it, and not the key."""
    servers = serve(east=REFUSED, west=OK)
    caller = client()
    with caplog.at_level(logging.DEBUG, "llmcall"):
        assert [ask(caller, str(number)).endpoint for number in range(3)] == ["west"] * 3
    assert asked(servers) == {"east": 1, "west": 3}
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "endpoint east refused its key" in warnings[0]
    assert "secret-of" not in caplog.text


@BOTH
def test_all_keys_are_refused(ask: Any, serve: Serve) -> None:
    """The last endpoint stays, and its refusal is the error, with its name."""
    servers = serve(east=REFUSED, west=refusal(401, "Incorrect API key provided: secret-of-west"))
    for _ in range(2):
        with pytest.raises(llmcall.AuthenticationError) as raised:
            ask(client(), "Hello")
        assert raised.value.endpoint == "west" and "secret-of" not in str(raised.value)
    assert asked(servers) == {"east": 2, "west": 2}


@BOTH
def test_a_failing_endpoint(ask: Any, serve: Serve) -> None:
    """The next attempt after a failure goes to the next endpoint."""
    servers = serve(east=refusal(500, "broken"), west=OK)
    assert ask(OpenAIClient(retry_max_attempts=2, retry_waiting_time=0), "Hello").endpoint == "west"
    assert asked(servers) == {"east": 1, "west": 1}


@BOTH
def test_the_log_names_the_endpoint(ask: Any, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Which endpoint answered, and which failed, is in the log by name, and never by key."""
    serve(east=refusal(500, "broken"), west=OK)
    with caplog.at_level(logging.DEBUG, "llmcall"):
        ask(OpenAIClient(retry_max_attempts=2, retry_waiting_time=0), "Hello")
    messages = [record.getMessage() for record in caplog.records if record.name == "llmcall"]
    assert [name for message in messages for name in ("east", "west") if name in message] == ["east", "west"]
    assert "secret-of" not in caplog.text


def test_a_stream_that_fails_after_its_first_piece(serve: Serve) -> None:
    """Its reader has had that piece: it goes to no other endpoint, whatever the error."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "Two "}}]}
    broken = {"error": {"message": "slow down", "code": 429}}
    events = "".join(f"data: {json.dumps(event)}\n\n" for event in (chunk, broken))
    servers = serve(east=Answer(200, events), west=OK)
    pieces = []
    with pytest.raises(llmcall.RateLimitError), client().stream_message("Hello", on_error="raise") as stream:
        pieces.extend(stream)
        pytest.fail("the stream ended as if it were whole")
    assert asked(servers) == {"east": 1, "west": 0} and pieces == ["Two "]


def test_any_endpoint_answers_for_all(serve: Serve) -> None:
    """The record does not depend on which endpoint answered."""
    servers = serve(east=Answer(200, completion("East.")), west=Answer(200, completion("West.")))
    assert [ask_sync(client(), "Hello").content for _ in range(3)] == ["East."] * 3
    assert asked(servers) == {"east": 1, "west": 0}


def test_azure_and_openai_mixed(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sections of config.ini that list a model are its pool, Azure and OpenAI mixed."""
    server = ScriptedServer(httpserver, OK)
    monkeypatch.setenv("AZURE_KEY", "azure-secret")
    written(
        "config.ini",
        f"""
[OpenAI]
MODEL = {MODEL}
[Endpoint azure-east]
MODELS = {MODEL}, other
API_KEY = ${{AZURE_KEY}}
AZURE_ENDPOINT = {server.base_url.removesuffix("/v1")}
AZURE_API_VERSION = 2024-10-21
DEPLOYMENT = my-deployment
[Endpoint plain]
MODELS = {MODEL}
BASE_URL = {server.base_url}
[Endpoint another]
MODELS = other
BASE_URL = http://127.0.0.1:9
""",
    )
    assert [ask_sync(client(), "x").endpoint, ask_sync(client(), "y").endpoint] == ["azure-east"] * 2
    caller = client()
    assert [ask_sync(caller, str(number)).endpoint for number in range(4)] == ["azure-east", "plain"] * 2
    paths = Counter(seen.path for seen in server.requests)
    azure = "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert paths == {azure: 4, "/v1/chat/completions": 2}
    assert {seen.headers.get("api-key") for seen in server.requests} == {"azure-secret", None}


def test_fairness() -> None:
    """10,000 choices among 5 endpoints from 32 threads differ by at most one."""
    pool = Pool([Endpoint(str(number)) for number in range(5)])
    chosen: list[list[str]] = [[] for _ in range(32)]
    barrier = threading.Barrier(32)

    def choose(mine: list[str]) -> None:
        barrier.wait()
        for _ in range(10_000 // 32 + 1):
            waiter = Waiter()
            endpoint, _, _ = pool.acquire(waiter, NO_LIMITS, None, "m", 0.0)
            assert endpoint is not None
            mine.append(endpoint.name)
            pool.release(waiter, 0.0, answered=True)

    threads = [threading.Thread(target=choose, args=(mine,)) for mine in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = Counter(name for mine in chosen for name in mine)
    assert counts.total() >= 10_000 and max(counts.values()) - min(counts.values()) <= 1


class Transport:
    """Answer for one endpoint, and count."""

    def __init__(self, name: str, counts: Counter[str], lock: threading.Lock) -> None:
        self._name, self._counts, self._lock = name, counts, lock

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Answer."""
        with self._lock:
            self._counts[self._name] += 1
        return completion()


class CountingClient(OpenAIClient):
    """Count the calls of each endpoint."""

    def __init__(self, **settings: Any) -> None:
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()
        super().__init__(**settings)

    def make_transport(self, endpoint: Endpoint) -> Any:
        """Return a transport that counts and answers."""
        return Transport(endpoint.name, self.counts, self.lock)


@pytest.mark.slow
def test_fairness_of_calls() -> None:
    """10,000 calls over 5 endpoints from 32 threads differ by at most one call per endpoint."""
    endpoints = [Endpoint(str(number), (MODEL,), base_url="http://127.0.0.1:9") for number in range(5)]
    caller = CountingClient(model=MODEL, endpoints=endpoints, cache_mode="off")
    numbers = iter(range(10_000))

    def call() -> None:
        while True:
            with caller.lock:
                number = next(numbers, None)
            if number is None:
                return
            ask_sync(caller, str(number))

    threads = [threading.Thread(target=call) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(caller.counts.values()) == [2000] * 5
