"""The limits of endpoints, and the pools of endpoints that serve one model.

All clients, threads and tasks of the process share what is known of an endpoint. It is a log of the
requests sent in the last 60 seconds: bursts are allowed, and no 60 seconds ever hold more than the
limit. (A token bucket would allow twice as many in some.) A request counts from the moment at which
it was sent, not from its admission: the SDK may still have to be imported, and the connection to be
made. Until then it counts as one that is sent now.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

from ..models.prices import price_of
from ..system import after_fork_in_child, process_lock
from . import budgets
from .ledgers import NEVER

if TYPE_CHECKING:
    from ..config.endpoints import Endpoint
    from ..config.settings import Settings
    from ..models.catalog import Capabilities
    from ..models.prices import Price
    from .estimates import Estimate

# Seconds: a minute, and one more: servers count requests as they arrive, and a request may have
# been on its way for longer than one of the next minute.
WINDOW = 61.0
LEFT_OUT_SECONDS = 300.0  # how long an endpoint that refused its key is not asked

_lock = process_lock(__name__)


class LimitedSend:
    """One send as the limits count it. An attempt that goes on at another endpoint has a new one.

    Kept for 60 seconds after it was sent if a limit counts it, so it refers to no request and
    no answer.

    :ivar wakeup: is done when there is reason to look again whether it may begin.
    :ivar queues: the endpoints that it waits for.
    :ivar state: the endpoint that admitted it, or ``None``.
    :ivar sent_at: the monotonic time at which it was sent, or ``None``.
    :ivar is_counted: whether its tokens count: from its admission until 60 seconds after it was
        sent.
    :ivar tokens: those that it used or, while that is unknown, reserves.
    :ivar is_answered: whether what it used is known.
    """

    def __init__(self) -> None:
        self.wakeup: Future[None] = Future()
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
            budgets.wake_first(state.queue)

    def note_sent(self, now: float | None = None) -> None:
        """Count the send as sent from now on; a second time changes nothing.

        :param now: the monotonic time; ``None`` means that of the clock.
        """
        with _lock:
            state = self.state
            if state is None or self.sent_at is not None or self not in state.running:
                return
            self.sent_at = time.monotonic() if now is None else now
            if state.counts_minutes:
                state.sent.append(self)
            budgets.wake_first(state.queue)

    def use(self, tokens: int) -> None:
        """Count the tokens that the send used, in place of those that it reserved."""
        self.is_answered = True
        with _lock:
            if self.state is not None and self.is_counted:
                self.state.tokens += tokens - self.tokens
                self.tokens = tokens

    def end(self, now: float | None = None) -> None:
        """Give back the place; without an answer, also the tokens. A second time changes nothing.

        :param now: as in :meth:`note_sent`.
        """
        with _lock:
            self.leave_queues()
            self.note_sent(now)
            state = self.state
            if state is None or self not in state.running:
                return
            state.running.remove(self)
            if self.is_counted and not self.is_answered:
                state.tokens -= self.tokens
                self.tokens = 0
            budgets.wake_first(state.queue)


class EndpointState:
    """What one endpoint was asked; only the holder of the lock may use it.

    :ivar running: the sends that are under way.
    :ivar counts_minutes: whether anybody limits what is sent to it in a minute; until then, nothing
        is kept of what was sent.
    :ivar sent: the sends of the last 60 seconds, the oldest first.
    :ivar tokens: those of all sends that count.
    :ivar resting_until: the monotonic time until which it is not asked, after a 429.
    :ivar queue: the sends that wait for it, in order.
    """

    def __init__(self) -> None:
        self.running: set[LimitedSend] = set()
        self.counts_minutes = False
        self.sent: deque[LimitedSend] = deque()
        self.tokens = 0
        self.resting_until = 0.0
        self.queue: OrderedDict[LimitedSend, None] = OrderedDict()

    def is_first(self, send: LimitedSend) -> bool:
        """Return whether no other send has waited longer."""
        return next(iter(self.queue), None) is send

    def wait(self, settings: Settings, needed: Estimate | None, now: float) -> float:
        """Return the seconds until a send may be admitted; infinite if time does not decide.

        :param needed: what it may use, or ``None`` if nobody counted it.
        :param now: the monotonic time.
        """
        self._forget_past(now)
        most_calls = settings.limits_max_concurrent_calls
        if most_calls is not None and len(self.running) >= most_calls:
            return NEVER
        waits = [0.0, self.resting_until - now]
        excess_requests = self._excess_requests(settings.limits_requests_per_minute)
        excess_tokens = self._excess_tokens(settings.limits_tokens_per_minute, needed)
        if excess_requests > 0 or excess_tokens > 0:
            waits.append(self._wait_until_past(excess_requests, excess_tokens, now))
        return max(waits)

    def _forget_past(self, now: float) -> None:
        """Count no longer what was sent more than a minute ago."""
        while self.sent and (self.sent[0].sent_at or 0.0) + WINDOW <= now:
            send = self.sent.popleft()
            send.is_counted = False
            self.tokens -= send.tokens

    def _excess_requests(self, most: int | None) -> int:
        """Return how many requests of the last minute are too many for another one."""
        if most is None:
            return 0
        unsent = sum(send.sent_at is None for send in self.running)
        return len(self.sent) + unsent + 1 - most

    def _excess_tokens(self, most: int | None, needed: Estimate | None) -> int:
        """Return how many tokens of the last minute are too many for another send."""
        if most is None or needed is None:
            return 0
        # A call that may use more than the limit goes when nothing else is counted: it would never
        # go otherwise.
        return self.tokens + min(needed.tokens, most) - most

    def _wait_until_past(self, requests: int, tokens: int, now: float) -> float:
        """Return the seconds until so many requests and tokens of the last minute count no more."""
        for number, send in enumerate(self.sent, 1):
            tokens -= send.tokens
            if number >= requests and tokens <= 0:
                return (send.sent_at or 0.0) + WINDOW - now
        return NEVER

    def admit(self, send: LimitedSend, needed: Estimate | None, now: float) -> None:
        """Count a send as begun."""
        send.state = self
        send.is_counted = self.counts_minutes
        self.running.add(send)
        if send.is_counted and needed is not None:
            send.tokens = needed.tokens
            self.tokens += needed.tokens


_states: dict[tuple[str | None, ...], EndpointState] = {}


def _state_of(endpoint: Endpoint) -> EndpointState:
    """Return the state of an endpoint, the same one for everybody who knows it by this address."""
    address = (
        endpoint.name,
        endpoint.base_url,
        endpoint.azure_endpoint,
        endpoint.deployment,
        endpoint.organization,
    )
    return _states.get(address) or _states.setdefault(address, EndpointState())


def forget() -> None:
    """Forget what was asked of all endpoints: calls under way do not count in new clients' limits.

    Nor do they in a forked process, which lacks the threads that made them.
    """
    _states.clear()


after_fork_in_child(forget)


class AdmitResult(NamedTuple):
    """What a pool answers to a send that wants to begin.

    :param endpoint: the one that admits it, or ``None``.
    :param next_look: the seconds after which to look again without being woken; infinite if others
        have to come first.
    :param shortest_wait: the seconds that it waits at least; 0 if time does not decide.
    """

    endpoint: Endpoint | None
    next_look: float
    shortest_wait: float


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
        limits = settings.limits_requests_per_minute, settings.limits_tokens_per_minute
        if limits != (None, None):
            for state in self._states.values():
                state.counts_minutes = True

    def price(
        self, input_tokens: int, endpoint: str | None = None, service_tier: str | None = None
    ) -> Price | None:
        """Return what the model costs with a prompt of so many tokens, or ``None`` if unknown.

        :param endpoint: the name of the one that answers; ``None`` means the highest price of all
            that may.
        :param service_tier: the tier that is asked for or that answered; ``None`` is the standard
            one.
        """
        candidates = [each for each in self.endpoints if each.name == endpoint] or self.endpoints
        highest = None
        for each in candidates:
            price = price_of(
                self.model,
                self.settings.prices,
                address=each.address,
                input_tokens=input_tokens,
                service_tier=service_tier,
            )
            if price is None:
                return None
            if highest is None or (price.output, price.input) > (highest.output, highest.input):
                highest = price
        return highest

    def _usable_endpoints(self, now: float) -> list[Endpoint]:
        """Return the endpoints that are not left out; all if none remains."""
        usable = [each for each in self.endpoints if self._left_out_until.get(each, now) <= now]
        return usable or self.endpoints

    def admit(self, send: LimitedSend, needed: Estimate | None, now: float) -> AdmitResult:
        """Admit a send if an endpoint allows it and no other waited longer; else queue it.

        :param needed: what the send may use, or ``None`` if nobody counted it.
        :param now: the monotonic time.
        """
        with _lock:
            usable = self._usable_endpoints(now)
            send.wakeup = Future()
            next_look = NEVER
            shortest_wait = NEVER
            for index in range(self._next_index, self._next_index + len(usable)):
                endpoint = usable[index % len(usable)]
                state = self._states[endpoint]
                state.queue.setdefault(send)
                send.queues.add(state)
                seconds = state.wait(self.settings, needed, now)
                if seconds <= 0 and state.is_first(send):
                    self._next_index = (index + 1) % len(usable)
                    state.admit(send, needed, now)
                    send.leave_queues()
                    return AdmitResult(endpoint, 0.0, 0.0)
                shortest_wait = min(shortest_wait, seconds)
                if state.is_first(send):
                    next_look = min(next_look, seconds)
            if shortest_wait == NEVER:  # time does not decide at any endpoint
                shortest_wait = 0.0
            return AdmitResult(None, next_look, shortest_wait)

    def rest(self, endpoint: Endpoint, until: float) -> bool:
        """Stop asking an endpoint until a monotonic time; return whether another is free before."""
        with _lock:
            state = self._states[endpoint]
            state.resting_until = max(until, state.resting_until)
            others = [each for each in self._states.values() if each is not state]
            return any(other.resting_until < until for other in others)

    def free_after(self, now: float) -> float:
        """Return the seconds until the first endpoint has rested."""
        with _lock:
            free_at = min(self._states[each].resting_until for each in self._usable_endpoints(now))
            return max(0.0, free_at - now)

    def leave_out(self, endpoint: Endpoint, now: float) -> bool:
        """Leave an endpoint out for some minutes, unless it is the last; return whether others
        remain.
        """
        with _lock:
            others_remain = any(other is not endpoint for other in self._usable_endpoints(now))
            if others_remain:
                self._left_out_until[endpoint] = now + LEFT_OUT_SECONDS
            return others_remain
