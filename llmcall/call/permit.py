"""The permit for one send: what it may use is reserved, and an endpoint has a place for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..errors import (
    APIError,
    BudgetExceededError,
    LLMCallError,
    RateLimitError,
    RequestTimeoutError,
)
from ..models.prices import tier_of
from ..notices import notice
from ..values import TokenUsage
from . import budgets
from .effects import Runner, do, wait
from .estimates import Estimate, estimate, estimate_of_http
from .ledgers import NEVER, Amounts, spending_of
from .limits import WINDOW, LimitedSend, Pool

if TYPE_CHECKING:
    from ..config.endpoints import Endpoint
    from ..values import Request

# HTTP clients call it when the request of the current context was sent.
_when_sent: ContextVar[Callable[[], None]] = ContextVar(
    "llmcall request sent", default=lambda: None
)
SENT_STEP = "send_request_body.complete"  # the end of a step's name in httpcore's extension "trace"


def note_sent(request: Any) -> None:
    """Note for the limits when a request was sent: an event hook for an ``httpx.Client``."""
    when_sent = _when_sent.get()

    def trace(step: str, info: Any) -> None:
        if step.endswith(SENT_STEP):
            when_sent()

    request.extensions["trace"] = trace


async def note_sent_async(request: Any) -> None:
    """Note for the limits when a request was sent: an event hook for an ``httpx.AsyncClient``."""
    when_sent = _when_sent.get()

    async def trace(step: str, info: Any) -> None:
        if step.endswith(SENT_STEP):
            when_sent()

    request.extensions["trace"] = trace


LOOK_AGAIN = 1.0  # seconds after which a wait looks whether it waits for its own thread
_held: set[Permit] = set()


class Permit:
    """What one send holds: its reservation in the open budgets, and an endpoint's place.

    It has two ends: whoever waits long gives the place back and keeps the reservation; closing it
    gives both back, however the send ended.

    :param pool: the endpoints that may serve it.
    :param time_left: returns the seconds after which nobody waits, or ``None``.
    :param calls_only: whether it counts as a call only, and uses no tokens.
    :param key: the request's, under which the same call, made again, takes over what is reserved of a
        named budget; ``None`` if it does not.
    :ivar limited_send: the send as the limits count it.
    :ivar reservation: what it holds of the open budgets, or ``None``.
    """

    def __init__(
        self,
        pool: Pool,
        time_left: Callable[[], float | None],
        *,
        calls_only: bool = False,
        key: str | None = None,
    ) -> None:
        self.limited_send = LimitedSend()
        self.reservation: budgets.Reservation | None = None
        self._pool = pool
        self._time_left = time_left
        self._calls_only = calls_only
        self._key = key
        self._estimate: Estimate | None = None
        self._service_tier: str | None = None  # the one that is asked for
        self._runner = Runner.current()
        self._waits_for_itself = False  # at the last look

    async def acquire(self, request: Request, endpoint: Endpoint | None = None) -> Endpoint:
        """Wait until the send may begin, and return the endpoint to ask.

        :param request: what is asked; its body is what is sent.
        :param endpoint: the one that makes the answer already: it needs no place there.
        :raises BudgetExceededError: if it could go past a budget.
        :raises RateLimitError, RequestTimeoutError: if the wait would pass the deadline.
        """
        self._service_tier = tier_of(request.body)
        limits_tokens = self._pool.settings.limits_tokens_per_minute is not None
        if limits_tokens or budgets.counts_tokens():
            self._estimate = self._estimated(request)
        if budgets.open_budgets:
            reservation = self.reservation = budgets.Reservation(self._time_left, self._key)
            while True:
                seconds = (
                    reservation.reserve(self._amounts())
                    if reservation.is_in_memory
                    else await do(lambda: reservation.reserve(self._amounts()))
                )
                if seconds is None:
                    break
                event = "calls under way settle what they reserved of a budget"
                await self._wait(reservation.wakeup, seconds, event, BudgetExceededError)
        if endpoint is not None:
            return endpoint
        tokens = None if self._estimate is None else self._estimate.tokens
        names = ", ".join(endpoint.name for endpoint in self._pool.endpoints)
        has_waited = False
        while True:
            endpoint, next_look, shortest_wait = self._pool.admit(
                self.limited_send, tokens, time.monotonic()
            )
            if endpoint is not None:
                break
            seconds_left = self._time_left()
            if seconds_left is not None and shortest_wait > max(0.0, seconds_left):
                raise _last(
                    RateLimitError(
                        f"no endpoint of {names} can be called for {shortest_wait:.1f} s, "
                        "past the deadline"
                    )
                )
            if not has_waited and shortest_wait > WINDOW:  # longer than [Limits] alone make it wait
                notice("%s: no call is sent there for %.0f s", names, shortest_wait)
            has_waited = True
            event = "an endpoint has a place for another call"
            await self._wait(self.limited_send.wakeup, next_look, event, RateLimitError)
        _held.add(self)
        _when_sent.set(self.limited_send.note_sent)
        return endpoint

    def _estimated(self, request: Request) -> Estimate | None:
        """Return what the send may use, or ``None`` if nobody can know it.

        :raises BudgetExceededError: if a budget needs to know it.
        """
        if request.kind != "http":
            return estimate(request.kind, request.body, self._pool.capabilities)
        if self._calls_only:
            return None
        estimated = estimate_of_http(request.body, self._pool.capabilities)
        if estimated is None and budgets.limits_tokens():
            fields = request.asked
            address = f"{fields['method']} {fields.get('host', '')}{fields['path']}"
            raise BudgetExceededError(
                f"the budget limits dollars or tokens, but {address} does not say how much it may "
                "use, so llmcall can't reserve anything for it. Limit calls= instead, or send it "
                "outside the budget"
            )
        return estimated

    def _amounts(self) -> Amounts:
        """Return what is reserved."""
        if self._calls_only:
            return Amounts(calls=1)
        needed = self._estimate or Estimate(0, 0)
        price = self._pool.price(needed.input_tokens, service_tier=self._service_tier)
        budgets.check_price(self._pool.model, price, self._service_tier)
        return spending_of(TokenUsage(needed.input_tokens, needed.output_tokens), price)

    async def _wait(
        self, wakeup: Future[None], seconds: float, event: str, in_vain: type[LLMCallError]
    ) -> None:
        """Wait until there is reason to look again.

        :param seconds: the longest wait; infinite if only the end of another call gives a reason.
        :param event: is waited for, in words.
        :param in_vain: is raised if only streams that the current thread or task has open could bring
            the event about, now and at the last look.
        """
        seconds_left = self._time_left()
        if seconds_left is not None and seconds_left <= 0:
            raise _last(RequestTimeoutError(f"the call's deadline passed before {event}"))
        holders = [each._runner for each in tuple(_held)]
        waited_for_itself = self._waits_for_itself
        self._waits_for_itself = (
            bool(holders) and seconds == NEVER and all(each.waits_for_us() for each in holders)
        )
        if self._waits_for_itself and waited_for_itself:
            raise _last(
                in_vain(
                    f"the call waits until {event}, which only a stream that this thread or task has open can bring "
                    "about: read it to its end or close it before the next call"
                )
            )
        if self._runner in holders:
            seconds = min(seconds, LOOK_AGAIN)
        longest = seconds if seconds_left is None else min(seconds, seconds_left)
        await wait(wakeup, None if longest == NEVER else longest)

    def use(
        self,
        tokens: TokenUsage,
        endpoint: str | None = None,
        *,
        service_tier: str | None = None,
        calls: int = 1,
    ) -> None:
        """Count what the send used, in place of what was reserved for it. If the server does not say
        what that was, it is what was reserved.

        :param endpoint: the name of the endpoint that it used.
        :param service_tier: the tier that the answer names.
        """
        input_tokens, output_tokens = tokens.input_tokens, tokens.output_tokens or 0
        self.limited_send.use(None if input_tokens is None else input_tokens + output_tokens)
        if self.reservation is None:
            return
        if self._calls_only or input_tokens is None:
            spent = self._amounts()
        else:
            spent = spending_of(tokens, self._pool.price(input_tokens, endpoint, service_tier))
        self.reservation.used = spent._replace(calls=calls)

    def give_place_back(self) -> None:
        """Give the endpoint's place back, and keep the reservation; what was sent counts in the limits."""
        self.limited_send.use(None)
        self.limited_send.end()

    def leave(self) -> None:
        """Give the place back; what is reserved counts as spent until the same call, made again, takes
        the reservation over: its answer is still being made.
        """
        self.give_place_back()
        if self.reservation is not None:
            self.reservation.leave()

    async def settle(self) -> None:
        """Settle the reservation; of a named budget, while others use the thread."""
        if self.reservation is not None and not self.reservation.is_in_memory:
            await do(self.reservation.close)

    def close(self) -> None:
        """Give back the place, and settle the reservation; a second time changes nothing."""
        _held.discard(self)
        try:
            self.limited_send.end()
        finally:
            if self.reservation is not None:
                self.reservation.close()


def _last(error: LLMCallError) -> LLMCallError:
    """Return an error that no further attempt can mend."""
    if isinstance(error, APIError):
        error.retryable = False
    return error
