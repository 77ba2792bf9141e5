"""The way in: who waits, for how long, and that whatever an attempt held is given back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from llmcall.clients.api_errors import failure
from pytest_httpserver import HTTPServer
from roads import CLOCK, POLICY, Road, on_clock
from servers import OK, Answer, ScriptedServer, client_for, completion, refusal
from streaming import WAYS

import llmcall
from llmcall.config.settings import Endpoint
from llmcall.engine import budgets
from llmcall.engine.effects import END, Emit, Next, Open, Send, Until
from llmcall.engine.estimates import DEFAULT_MAX_OUTPUT, Estimate, estimate
from llmcall.engine.limits import WINDOW, Admission, Limits, Pool, endpoint_states
from llmcall.errors import BudgetExceededError, EmptyAnswerError, RateLimitError, RequestTimeoutError, ServiceError
from llmcall.models.capabilities import Capabilities
from llmcall.testing import ScriptedClient
from llmcall.types import Request

MESSAGES = [{"role": "user", "content": "Hi"}]
ENOUGH = 30.0  # seconds in which a thread that is needed comes
TO_GO = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"}


clock = pytest.fixture(on_clock)


def limited(pool: Pool | None = None, **fields: Any) -> Road:
    """Return a road of one request in a minute, or of the limits given."""
    pool = pool or Pool([Endpoint("a")])
    return Road(**{"pool": pool, "limits": Limits(requests=1), "mode": "off", **fields})


def test_the_second_call_of_a_minute_waits(clock: None) -> None:
    """Where one request may begin in a minute, the next call begins a minute after it, without a retry."""
    pool = Pool([Endpoint("a")])
    first, second = limited(pool), limited(pool)
    first.run(completion())
    second.run(completion())
    assert (first.slept, sum(second.slept)) == ([], WINDOW)


def test_attempts_are_requests_too(clock: None) -> None:
    """A second attempt of a call counts as a request and waits for its minute."""
    road = limited(policy=POLICY._replace(waiting_time=1.0))
    road.run(ServiceError("busy"), completion())
    assert sum(road.slept) == pytest.approx(WINDOW)


def test_a_wait_past_the_deadline_fails_at_once(clock: None) -> None:
    """A call that would have to wait longer than its deadline allows fails without waiting or trying again."""
    pool = Pool([Endpoint("a")])
    limited(pool).run(completion())
    road = limited(pool, policy=POLICY._replace(deadline_at=CLOCK.now + 10))
    error = road.fail()
    assert isinstance(error, RateLimitError)
    assert (road.slept, error.attempts) == ([], 1)


def test_a_place_that_is_not_free_in_time(clock: None) -> None:
    """Where only the end of another call helps, a call waits for it until its deadline."""
    pool = Pool([Endpoint("a")])
    running = limited(pool, limits=Limits(calls=1))
    assert isinstance(next(running.flow), Send)
    road = limited(pool, limits=Limits(calls=1), policy=POLICY._replace(deadline_at=CLOCK.now + 10))
    assert isinstance(road.fail(), RequestTimeoutError)
    assert sum(road.slept) == 10
    running.flow.close()
    limited(pool, limits=Limits(calls=1)).run(completion())


ENDINGS = [ServiceError("busy"), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), RuntimeError("a bug")]


ONCE = POLICY._replace(max_attempts=1)


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: type(ending).__name__)
def test_what_is_held_is_given_back_however_a_call_ends(clock: None, ending: BaseException) -> None:
    """A failed, interrupted, cancelled or abandoned call gives back its place and what it reserved of a budget."""
    pool, limits = Pool([Endpoint("a")]), Limits(calls=1)
    with llmcall.budget(calls=1) as budget:
        road = limited(pool, limits=limits, policy=ONCE)
        assert isinstance(next(road.flow), Send)
        with pytest.raises(type(ending)):
            road.flow.throw(ending)
        assert budget.spent.calls == 0
        limited(pool, limits=limits).run(completion())


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: type(ending).__name__)
@pytest.mark.parametrize(("limits", "calls"), [(Limits(calls=1), 2), (Limits(), 1)], ids=["place", "budget"])
def test_who_stops_waiting_holds_nobody_up(clock: None, limits: Limits, calls: int, ending: BaseException) -> None:
    """A call that ends while it waits, for a place or for a budget, is waited for by nobody, and holds nothing."""
    pool = Pool([Endpoint("a")])
    with llmcall.budget(calls=calls):
        running, waiting = limited(pool, limits=limits), limited(pool, limits=limits, policy=ONCE)
        assert isinstance(next(running.flow), Send)
        assert isinstance(next(waiting.flow), Until)
        with pytest.raises(type(ending)):
            waiting.flow.throw(ending)
        running.flow.close()
        limited(pool, limits=limits).run(completion())
    assert not budgets._waiting
    assert not pool.states.of(pool.endpoints[0]).queue


def test_a_stream_holds_its_place_until_it_ends(clock: None) -> None:
    """A stream is a call under way until its last piece, or until its reader leaves."""
    pool, limits = Pool([Endpoint("a")]), Limits(calls=1)
    road = limited(pool, limits=limits, stream=True)
    assert isinstance(next(road.flow), Open)
    assert isinstance(road.flow.send(iter(())), Next)
    piece = {"choices": [{"index": 0, "delta": {"content": "Two"}, "finish_reason": None}]}
    assert isinstance(road.flow.send(piece), Emit)
    assert pool.states.of(pool.endpoints[0]).running
    with pytest.raises(KeyboardInterrupt):
        road.flow.throw(KeyboardInterrupt())
        road.flow.send(None)
    assert not pool.states.of(pool.endpoints[0]).running


def test_a_refused_stream_is_billed(clock: None) -> None:
    """A stream that ends without any text is no answer, but the tokens that it reports are spent."""
    chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "usage": completion()["usage"]}
    with llmcall.budget(tokens=5000) as budget:
        road = limited(stream=True, limits=Limits())
        assert isinstance(next(road.flow), Open)
        assert isinstance(road.flow.send(iter(())), Next)
        assert isinstance(road.flow.send(chunk), Next)
        road.flow.send(END)
        with pytest.raises(EmptyAnswerError):
            road.flow.send(None)
    assert budget.spent == (None, 15, 0)


def test_a_429_without_a_time_cools_down_too(clock: None) -> None:
    """Where a 429 names no time, nobody asks the endpoint for as long as a first retry waits."""
    pool = Pool([Endpoint("a")])
    with pytest.raises(RateLimitError):
        limited(pool, limits=Limits(), policy=ONCE._replace(waiting_time=2.0)).run(RateLimitError("slow down"))
    road = limited(pool, limits=Limits())
    road.run(completion())
    assert road.slept == [2.0]


EMPTY = {
    "x-ratelimit-limit-requests": "200", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "24h0m0s",
}  # fmt: skip
FEW_TOKENS = {
    "x-ratelimit-limit-tokens": "600", "x-ratelimit-remaining-tokens": "10", "x-ratelimit-reset-tokens": "59s",
}  # fmt: skip
# What a 429 says, and the least that its call waits for another attempt: it needs a request, and 50 tokens and more.
REFUSALS = [
    (EMPTY, 432.0, 432.0),
    (FEW_TOKENS, 4.0, 6.0),
    ({**EMPTY, **FEW_TOKENS}, 432.0, 432.0),
    (TO_GO, 30.0, 30.0),
    ({**EMPTY, "retry-after": "7"}, 7.0, 7.0),
    ({**EMPTY, "retry-after": "0"}, 1.0, 1.25),
    ({**EMPTY, "x-ratelimit-remaining-requests": "9"}, 1.0, 1.25),
    ({**EMPTY, "x-ratelimit-reset-requests": "soon"}, 1.0, 1.25),
]


@pytest.mark.parametrize(("headers", "least", "most"), REFUSALS)
def test_a_429_waits_until_its_limit_has_refilled(
    clock: None, headers: dict[str, str], least: float, most: float
) -> None:
    """Without Retry-After, the wait is that until the limit has enough for the call, or a longer one of our own."""
    pool = Pool([Endpoint("a")])
    road = limited(pool, limits=Limits())
    begun = CLOCK.now
    road.run(failure(429, {}, headers=headers), completion())
    assert least <= CLOCK.now - begun <= most + 0.001
    assert least <= road.slept[0] <= most


@pytest.mark.parametrize("headers", [EMPTY, TO_GO])
def test_a_429_cools_down_for_all_until_its_limit_has_refilled(clock: None, headers: dict[str, str]) -> None:
    """Nobody else asks the endpoint meanwhile, for any model; a wait past the deadline fails at once."""
    pool = Pool([Endpoint("a")])
    road = limited(pool, limits=Limits(), policy=POLICY._replace(deadline_at=CLOCK.now + 20))
    error = road.fail(failure(429, {}, headers=headers))
    assert isinstance(error, RateLimitError)
    assert (road.slept, error.attempts, error.retry_after) == ([], 1, 432.0 if headers is EMPTY else 30.0)
    request = Request("chat", "other", {"model": "other", "messages": MESSAGES}, {}, {}, None, "1" * 64)
    other = limited(pool, limits=Limits(), request=request, policy=POLICY._replace(deadline_at=CLOCK.now + 20))
    assert "past the deadline" in str(other.fail())
    waiting = limited(pool, limits=Limits())
    waiting.run(completion())
    assert sum(waiting.slept) == pytest.approx(error.retry_after)


def test_those_who_waited_for_a_refill_go_one_by_one(clock: None) -> None:
    """When one request has come back, one call goes; the others wait for theirs."""
    pool = Pool([Endpoint("a")])
    once = limited(pool, limits=Limits(), policy=ONCE)
    once.fail(failure(429, {}, headers=EMPTY))
    begun, ends = CLOCK.now, []
    for _ in range(3):
        limited(pool, limits=Limits()).run(completion())
        ends.append(CLOCK.now - begun)
    assert ends == [pytest.approx(432.0 * number) for number in (1, 2, 3)]


def test_another_endpoint_is_asked_while_a_limit_refills(clock: None) -> None:
    """Of a pool, the one whose limit is used up rests, and the call goes on at another at once."""
    pool = Pool([Endpoint("a"), Endpoint("b")])
    road = limited(pool, limits=Limits())
    road.run(failure(429, {}, headers=EMPTY), completion())
    assert (road.asked, road.slept) == (["a", "b"], [])
    for _ in range(3):
        again = limited(pool, limits=Limits())
        again.run(completion())
        assert again.asked == ["b"]


def test_tokens_are_reserved_and_settled(clock: None) -> None:
    """The prompt's count and max_tokens are reserved of a minute's tokens, and what was used is counted after."""
    pool, limits = Pool([Endpoint("a")]), Limits(tokens=100)
    first, second = limited(pool, limits=limits), limited(pool, limits=limits)
    assert isinstance(next(first.flow), Send)
    waiting = next(second.flow)
    assert isinstance(waiting, Until)
    with pytest.raises(StopIteration):
        storing = first.flow.send(completion())
        first.flow.send(storing.function())
    assert waiting.future.done()
    assert isinstance(second.flow.send(None), Send)


def test_a_429_cools_the_endpoint_down_for_every_client(httpserver: HTTPServer) -> None:
    """After a 429 no client of the process asks the endpoint before its Retry-After has passed."""
    server = ScriptedServer(httpserver, refusal(429, headers={"retry-after": "30"}), OK)
    with pytest.raises(RateLimitError):
        _client(server).send_message("Hello", max_attempts=1, on_error="raise")
    with pytest.raises(RateLimitError, match=r"[0-3]?\d\.\d s, past the deadline"):
        _client(server).send_message("Hello", deadline=5, on_error="raise")
    assert len(server.requests) == 1
    llmcall.reset()
    assert _client(server).send_message("Hello", deadline=5, on_error="raise").content


@pytest.mark.parametrize("way", WAYS)
def test_a_429_whose_headers_name_its_limits(httpserver: HTTPServer, way: str) -> None:
    """However it is asked, what a 429 says of its limits is kept to by all clients, and is the error's wait."""
    server = ScriptedServer(httpserver, refusal(429, headers=EMPTY), OK)
    with pytest.raises(RateLimitError) as caught:
        WAYS[way](_client(server), "Hello", deadline=20, on_error="raise")
    assert (caught.value.retry_after, caught.value.attempts) == (432.0, 1)
    with pytest.raises(RateLimitError, match=r"[34]\d\d\.\d s, past the deadline"):
        _client(server).send_message("Hello", deadline=20, on_error="raise")
    assert len(server.requests) == 1


def test_what_the_headers_say_holds_for_every_client(httpserver: HTTPServer) -> None:
    """Where headers say that nothing is left, no client asks before the reset; another model may be asked."""
    server = ScriptedServer(httpserver, Answer(200, completion(), TO_GO), OK)
    _client(server).send_message("Hello", on_error="raise")
    with pytest.raises(RateLimitError, match=r"[0-3]?\d\.\d s, past the deadline"):
        _client(server).send_message("Hello", deadline=5, on_error="raise")
    assert _client(server).send_message("Hello", model="gpt-4o", deadline=5, on_error="raise").content


def _client(server: ScriptedServer, **settings: Any) -> Any:
    return client_for(server.base_url, api_key="a-key", cache_mode="off", **settings)


def test_hits_do_not_wait() -> None:
    """A recorded answer passes without waiting, and counts as no request."""
    client = ScriptedClient(["yes", "no"], cache_mode="auto", limits_requests_per_minute=1, on_error="raise")
    for _ in range(3):
        assert client.send_message("Hello", deadline=5) == {"role": "assistant", "content": "yes"}
    with pytest.raises(RateLimitError):
        client.send_message("Hello again", deadline=5)


class Counting(ThreadingHTTPServer):
    """Answer over HTTP, each request once others had time to come, and count those under way at once."""

    request_queue_size = 64
    daemon_threads = True

    def __init__(self, expected: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.full = threading.Event()
        self.expected, self.running, self.most, self.answered = expected, 0, 0, 0

    @property
    def base_url(self) -> str:
        """Return what a client is given."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def began(self) -> None:
        """Count one more under way."""
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            if self.running >= self.expected:
                self.full.set()

    def ended(self) -> None:
        """Count one less."""
        with self.lock:
            self.running -= 1
            self.answered += 1


class _Handler(BaseHTTPRequestHandler):
    server: Counting
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.began()
        self.rfile.read(int(self.headers["Content-Length"]))
        assert self.server.full.wait(ENOUGH)
        body = OK.text().encode()
        self.server.ended()  # before the client can know
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def counting() -> Iterator[Counting]:
    """Give a server that waits until four requests are under way."""
    server = Counting(4)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_more_threads_and_tasks_call_at_once_than_may(counting: Counting) -> None:
    """Of 16 threads and 16 tasks with clients of their own, exactly as many call a real server at once as may."""
    settings = {"api_key": "a-key", "cache_mode": "off", "limits_max_concurrent_calls": 4, "on_error": "raise"}
    one, other = client_for(counting.base_url, **settings), llmcall.OpenAIClient(base_url=counting.base_url, **settings)

    async def main() -> None:
        await asyncio.gather(*(other.asend_message(f"task {number}") for number in range(16)))

    with one, ThreadPoolExecutor(17) as executor:
        tasks = executor.submit(asyncio.run, main())
        list(executor.map(one.send_message, (f"thread {number}" for number in range(16))))
        tasks.result()
    assert (counting.most, counting.answered) == (4, 32)


# Any order of events, without threads: attempts come, look again when they are called or their time has come, and end.

ENDS = st.sampled_from(["ok", "fails", "leaves"])
PLANS = st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1), ENDS), max_size=10)  # most tokens, share used, end


@given(
    calls=st.integers(1, 3),
    requests=st.integers(1, 4),
    tokens=st.integers(40, 90),
    allowed=st.integers(0, 8),
    plans=PLANS,
    order=st.randoms(use_true_random=False),
)
def test_any_order_of_events_keeps_every_limit(
    calls: int, requests: int, tokens: int, allowed: int, plans: list[tuple[int, float, str]], order: Any
) -> None:
    """Whatever comes when, limits and budget hold together, and everybody gets in, or hears that it is spent."""
    budgets._waiting.clear()  # of an example that failed
    house = House(Limits(calls, requests, tokens), order)
    with llmcall.budget(calls=allowed) as budget:
        house.run(plans)
    good = sum(how == "ok" for _, _, how in plans)
    assert budget.spent.calls == house.answered <= allowed
    assert house.refused == 0 or budget.spent.calls == allowed
    assert house.answered == min(good, allowed) or house.refused
    assert not house.pool.states.of(house.pool.endpoints[0]).queue


class House:
    """Let attempts in by hand, in an order that is drawn."""

    def __init__(self, limits: Limits, order: Any) -> None:
        self.now, self.limits, self.order = 0.0, limits, order
        self.pool = Pool([Endpoint("a")])
        self.begun: list[tuple[float, list[int]]] = []
        self.running: dict[int, tuple[Admission, list[int]]] = {}
        self.waiting: dict[int, tuple[Admission, Any, Until, float]] = {}
        self.sent: set[int] = set()
        self.answered = self.refused = 0

    def run(self, plans: list[tuple[int, float, str]]) -> None:
        """Let every attempt come and end."""
        coming = list(range(len(plans)))
        while coming or self.running or self.waiting:
            ready = [key for key, (_, _, until, since) in self.waiting.items() if self._is_ready(until, since)]
            moves: list[tuple[str, int]] = [("look", key) for key in ready] + [("end", key) for key in self.running]
            moves += [("send", key) for key in self.running if key not in self.sent]
            moves += [("come", key) for key in coming[:1]]
            if not moves or (ready and self.order.random() < 0.1):
                self._pass_time(moves)
                continue
            what, key = self.order.choice(moves)
            if what == "end":
                self._end(key, plans[key])
            elif what == "send":
                self._send(key)
            elif what == "come":
                coming.remove(key)
                self._come(key, plans[key][0])
            else:
                admission, flow, _, _ = self.waiting.pop(key)
                self._step(key, admission, flow)
            self._check()

    def _is_ready(self, until: Until, since: float) -> bool:
        return until.future.done() or (until.seconds is not None and since + until.seconds <= self.now)

    def _pass_time(self, moves: list[Any]) -> None:
        times = [since + until.seconds for _, _, until, since in self.waiting.values() if until.seconds is not None]
        assert times or moves, "everybody waits for everybody"
        self.now = max(self.now, min(times)) if times else self.now + 1

    def _come(self, key: int, most: int) -> None:
        body = {"model": "m", "messages": MESSAGES, "max_tokens": most}
        request = Request("chat", "m", body, body, {}, None, "0" * 64)
        admission = Admission(
            request, Capabilities(), self.pool, self.limits, lambda tokens, endpoint: None, None, lambda: self.now
        )
        self._step(key, admission, admission.acquire())

    def _step(self, key: int, admission: Admission, flow: Any) -> None:
        try:
            until = next(flow)
        except StopIteration:
            reserved = [min(estimate("chat", admission._request.body, Capabilities()).tokens, self.limits.tokens or 0)]
            self.running[key] = admission, reserved
        except BudgetExceededError as error:
            self.refused += 1
            admission.__exit__(type(error), error, None)
        else:
            self.waiting[key] = admission, flow, until, self.now

    def _send(self, key: int) -> None:
        """Let a request reach the wire: only now do its 60 seconds begin."""
        admission, tokens = self.running[key]
        admission._note_sent()
        self.sent.add(key)
        self.begun.append((self.now, tokens))

    def _end(self, key: int, plan: tuple[int, float, str]) -> None:
        most, share, how = plan
        if key not in self.sent:  # a transport that does not tell sends at some time before its answer is there
            self._send(key)
        admission, tokens = self.running.pop(key)
        if how == "ok":
            self.answered += 1
            tokens[0] = min(tokens[0], int(share * most) + 1)
            usage = {"prompt_tokens": 1, "completion_tokens": tokens[0] - 1}
            assert list(admission.settle({**completion(), "usage": usage})) == []
        else:
            tokens[0] = 0
        error = {"ok": None, "fails": ServiceError("busy"), "leaves": KeyboardInterrupt()}[how]
        admission.__exit__(type(error) if error else None, error, None)

    def _check(self) -> None:
        last_minute = [tokens[0] for time, tokens in self.begun if time + WINDOW > self.now]
        assert len(self.running) <= (self.limits.calls or 0)
        assert len(last_minute) <= (self.limits.requests or 0)
        assert sum(last_minute) <= (self.limits.tokens or 0)


KNOWN = Capabilities(context_window=1000, max_output_tokens=400)
DEMANDS = [
    ({"max_tokens": 50}, KNOWN, 50, 50),
    ({"max_completion_tokens": 60}, KNOWN, 60, 60),
    ({"max_tokens": 50, "n": 3}, KNOWN, 150, 150),
    ({}, KNOWN, 400, 0),
    ({"n": 2}, KNOWN, 800, 0),
    ({}, Capabilities(), DEFAULT_MAX_OUTPUT, 0),
    ({}, Capabilities(context_window=100, max_output_tokens=400), None, 0),
]


@pytest.mark.parametrize(("fields", "known", "output", "stated"), DEMANDS)
def test_what_a_call_may_use(fields: dict[str, Any], known: Capabilities, output: int | None, stated: int) -> None:
    """An answer is bounded by max_tokens, else by the model's largest output and its window, else by a default."""
    found = estimate("chat", {"model": "m", "messages": MESSAGES, **fields}, known)
    prompt = found.input_tokens
    assert 0 < prompt < 20
    assert found == Estimate(prompt, 100 - prompt if output is None else output, prompt + stated)


def test_a_schema_counts_as_prompt() -> None:
    """The JSON schema that an answer is to fit is part of what is read and billed."""
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    body = {"model": "m", "messages": MESSAGES}
    with_schema = estimate("chat", {**body, "response_format": schema}, KNOWN)
    assert with_schema.input_tokens > estimate("chat", body, KNOWN).input_tokens


def test_clients_share_one_room() -> None:
    """Every client of the process lets its calls in through the same room."""
    assert all(ScriptedClient([]).pool("m").states is endpoint_states for _ in range(2))
