"""The limits of endpoints, and the pools of endpoints that serve one model.

All clients, threads and tasks of the process share what is known of an endpoint. It is a log of the
requests sent in the window that ends now: bursts are allowed, and no 60 seconds ever hold more than
the limit. (A token bucket would allow twice as many in some.) A request counts from the moment at
which it was sent, not from its admission: the SDK may still have to be imported, and the connection
to be made. Until then it counts as one that is sent now.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from ..models.prices import price_of
from ..system import lock, this_process
from .effects import wake_first
from .ledgers import NEVER

if TYPE_CHECKING:
    from ..config.endpoints import Endpoint
    from ..config.settings import Settings
    from ..models.catalog import Capabilities
    from ..models.prices import Price

# Seconds: a minute, and one more: servers count requests as they arrive, and a request may have
# been on its way for longer than one of the next minute.
WINDOW = 61.0
LEFT_OUT_SECONDS = 300.0  # how long an endpoint that refused its key is not asked


# The wakeup of all that do not wait: a future of its own would be most of what is kept of a send.
NOT_WAITING: Future[None] = Future()
NOT_WAITING.set_result(None)


class Place:
    """The place of one send at an endpoint, as the limits count it.

    It is kept until its window is over, so it refers to no request and no answer.

    :ivar wakeup: is done when there is reason to look again whether it may begin.
    :ivar queues: the endpoints that it waits for.
    :ivar state: the endpoint that admitted it, or ``None``.
    :ivar sent_at: the monotonic time at which it was sent, or ``None``.
    :ivar is_counted: whether its tokens count: from its admission until its window
        is over.
    :ivar tokens: those that it used or, while that is unknown, reserves.
    :ivar is_answered: whether what it used is known.
    """

    def __init__(self) -> None:
        self.wakeup = NOT_WAITING
        self.queues: set[EndpointState] = set()
        self.state: EndpointState | None = None
        self.sent_at: float | None = None
        self.is_counted = False
        self.tokens = 0
        self.is_answered = False

    def leave_queues(self) -> None:
        """Stop waiting for any endpoint; the caller has the lock."""
        while self.queues:
            state = self.queues.pop()
            state.queue.pop(self, None)
            wake_first(state.queue)

    def note_sent(self, now: float | None = None) -> None:
        """Count the send as sent from now on; a second time changes nothing.

        :param now: the monotonic time; ``None`` means that of the clock.
        """
        with lock:
            state = self.state
            if state is None or self.sent_at is not None or self not in state.running:
                return
            self.sent_at = time.monotonic() if now is None else now
            state.sent.append(self)
            wake_first(state.queue)

    def use(self, tokens: int | None) -> None:
        """Count the tokens that the send used, in place of those that it reserved.

        :param tokens: ``None`` if nobody knows: then those that it reserved.
        """
        with lock:
            self.is_answered = True
            if tokens is not None and self.state is not None and self.is_counted:
                self.state.tokens += tokens - self.tokens
                self.tokens = tokens

    def end(self, now: float | None = None) -> None:
        """Give back the place; without an answer, also the tokens. A second time changes nothing.

        :param now: as in :meth:`note_sent`.
        """
        with lock:
            self.leave_queues()
            self.note_sent(now)
            state = self.state
            if state is None or self not in state.running:
                return
            state.running.remove(self)
            if self.is_counted and not self.is_answered:
                state.tokens -= self.tokens
                self.tokens = 0
            wake_first(state.queue)


class EndpointState:
    """What one endpoint was asked; only the holder of the lock may use it.

    :ivar running: the sends that are under way.
    :ivar sent: the sends of the window, the oldest first.
    :ivar tokens: those of all sends that count.
    :ivar resting_until: the monotonic time until which it is not asked, after a 429.
    :ivar queue: the sends that wait for it, in order.
    """

    def __init__(self) -> None:
        self.running: set[Place] = set()
        self.sent: deque[Place] = deque()
        self.tokens = 0
        self.resting_until = 0.0
        self.queue: OrderedDict[Place, None] = OrderedDict()

    def wait(self, settings: Settings, tokens: int | None, now: float) -> float:
        """Return the seconds until a send may be admitted; infinite if time does not decide.

        :param tokens: what it may use, or ``None`` if nobody counted it.
        :param now: the monotonic time.
        """
        while self.sent and (self.sent[0].sent_at or 0.0) + WINDOW <= now:
            past = self.sent.popleft()
            past.is_counted = False
            self.tokens -= past.tokens
        most_calls = settings.limits_max_concurrent_calls
        if most_calls is not None and len(self.running) >= most_calls:
            return NEVER
        # What is too much for another send: the oldest have to be past before.
        requests_over = tokens_over = 0
        most = settings.limits_requests_per_minute
        if most is not None:
            unsent = sum(place.sent_at is None for place in self.running)
            requests_over = len(self.sent) + unsent + 1 - most
        most = settings.limits_tokens_per_minute
        if most is not None and tokens is not None:
            # One that may use more than the limit goes when nothing else counts: it would never go
            # otherwise.
            tokens_over = self.tokens + min(tokens, most) - most
        rest = max(0.0, self.resting_until - now)
        if requests_over <= 0 and tokens_over <= 0:
            return rest
        for number, place in enumerate(self.sent, 1):
            tokens_over -= place.tokens
            if number >= requests_over and tokens_over <= 0:
                return max(rest, (place.sent_at or 0.0) + WINDOW - now)
        return NEVER


_states: dict[tuple[int | str | None, ...], EndpointState] = {}


def _state_of(endpoint: Endpoint) -> EndpointState:
    """Return the state of an endpoint, the same one for everybody who knows it by this address."""
    address = (
        this_process(),  # a forked process lacks the threads whose calls its parent counts
        endpoint.name,
        endpoint.base_url,
        endpoint.azure_endpoint,
        endpoint.deployment,
        endpoint.organization,
    )
    return _states.get(address) or _states.setdefault(address, EndpointState())


def forget() -> None:
    """Forget what was asked of all endpoints: calls under way do not count in new clients' limits."""
    _states.clear()


class Pool:
    """The endpoints that serve a model, asked in turn, from any number of threads.

    :param model: the model's name.
    :param endpoints: at least one.
    :param capabilities: what is known of the model.
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
        self._next_index = 0
        self._left_out_until: dict[Endpoint, float] = {}  # a monotonic time
        self._states = {endpoint: _state_of(endpoint) for endpoint in self.endpoints}

    def price(
        self, input_tokens: int, endpoint: str | None = None, service_tier: str | None = None
    ) -> Price | None:
        """Return what the model costs with a prompt of so many tokens, or ``None`` if unknown.

        :param endpoint: the name of the one that answers; ``None`` means the highest price of all
            that may.
        :param service_tier: the tier that is asked for or that answered; ``None`` is the standard
            one.
        """
        prices = [
            price_of(
                self.model,
                self.settings.prices,
                address=each.address,
                input_tokens=input_tokens,
                service_tier=service_tier,
            )
            for each in [each for each in self.endpoints if each.name == endpoint] or self.endpoints
        ]
        if None in prices:
            return None
        return max(filter(None, prices), key=lambda price: (price.output, price.input))

    def _usable_endpoints(self, now: float) -> list[Endpoint]:
        """Return the endpoints that are not left out; all if none remains."""
        usable = [each for each in self.endpoints if self._left_out_until.get(each, now) <= now]
        return usable or self.endpoints

    def admit(
        self, place: Place, tokens: int | None, now: float
    ) -> tuple[Endpoint | None, float, float]:
        """Admit a send if an endpoint allows it and no other waited longer; else queue it.

        :param tokens: what the send may use, or ``None`` if nobody counted it.
        :param now: the monotonic time.
        :returns: the endpoint that admits it, or ``None``; the seconds after which to look again
            without being woken, infinite if others have to come first; and those that it waits at
            least, 0 if time does not decide.
        """
        with lock:
            usable = self._usable_endpoints(now)
            place.wakeup = NOT_WAITING
            next_look = shortest_wait = NEVER
            for index in range(self._next_index, self._next_index + len(usable)):
                endpoint = usable[index % len(usable)]
                state = self._states[endpoint]
                state.queue.setdefault(place)
                place.queues.add(state)
                seconds = state.wait(self.settings, tokens, now)
                shortest_wait = min(shortest_wait, seconds)
                if next(iter(state.queue)) is not place:  # another has waited longer
                    continue
                if seconds > 0:
                    next_look = min(next_look, seconds)
                    continue
                self._next_index = (index + 1) % len(usable)
                place.state = state
                state.running.add(place)
                place.is_counted = True
                place.tokens = tokens or 0
                state.tokens += place.tokens
                place.leave_queues()
                return endpoint, 0.0, 0.0
            place.wakeup = Future()
            if shortest_wait == NEVER:  # time does not decide at any endpoint
                shortest_wait = 0.0
            return None, next_look, shortest_wait

    def rest(self, endpoint: Endpoint, seconds: float) -> float:
        """Stop asking an endpoint for some seconds; return those until the first other one has rested,
        infinite if there is none.
        """
        now = time.monotonic()
        with lock:
            state = self._states[endpoint]
            state.resting_until = max(now + seconds, state.resting_until)
            others = [each for each in self._usable_endpoints(now) if each is not endpoint]
            free_at = min((self._states[each].resting_until for each in others), default=NEVER)
            return max(0.0, free_at - now)

    def leave_out(self, endpoint: Endpoint) -> bool:
        """Leave an endpoint out for some minutes, unless it is the last; return whether others
        remain.
        """
        with lock:
            now = time.monotonic()
            others_remain = any(other is not endpoint for other in self._usable_endpoints(now))
            if others_remain:
                self._left_out_until[endpoint] = now + LEFT_OUT_SECONDS
            return others_remain
