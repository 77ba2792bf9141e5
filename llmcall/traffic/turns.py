"""The turn of a send: what it reserves of the open budgets, and its slot at an endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.effects import in_thread, wait
from ..core.home import homes
from ..errors import RateLimitError
from ..support.notices import notice
from ..support.system import after_fork_in_child, lock
from ..support.waits import Owner, waits
from . import budgets
from .ledgers import Amounts, spending_of
from .limits import WINDOW, Endpoints, Slot
from .queues import Blocked

if TYPE_CHECKING:
    from ..config.endpoints import Endpoint
    from ..core.deadline import Deadline

T = TypeVar("T")


class Turn(Owner):
    """The turn of a send among those of this process.

    A call may be made inside another one: in the loop over a stream, or by a transport. Nothing waits for
    itself, since no send holds a slot while another call is made inside it: a stream releases its slot with
    its first piece, and a transport's own call releases that of the call that the transport sends.

    :param label: how messages name its call.
    :param endpoints: those that it may ask.
    :param slot: its slot.
    :param deadline: its call's.
    :ivar is_inside: whether an outer call ends only after this one; known once it has to wait.
    """

    def __init__(self, label: str, endpoints: Endpoints, slot: Slot, deadline: Deadline) -> None:
        super().__init__()
        self._label = label
        self.endpoints = endpoints
        self._slot = slot
        self._deadline = deadline
        self._reservation: budgets.Reservation | None = None
        self.is_inside = False

    def __enter__(self) -> Turn:
        for outer in waits().owners:
            if isinstance(outer, Turn):
                outer.answer_began()
        super().__enter__()
        with lock:
            _under_way.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        with lock:
            _under_way.discard(self)

    def note_outer(self) -> None:
        """Note whether an outer call ends only after this one."""
        with lock:
            others = _under_way - {self}
        self.is_inside = self.is_inside or any(turn.waits_for_us() for turn in others)

    async def take(self, needed: Amounts | None, tokens: int | None) -> Endpoint:
        """Wait until the send may begin, and return the endpoint to ask.

        :param needed: the most that it may use of the open budgets, or ``None`` if none is open.
        :param tokens: the most tokens that it may use, or ``None`` if they were not counted.
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
        if needed is not None and budgets.open_budgets:
            await self._reserve(needed)
        return await self._admit(needed, tokens)

    async def _reserve(self, needed: Amounts) -> None:
        """Wait until the most that the send may use is reserved in all open budgets."""
        reservation = self._reservation = budgets.Reservation(needed)

        async def look() -> Blocked | None:
            reserve = partial(reservation.reserve, is_inside=self.is_inside)
            return reserve() if reservation.is_in_memory else await in_thread(reserve)

        await self._wait_for(look, "calls under way settled what they reserved of a budget")

    async def _admit(self, needed: Amounts | None, tokens: int | None) -> Endpoint:
        """Wait for a slot at one of the endpoints, and return that one."""

        async def look() -> Endpoint | Blocked:
            return self.endpoints.admit(self._slot, tokens)

        return await self._wait_for(look, "an endpoint had a free slot")

    async def _wait_for(self, look: Callable[[], Awaitable[T | Blocked]], event: str) -> T:
        """Look until something else than ``Blocked`` is found, again whenever there is reason to.

        :param event: the end of the wait, in words.
        :raises RateLimitError, RequestTimeoutError: if the wait would pass the deadline.
        """
        found = await look()
        if not isinstance(found, Blocked):
            return found
        if_late = f"the call's deadline passed before {event}"
        self.note_outer()
        has_waited = False
        while isinstance(found := await look(), Blocked):
            self._check_blocked(found, is_first=not has_waited)
            has_waited = True
            await wait(found.wakeup, self._deadline.time_for(found.seconds, if_late))
        return found

    def _check_blocked(self, blocked: Blocked, *, is_first: bool) -> None:
        """Refuse a wait that would pass the deadline; log one that [Limits] alone would not cause."""
        names = ", ".join(endpoint.name for endpoint in self.endpoints.endpoints)
        at_least, seconds_left = blocked.at_least, self._deadline.time_left()
        if seconds_left is not None and at_least > max(0.0, seconds_left):
            error = RateLimitError(
                f"no endpoint of {names} can be called for {at_least:.1f} s, past the deadline"
            )
            error.retryable, error.is_late = False, True
            raise error
        if is_first and at_least > WINDOW:
            notice("%s: no call is sent there for %.0f s", names, at_least)

    def note_sent(self) -> None:
        """Count the send as sent from now on; a second time changes nothing."""
        self._slot.note_sent()

    def note_room(self, response: Any) -> None:
        """Note how much an endpoint says that it takes now.

        :param response: an HTTP library's response.
        """
        if self._slot.is_adaptive and response.is_success:
            self._slot.note_room(response.headers, len(response.request.content))

    def answer_began(self) -> None:
        """Release the endpoint; a second time changes nothing."""
        self._slot.release()
        if self._reservation is not None:
            self._reservation.note_begun()

    def settle(self, tokens: int | None, cost: float | None, calls: int) -> None:
        """Count what the send used, in place of what was reserved for it; all of that, if the server
        reports no usage.

        :param tokens: of its prompt and answer, or ``None`` if they are unknown.
        :param cost: USD, or ``None`` if it is unknown.
        :param calls: how many were answered.
        """
        self._slot.used = tokens
        if self._reservation is not None:
            spent = self._reservation.needed if tokens is None else spending_of(tokens, cost)
            self._reservation.used = spent._replace(calls=calls)
        if calls:
            self._slot.note_good_answer()

    def rest(self, endpoint: Endpoint, seconds: float, *, is_asked: bool) -> float:
        """Let an endpoint rest after a 429, for all calls.

        :param is_asked: whether the server asked for so many seconds.
        :returns: the seconds until another endpoint has rested; infinite without another one.
        """
        is_enough = self._slot.note_refusal()
        if is_enough and not is_asked and len(self.endpoints.endpoints) == 1:
            seconds = 0.0
        return self.endpoints.rest(endpoint, seconds)

    def release_slot(self) -> None:
        """Release the endpoint, and a reservation that is kept in memory; a second time changes nothing."""
        self.__exit__()
        self._slot.close()
        if self._reservation is not None and self._reservation.is_in_memory:
            self._reservation.close()

    def release(self) -> None:
        """Release everything; this may wait for a file or a server unless :meth:`is_released`."""
        self.release_slot()
        if self._reservation is not None:
            self._reservation.close()

    @property
    def is_released(self) -> bool:
        """Return whether :meth:`release_slot` released everything."""
        return self._reservation is None or self._reservation.is_in_memory


_under_way: set[Turn] = set()
after_fork_in_child(_under_way.clear)  # a forked process lacks the threads that make these calls


def innermost_turn() -> Turn | None:
    """Return the turn of the call that sends in the current context, or ``None``."""
    turns = (owner for owner in reversed(waits().owners) if isinstance(owner, Turn))
    return next(turns, None)


def new_turn(label: str, endpoints: Endpoints, slot: Slot, deadline: Deadline) -> Turn:
    """Return the turn of a send: see :class:`Turn` for the arguments."""
    make = homes[-1].turn if homes else Turn
    return make(label, endpoints, slot, deadline)


def current_needs() -> budgets.Needs:
    """Return what the budgets that are open here and in the map's process have to know of a send."""
    return budgets.needs().joined(homes[-1].needs()) if homes else budgets.needs()
