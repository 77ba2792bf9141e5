"""The road of a request, fed by hand: every effect is seen, and nothing is sent or waited for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llmcall.cache.cache import ResponseCache
from llmcall.config.settings import Endpoint
from llmcall.engine.calls import Call
from llmcall.engine.effects import Do, Send, Sleep, Until
from llmcall.engine.flow import Answer, answer
from llmcall.engine.limits import Pool
from llmcall.engine.retry import RetryPolicy
from llmcall.errors import APIError
from llmcall.models.capabilities import Capabilities
from llmcall.types import Request

POLICY = RetryPolicy(max_attempts=5, waiting_time=1.0, factor=2.0, max_waiting_time=60.0)
MANY = 20  # waits that no call of a test comes near to


class Clock:
    """Be the monotonic clock of a road; only its waits move it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


CLOCK = Clock()
OPEN: list[Road] = []  # what a test leaves on the way is closed after it


def on_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the road a clock that only its waits move, and close what is left of it."""
    monkeypatch.setattr(CLOCK, "now", 1000.0)  # the same for each: what it rounds to depends on it
    monkeypatch.setattr("llmcall.engine.flow.time", CLOCK)
    monkeypatch.setattr("llmcall.engine.calls.time", CLOCK)
    yield
    while OPEN:
        OPEN.pop().flow.close()


class Road:
    """Feed outcomes to a call's flow and keep what it did.

    :ivar sent: the effects by which it sent, in order.
    :ivar slept: the seconds that it wanted to wait, in order.
    :ivar counted: the amounts that it counted, in order.
    """

    def __init__(self, cache: ResponseCache | None = None, *, endpoints: Any = ("a",), **fields: Any) -> None:
        self.sent: list[Send] = []
        self.slept: list[float] = []
        self.counted: list[dict[str, Any]] = []
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5, "max_tokens": 50}
        standard = {
            "request": Request("chat", "m", body, body, {}, None, "0" * 64),
            "cache": cache,
            "mode": "auto",
            "pool": Pool([Endpoint(each) if isinstance(each, str) else each for each in endpoints]),
            "transport": lambda endpoint: endpoint.name,
            "capabilities": Capabilities(),
            "policy": POLICY,
            "timeout": None,
            "whole": lambda response: True,
            "count": self._count,
            "api_type": "test",
            "host": lambda endpoint: f"{endpoint.name}.example.org",
        }
        self.call = Call(**{**standard, **fields})
        self.flow = answer(self.call)
        OPEN.append(self)

    def _count(self, response: Any = None, **amounts: Any) -> float | None:
        self.counted.append({"calls": 1} if response is not None else amounts)
        return 0.25

    def run(self, *outcomes: Any) -> Answer:
        """Feed the outcomes, one for each sending, and return where the road ends."""
        waiting = list(outcomes)
        effect = next(self.flow)
        try:
            while True:
                effect = self._perform(effect, waiting)
        except StopIteration as stop:
            assert not waiting, f"{len(waiting)} outcomes were not asked for"
            return stop.value

    def _perform(self, effect: Any, waiting: list[Any]) -> Any:
        if isinstance(effect, Sleep):
            self.slept.append(effect.seconds)
            CLOCK.now += effect.seconds
            assert len(self.slept) < MANY, self.slept
            return self.flow.send(None)
        if isinstance(effect, Until):
            assert effect.seconds is not None, "nobody else is there to end the waiting"
            self.slept.append(effect.seconds)
            CLOCK.now += effect.seconds
            return self.flow.send(None)
        if isinstance(effect, Do):
            return self.flow.send(effect.function())
        assert isinstance(effect, Send), effect
        self.sent.append(effect)
        outcome = waiting.pop(0)
        return self.flow.throw(outcome) if isinstance(outcome, BaseException) else self.flow.send(outcome)

    def fail(self, *outcomes: Any) -> APIError:
        """Feed the outcomes and return the error that the road ends with."""
        with pytest.raises(APIError) as caught:
            self.run(*outcomes)
        return caught.value

    @property
    def asked(self) -> list[str]:
        """Return the endpoints that were asked, in order."""
        return [effect.transport for effect in self.sent]
