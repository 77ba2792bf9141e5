"""The road of a request, fed by hand: every effect is seen, and nothing is sent or waited for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import llmcall
from llmcall.cache.cache import ResponseCache
from llmcall.config.settings import Endpoint
from llmcall.engine.call import RetryPolicy, _one
from llmcall.engine.effects import Do, Send, Sleep, Until
from llmcall.engine.limits import Pool
from llmcall.engine.prepare import Options, PreparedCall, Resolved
from llmcall.errors import APIError
from llmcall.models.capabilities import Capabilities
from llmcall.types import Outcome, Request

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
    monkeypatch.setattr("llmcall.engine.call.time", CLOCK)
    yield
    while OPEN:
        OPEN.pop().flow.close()


class Road:
    """Feed outcomes to a call's flow and keep what it did.

    :ivar sent: the effects by which it sent, in order.
    :ivar slept: the seconds that it wanted to wait, in order.
    :ivar counted: the amounts that it counted, in order.
    """

    def __init__(
        self,
        cache: ResponseCache | None = None,
        *,
        endpoints: Any = ("a",),
        pool: Pool | None = None,
        transport: Any = lambda endpoint: endpoint.name,
        capabilities: Capabilities | None = None,
        policy: RetryPolicy = POLICY,
        price: Any = None,
        limits: Any = None,
        mode: str = "auto",
        timeout: float | None = None,
        stream: bool = False,
        request: Request | None = None,
    ) -> None:
        self.sent: list[Send] = []
        self.slept: list[float] = []
        self.counted: list[dict[str, Any]] = []
        self.known = Capabilities() if capabilities is None else capabilities
        self.transport_of = transport
        self.pools = pool or Pool([Endpoint(each) if isinstance(each, str) else each for each in endpoints])
        self._price = price
        options = Options(cache=None if cache is not None else False, timeout=timeout)
        now = llmcall.settings().replace(
            cache_mode=mode,
            timeout=timeout,
            limits_requests_per_minute=limits and limits.requests,
            limits_tokens_per_minute=limits and limits.tokens,
            limits_max_concurrent_calls=limits and limits.calls,
        )
        self.resolved = Resolved(0, now, cache, {}, {}, None)  # type: ignore[arg-type]
        asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5, "max_tokens": 50}
        request = request or Request("chat", "m", asked, asked, {}, None, "0" * 64)
        self.call = PreparedCall(self, self.resolved, request, options)  # type: ignore[arg-type]
        self.flow = _one(self.call, policy, stream, False)
        OPEN.append(self)

    api_type = "test"

    def capabilities(self, model: str) -> Capabilities:
        return self.known

    def pool(self, model: str) -> Pool:
        return self.pools

    def host(self, endpoint: Endpoint) -> str:
        return f"{endpoint.name}.example.org"

    def hosts(self, model: str) -> set[str]:
        return {"a.example.org", "b.example.org"}

    def price(self, model: str, tokens: int = 0, endpoint: str | None = None) -> Any:
        return self._price

    def count_usage(self, model: str, scope: str, amounts: Any) -> None:
        self.counted.append(dict(amounts))

    def run(self, *outcomes: Any) -> Outcome:
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
