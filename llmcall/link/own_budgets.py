"""The budgets that a process opens itself: they hold beside those of the process that records it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from ..config.endpoints import Endpoint
from ..core.calls import Call
from ..core.deadlines import Deadline
from ..core.seams import NO_ENDPOINT
from ..keys.request import Data, Request
from ..support.waits import Progress
from ..traffic.budgets import open_budgets
from ..traffic.gate import ClientGate
from ..traffic.limits import Slot


class _FreeSlot(Slot):
    """A slot at no endpoint: the recording process has the limits."""

    async def take(self, tokens: int | None, deadline: Deadline) -> Endpoint:
        return NO_ENDPOINT


class OwnBudgets(NamedTuple):
    """A send's reservations in the budgets of this process.

    :param gate: reserves it; ``None`` if none is open.
    """

    gate: ClientGate | None

    @property
    def inside(self) -> Progress | None:
        """Return the call inside which the transport and a stream's reader run; ``None`` if no budget is open."""
        return None if self.gate is None else self.gate.progress

    def settle(self, answer: Mapping[str, Data]) -> None:
        """Count what an answer used, as its API gives it unstreamed."""
        if self.gate is not None:
            used = self.gate.reckon(answer, NO_ENDPOINT, is_part=False)
            self.gate.settle(used.tokens, used.cost, calls=1)


@asynccontextmanager
async def own_budgets(call: Call, request: Request) -> AsyncIterator[OwnBudgets]:
    """Reserve what a send may use in the budgets of this process, for a block.

    :param request: with the body that is sent.
    :raises BudgetExceededError: if it could go past one.
    """
    if call.account is None or not open_budgets:
        yield OwnBudgets(None)
        return
    pool = call.site_of(request.model).pool
    async with ClientGate(call, pool, request, _FreeSlot(pool)) as gate:
        await gate.acquire()
        try:
            yield OwnBudgets(gate)
        finally:
            gate.progress.has_ended = True
