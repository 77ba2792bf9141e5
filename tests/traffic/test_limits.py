"""Limits of endpoints and pools of them: who waits, for how long, who is asked, and that every
slot is given back.

``Pool`` is used directly where a rule holds for every order of events: a clock that the test moves
cannot be had through a client.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from clients import WAYS, client_for
from hypothesis import given
from pytest_httpserver import HTTPServer
from servers import OK, Answer, ScriptedServer, completion, refusal
from werkzeug import Response

import llmcall
from llmcall import OpenAIClient
from llmcall.errors import RateLimitError, RequestTimeoutError, ServiceError
from llmcall.models.catalog import Capabilities
from llmcall.testing import ScriptedClient
from llmcall.traffic.limits import NEVER, WINDOW, Pool, Slot, forget
from llmcall.types import Endpoint

pytestmark = pytest.mark.newest_only

NAMES = ("east", "west", "north")
MODEL = "gpt-4o"
BUSY = refusal(429, "slow down", headers={"retry-after": "300"})
BRIEFLY_BUSY = refusal(429, "slow down", headers={"retry-after-ms": "20"})
REFUSED = refusal(401, "Incorrect API key provided: secret-of-east")
ONE_REQUEST_IN_A_MINUTE = {"limits_requests_per_minute": 1, "on_error": "raise"}
ONE_CALL_AT_ONCE = {"limits_max_concurrent_calls": 1, "on_error": "raise"}
ASK = pytest.mark.parametrize("ask", [WAYS["async"]], ids=["async"])


@pytest.fixture
def made() -> Iterator[Callable[..., OpenAIClient]]:
    """Give a function that makes clients; they are closed after the test."""
    with ExitStack() as stack:
        yield lambda *args, **how: stack.enter_context(
            client_for(*args, api_key="k", cache_mode="off", on_error="raise", **how)
        )


def wait_of(client: llmcall.LLMClient, **arguments: Any) -> float:
    """Return the seconds that the next call would wait, which has a deadline before that and does
    not.
    """
    with pytest.raises(
        RateLimitError, match=r"no endpoint .* for [\d.]+ s, past the deadline"
    ) as caught:
        client.send_message("Hello?", deadline=2, **arguments)
    return float(str(caught.value).partition(" for ")[2].partition(" s")[0])


# [Limits]


def test_a_call_waits_until_a_request_may_begin() -> None:
    """One may begin in a minute; hits are no requests."""
    client = ScriptedClient(["yes"], cache_mode="auto", **ONE_REQUEST_IN_A_MINUTE)
    for _ in range(3):
        assert client.send_message("Hello", deadline=30).content == "yes"  # type: ignore[union-attr]
    assert WINDOW - 30 < wait_of(client) <= WINDOW


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_request_counts_from_when_it_was_sent(way: str, httpserver: HTTPServer) -> None:
    """A call that comes before its answer knows how long it would have to wait."""
    begun, going = threading.Event(), threading.Event()

    def respond(_: Any) -> Response:
        begun.set()
        assert going.wait(30)
        return Response(json.dumps(completion()), content_type="application/json")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(respond)
    address = httpserver.url_for("/v1")
    with (
        # with the HTTP client that llmcall itself makes
        OpenAIClient(base_url=address, api_key="k", **ONE_REQUEST_IN_A_MINUTE) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        call = threads.submit(WAYS[way], client, "Hello")
        assert begun.wait(30)
        assert WINDOW - 30 < wait_of(client) <= WINDOW
        going.set()
        call.result()


def test_each_attempt_is_a_request() -> None:
    """A call that would be tried again waits for its turn."""
    assert wait_of(ScriptedClient([ServiceError("busy")], **ONE_REQUEST_IN_A_MINUTE)) > 0


def test_the_tokens_that_a_call_used_count_against_the_limit_of_a_minute() -> None:
    """The part that it reserved and did not use is free again; one that is larger than the limit
    may begin alone.
    """
    client = ScriptedClient(
        lambda messages: completion("one two three"), limits_tokens_per_minute=100, on_error="raise"
    )
    client.send_message("Hello", max_tokens=1000)
    client.send_message("Hello", max_tokens=70)
    assert wait_of(client, max_tokens=80) > WINDOW - 30


def test_max_concurrent_calls_holds_for_threads_and_tasks_together() -> None:
    """Of 16 threads and 16 tasks with clients of their own, exactly as many call at once as may."""
    running, most = [], []
    full, lock = threading.Event(), threading.Lock()

    def answer(messages: Any) -> str:
        with lock:
            running.append(messages)
            most.append(len(running))
            if len(running) == 4:
                full.set()
        assert full.wait(30)
        with lock:
            running.pop()
        return "yes"

    one, other = (
        ScriptedClient(answer, limits_max_concurrent_calls=4, on_error="raise") for _ in range(2)
    )

    async def main() -> None:
        await asyncio.gather(*(other.asend_message(f"task {number}") for number in range(16)))

    with ThreadPoolExecutor(17) as executor:
        tasks = executor.submit(asyncio.run, main())
        list(executor.map(one.send_message, (f"thread {number}" for number in range(16))))
        tasks.result()
    assert (max(most), len(most)) == (4, 32)


# Whatever a call holds is given back


@pytest.mark.parametrize(
    "ending", [ServiceError("busy"), KeyboardInterrupt(), RuntimeError("a bug")], ids=repr
)
@pytest.mark.parametrize("way", ["sync", "stream", "async"])
def test_a_call_releases_its_slot_and_reservation_however_it_ends(
    ending: BaseException, way: str
) -> None:
    """It holds a slot, and what it reserved of a budget."""
    if way == "async" and isinstance(ending, KeyboardInterrupt):
        pytest.skip("ends the event loop")
    with llmcall.budget(calls=1) as budget:
        client = ScriptedClient([ending, "yes"], retry_max_attempts=1, **ONE_CALL_AT_ONCE)
        with pytest.raises(type(ending)):
            WAYS[way](client, "Hello")
        assert budget.spent.calls == 0
        assert client.send_message("Hello", deadline=30).content == "yes"  # type: ignore[union-attr]


def test_a_stream_holds_its_slot_until_its_first_piece() -> None:
    """Until then a call of another thread waits, here until its deadline."""
    begun, going = threading.Event(), threading.Event()

    def answer(messages: Any) -> str:
        begun.set()
        assert going.wait(30)
        return "one two three"

    client = ScriptedClient(answer, **ONE_CALL_AT_ONCE)
    with client.stream_message("Hello") as stream, ThreadPoolExecutor(1) as threads:
        first_piece = threads.submit(next, iter(stream))
        assert begun.wait(30)
        with pytest.raises(RequestTimeoutError, match="deadline"):
            client.send_message("Hello", deadline=0.1)
        going.set()
        first_piece.result()
        assert client.send_message("Hello", deadline=30).content  # type: ignore[union-attr]


@pytest.mark.parametrize("limited", ["slot", "budget"])
def test_a_task_that_is_cancelled_while_it_waits_holds_nobody_up(limited: str) -> None:
    """It waited for a slot, or for a budget."""
    going, begun = threading.Event(), threading.Event()

    def answer(messages: Any) -> str:
        begun.set()
        assert going.wait(30)
        return "yes"

    client = ScriptedClient(
        answer, limits_max_concurrent_calls=1 if limited == "slot" else None, on_error="raise"
    )

    async def main() -> None:
        tasks = [asyncio.create_task(client.asend_message("first"))]
        await asyncio.to_thread(begun.wait, 30)
        tasks += [asyncio.create_task(client.asend_message(text)) for text in ("cancelled", "last")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[1].cancel()
        going.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in found] == [
            llmcall.types.Reply,
            asyncio.CancelledError,
            llmcall.types.Reply,
        ]

    with llmcall.budget(calls=2):
        asyncio.run(main())


def test_a_task_that_is_cancelled_as_its_wait_ends_is_not_sent() -> None:
    client = ScriptedClient(["first", "second"], **ONE_CALL_AT_ONCE)

    async def main() -> None:
        tasks = [asyncio.create_task(client.asend_message(str(i), deadline=30)) for i in range(2)]
        await tasks[0]
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]

    asyncio.run(main())
    assert client.usage.calls == 1


# What servers say


def test_a_429_makes_all_other_clients_wait(httpserver: HTTPServer, made: Any) -> None:
    """Those of other models, too, until its Retry-After has passed; nothing is sent before. Another organization
    has limits of its own, and a reset forgets them.
    """
    server = ScriptedServer(httpserver, BUSY, OK)
    with pytest.raises(RateLimitError) as caught:
        made(server.base_url).send_message("Hello", max_attempts=1)
    assert caught.value.retry_after == 300
    assert 280 <= wait_of(made(server.base_url), model="another-model") <= 300
    assert len(server.requests) == 1
    assert made(server.base_url, organization="org-2").send_message("Hello", deadline=30).content
    assert wait_of(made(server.base_url)) > 200
    llmcall.reset()
    assert made(server.base_url).send_message("Hello", deadline=30).content


# Pools, over HTTP


Serve = Callable[..., dict[str, ScriptedServer]]


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
            servers[name] = ScriptedServer(
                http_servers[name], *([script] if isinstance(script, Answer) else script)
            )
        endpoints = [
            Endpoint(
                name, (MODEL, "another"), api_key=f"secret-of-{name}", base_url=server.base_url
            )
            for name, server in servers.items()
        ]
        llmcall.configure(model=MODEL, endpoints=endpoints, on_error="raise")
        return servers

    return start


def client(attempts: int = 1, **settings: Any) -> OpenAIClient:
    """Return a client of little patience."""
    return OpenAIClient(retry_max_attempts=attempts, retry_waiting_time=0, **settings)


def endpoints_asked(ask: Any, count: int, caller: Any) -> list[str]:
    """Ask so often and return which endpoints answered."""
    return [ask(caller, f"question {number}").endpoint for number in range(count)]


def asked(servers: dict[str, ScriptedServer]) -> dict[str, int]:
    """Return how many requests each server saw."""
    return {name: len(server.requests) for name, server in servers.items()}


@ASK
def test_calls_go_to_one_endpoint_after_the_other(ask: Any, serve: Serve) -> None:
    """The reply names it."""
    serve(east=OK, west=OK, north=OK)
    assert endpoints_asked(ask, 6, client()) == [*NAMES, *NAMES]


def test_turns_go_on_with_other_settings_and_in_other_clients(serve: Serve) -> None:
    """So does the time for which an endpoint is left out."""
    servers = serve(east=REFUSED, west=OK, north=OK)
    caller = client()
    for number in range(4):
        with llmcall.configured(temperature=number):
            caller.send_message(f"question {number}")
            client().send_message(f"question {number} of another client")
    assert asked(servers) == {"east": 1, "west": 4, "north": 4}


def test_each_model_has_turns_of_its_own(serve: Serve) -> None:
    """Of two models that are asked alternately, both go to each endpoint."""
    servers = serve(east=OK, west=OK)
    caller = client()
    for number in range(4):
        for model in (MODEL, "another"):
            caller.send_message(f"question {number}", model=model)
    for server in servers.values():
        assert [seen.body["model"] for seen in server.requests] == [MODEL, "another"] * 2


@ASK
def test_each_endpoint_gets_its_own_key(ask: Any, serve: Serve) -> None:
    """It gets no other's."""
    servers = serve(east=OK, west=OK, north=OK)
    endpoints_asked(ask, 6, client())
    for name, server in servers.items():
        keys = {seen.headers["authorization"] for seen in server.requests}
        assert keys == {f"Bearer secret-of-{name}"}


@ASK
def test_an_endpoint_that_answers_429_gets_no_call_for_its_retry_after(
    ask: Any, serve: Serve
) -> None:
    """The call goes on to the next endpoint at once."""
    servers = serve(east=BUSY, west=OK, north=OK)
    in_time = functools.partial(ask, deadline=200)
    assert endpoints_asked(in_time, 4, client()) == ["west", "north", "west", "north"]
    assert asked(servers) == {"east": 1, "west": 2, "north": 2}


@ASK
def test_a_call_waits_for_the_first_of_endpoints_that_all_rest(ask: Any, serve: Serve) -> None:
    """It does not matter what the last one asked for."""
    servers = serve(east=(BRIEFLY_BUSY, OK), west=BUSY)
    assert ask(client(2), "Hello", deadline=60).endpoint == "east"
    assert asked(servers) == {"east": 2, "west": 1}


@ASK
@pytest.mark.parametrize("refusal_of_east", [BUSY, REFUSED])
def test_a_request_to_another_endpoint_is_a_retry(
    refusal_of_east: Answer, ask: Any, serve: Serve
) -> None:
    """With the retries, usage has all requests that arrive."""
    servers = serve(east=refusal_of_east, west=(refusal(503, "busy"), OK))
    with client(2) as caller:
        ask(caller, "Hello")
        assert (caller.usage.calls, caller.usage.retries) == (1, 2)
    assert asked(servers) == {"east": 1, "west": 2}


@ASK
def test_the_attempts_end_if_all_endpoints_stay_busy(ask: Any, serve: Serve) -> None:
    """The error says how many there were."""
    staying_busy = serve(east=(BRIEFLY_BUSY,) * 30 + (OK,), west=(BRIEFLY_BUSY,) * 30 + (OK,))
    with pytest.raises(RateLimitError) as raised:
        ask(client(2), "Hello")
    assert raised.value.attempts == 2
    assert asked(staying_busy) == {"east": 3, "west": 3}


@ASK
def test_an_endpoint_that_refuses_its_key_leaves_the_pool_and_is_named_in_one_warning(
    ask: Any, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The last one stays, and its refusal is the error. The keys are in no message."""
    last = refusal(401, "Incorrect API key provided: secret-of-west")
    servers = serve(east=REFUSED, west=(OK, OK, OK, last))
    caller = client()
    with caplog.at_level(logging.DEBUG, "llmcall"):
        assert endpoints_asked(ask, 3, caller) == ["west"] * 3
        with pytest.raises(llmcall.AuthenticationError) as raised:
            ask(caller, "Hello")
    assert raised.value.endpoint == "west"
    assert asked(servers) == {"east": 1, "west": 4}
    [warning] = (entry for entry in caplog.records if entry.levelno == logging.WARNING)
    assert "endpoint east refused its API key" in warning.getMessage()
    assert "secret-of" not in caplog.text + str(raised.value)


@ASK
@pytest.mark.parametrize("words", ["Your input was flagged", "Country not supported"])
def test_a_403_that_is_not_about_the_key_leaves_its_endpoint_in_the_pool(
    ask: Any, words: str, serve: Serve
) -> None:
    """The next question goes there again."""
    servers = serve(east=(refusal(403, words), OK))
    caller = client()
    with pytest.raises(llmcall.APIError, match=words):
        ask(caller, "Hello")
    assert endpoints_asked(ask, 1, caller) == ["east"]
    assert asked(servers) == {"east": 2}


@ASK
def test_an_endpoint_without_quota_leaves_the_pool(
    ask: Any, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting does not help, but another endpoint answers."""
    servers = serve(east=refusal(429, "You have no credit.", code="insufficient_quota"), west=OK)
    assert endpoints_asked(ask, 3, client()) == ["west"] * 3
    assert asked(servers) == {"east": 1, "west": 3}
    assert caplog.text.count("endpoint east has no quota left and is not used for 5 minutes") == 1


@ASK
def test_the_next_attempt_after_a_failure_goes_to_the_next_endpoint(ask: Any, serve: Serve) -> None:
    """Each is asked once."""
    servers = serve(east=refusal(500, "broken"), west=OK)
    assert ask(client(2), "Hello").endpoint == "west"
    assert asked(servers) == {"east": 1, "west": 1}


def test_a_record_does_not_depend_on_which_endpoint_of_the_pool_answered(serve: Serve) -> None:
    """The record does not depend on which endpoint answered."""
    servers = serve(east=Answer(200, completion("East.")), west=Answer(200, completion("West.")))
    assert [client().send_message("Hello").content for _ in range(3)] == ["East."] * 3
    assert asked(servers) == {"east": 1, "west": 0}


@pytest.mark.parametrize(
    ("make", "address"),
    [
        (lambda: OpenAIClient(base_url=None), "http://pool/v1"),
        (lambda: OpenAIClient(base_url="http://own/v1"), "http://own/v1"),
        (
            lambda: OpenAIClient(llmcall.settings().replace(base_url="http://own/v1")),
            "http://own/v1",
        ),
    ],
    ids=["no address", "an argument", "an argument of the settings"],
)
def test_a_client_with_an_address_of_its_own_passes_the_endpoints_by(
    make: Callable[[], OpenAIClient], address: str
) -> None:
    """None is no address; the pool of a model has the endpoints that list it."""
    pool, of_another = "http://pool/v1", Endpoint("west", ("another",), base_url="http://west/v1")
    llmcall.configure(endpoints=[Endpoint("east", (MODEL,), base_url=pool), of_another])
    assert [endpoint.address for endpoint in make().endpoints(MODEL)] == [address]


# Any order of events, by a clock that the test moves


class Door:
    """A pool whose endpoint admits attempts, and a clock that the test moves."""

    def __init__(self, **limits: int) -> None:
        forget()
        self.now = 1000.0
        self.pool = Pool("m", [Endpoint("a")], Capabilities(), llmcall.settings().replace(**limits))

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def admitted(self, tokens: int) -> Slot | None:
        """Return an attempt that is let in, or ``None``: it does not wait."""
        slot = Slot(self.pool)
        if isinstance(self.pool.admit(slot, tokens), Endpoint):
            return slot
        slot.close()
        return None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "send", "answer", "fail"]),
        st.floats(0, 40),
        st.integers(1, 10),
    ),
    max_size=40,
)


@given(limit=st.integers(1, 5), tokens=st.integers(10, 50), steps=STEPS)
def test_no_minute_holds_more_than_the_limits(
    limit: int, tokens: int, steps: list[tuple[str, float, int]]
) -> None:
    """However attempts come, are sent, end and fail, no 60 seconds hold more requests or tokens
    than the limits.
    """
    door = Door(limits_requests_per_minute=limit, limits_tokens_per_minute=tokens)
    running: list[Slot] = []
    sent: list[Slot] = []
    with patch("llmcall.traffic.limits.clock", door):
        for what, seconds, size in steps:
            door.now += seconds
            unsent = [call for call in running if call.sent_at == NEVER]
            if what == "ask":
                slot = door.admitted(size)
                if slot is not None:
                    running.append(slot)
            elif what == "send" and unsent:
                unsent[-1].note_sent()
                sent.append(unsent[-1])
            elif what in ("answer", "fail") and running:
                slot = running.pop(0)
                if slot.sent_at == NEVER:
                    sent.append(slot)
                slot.used = min(size, slot.tokens) if what == "answer" else 0
                slot.close()
            in_a_minute = [call for call in sent if call.sent_at > door.now - WINDOW]
            assert len(in_a_minute) <= limit
            assert sum(call.tokens for call in in_a_minute) <= tokens
    times = [call.sent_at for call in sent]
    assert all(
        sum(start <= time_sent < start + 60 for time_sent in times) <= limit for start in times
    )


def test_a_rest_is_not_shortened_by_a_429_that_names_less() -> None:
    """Two calls were under way; the second refusal names another limit."""
    forget()
    endpoint = Endpoint("a")
    pool = Pool("m", [endpoint], Capabilities(), llmcall.settings())
    for seconds in (60, 1):
        pool.rest(endpoint, seconds)
    blocked = pool.admit(Slot(pool), None)
    assert not isinstance(blocked, Endpoint)
    assert blocked.seconds > 50


def test_a_rest_ends_where_a_test_freezes_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As freezegun does, which replaces these two: a frozen one would let the call wait for ever."""
    client = llmcall.testing.ScriptedClient(
        [RateLimitError("slow down"), "Two."], retry_waiting_time=0.1, retry_max_waiting_time=0.1
    )
    for name in ("time", "monotonic"):
        monkeypatch.setattr(time, name, lambda: 1_600_000_000.0)
    assert client.send_message("Bread?", on_error="raise").content == "Two."
