"""The road of a request, fed by hand: every effect is seen, and nothing is sent or waited for."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from roads import CLOCK, POLICY, Road, on_clock
from servers import completion

from llmcall.cache.cache import ResponseCache
from llmcall.config.settings import Endpoint
from llmcall.engine.call import JITTER
from llmcall.engine.effects import ALONE, Send, Wait
from llmcall.errors import (
    APIError,
    AuthenticationError,
    ContentFilterError,
    EmptyAnswerError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServiceError,
)
from llmcall.models.capabilities import capabilities

BUSY = [ServiceError("busy") for _ in range(9)]


def limited(seconds: float | None = None) -> RateLimitError:
    """Return a rate limit, with the wait that the server asked for."""
    return RateLimitError("slow down", status_code=429, retry_after=seconds)


def unsupported(name: str, code: str = "unsupported_parameter") -> InvalidRequestError:
    """Return the refusal of a parameter."""
    error = InvalidRequestError(f"Unsupported parameter: '{name}' is not supported with this model.", status_code=400)
    error.code, error.param = code, name
    return error


clock = pytest.fixture(autouse=True)(on_clock)


@pytest.fixture
def cache(tmp_path: Path) -> ResponseCache:
    """Give an empty cache."""
    return ResponseCache(tmp_path / "cache")


def test_an_answer(cache: ResponseCache) -> None:
    """One sending brings the answer, recorded with its cost and host before it is given back."""
    road = Road(cache)
    found = road.run(completion())
    assert road.asked == ["a"]
    assert (found.sent.endpoint, found.sent.host) == ("a", "a.example.org")
    assert found.record.response == completion()
    stored = cache.get(road.call.request)
    assert (stored.cost, stored.host, stored.api_type) == (None, "a.example.org", "test")
    assert [counted["calls"] for counted in road.counted] == [1]


def test_waits_grow() -> None:
    """Between attempts it waits one second, two, four, eight, each with at most a quarter more."""
    road = Road()
    error = road.fail(*BUSY[:5])
    for base, seconds in zip((1, 2, 4, 8), road.slept, strict=True):
        assert base <= seconds <= base * (1 + JITTER)
    assert (error.attempts, error.endpoint) == (5, "a")
    assert road.counted == [{"errors": 1, "retries": 4}]


def test_a_longer_retry_after_wins() -> None:
    """The server's wait is waited where it is longer, ours where that is."""
    road = Road()
    road.run(limited(30.0), limited(0.5), completion())
    assert road.slept[0] == 30.0
    assert 2.0 <= sum(road.slept[1:]) <= 2.0 * (1 + JITTER)


def test_a_rate_limit_without_a_wait() -> None:
    """Where one endpoint names no wait, our own wait is all that is waited."""
    road = Road(policy=POLICY._replace(waiting_time=0.01))
    road.run(limited(), completion())
    assert sum(road.slept) <= 0.01 * (1 + JITTER)


def test_retry_after_is_bounded_by_the_deadline() -> None:
    """A wait that would pass the deadline fails at once."""
    road = Road(policy=POLICY._replace(deadline_at=CLOCK.now + 1000))
    error = road.fail(limited(2000.0))
    assert (road.slept, error.attempts) == ([], 1)


def test_a_deadline_that_has_passed() -> None:
    """After the deadline nothing is sent."""
    road = Road(policy=POLICY._replace(deadline_at=CLOCK.now - 1))
    assert isinstance(road.fail(), RequestTimeoutError)
    assert road.sent == []


@pytest.mark.parametrize(("timeout", "left", "expected"), [(5.0, None, 5.0), (5.0, 1000, 5.0)])
def test_the_timeout_of_an_attempt(timeout: float | None, left: float | None, expected: float | None) -> None:
    """An attempt has its timeout where the deadline leaves as much."""
    road = Road(timeout=timeout, policy=POLICY._replace(deadline_at=left and CLOCK.now + left))
    road.run(completion())
    assert road.sent[0].timeout == expected


def test_the_deadline_shortens_an_attempt() -> None:
    """An attempt ends with the call's deadline at the latest."""
    road = Road(timeout=5000.0, policy=POLICY._replace(deadline_at=CLOCK.now + 1000))
    road.run(completion())
    assert road.sent[0].timeout == pytest.approx(1000)


@pytest.mark.parametrize(
    "refused",
    [
        InvalidRequestError("400"),
        AuthenticationError("401", status_code=401),
        QuotaExceededError("429"),
        ContentFilterError("400"),
        completion("", finish_reason="content_filter"),
        completion("", finish_reason="length"),
        completion(None),
    ],
)
def test_what_is_not_tried_again(cache: ResponseCache, refused: Any) -> None:
    """A refusal, a filtered or an empty answer ends the call at the first attempt, and nothing is stored."""
    road = Road(cache)
    error = road.fail(refused)
    assert isinstance(refused, dict) or error is refused
    assert isinstance(refused, APIError) or isinstance(error, (ContentFilterError, EmptyAnswerError))
    assert (error.attempts, error.endpoint, road.slept, len(cache)) == (1, "a", [], 0)


def test_a_malformed_answer_is_tried_again(cache: ResponseCache) -> None:
    """An answer without choices is a failing service, and the next attempt's answer counts."""
    road = Road(cache)
    assert road.run({}, {"choices": []}, completion()).record.response == completion()
    assert len(road.slept) == 2


def test_the_next_endpoint_is_asked_at_once() -> None:
    """Where one of a pool is limited, another is asked without a wait, and the first rests."""
    road = Road(endpoints=["a", "b"])
    road.run(limited(30.0), completion())
    assert (road.asked, road.slept) == (["a", "b"], [])
    assert road.pools.free_after(CLOCK.now) == 0.0


def test_a_refused_key_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """An endpoint whose key is refused is left out with a warning; the refusal of the last one counts."""
    road = Road(endpoints=["a", "b"])
    error = road.fail(AuthenticationError("401 no", status_code=401), AuthenticationError("401 no", status_code=401))
    assert (road.asked, error.endpoint) == (["a", "b"], "b")
    assert [record.getMessage() for record in caplog.records] == ["endpoint a refused its key and is left out for 5 minutes: 401 no"]


def test_a_key_function_is_asked_once_more() -> None:
    """A 401 asks a key function once more, and only once."""
    renewable = SimpleNamespace(renewable=True)
    road = Road(endpoints=[Endpoint("a", api_key=lambda: "token")], transport=lambda endpoint: renewable)
    road.fail(*(AuthenticationError("401", status_code=401) for _ in range(2)))
    assert (len(road.asked), road.slept) == (2, [])


@pytest.mark.parametrize("code", ["unsupported_parameter", "unsupported_value"])
def test_an_unsupported_parameter_is_dropped(cache: ResponseCache, caplog: pytest.LogCaptureFixture, code: str) -> None:
    """What the API does not support is dropped, said in the log, and the record is that of the request as asked."""
    road = Road(cache)
    found = road.run(unsupported("temperature", code), completion())
    assert ["temperature" in effect.request.body for effect in road.sent] == [True, False]
    assert road.slept == []
    assert "temperature" in caplog.text
    assert found.record.request["temperature"] == 0.5
    assert found.record.cache_key == road.call.request.cache_key
    assert road.call.request.body["temperature"] == 0.5


def test_the_token_limit_is_renamed() -> None:
    """A model that knows max_completion_tokens only gets the limit under that name."""
    road = Road()
    road.run(unsupported("max_tokens"), completion())
    assert [effect.request.body.get("max_tokens") for effect in road.sent] == [50, None]
    assert road.sent[1].request.body["max_completion_tokens"] == 50


def test_what_was_dropped_stays_dropped() -> None:
    """Further attempts of the call do not send again what was refused."""
    road = Road()
    road.run(unsupported("temperature"), ServiceError("busy"), unsupported("max_tokens"), completion())
    assert [sorted(effect.request.body.keys() - {"model", "messages"}) for effect in road.sent] == [
        ["max_tokens", "temperature"],
        ["max_tokens"],
        ["max_tokens"],
        ["max_completion_tokens"],
    ]


@pytest.mark.parametrize("name", ["messages", "model", "top_k", None, 5])
def test_what_cannot_be_dropped(name: Any) -> None:
    """A refusal of what was not sent, or of what the request is made of, is raised as it is."""
    refused = unsupported(name)
    assert Road().fail(refused) is refused


def test_a_known_model_is_asked_rightly_at_once() -> None:
    """Where the table knows what a model refuses, the first sending leaves it out."""
    road = Road(capabilities=capabilities("o3-mini"))
    road.run(completion())
    assert road.sent[0].request.body.keys() - {"model", "messages"} == {"max_completion_tokens"}


def test_a_follower_shares_the_answer(cache: ResponseCache) -> None:
    """Of two identical calls one is sent; the other waits and gets a copy of the same record."""
    leader, follower = Road(cache), Road(cache)
    sending, waiting = next(leader.flow), next(follower.flow)
    assert (type(sending), type(waiting)) == (Send, Wait)
    storing = leader.flow.send(completion())
    with pytest.raises(StopIteration) as led:
        leader.flow.send(storing.function())
    with pytest.raises(StopIteration) as followed:
        follower.flow.send(waiting.flight.outcome.result())
    assert followed.value.value.record == led.value.value.record
    assert followed.value.value.record.response is not led.value.value.record.response
    assert followed.value.value.sent is None


def test_a_follower_shares_the_error(cache: ResponseCache) -> None:
    """The API's refusal of the leader's call is the follower's too, with its cause."""
    leader, follower = Road(cache), Road(cache)
    next(leader.flow)
    waiting = next(follower.flow)
    refused = InvalidRequestError("400: no", status_code=400)
    refused.__cause__ = OSError("the SDK's")
    with pytest.raises(InvalidRequestError):
        leader.flow.throw(refused)
    with pytest.raises(InvalidRequestError) as raised:
        waiting.flight.outcome.result()
    shared = raised.value
    assert shared is not refused
    assert (str(shared), shared.status_code, shared.__cause__) == ("400: no", 400, refused.__cause__)


@pytest.mark.parametrize("end", ["deadline", "interrupt", "left"])
def test_a_follower_takes_over(cache: ResponseCache, end: str) -> None:
    """Where the leader ends for a reason of its own, a follower leads."""
    leader, follower = Road(cache, policy=POLICY._replace(deadline_at=CLOCK.now + 1000)), Road(cache)
    next(leader.flow)
    waiting = next(follower.flow)
    if end == "left":
        leader.flow.close()
    else:
        with pytest.raises((RequestTimeoutError, KeyboardInterrupt)):
            if end == "deadline":
                CLOCK.now += 2000
            leader.flow.throw(RequestTimeoutError("late") if end == "deadline" else KeyboardInterrupt())
    assert waiting.flight.outcome.result() is None
    assert isinstance(follower.flow.send(None), Send)


def test_a_follower_of_itself_goes_alone(cache: ResponseCache) -> None:
    """A call that would wait for its own thread is sent, and the leader's record counts."""
    leader, follower = Road(cache), Road(cache)
    assert (type(next(leader.flow)), type(next(follower.flow))) == (Send, Wait)
    assert isinstance(follower.flow.send(ALONE), Send)


@pytest.mark.parametrize("fields", [{"mode": "off"}, {"cache": None}])
def test_who_neither_leads_nor_follows(cache: ResponseCache, fields: dict[str, Any]) -> None:
    """Without a cache every call is sent for itself."""
    assert [isinstance(next(Road(**{"cache": cache, **fields}).flow), Send) for _ in range(2)] == [True, True]


def test_one_log_line_for_each_retry(caplog: pytest.LogCaptureFixture) -> None:
    """Each retry is one line with the request, the reason and the very wait that follows."""
    road = Road()
    caplog.set_level(logging.INFO, "llmcall")
    road.run(ServiceError("503: busy"), limited(9.0), completion())
    first, second = caplog.messages
    assert first == (
        f"chat request {'0' * 12} to m: attempt 1 of 5 failed at a (ServiceError: 503: busy); "
        f"trying again in {road.slept[0]:.2f} s"
    )
    assert "(RateLimitError: slow down); trying again in 9.00 s" in second
