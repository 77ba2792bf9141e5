"""The limits of endpoints, and the pools of endpoints that serve one model.

All clients, threads and tasks of the process share what is known of an endpoint. It is a log of the
requests sent in the window that ends now: bursts are allowed, and no 60 seconds ever hold more than
the limit. (A token bucket would allow twice as many in some.) A request counts from the moment at
which it was sent, not from its admission: the SDK may still have to be imported, and the connection
to be made. Until then it counts as one that is sent now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Protocol

from ..additions import additions, load
from ..apis.token_usage import TokenUsage
from ..core.options import Deadline
from ..errors import RateLimitError
from ..models.prices import FREE, HighestPrice, Price, price_of
from ..support import clock
from ..support.notices import notice
from ..support.system import after_fork_in_child, lock
from .queues import NEVER, Blocked, Queue, total, wait_until_free
from .usage import UnderWay

if TYPE_CHECKING:
    from ..config.endpoints import Endpoint
    from ..config.settings import Settings
    from ..models.catalog import Capabilities

# Seconds: a minute, and one more: servers count requests as they arrive, and a request may have
# been on its way for longer than one of the next minute.
WINDOW = 61.0
LEFT_OUT_SECONDS = 300.0  # how long an endpoint that rejected its key is left out


class Slot:
    """The slot of one send at an endpoint, as the limits allow it.

    A slot is held from :meth:`take` until the answer begins; its tokens count from then until its window is
    over. It is kept that long, so it refers to no request and no answer.

    :param pool: the endpoints of which one gives the slot.
    :ivar state: the endpoint that it was taken at, or ``None``.
    :ivar sent_at: the monotonic time at which it was sent; infinite before.
    :ivar is_counted: ``True`` if its tokens count: from its admission until its window
        is over.
    :ivar tokens: the tokens that it reserves and, once it has ended, used.
    :ivar used: the tokens that it used; ``None`` if unknown, which means what it reserved.
    """

    # The largest number that a type finds of calls at a time; None for this one, which finds none.
    most_calls: ClassVar[int | None] = None

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.state: EndpointState | None = None
        self.sent_at = NEVER
        self.is_counted = False
        self.tokens = 0
        self.used: int | None = 0

    async def take(self, tokens: int | None, deadline: Deadline) -> Endpoint:
        """Wait for a slot at an endpoint, and return it.

        :param tokens: the most tokens that the send may use, or ``None`` if they were not counted.
        :raises RateLimitError, RequestTimeoutError: if the wait would pass the deadline.
        """
        has_waited = False

        def look() -> Endpoint | Blocked:
            nonlocal has_waited
            found = self._pool.admit(self, tokens)
            if isinstance(found, Blocked):
                self._check_wait(found.at_least, deadline, is_first=not has_waited)
                has_waited = True
            return found

        return await wait_until_free(look, deadline, "an endpoint had a free slot")

    def _check_wait(self, seconds: float, deadline: Deadline, *, is_first: bool) -> None:
        """Refuse a wait past the deadline; log a wait that [Limits] alone would not cause."""
        names = ", ".join(endpoint.name for endpoint in self._pool.endpoints)
        seconds_left = deadline.time_left()
        if seconds_left is not None and seconds > max(0.0, seconds_left):
            error = RateLimitError(
                f"no endpoint of {names} can be called for {seconds:.1f} s, past the deadline"
            )
            error.retryable = False
            error.note(is_late=True)
            raise error
        if is_first and seconds > WINDOW:
            notice("%s: llmcall sends no calls there for %.0f s", names, seconds)

    def note_sent(self) -> None:
        """Count the send as sent from now on; a second time changes nothing."""
        with lock:
            if self.state is not None and self.sent_at == NEVER:
                self.sent_at = clock.monotonic()
                self.state.sent.append(self)
                self.state.queue.wake_first()

    def has_room(self, state: EndpointState) -> bool:
        """Return whether an endpoint may have another send under way; the caller has the lock."""
        most = self._pool.settings.limits_max_concurrent_calls
        return not isinstance(most, int) or len(state.running) < most

    def begin(self, state: EndpointState, tokens: int) -> None:
        """Take the slot at an endpoint; the caller has the lock.

        :param tokens: the tokens that it reserves.
        """
        self.state = state
        state.running.add(self)
        self.is_counted = True
        self.tokens = tokens
        state.tokens += tokens
        self._leave_queues()

    def _leave_queues(self) -> None:
        for state in self._pool.states.values():
            state.queue.leave(self)

    def answer_began(self) -> None:
        """Release the slot; a second time changes nothing."""
        with lock:
            self._leave_queues()
            self.note_sent()
            if self.state is not None:
                self.state.running.discard(self)
                self.state.queue.wake_first()

    def settle(self, tokens: TokenUsage, cost: float | None, calls: int) -> None:
        """Note the send's use.

        :param cost: USD, or ``None`` if it is unknown.
        :param calls: how many were answered.
        """
        self.used = total(tokens)

    def rest(self, endpoint: Endpoint, seconds: float, *, named_by_server: bool) -> float:
        """Let an endpoint rest after a 429, for all sends.

        :param named_by_server: ``True`` if the server named this wait.
        :returns: the seconds until another endpoint has rested; infinite without another one.
        """
        return self._pool.rest(endpoint, seconds)

    def close(self) -> None:
        """Release the slot, and count the used tokens instead of the reserved ones; a second time changes
        nothing.
        """
        with lock:
            if self.state is not None and self.is_counted and self.used is not None:
                self.state.tokens += self.used - self.tokens
                self.tokens = self.used
            self.answer_began()


@cache
def slot_types() -> dict[str, type[Slot]]:
    """Return the types of slots that find an endpoint's number of calls, by their word for
    ``MAX_CONCURRENT_CALLS``.
    """
    return {word: load(place) for word, place in additions("slots").items()}


class FoundNumber(Protocol):
    """One endpoint's state in a type of slots.

    :ivar most: how many of these slots it takes at a time.
    """

    most: int


class EndpointState:
    """The requests that one endpoint got; only the holder of the lock may use it.

    :param name: the endpoint's name.
    :ivar running: the sends that are under way.
    :ivar sent: the sends of the window, the oldest first.
    :ivar tokens: the tokens of all sends that count.
    :ivar resting_until: the monotonic time until which it rests, after a 429.
    :ivar queue: the sends that wait for it.
    :ivar free_at: the monotonic time at which a minute, or a rest, lets the next of these go.
    :ivar found: its number of calls at a time, if slots find it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.running: set[Slot] = set()
        self.sent: deque[Slot] = deque()
        self.tokens = 0
        self.resting_until = 0.0
        self.queue = Queue()
        self.free_at = 0.0
        self.found: FoundNumber | None = None

    def finding(self) -> int:
        """Return how many of the sends under way find its number."""
        return sum(slot.most_calls is not None for slot in self.running)

    def wait(self, settings: Settings, tokens: int | None, now: float) -> float:
        """Return the seconds until a minute has room for a send; infinite if time does not decide.

        :param settings: the limits.
        :param tokens: what it may use, or ``None`` if it was not counted.
        :param now: the monotonic time.
        """
        while self.sent and self.sent[0].sent_at + WINDOW <= now:
            past = self.sent.popleft()
            past.is_counted = False
            self.tokens -= past.tokens
        # What stands in the way of another send: that much of the oldest has to leave the window first.
        requests_over = tokens_over = 0
        most = settings.limits_requests_per_minute
        if most is not None:
            unsent = sum(slot.sent_at == NEVER for slot in self.running)
            requests_over = len(self.sent) + unsent + 1 - most
        most = settings.limits_tokens_per_minute
        if most is not None and tokens is not None:
            # A send that may use more than the limit goes when nothing else counts: it would never go
            # otherwise.
            tokens_over = self.tokens + min(tokens, most) - most
        rest = max(0.0, self.resting_until - now)
        if requests_over <= 0 and tokens_over <= 0:
            return rest
        for number, slot in enumerate(self.sent, 1):
            tokens_over -= slot.tokens
            if number >= requests_over and tokens_over <= 0:
                return max(rest, slot.sent_at + WINDOW - now)
        return NEVER


# One for each endpoint that was ever named.
_states: dict[tuple[str | None, ...], EndpointState] = {}


def _shared_state(endpoint: Endpoint) -> EndpointState:
    """Return an endpoint's state, which all pools with this address share."""
    address = (
        endpoint.name,
        endpoint.base_url,
        endpoint.azure_endpoint,
        endpoint.deployment,
        endpoint.organization,
    )
    return _states.get(address) or _states.setdefault(address, EndpointState(endpoint.name))


def seconds_held_back() -> float:
    """Return the seconds until an endpoint that rests after a 429, or whose minute is full, may be called
    again; 0 without one.
    """
    with lock:
        now = clock.monotonic()
        ends = [
            max(state.resting_until, state.free_at if state.queue else 0.0)
            for state in _states.values()
        ]
        return min((end - now for end in ends if end > now), default=0.0)


def under_way() -> tuple[UnderWay, ...]:
    """Return how many calls run at each used endpoint whose number slots find, and how many may."""
    with lock:
        return tuple(
            UnderWay(state.name, state.finding(), state.found.most)
            for state in _states.values()
            if state.found is not None
        )


class Rotation:
    """The rotation of endpoints that serve a model together; only the holder of the lock may use them.

    :ivar next_index: the index of the next usable endpoint.
    :ivar left_out_until: the monotonic times until which endpoints are left out.
    """

    def __init__(self) -> None:
        self.next_index = 0
        self.left_out_until: dict[Endpoint, float] = {}


# One for all pools of a model at the same endpoints: each client, and each change of settings, makes pools anew. Not
# one for all models: of two that are called alternately, each would go to one endpoint alone.
_rotations: dict[tuple[str, tuple[Endpoint, ...]], Rotation] = {}


def forget() -> None:
    """Forget the sends of all endpoints: calls under way do not count in new clients' limits."""
    _states.clear()
    _rotations.clear()


after_fork_in_child(forget)  # a forked process lacks the threads whose calls its parent counts


class Pool:
    """The endpoints that serve a model, with their limits and prices. They take turns, from any number of threads.

    :param model: the model's name.
    :param endpoints: at least one.
    :param capabilities: the model's capabilities.
    :param settings: the limits of each endpoint, and the prices.
    """

    def __init__(
        self,
        model: str,
        endpoints: Sequence[Endpoint],
        capabilities: Capabilities,
        settings: Settings,
    ) -> None:
        self.model = model
        self.endpoints = list(endpoints)
        self.capabilities = capabilities
        self.settings = settings
        self._rotation = _rotations.setdefault((model, (*endpoints,)), Rotation())
        self.states = {endpoint: _shared_state(endpoint) for endpoint in self.endpoints}

    def usable(self, now: float) -> list[Endpoint]:
        """Return the endpoints that are not left out: at least one."""
        return [
            endpoint
            for endpoint in self.endpoints
            if self._rotation.left_out_until.get(endpoint, now) <= now
        ]

    def admit(self, slot: Slot, tokens: int | None) -> Endpoint | Blocked:
        """Admit a send if an endpoint allows it and no other waited longer; else queue it.

        :param tokens: what the send may use, or ``None`` if it was not counted.
        :returns: the endpoint that admits it.
        """
        with lock:
            now = clock.monotonic()
            usable = self.usable(now)
            for endpoint in self.endpoints:
                if endpoint not in usable:  # other models' calls may go there
                    self.states[endpoint].queue.leave(slot)
            wakeup: Future[None] = Future()
            next_look = shortest_wait = NEVER
            first_index = self._rotation.next_index
            for index in range(first_index, first_index + len(usable)):
                endpoint = usable[index % len(usable)]
                state = self.states[endpoint]
                is_first = state.queue.join(slot, wakeup)
                seconds = state.wait(self.settings, tokens, now) if slot.has_room(state) else NEVER
                shortest_wait = min(shortest_wait, seconds)
                state.free_at = 0.0 if seconds == NEVER else now + seconds
                if not is_first:  # another has waited longer
                    continue
                if seconds > 0:
                    next_look = min(next_look, seconds)
                    continue
                self._rotation.next_index = (index + 1) % len(usable)
                slot.begin(state, tokens or 0)
                return endpoint
            return Blocked(
                wakeup,
                None if next_look == NEVER else next_look,
                0.0 if shortest_wait == NEVER else shortest_wait,
            )

    def rest(self, endpoint: Endpoint, seconds: float) -> float:
        """Rest an endpoint for some seconds; return the seconds until another one has rested,
        infinite without another one.
        """
        now = clock.monotonic()
        with lock:
            state = self.states[endpoint]
            state.resting_until = max(now + seconds, state.resting_until)
            others = [other for other in self.usable(now) if other != endpoint]
            free_at = min((self.states[other].resting_until for other in others), default=NEVER)
            return max(0.0, free_at - now)

    def leave_out(self, endpoint: Endpoint, problem: str, error: Exception) -> bool:
        """Leave an endpoint out for some minutes, unless it is the last; return whether others
        remain.

        :param problem: why, for the log.
        :param error: with which it refused.
        """
        with lock:
            now = clock.monotonic()
            others_remain = any(other != endpoint for other in self.usable(now))
            if others_remain:
                self._rotation.left_out_until[endpoint] = now + LEFT_OUT_SECONDS
        if others_remain:
            minutes = LEFT_OUT_SECONDS / 60
            words = "endpoint %s %s and is not used for %.0f minutes: %s"
            notice(words, endpoint.name, problem, minutes, error)
        return others_remain

    def price(self, endpoint: str | None = None, service_tier: str | None = None) -> Price | None:
        """Return the model's price, or ``None`` if it is unknown.

        :param endpoint: the name of the one that answers; ``None`` means the highest price of all
            that may.
        :param service_tier: the requested tier, or that of the answer; ``None`` is the standard
            one.
        """
        endpoints = [
            candidate for candidate in self.endpoints if candidate.name == endpoint
        ] or self.endpoints
        if self.model not in self.settings.prices and all(one.is_free for one in endpoints):
            return FREE
        prices = []
        for address in {candidate.address for candidate in endpoints}:
            price = price_of(
                self.model, self.settings.prices, address=address, service_tier=service_tier
            )
            if price is None:
                return None
            prices.append(price)
        return prices[0] if len(prices) == 1 else HighestPrice(tuple(prices))
