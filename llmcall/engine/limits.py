"""Limits of endpoints, pools of endpoints, and the admission of an attempt to one of them.

The state of an endpoint is shared by all clients, threads and tasks of the process. It is a log of
the requests sent in the last 60 seconds, so that bursts are allowed and no 60 seconds ever hold
more than the limit; a token bucket would allow twice as many in some. A request's time is that at
which it was sent, not that of its admission: the SDK may still have to be imported, and the
connection to be made. Until then it counts as one that will be sent now.
"""

from __future__ import annotations

import gc
import json
import re
import time
from collections import OrderedDict, deque
from concurrent.futures import Future
from contextvars import ContextVar
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import APIError, BudgetExceededError, RateLimitError, RequestTimeoutError
from ..models.catalog import price_of
from ..models.tokens import count_tokens
from ..notices import notice, warn_once
from ..system import after_fork_in_child, process_lock
from ..types import TokenUsage
from . import budgets
from .drivers import Do, Wait
from .service_tiers import tier_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..config.settings import Endpoint, Settings
    from ..models.catalog import Capabilities, Price
    from ..types import Request
    from .budgets import Amounts
    from .drivers import Flow

# Seconds: the limits are per minute, which servers count as requests arrive; by the last second one
# may have been longer on its way than those of the next minute.
WINDOW = 61.0
LEFT_OUT = 300.0  # seconds in which an endpoint that refused its key is not asked
NEVER = float("inf")  # nothing but the end of another call helps
# Seconds after which a waiter looks for streams that their readers left, and then after twice as
# long each time: a collection goes through all of a simulation's objects.
PATIENCE = 1.0
# Seconds after which streams that hold all places are told to whoever waits for one.
LONG_OPEN = 20.0
# Tokens reserved for an answer where neither the request nor what is known of the model bounds it:
# the most that the models before 2024 gave (models.json), and several times what a short answer
# takes.
DEFAULT_MAX_OUTPUT = 4096
# seconds; what no clock of the system can wait for would be an error of its own
LONGEST_WAIT = 366 * 86400.0
COUNT = re.compile(r"-?\d{1,18}")
DURATION = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
SECONDS = (86400.0, 3600.0, 60.0, 1.0, 0.001)

# What a call may use


class Estimate(NamedTuple):
    """Hold what a call may use at most.

    :param input_tokens: the prompt's count.
    :param output_tokens: the tokens of its answers together.
    :param stated: what the request itself says that it may use, which servers count: without a
        ``max_tokens`` of its own, its prompt.
    """

    input_tokens: int
    output_tokens: int
    stated: int

    @property
    def tokens(self) -> int:
        """Return the sum."""
        return self.input_tokens + self.output_tokens


def estimate(kind: str, body: Mapping[str, Any], known: Capabilities) -> Estimate:
    """Return what a call may use at most: the prompt's count and ``max_tokens``, else the model's
    largest output.

    :param kind: ``"chat"`` or ``"embedding"``.
    :param body: what is sent.
    :param known: what is known of the model.
    """
    model = body.get("model", "")  # which an address may name instead
    if kind == "embedding":
        whole = sum(count_tokens(text, model, encoding=known.encoding) for text in body["input"])
        return Estimate(whole, 0, whole)
    prompt = int(
        count_tokens(body["messages"], model, encoding=known.encoding, tools=body.get("tools"))
    )
    schema = body.get("response_format")
    if isinstance(schema, dict) and "json_schema" in schema:  # it is billed as prompt
        prompt += count_tokens(json.dumps(schema), model, encoding=known.encoding)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    answers = body.get("n") or 1
    room = max(1, known.context_window - prompt) if known.context_window else DEFAULT_MAX_OUTPUT
    longest = limit or min(room, known.max_output_tokens or DEFAULT_MAX_OUTPUT)
    return Estimate(prompt, longest * answers, prompt + (limit or 0) * answers)


# What the server adds to the input of the Responses API by itself.
HELD_BY_SERVER = ("previous_response_id", "conversation", "prompt", "background")


def estimate_of_exchange(body: Any, known: Capabilities) -> Estimate | None:
    """Return what a request to the Responses, the Messages or the older completions API may use at
    most; ``None`` where nobody can know it before it is answered.

    :param body: what is sent.
    :param known: what is known of the model.
    """
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return None
    given = [body[name] for name in ("input", "messages", "prompt", "system") if name in body]
    is_response = "input" in body
    if not given or (is_response and any(body.get(name) for name in HELD_BY_SERVER)):
        return None
    if any(_is_media(each) for each in given) or any(map(_runs_at_server, body.get("tools") or ())):
        return None
    rest = [body[name] for name in ("instructions", "tools", "text", "suffix") if body.get(name)]
    text = json.dumps([*given, *rest], ensure_ascii=False)
    limit = body.get("max_output_tokens") or body.get("max_tokens")
    asked = {"messages": [{"role": "user", "content": text}], "max_tokens": limit}
    answers = max(body.get("n") or 1, body.get("best_of") or 1)
    return estimate("chat", {**asked, "model": body["model"], "n": answers}, known)


def _is_media(data: Any) -> bool:
    """Return whether there is something in plain data that has tokens beside its text."""
    if isinstance(data, list):
        return any(map(_is_media, data))
    if not isinstance(data, dict):
        return False
    kind = data.get("type")
    is_media = isinstance(kind, str) and any(each in kind for each in MEDIA)
    return is_media or any(map(_is_media, data.values()))


MEDIA = ("image", "file", "audio", "document", "item_reference")


def _runs_at_server(tool: Any) -> bool:
    """Return whether a tool is none of the program's own: the server pays for what it reads."""
    return isinstance(tool, dict) and tool.get("type", "custom") not in ("function", "custom")


def tokens_used(response: Mapping[str, Any], request: Request, known: Capabilities) -> TokenUsage:
    """Return the tokens that an answer used: as the server reported them, else as they are counted
    here.

    Reasoning of which the server sends no text cannot be counted, so an answer may have had more
    tokens.

    :param response: the server's, or as much of one as came.
    :param request: as it was sent.
    """
    told = TokenUsage.of(response)
    if told.input_tokens is not None and (
        told.output_tokens is not None or request.kind == "embedding"
    ):
        return told._replace(output_tokens=told.output_tokens or 0)
    texts = [_said(choice["message"]) for choice in response.get("choices", ())]
    output = sum(
        count_tokens(text, request.model, encoding=known.encoding) for text in texts if text
    )
    return TokenUsage(estimate(request.kind, request.body, known).input_tokens, output)


def _said(message: Mapping[str, Any]) -> str:
    """Return what a model wrote: its text, its reasoning, which has two names, and its calls."""
    functions = [call.get("function") or {} for call in message.get("tool_calls") or ()]
    texts = [message.get(name) for name in ("reasoning_content", "reasoning", "content", "refusal")]
    texts += [function.get(name) for function in functions for name in ("name", "arguments")]
    return "".join(text for text in texts if isinstance(text, str))


# What a server says of its own limits ``x-ratelimit-remaining-requests`` and ``-tokens`` say what
# is left, ``x-ratelimit-limit-…`` how many there are, and ``x-ratelimit-reset-…`` (``1s``,
# ``6m0s``, ``20ms``) the time until the limit is back at its initial state (OpenAI, guide "Rate
# limits", section "Rate limits in headers"). It refills evenly, so one request is there long
# before: after ``reset / (limit - remaining)``. Other servers' ways of saying it are passed over: a
# 429 tells the rest.


class Quota(NamedTuple):
    """Hold what a server says is left of its limit of requests, or of tokens.

    :param left: at the monotonic time ``since``; below 0 where more were used than there were.
    :param until: the time at which all are there again; where there is a ``rate`` it does not
        count.
    :param rate: how many come back in a second; 0 where all come at once.
    :param most: how many there are at most.
    """

    left: float
    since: float
    until: float
    rate: float = 0.0
    most: float = NEVER

    def wait(self, needed: int, now: float) -> float:
        """Return the seconds until so many are there; where there are never so many, until all are."""
        short = min(needed, self.most) - self.left
        if short <= 0:
            return 0.0
        ends = self.since + short / self.rate if self.rate else self.until
        # else a wait could end a rounding error before what it waits for
        return max(0.0, round(ends - now, 6))

    def less(self, used: int, now: float) -> Quota:
        """Return it without those that a call uses."""
        left = min(self.most, self.left + self.rate * (now - self.since))
        return self._replace(left=left - used, since=now)


def quotas_in(headers: Mapping[str, str]) -> dict[str, Quota]:
    """Return what a server says now is left of ``"requests"`` and ``"tokens"``.

    :param headers: names in lower case.
    """
    found, now = {}, time.monotonic()
    for unit in ("requests", "tokens"):
        left, limit = (
            _count(headers.get(f"x-ratelimit-{what}-{unit}")) for what in ("remaining", "limit")
        )
        seconds = _duration(headers.get(f"x-ratelimit-reset-{unit}"))
        if (
            left is None or seconds is None or (limit is not None and limit <= 0)
        ):  # Azure sends -1 for none
            continue
        found[unit] = Quota(left, now, now + seconds)
        if limit is not None and seconds > 0 and left < limit:
            found[unit] = found[unit]._replace(rate=(limit - left) / seconds, most=limit)
    return found


def _count(text: str | None) -> int | None:
    return int(text) if text and COUNT.fullmatch(text.strip()) else None


def _duration(text: str | None) -> float | None:
    parts = DURATION.fullmatch((text or "")[:100].strip())
    if not text or parts is None:
        return None
    return min(
        sum(float(part or 0) * each for part, each in zip(parts.groups(), SECONDS, strict=True)),
        LONGEST_WAIT,
    )


# The limits of endpoints


_lock = process_lock(__name__)
_states: dict[tuple[str | None, ...], EndpointState] = {}
_streaming: set[int] = set()  # the ids of the admitted attempts whose answers are streamed
_collected_at = 0.0  # the monotonic time


class EndpointState:
    """Know what one endpoint was asked, and what it said; whoever holds the lock of this module may
    use it.

    :ivar running: the attempts that are under way.
    :ivar counts_minutes: whether anybody limits what is sent to it in a minute; until then, nothing
        of what was sent is kept.
    :ivar sent: the attempts of the last 60 seconds, oldest first.
    :ivar tokens: those of all attempts that count.
    :ivar resting_until: the monotonic time until which it is not asked, after a 429.
    :ivar queue: those who wait for it, in order.
    :ivar quotas: what it says is left, by model and unit.
    """

    def __init__(self) -> None:
        self.running: set[Admission] = set()
        self.counts_minutes = False
        self.sent: deque[Admission] = deque()
        self.tokens = 0
        self.resting_until = 0.0
        self.queue: OrderedDict[Admission, None] = OrderedDict()
        self.quotas: dict[str, dict[str, Quota]] = {}
        self.surpluses: dict[str, tuple[int, float]] = {}  # by model

    def wait(self, settings: Settings, needed: Estimate | None, model: str, now: float) -> float:
        """Return the seconds until an attempt may be admitted, as far as time decides; infinite
        where it does not.

        :param needed: what it may use; ``None`` where nobody counted it.
        :param now: the monotonic time.
        """
        while self.sent and (self.sent[0].sent_at or 0.0) + WINDOW <= now:
            old = self.sent.popleft()
            old.counted = False
            self.tokens -= old.tokens
        most_calls, most_requests = (
            settings.limits_max_concurrent_calls,
            settings.limits_requests_per_minute,
        )
        most_tokens = settings.limits_tokens_per_minute
        if most_calls is not None and len(self.running) >= most_calls:
            return NEVER
        seconds = self.resting_until - now
        requests = tokens = 0  # how many of the last minute there are too many
        if most_requests is not None:
            unsent = sum(each.sent_at is None for each in self.running)
            requests = len(self.sent) + unsent + 1 - most_requests
        if most_tokens is not None and needed is not None:
            # A call that may use more than the limit goes when nothing else is counted: it would
            # never go otherwise.
            tokens = self.tokens + min(needed.tokens, most_tokens) - most_tokens
        if requests > 0 or tokens > 0:
            seconds = max(seconds, self._wait_until_past(requests, tokens, now))
        if self.quotas:
            seconds = max(seconds, self.wait_for_quota(needed, model, now))
        return max(0.0, seconds)

    def _wait_until_past(self, requests: int, tokens: int, now: float) -> float:
        """Return the seconds until so many requests and tokens of the last minute count no more."""
        for past, old in enumerate(
            tuple(self.sent), 1
        ):  # a generator that ends meanwhile gives its place back
            tokens -= old.tokens
            if past >= requests and tokens <= 0:
                return (old.sent_at or 0.0) + WINDOW - now
        return NEVER

    def wait_for_quota(self, needed: Estimate | None, model: str, now: float) -> float:
        """Return the seconds until the server has enough left, as far as it said; arguments as of
        :meth:`wait`.
        """
        quotas = self.quotas.get(model, {}).items()
        return max(
            (each.wait(max(1, _counted_by_server(unit, needed)), now) for unit, each in quotas),
            default=0.0,
        )


def _counted_by_server(unit: str, needed: Estimate | None) -> int:
    return 1 if unit == "requests" else needed.stated if needed is not None else 0


def forget() -> None:
    """Forget what was asked of all endpoints. Calls under way, and who waits for them, count in no
    new client's limits.

    So they do not in a forked process: the threads that stayed behind are not there.
    """
    _states.clear()
    _streaming.clear()


after_fork_in_child(forget)


class Pool:
    """Choose among the endpoints that serve a model, round-robin and fairly, from any number of
    threads.

    What is known of an endpoint is the same for all who know it by the same name and address.

    :param model: its name.
    :param endpoints: at least one.
    :param known: what is known of the model.
    :param settings: say the limits of each endpoint, and prices.
    """

    def __init__(
        self, model: str, endpoints: Sequence[Endpoint], known: Capabilities, settings: Settings
    ) -> None:
        self.model, self.endpoints, self.known, self.settings = (
            model,
            list(endpoints),
            known,
            settings,
        )
        self._next = 0
        self._left_out: dict[Endpoint, float] = {}  # until when
        self._states: dict[Endpoint, EndpointState] = {}
        limits_minutes = (
            settings.limits_requests_per_minute is not None
            or settings.limits_tokens_per_minute is not None
        )
        for each in self.endpoints:
            address = (
                each.name,
                each.base_url,
                each.azure_endpoint,
                each.deployment,
                each.organization,
            )
            state = _states.get(address) or _states.setdefault(address, EndpointState())
            state.counts_minutes = state.counts_minutes or limits_minutes
            self._states[each] = state

    def price(
        self, input_tokens: int, endpoint: str | None = None, service_tier: str | None = None
    ) -> Price | None:
        """Return what the model costs with a prompt of so many tokens; ``None`` if that is
        unknown.

        :param endpoint: the name of the one that answers; ``None`` means the highest price of all
            that may.
        :param service_tier: the tier that is asked for or that answered; ``None`` is the standard
            one.
        """
        asked = [each for each in self.endpoints if each.name == endpoint] or self.endpoints
        prices = self.settings.prices
        found = [
            price_of(
                self.model,
                prices,
                address=each.address,
                input_tokens=input_tokens,
                service_tier=service_tier,
            )
            for each in asked
        ]
        return None if None in found else max(found, key=lambda price: (price.output, price.input))  # type: ignore[union-attr]

    def _usable(self, now: float) -> list[Endpoint]:
        return [
            each for each in self.endpoints if self._left_out.get(each, now) <= now
        ] or self.endpoints

    def admit(
        self, admission: Admission, needed: Estimate | None, now: float
    ) -> tuple[Endpoint | None, float, float]:
        """Admit an attempt where an endpoint allows it and nobody came before it; else queue it.

        :param needed: what the attempt may use; ``None`` where nobody counted it.
        :param now: the monotonic time.
        :returns: the endpoint, or ``None``; then the seconds after which to look again without
            being woken (infinite where others have to come first), and those that it takes at
            least.
        """
        with _lock:
            usable = self._usable(now) if self._left_out else self.endpoints
            admission.wakeup = Future()
            waits: list[tuple[EndpointState, float]] = []
            for step in range(self._next, self._next + len(usable)):
                endpoint = usable[step % len(usable)]
                state = self._states[endpoint]
                # before the look: the collector may end a stream at any moment
                state.queue.setdefault(admission)
                admission.queues.add(state)
                seconds = state.wait(self.settings, needed, self.model, now)
                if seconds <= 0 and next(iter(state.queue)) is admission:
                    self._next = (step + 1) % len(usable)
                    admission.state, admission.counted = state, state.counts_minutes
                    state.running.add(admission)
                    if admission.counted and needed is not None:
                        admission.tokens = needed.tokens
                        state.tokens += admission.tokens
                    if admission.is_streamed:
                        _streaming.add(id(admission))
                        admission.admitted_at = now
                    quotas = state.quotas.get(self.model, {})
                    for unit, each in quotas.items():
                        quotas[unit] = each.less(_counted_by_server(unit, needed), now)
                    admission.leave_queues()
                    return endpoint, 0.0, 0.0
                waits.append((state, seconds))
            least = min(seconds for _, seconds in waits)
            soonest = min(
                (seconds for state, seconds in waits if next(iter(state.queue)) is admission),
                default=NEVER,
            )
            return None, soonest, least if least < NEVER else 0.0

    def rest(self, endpoint: Endpoint, until: float) -> bool:
        """Let an endpoint rest until a monotonic time; return whether another one is free before
        that.
        """
        with _lock:
            state = self._states[endpoint]
            # a later one that was said before stands
            state.resting_until = max(until, state.resting_until)
            return any(
                other.resting_until < until for other in self._states.values() if other is not state
            )

    def set_quotas(
        self, endpoint: Endpoint, quotas: Mapping[str, Quota], needed: Estimate | None = None
    ) -> float:
        """Take in what an endpoint said is left, and return the seconds until it has enough for a
        call.
        """
        with _lock:
            state = self._states[endpoint]
            state.quotas.setdefault(self.model, {}).update(quotas)
            return state.wait_for_quota(needed, self.model, time.monotonic())

    def expected(self, counted: Estimate | None) -> Estimate | None:
        """Return what a call may use where its prompt has more tokens at an endpoint than were
        counted here.

        So many more as it had before, at most, and of a short prompt in proportion: a server's
        template may begin each prompt with sentences of its own, and the vocabulary of its model
        may not be known.
        """
        if counted is None:
            return None
        known = [state.surpluses.get(self.model, (0, 0.0)) for state in self._states.values()]
        surplus = max(min(tokens, ceil(ratio * counted.input_tokens)) for tokens, ratio in known)
        return counted._replace(input_tokens=counted.input_tokens + surplus)

    def free_after(self, now: float) -> float:
        """Return the seconds until the first endpoint has rested."""
        with _lock:
            return max(
                0.0, min(self._states[each].resting_until for each in self._usable(now)) - now
            )

    def leave_out(self, endpoint: Endpoint, now: float) -> bool:
        """Leave an endpoint out for some minutes; return whether others remain (the last one
        stays).
        """
        with _lock:
            remains = any(other is not endpoint for other in self._usable(now))
            if remains:
                self._left_out[endpoint] = now + LEFT_OUT
            return remains


# Called by HTTP clients when the request of the present context was sent. A generator has no
# context of its own, so that what an admission sets here holds where its driver sends.
_when_sent: ContextVar[Callable[[], None]] = ContextVar(
    "llmcall request sent", default=lambda: None
)
SENT = "send_request_body.complete"  # the end of a step's name in httpcore's extension "trace"


def note_sent(request: Any) -> None:
    """Let it be noted when a request was sent, as an event hook of an HTTP client of httpx's kind,
    for the limits.
    """
    when_sent = _when_sent.get()
    request.extensions["trace"] = lambda step, info: when_sent() if step.endswith(SENT) else None


async def note_sent_async(request: Any) -> None:
    """Let it be noted when a request was sent, as :func:`note_sent`, of an asynchronous HTTP
    client.
    """
    note_sent(request)
    trace = request.extensions["trace"]

    async def atrace(step: str, info: Any) -> None:
        """Be told of each step."""
        trace(step, info)

    request.extensions["trace"] = atrace


class Admission:
    """Admit one attempt, and give back what it held when it is closed, however the attempt ends.

    It is kept for 60 seconds after it was sent if a limit counts it, and so holds neither request
    nor answer, nor a client.

    :param pool: the endpoints that may serve it.
    :param time_left: gives the seconds after which nobody waits, or ``None``.
    :param is_streamed: whether its reader may leave it half-way.
    :param calls_only: whether it counts as a call, and uses no tokens.
    :ivar wakeup: is done when there is reason to look again whether it may begin.
    :ivar queues: the endpoints that it waits for.
    :ivar state: the endpoint to which it was admitted, else ``None``.
    :ivar tokens: those that it used or, while that is unknown, reserves.
    :ivar sent_at: the monotonic time at which it was sent; ``None`` until then.
    :ivar reservation: what it holds of the open budgets, if there are any.
    :ivar answered: whether what it used is known.
    :ivar counted: whether its tokens count: from its admission until 60 seconds after it was sent.
    """

    wakeup: Future[None]
    sent_at: float | None = None
    counted = False
    tokens = 0
    state: EndpointState | None = None
    _estimate: Estimate | None = None
    reservation: budgets.Reservation | None = None
    answered = False
    admitted_at = 0.0  # the monotonic time, of a stream
    _service_tier: str | None = None  # the one that is asked for

    def __init__(
        self,
        pool: Pool,
        time_left: Callable[[], float | None],
        *,
        is_streamed: bool = False,
        calls_only: bool = False,
    ) -> None:
        self._pool, self._time_left = pool, time_left
        self._calls_only = calls_only
        self.is_streamed = is_streamed
        self._patience = PATIENCE
        self.queues: set[EndpointState] = set()

    def acquire(self, request: Request) -> Flow[Endpoint]:
        """Wait until the attempt may begin, and return the endpoint to ask.

        :param request: what is asked; its body is what is sent.
        :raises BudgetExceededError: where it could go past a budget.
        :raises RateLimitError, RequestTimeoutError: where the wait would pass the deadline.
        """
        pool, first = self._pool, True
        has_budget = bool(budgets.open_budgets)
        if pool.settings.limits_tokens_per_minute is not None or (
            has_budget and budgets.counts_tokens()
        ):
            self._estimate = self._estimated(request)
        self._service_tier = tier_of(request.body) if isinstance(request.body, dict) else None
        if has_budget:
            yield from self._reserve()
        while True:
            needed = self._estimate and pool.expected(self._estimate)
            endpoint, seconds, least = pool.admit(self, needed, time.monotonic())
            if endpoint is not None:
                break
            left = self._time_left()
            if left is not None and least > max(0.0, left):
                raise _final(
                    RateLimitError(
                        f"no endpoint of {self._names()} may be asked for {least:.1f} s, past the deadline"
                    )
                )
            if first and least > WINDOW:  # longer than for [Limits] alone
                notice("%s: no call may begin for %.0f s", self._names(), least)
            first = False
            yield from self._until(self.wakeup, seconds, "an endpoint has a place for another call")
        _when_sent.set(self.note_sent)
        return endpoint

    def _estimated(self, request: Request) -> Estimate | None:
        if request.kind != "http":
            return estimate(request.kind, request.body, self._pool.known)
        if self._calls_only:
            return None
        found = estimate_of_exchange(request.body, self._pool.known)
        if found is None and budgets.limits_tokens():
            asked = request.asked
            raise BudgetExceededError(
                f"a budget limits what may be spent, and {asked['method']} {asked['host']}{asked['path']} does not say "
                "how much it may use: nothing can be reserved for it. Limit calls=, or send it outside the budget"
            )
        return found

    def _reserve(self) -> Flow[None]:
        reservation = self.reservation = budgets.Reservation()
        while True:
            reserve = Do(lambda: reservation.reserve(self._reserved()))
            seconds = reserve.perform() if reservation.is_near else (yield reserve)
            if seconds is None:
                return
            yield from self._until(
                reservation.wakeup, seconds, "calls under way settle what they reserved of a budget"
            )

    def _reserved(self) -> Amounts:
        if self._calls_only:
            return budgets.Amounts(calls=1)
        needed = self._pool.expected(self._estimate) or Estimate(0, 0, 0)
        price = self._pool.price(needed.input_tokens, service_tier=self._service_tier)
        budgets.check_price(self._pool.model, price, self._service_tier)
        return budgets.spending_of(TokenUsage(needed.input_tokens, needed.output_tokens), price)

    def _until(self, wakeup: Future[None], seconds: float, what: str) -> Flow[None]:
        left = self._time_left()
        if left is not None and left <= 0:
            raise _final(RequestTimeoutError(f"the call's deadline passed before {what}"))
        yield Wait(wakeup, min(seconds, NEVER if left is None else left, self._patience))
        if not wakeup.done() and self._patience < seconds:
            _collect_left_streams()
            if not wakeup.done():
                self._warn_of_open_streams()
            self._patience *= 2

    def _warn_of_open_streams(self) -> None:
        """Warn once if streams alone hold the places, and have for long: the program may have left
        one that it still refers to, and would wait for ever.
        """
        most = self._pool.settings.limits_max_concurrent_calls
        if most is None:
            return
        latest = time.monotonic() - LONG_OPEN
        with _lock:
            running = [each for state in self.queues for each in state.running]
            are_full = bool(running) and all(len(each.running) >= most for each in self.queues)
            held = are_full and all(
                id(each) in _streaming and each.admitted_at <= latest for each in running
            )
        if held:
            warn_once(
                "a call waits for a place among MAX_CONCURRENT_CALLS, and streams that are not read to their end have "
                f"held every place for {LONG_OPEN:.0f} s. If the program left one, close it: stream.close(), or open "
                "it in a with block",
                about="streams hold all places",
            )

    def _names(self) -> str:
        return ", ".join(endpoint.name for endpoint in self._pool.endpoints)

    def leave_queues(self) -> None:
        """Wait for no endpoint any more; whoever calls it holds the lock."""
        while self.queues:
            state = self.queues.pop()
            state.queue.pop(self, None)
            if state.queue:
                budgets.wake_first(state.queue)

    def note_sent(self, now: float | None = None) -> None:
        """Count it from now on for 60 seconds, so that those who wait know how long; a second time
        changes nothing.
        """
        state = self.state
        with _lock:
            if state is not None and self.sent_at is None and self in state.running:
                self.sent_at = time.monotonic() if now is None else now
                if state.counts_minutes:
                    state.sent.append(self)
                if state.queue:
                    budgets.wake_first(state.queue)

    def use(
        self,
        used: TokenUsage,
        endpoint: str | None = None,
        *,
        service_tier: str | None = None,
        calls: int = 1,
    ) -> None:
        """Put what an attempt used in place of what was reserved for it.

        :param endpoint: the name of the endpoint that answered.
        :param service_tier: the tier that the answer names.
        """
        self.answered = True
        tokens, state, counted = (
            (used.input_tokens or 0) + (used.output_tokens or 0),
            self.state,
            self._estimate,
        )
        with _lock:
            if state is not None and self.counted:
                state.tokens += tokens - self.tokens
                self.tokens = tokens
            if state is not None and counted is not None:
                more = (used.input_tokens or 0) - counted.input_tokens
                most, ratio = state.surpluses.get(self._pool.model, (0, 0.0))
                ratio = max(ratio, more / max(1, counted.input_tokens))
                state.surpluses[self._pool.model] = max(most, more), ratio
        if self.reservation is not None:
            spent = budgets.Amounts()
            if not self._calls_only:
                price = self._pool.price(used.input_tokens or 0, endpoint, service_tier)
                spent = budgets.spending_of(used, price)
            self.reservation.used = spent._replace(calls=calls)

    def keep_reservation(self) -> None:
        """Let what was reserved of the open budgets count as used, for the server told no usage."""
        if self.reservation is not None:
            self.reservation.used = self._reserved()

    def close(self, now: float | None = None) -> None:
        """Give back what it holds; without an answer it used no tokens. A second time changes
        nothing.
        """
        try:
            with _lock:
                self.leave_queues()
                self.note_sent(now)
                state = self.state
                if state is not None and self in state.running:
                    state.running.remove(self)
                    _streaming.discard(id(self))
                    if not self.answered and self.counted:
                        state.tokens -= self.tokens
                        self.tokens = 0
                    if state.queue:
                        budgets.wake_first(state.queue)
        finally:
            if self.reservation is not None:
                self.reservation.close()


def _collect_left_streams() -> None:
    """End the streams that their readers left, and give back their places.

    HTTP libraries refer to a streamed response in circles: one that nobody can read any more holds
    its place until the garbage collector comes by, which may be never.
    """
    global _collected_at
    now = time.monotonic()
    if _streaming and now - _collected_at >= PATIENCE:
        _collected_at = now
        gc.collect()


def _final(error: APIError) -> APIError:
    error.retryable = False
    return error
