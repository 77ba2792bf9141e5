"""``MAX_CONCURRENT_CALLS = auto``: slots that find how many calls each endpoint takes at a time.

It begins with 16, and grows by one with each window, which is as many good answers as may run; a 429
halves it. That is how TCP finds the capacity of a line, with the same two rules for what the line
does not say:

A number that was never reached does not grow: a thousand calls one after the other do not show that a thousand at
once would pass.

A number that an endpoint refused is tried again late, after ``PATIENCE`` times as many windows as it
has calls. To try it with the next window was rejected: each refusal costs the calls that half of the
number leaves out until it has grown back, n²/8 for a number n, so the mean would be three quarters of
what the endpoint takes. Not to try it again was rejected, too: limits rise.

Any call under way counts, a stream until its first piece has come. Other failures than a 429 say nothing of the
number.
"""

from __future__ import annotations

from ...apis.token_usage import TokenUsage
from ...config.endpoints import Endpoint
from ...support.system import lock
from ...traffic.limits import EndpointState, Pool, Slot

FIRST, LARGEST = 16, 256
PATIENCE = 3


class Limit:
    """The number of calls that one endpoint takes at a time; only the holder of the lock may use it.

    :ivar most: how many may be under way.
    :ivar halvings: how often it was halved; calls that began before the last time do not change it.
    """

    def __init__(self) -> None:
        self.most = FIRST
        self.halvings = 0
        self._refused = 0  # the number at the last halving, until it is reached again
        self._good_answers = 0  # of this window
        self._was_reached = False  # in this window
        self._is_confirmed = False  # by a good answer since the last halving

    def note_running(self, count: int) -> None:
        """Note how many calls are under way."""
        self._was_reached = self._was_reached or count >= self.most

    def note_good_answer(self) -> None:
        """Count a good answer; the number grows at the end of a window."""
        self._is_confirmed = True
        self._good_answers += 1
        windows = PATIENCE * self.most if self.most + 1 == self._refused else 1
        if self._good_answers < windows * self.most:
            return
        if self._was_reached and self.most < LARGEST:
            self.most += 1
            self._refused = 0 if self.most == self._refused else self._refused
        self._begin_window()

    def halve(self) -> bool:
        """Halve it; return whether that gives the endpoint its rest: no call begins until half of them
        have ended.

        It is not enough for an endpoint that has refused all calls since the last time.
        """
        is_enough = self._is_confirmed and self.most > 1
        self._refused, self.most = self.most, max(1, self.most // 2)
        self.halvings += 1
        self._is_confirmed = False
        self._begin_window()
        return is_enough

    def _begin_window(self) -> None:
        self._good_answers = 0
        self._was_reached = False


def _limit_of(state: EndpointState) -> Limit:
    if not isinstance(state.found, Limit):
        state.found = Limit()
    return state.found


class AdaptiveSlot(Slot):
    """The slot of one send at an endpoint whose limit is ``auto``."""

    most_calls = LARGEST

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._limit = Limit()  # until it begins
        self._halvings = 0

    def has_room(self, state: EndpointState) -> bool:
        """Return whether an endpoint may have another send under way; the caller has the lock."""
        return state.finding() < _limit_of(state).most

    def begin(self, state: EndpointState, tokens: int) -> None:
        """Take the slot at an endpoint; the caller has the lock."""
        super().begin(state, tokens)
        self._limit = _limit_of(state)
        self._halvings = self._limit.halvings
        self._limit.note_running(state.finding())

    def settle(self, tokens: TokenUsage, cost: float | None, calls: int) -> None:
        """Count a good answer."""
        super().settle(tokens, cost, calls)
        with lock:
            if calls and self._halvings == self._limit.halvings:
                self._limit.note_good_answer()

    def rest(self, endpoint: Endpoint, seconds: float, *, named_by_server: bool) -> float:
        """Halve the endpoint's number after a 429, once for all calls under way: where the server asks for
        no rest, that may be enough.
        """
        with lock:
            is_enough = self._halvings == self._limit.halvings and self._limit.halve()
        if is_enough and not named_by_server and len(self._pool.endpoints) == 1:
            seconds = 0.0
        return super().rest(endpoint, seconds, named_by_server=named_by_server)
