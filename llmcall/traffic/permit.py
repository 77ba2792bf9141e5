"""The gate of one send: it reserves what the send may use, and takes a slot at an endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..apis.shapes import served_model
from ..apis.usage import TokenUsage
from ..core.effects import in_thread, wait
from ..core.nesting import Holder, innermost_holder, waiting
from ..core.seams import Used
from ..errors import BudgetExceededError, RateLimitError
from ..models.prices import tier_of
from ..support.notices import notice, warn_once
from . import budgets
from .estimates import (
    asks_for_tools_at_server,
    costliest_parts,
    estimate,
    estimate_http,
    with_tokens_used,
)
from .ledgers import Amounts, spending_of
from .limits import WINDOW, Pool, Slot
from .queues import Blocked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.endpoints import Endpoint
    from ..core.calls import Call
    from ..keys.request import Request

T = TypeVar("T")

SENT_STEP = "send_request_body.complete"  # the end of a step's name in httpcore's extension "trace"


def note_sent(request: Any) -> None:
    """Note for the limits when a request was sent: an event hook for the SDK's ``httpx.Client``.

    Other clients, such as a program's, have no hook: then Slot.release counts what was sent.
    """
    holder = innermost_holder()

    def trace(step: str, info: Any) -> None:
        if holder is not None and step.endswith(SENT_STEP):
            holder.note_sent()

    request.extensions["trace"] = trace


async def note_sent_async(request: Any) -> None:
    """Note for the limits when a request was sent: an event hook for an ``httpx.AsyncClient``."""
    holder = innermost_holder()

    async def trace(step: str, info: Any) -> None:
        if holder is not None and step.endswith(SENT_STEP):
            holder.note_sent()

    request.extensions["trace"] = trace


class Permit:
    """The gate of a client: its reservation in the open budgets, and an endpoint's slot.

    :meth:`release_slot` frees the endpoint early; leaving the block frees the rest.

    :param call: the call that sends; one that asks no model counts as a call only, and uses no tokens.
    :param pool: the endpoints that may serve it.
    :param request: the request, with the body that is sent.
    :param slot: its slot; ``None`` means one that the limits of the settings count.
    """

    def __init__(self, call: Call, pool: Pool, request: Request, slot: Slot | None = None) -> None:
        self._call = call
        self._pool = pool
        self._request = request
        self._slot = slot or Slot(pool)
        self._reservation: budgets.Reservation | None = None
        self._holder = Holder(self._set_stuck, self._slot.note_sent)
        self._is_inner = False  # whether calls are stuck while it waits

    async def acquire(self) -> Endpoint:
        """Wait until the send may begin, and return the endpoint to ask.

        :raises BudgetExceededError: if it could go past a budget.
        :raises RateLimitError, RequestTimeoutError: if the wait would pass the deadline.
        """
        # The order of these steps is a decision: first the budgets, then the endpoint.
        #
        # The alternative is the endpoint first. It was rejected: a send would hold a slot while it waits
        # for other calls to settle, and the endpoint would idle though calls with a reservation could be
        # sent. Both at once, under one lock, was rejected as well: the sum of a named budget is read from
        # a disk or a server, and nobody may hold the lock meanwhile. The price is small: what a send keeps
        # from others while it waits for a slot is a reservation that it will need anyway.
        #
        # The slot is released as soon as the answer is there, before that is stored, so that the next send
        # does not wait for the disk. A reservation in memory is settled with it, any other at the end of
        # the block.
        limits_tokens = self._pool.settings.limits_tokens_per_minute is not None
        estimated = self._estimate_tokens() if limits_tokens or budgets.counts_tokens() else None
        if budgets.open_budgets:
            await self._reserve(*(estimated or (0, 0)))
        tokens = None if estimated is None else sum(estimated)

        async def look() -> Endpoint | Blocked:
            return self._pool.admit(self._slot, tokens)

        admitted = await self._wait_for(look, "an endpoint had a free slot")
        if self._is_inner and self._slot.is_over_limit:
            warn_once(
                f"{self._call.label} was made while its own thread or task reads a stream or makes another call, "
                f"so MAX_CONCURRENT_CALLS of {admitted.name} does not count that stream or call now. Read a stream to "
                "its end before the next call, or raise MAX_CONCURRENT_CALLS",
                about=("beside the limit", admitted.name),
            )
        return admitted

    def _estimate_tokens(self) -> tuple[int, int] | None:
        """Return the most tokens that the prompt and the answer may have, or ``None`` if that cannot be
        known.

        :raises BudgetExceededError: if a budget needs to know it.
        """
        request, estimated = self._request, None
        if not self._call.asks_model:
            return None
        if request.kind == "http":
            estimated = estimate_http(request.body, self._pool.capabilities)
        elif not asks_for_tools_at_server(request.body):
            estimated = estimate(request.kind, request.body, self._pool.capabilities)
        if estimated is None and budgets.limits_tokens():
            fields, name = request.asked, self._call.label
            if request.kind == "http":
                name = f"{fields['method']} {fields.get('host', '')}{fields['path']}"
            raise BudgetExceededError(
                f"the budget limits dollars or tokens, but {name} does not say how much it may "
                "use, so llmcall can't reserve anything for it. Limit calls= instead, or send it "
                "outside the budget"
            )
        return estimated

    async def _reserve(self, input_tokens: int, output_tokens: int) -> None:
        """Wait until the most that the send may use is reserved in all open budgets."""
        needed = Amounts(calls=1)
        if self._call.asks_model:
            tier = tier_of(self._request.body)
            price = self._pool.price(service_tier=tier)
            budgets.check_price(self._pool.model, price, tier)
            parts = costliest_parts(self._request.body, input_tokens, output_tokens)
            cost = None if price is None else price.cost_of_parts(parts).total
            needed = spending_of(input_tokens + output_tokens, cost)
        reservation = self._reservation = budgets.Reservation(needed)

        async def look() -> Blocked | None:
            reserve = partial(reservation.reserve, goes_first=self._is_inner)
            return reserve() if reservation.is_in_memory else await in_thread(reserve)

        await self._wait_for(look, "calls under way settled what they reserved of a budget")

    async def _wait_for(self, look: Callable[[], Awaitable[T | Blocked]], event: str) -> T:
        """Look until something else than ``Blocked`` is found, again whenever there is reason to.

        :param event: the end of the wait, in words.
        :raises RateLimitError, RequestTimeoutError: if the wait would pass the deadline.
        """
        found = await look()
        if not isinstance(found, Blocked):
            return found
        if_late = f"the call's deadline passed before {event}"
        with waiting(self._holder) as self._is_inner:
            has_waited = False
            while isinstance(found := await look(), Blocked):
                self._check_blocked(found, is_first=not has_waited)
                has_waited = True
                await wait(found.wakeup, self._call.time_for(found.seconds, if_late))
        return found

    def _check_blocked(self, blocked: Blocked, *, is_first: bool) -> None:
        """Refuse a wait that would pass the deadline; log one that [Limits] alone would not cause."""
        names = ", ".join(endpoint.name for endpoint in self._pool.endpoints)
        at_least, seconds_left = blocked.at_least, self._call.time_left()
        if seconds_left is not None and at_least > max(0.0, seconds_left):
            error = RateLimitError(
                f"no endpoint of {names} can be called for {at_least:.1f} s, past the deadline"
            )
            error.retryable, error.is_late = False, True
            raise error
        if is_first and at_least > WINDOW:
            notice("%s: no call is sent there for %.0f s", names, at_least)

    def reckon(self, answer: Mapping[str, Any], endpoint: Endpoint, *, is_part: bool) -> Used:
        """Return what an answer used.

        :param answer: names its tier and its model.
        :param is_part: whether it is only the part of a stream that arrived.
        """
        if not self._call.asks_model:
            return Used(cost=0.0)
        if is_part:
            answer = with_tokens_used(answer, self._request, self._pool.capabilities)
        tokens = TokenUsage.of(answer)
        held = getattr(answer, "held", None)
        tier = tier_of(answer, None if held is None else held.tier)
        price = self._pool.price(endpoint.name, tier)
        cost = None if price is None else price.cost_of_answer(answer)
        if price is None or cost is None:
            return Used(tokens, served=served_model(answer))
        return Used(tokens, cost.total, price.source, served_model(answer))

    def settle(self, tokens: TokenUsage, cost: float | None, calls: int) -> None:
        """Count what the send used, in place of what was reserved for it; all of that, if the server
        reports no usage.

        :param cost: USD, or ``None`` if it is unknown.
        :param calls: how many were answered.
        """
        input_tokens, output_tokens = tokens.input_tokens, tokens.output_tokens or 0
        self._slot.used = None if input_tokens is None else input_tokens + output_tokens
        if self._reservation is not None:
            needed = self._reservation.needed
            spent = needed
            if input_tokens is not None:
                spent = spending_of(input_tokens + output_tokens, cost)
            self._reservation.used = spent._replace(calls=calls)

    def rest(self, endpoint: Endpoint, seconds: float, *, is_asked: bool) -> float:
        """Let an endpoint rest after a 429, for all calls.

        :param is_asked: whether the server asked for so many seconds.
        :returns: the seconds until another endpoint has rested; infinite without another one.
        """
        return self._pool.rest(endpoint, seconds)

    def _set_stuck(self, is_stuck: bool) -> None:
        self._slot.set_stuck(is_stuck)
        if self._reservation is not None:
            self._reservation.is_stuck = is_stuck
            budgets.wake_waiting()

    async def __aenter__(self) -> Permit:
        self._holder.__enter__()
        return self

    def release_slot(self) -> None:
        """Release the endpoint, and a reservation that is kept in memory; a second time changes nothing."""
        self._holder.__exit__()
        self._slot.release()
        if self._reservation is not None and self._reservation.is_in_memory:
            self._reservation.close()

    async def __aexit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self.release_slot()
        if self._reservation is None or self._reservation.is_in_memory:
            return
        # A call whose coroutine is closed can await nothing.
        if error_type is GeneratorExit:
            self._reservation.close()
        else:
            await in_thread(self._reservation.close)
