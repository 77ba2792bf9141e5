"""The gate of one send: it reserves what the send may use, and takes a slot at an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..apis.shapes import served_via
from ..apis.token_usage import TokenUsage, tier_of
from ..config.endpoints import Endpoint
from ..core.seams import Gate, Used
from ..errors import BudgetExceededError, ConfigError
from ..keys.request import Data, Request
from ..models.prices import DEARER_TIERS
from ..support.system import after_fork_in_child, lock
from ..support.waits import Progress, open_calls
from .budgets import Needs, Reservation, needs
from .estimates import costliest_parts, estimate, estimate_http, uses_server_tools, with_tokens_used
from .limits import Pool, Slot, slot_types
from .queues import Amounts, spending_of, total

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Self

    from ..core.calls import Call


class ClientGate(Gate):
    """The gate of a client's send: what it reserves of the open budgets, its slot at an endpoint, and what it used.

    :meth:`answer_began` releases the endpoint; leaving the block releases the rest.

    A call may be made inside another one: in the loop over a stream, or by a transport. Nothing waits for
    itself, since no send holds a slot while another call is made inside it: a stream releases its slot with
    its first piece, and a transport's own call releases that of the call that the transport sends. For budgets, see
    :class:`.budgets.Reservation`.

    :param call: the call that sends; a call without a model counts as a call, and uses no tokens.
    :param pool: the endpoints that may serve it.
    :param request: the request, with the body that is sent.
    :param slot: of the send; by default one at these endpoints.
    :ivar progress: the call's, inside which others may be made.
    :ivar holds_budget: ``True`` if it may have reserved something of a budget.
    """

    def __init__(self, call: Call, pool: Pool, request: Request, slot: Slot | None = None) -> None:
        self.progress = call.progress or Progress()
        self.holds_budget = False
        self._call = call
        self._pool = pool
        self._request = request
        most = pool.settings.limits_max_concurrent_calls
        self._slot = slot or (slot_types()[most] if isinstance(most, str) else Slot)(pool)
        self._held: list[Slot | Reservation] = [self._slot]
        self._estimated: tuple[int, int] | None = None  # tokens of prompt and answer

    async def __aenter__(self) -> Self:
        for outer in open_calls():
            if outer.held is not None:
                outer.held.answer_began()
        self.progress.held = self
        with lock:
            _under_way.add(self)
        return self

    async def __aexit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self.release()

    def is_inside(self, blocks: bool) -> bool:
        """Return whether an outer call ends only after this one.

        :param blocks: ``True`` if this one blocks its thread.
        """
        with lock:
            others = _under_way - {self}
        return any(other.progress.waits_for_us(blocks=blocks) for other in others)

    async def acquire(self) -> Endpoint:
        """Wait until the send may begin, and return its endpoint.

        :raises BudgetExceededError: if it could go past a budget.
        :raises RateLimitError, RequestTimeoutError: if the wait would pass the deadline.
        """
        # The order of these steps is a decision: first the budgets, then the endpoint.
        #
        # The alternative is the endpoint first. It was rejected: a send would hold a slot while it waits
        # for other calls to settle, and the endpoint would idle though calls with a reservation could be
        # sent. The price is small: what a send keeps from others while it waits for a slot is a reservation
        # that it will need anyway.
        #
        # The slot is released as soon as the answer begins, and the reservation once it is whole, before it is
        # stored, so that the next send does not wait for the disk.
        of_budgets = needs()
        if self._pool.settings.limits_tokens_per_minute is not None or of_budgets.limits_tokens:
            self._estimated = self._estimate_tokens(of_budgets)
        needed = self._needed(of_budgets) if of_budgets.is_open else None
        tokens = None if self._estimated is None else sum(self._estimated)
        self.holds_budget = needed is not None
        if needed is not None:
            reservation = Reservation(needed)
            self._held.append(reservation)
            await reservation.take(self._call.deadline, self.is_inside)
        return await self._slot.take(tokens, self._call.deadline)

    def note_sent(self) -> None:
        """Count the send as sent from now on; a second time changes nothing."""
        self._slot.note_sent()

    def answer_began(self) -> None:
        """Release the endpoint; a second time changes nothing."""
        for held in self._held:
            held.answer_began()

    def settle(self, tokens: TokenUsage, cost: float | None, calls: int) -> None:
        """Count what the send used; the most that it may have used, if the server reports no usage. Release it.

        A budget that limits calls alone lets a send begin without that estimate: to count a prompt takes up to half
        as long as the rest of a call.
        """
        if self.holds_budget and self._estimated is None and total(tokens) is None:
            self._estimated = self._estimate_tokens(Needs())
            if self._estimated is not None:
                tokens, cost = TokenUsage(*self._estimated), self._highest_cost(self._estimated)
        for held in self._held:
            held.settle(tokens, cost, calls)
        self.release()

    def rest(self, endpoint: Endpoint, seconds: float, *, named_by_server: bool) -> float:
        """Let an endpoint rest after a 429: see :meth:`.limits.Slot.rest`."""
        return self._slot.rest(endpoint, seconds, named_by_server=named_by_server)

    def release(self) -> None:
        """Release everything; a second time changes nothing."""
        self.progress.held = None
        with lock:
            _under_way.discard(self)
        for held in self._held:
            held.close()

    def _estimate_tokens(self, needs: Needs) -> tuple[int, int] | None:
        """Return the most tokens of prompt and answer, or ``None`` if that cannot be known."""
        request, estimated = self._request, None
        if not self._call.kind.calls_model:
            return None
        if request.kind == "http":
            estimated = estimate_http(request.body, self._pool.capabilities)
        elif not uses_server_tools(request.body):
            estimated = estimate(request.kind, request.body, self._pool.capabilities)
        if estimated is None and needs.limits_tokens:
            fields, name = request.hashed, self._call.label
            if request.kind == "http":
                name = f"{fields['method']} {fields.get('host', '')}{fields['path']}"
            raise BudgetExceededError(
                f"the budget limits dollars or tokens, but {name} does not say how much it may "
                "use, so llmcall can't reserve anything for it. Limit calls= instead, or send it "
                "outside the budget"
            )
        return estimated

    def _needed(self, needs: Needs) -> Amounts:
        """Return the most that the send may use of the open budgets, by the kinds that they limit."""
        if not self._call.kind.calls_model:
            return Amounts(calls=1)
        tier = tier_of(self._request.body)
        if needs.limits_usd and self._pool.price(service_tier=tier) is None:
            # A model that has a price may lack one at its tier.
            model = self._pool.model
            name = f"{model} {tier}" if tier in DEARER_TIERS else model
            raise ConfigError(
                f"the price of {name} is unknown, and a budget limits usd. Write {name} = INPUT, OUTPUT in "
                "[Prices] (USD per million tokens), or "
                f"llmcall.configure(prices={{{name!r}: (INPUT, OUTPUT)}})"
            )
        if self._estimated is None:
            return spending_of(0, None)
        return spending_of(sum(self._estimated), self._highest_cost(self._estimated))

    def _highest_cost(self, estimated: tuple[int, int]) -> float | None:
        """Return the most that prompt and answer tokens cost in USD, or ``None`` if unknown."""
        body = self._request.body
        price = self._pool.price(service_tier=tier_of(body))
        if price is None:
            return None
        return price.cost_of_parts(costliest_parts(body, *estimated)).total

    def usage_of(self, answer: Mapping[str, Data], endpoint: Endpoint, *, is_part: bool) -> Used:
        """Return the amounts that an answer used.

        :param answer: names its tier and its model.
        :param is_part: ``True`` if it is only the part of a stream that arrived.
        """
        if not self._call.kind.calls_model:
            return Used(cost=0.0)
        if is_part:
            answer = with_tokens_used(answer, self._request, self._pool.capabilities)
        tokens = TokenUsage.of(answer)
        price = self._pool.price(endpoint.name, tier_of(answer))
        cost = None if price is None else price.cost_of_answer(answer)
        if price is None or cost is None:
            return Used(tokens, served=served_via(answer))
        return Used(tokens, cost.total, price.source, served_via(answer))


_under_way: set[ClientGate] = set()
after_fork_in_child(_under_way.clear)  # a forked process lacks the threads that make these calls


def innermost_gate() -> ClientGate | None:
    """Return the gate of the call that sends in the current context, or ``None``."""
    gates = [call.held for call in open_calls() if isinstance(call.held, ClientGate)]
    return gates[-1] if gates else None


# What an HTTP client says of a send

SENT_STEP = "send_request_body.complete"  # the end of a step's name in httpcore's extension "trace"


def note_sent(request: httpx.Request) -> None:
    """Note for the limits when a request was sent: an event hook for the SDK's ``httpx.Client``.

    Other clients, such as a program's, have no hook: then Slot.answer_began counts what was sent.
    """
    gate = innermost_gate()

    def trace(step: str, info: object) -> None:
        if gate is not None and step.endswith(SENT_STEP):
            gate.note_sent()

    request.extensions["trace"] = trace


async def note_sent_async(request: httpx.Request) -> None:
    """Note for the limits when a request was sent: an event hook for an ``httpx.AsyncClient``."""
    gate = innermost_gate()

    async def trace(step: str, info: object) -> None:
        if gate is not None and step.endswith(SENT_STEP):
            gate.note_sent()

    request.extensions["trace"] = trace
