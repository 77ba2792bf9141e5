"""The gate of one send: it reserves what the send may use, and takes a slot at an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..apis.shapes import served_model
from ..apis.usage import TokenUsage
from ..config.settings import AUTO
from ..core.effects import in_thread
from ..core.home import homes
from ..core.seams import Used
from ..errors import BudgetExceededError
from ..models.prices import tier_of, window_of
from . import budgets
from .estimates import (
    asks_for_tools_at_server,
    costliest_parts,
    estimate,
    estimate_http,
    with_tokens_used,
)
from .ledgers import Amounts, spending_of
from .limits import Pool, Slot
from .turns import current_needs, innermost_turn, new_turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.endpoints import Endpoint
    from ..core.calls import Call
    from ..keys.request import Request

SENT_STEP = "send_request_body.complete"  # the end of a step's name in httpcore's extension "trace"


def note_sent(request: Any) -> None:
    """Note for the limits when a request was sent: an event hook for the SDK's ``httpx.Client``.

    Other clients, such as a program's, have no hook: then Slot.release counts what was sent.
    """
    turn = innermost_turn()

    def trace(step: str, info: Any) -> None:
        if turn is not None and step.endswith(SENT_STEP):
            turn.note_sent()

    request.extensions["trace"] = trace


async def note_sent_async(request: Any) -> None:
    """Note for the limits when a request was sent: an event hook for an ``httpx.AsyncClient``."""
    turn = innermost_turn()

    async def trace(step: str, info: Any) -> None:
        if turn is not None and step.endswith(SENT_STEP):
            turn.note_sent()

    request.extensions["trace"] = trace


def note_room(response: Any) -> None:
    """Note for the limits how much an endpoint says that it takes now: an event hook as :func:`note_sent`."""
    turn = innermost_turn()
    if turn is not None:
        turn.note_room(response)


async def note_room_async(response: Any) -> None:
    """Note for the limits how much an endpoint says that it takes now."""
    note_room(response)


class Permit:
    """The gate of a client: its reservation in the open budgets, and an endpoint's slot.

    :meth:`answer_began` releases the endpoint; leaving the block releases the rest.

    :param call: the call that sends; one that asks no model counts as a call only, and uses no tokens.
    :param pool: the endpoints that may serve it.
    :param request: the request, with the body that is sent.
    """

    def __init__(self, call: Call, pool: Pool, request: Request) -> None:
        self._call = call
        self._pool = pool
        self._request = request
        self._turn = new_turn(call.label, pool, _slot(pool, request), call.deadline)

    async def acquire(self) -> Endpoint:
        """Wait until the send may begin, and return the endpoint to ask.

        :raises BudgetExceededError: if it could go past a budget.
        :raises RateLimitError, RequestTimeoutError: if the wait would pass the deadline.
        """
        needs = await in_thread(current_needs) if homes else current_needs()
        limits_tokens = self._pool.limits.tokens_per_minute is not None
        estimated = self._estimate_tokens(needs) if limits_tokens or needs.tokens else None
        needed = self._needed(needs, *(estimated or (0, 0))) if needs.is_open else None
        tokens = None if estimated is None else sum(estimated)
        return await self._turn.take(needed, tokens)

    def _estimate_tokens(self, needs: budgets.Needs) -> tuple[int, int] | None:
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
        if estimated is None and needs.limits_tokens:
            fields, name = request.asked, self._call.label
            if request.kind == "http":
                name = f"{fields['method']} {fields.get('host', '')}{fields['path']}"
            raise BudgetExceededError(
                f"the budget limits dollars or tokens, but {name} does not say how much it may "
                "use, so llmcall can't reserve anything for it. Limit calls= instead, or send it "
                "outside the budget"
            )
        return estimated

    def _needed(self, needs: budgets.Needs, input_tokens: int, output_tokens: int) -> Amounts:
        """Return the most that the send may use of the open budgets.

        :raises ConfigError: if its price is unknown, and one limits USD.
        """
        if not self._call.asks_model:
            return Amounts(calls=1)
        tier = tier_of(self._request.body)
        price = self._pool.price(service_tier=tier)
        if price is None and needs.limits_usd:
            raise budgets.unknown_price(self._pool.model, tier)
        parts = costliest_parts(self._request.body, input_tokens, output_tokens)
        cost = None if price is None else price.cost_of_parts(parts).total
        return spending_of(input_tokens + output_tokens, cost)

    def reckon(
        self,
        answer: Mapping[str, Any],
        endpoint: Endpoint,
        *,
        is_part: bool,
        tier: str | None = None,
    ) -> Used:
        """Return what an answer used.

        :param answer: names its tier and its model.
        :param is_part: whether it is only the part of a stream that arrived.
        """
        if not self._call.asks_model:
            return Used(cost=0.0)
        if is_part:
            answer = with_tokens_used(answer, self._request, self._pool.capabilities)
        tokens = TokenUsage.of(answer)
        price = self._pool.price(endpoint.name, tier_of(answer, tier))
        cost = None if price is None else price.cost_of_answer(answer)
        if price is None or cost is None:
            return Used(tokens, served=served_model(answer))
        return Used(tokens, cost.total, price.source, served_model(answer))

    def settle(self, tokens: TokenUsage, cost: float | None, calls: int) -> None:
        """Count what the send used, in place of what was reserved for it; all of that, if the server
        reports no usage. Release the endpoint, and a reservation that is kept in memory.

        :param cost: USD, or ``None`` if it is unknown.
        :param calls: how many were answered.
        """
        input_tokens, output_tokens = tokens.input_tokens, tokens.output_tokens or 0
        used = None if input_tokens is None else input_tokens + output_tokens
        self._turn.settle(used, cost, calls)
        self._turn.release_slot()

    def rest(self, endpoint: Endpoint, seconds: float, *, is_asked: bool) -> float:
        """Let an endpoint rest after a 429, for all calls.

        :param is_asked: whether the server asked for so many seconds.
        :returns: the seconds until another endpoint has rested; infinite without another one.
        """
        return self._turn.rest(endpoint, seconds, is_asked=is_asked)

    async def __aenter__(self) -> Permit:
        self._turn.__enter__()
        return self

    def answer_began(self) -> None:
        """Release the endpoint; a second time changes nothing."""
        self._turn.answer_began()

    async def __aexit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self._turn.release_slot()
        if self._turn.is_released:
            return
        # A call whose coroutine is closed can await nothing.
        if error_type is GeneratorExit:
            self._turn.release()
        else:
            await in_thread(self._turn.release)


def _slot(pool: Pool, request: Request) -> Slot:
    """Return the slot of a send; in a window of hours, one without a limit of calls at a time."""
    if pool.limits.max_concurrent_calls != AUTO or window_of(request.body) is not None:
        return Slot(pool)
    from .adaptive import AdaptiveSlot

    return AdaptiveSlot(pool)
