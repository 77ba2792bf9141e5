"""The way of a call that no record answers: single flight, admission, retry, transport, validation, store, usage.

All of it is written as flows: generators that yield effects and do no input or output.
"""

from __future__ import annotations

import base64
import copy
import functools
import random
import sys
import time
from array import array
from marshal import dumps, loads
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..cassettes.format import ordered
from ..errors import (
    APIError,
    AuthenticationError,
    ContextLengthError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServiceError,
)
from ..models.tokens import shares
from ..notices import warn_once
from ..requests.keys import key_of
from ..requests.parameters import sent_body
from ..responses import validate
from ..types import Outcome, Response, Sent, TokenUsage, record_of
from .effects import ALONE, END, Close, Do, Emit, Next, Open, Send, Sleep, Wait, look
from .estimates import estimate
from .limits import LEFT_OUT, Admission, Limits
from .prepare import lookup
from .single_flight import process_flights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tenacity import RetryCallState, Retrying

    from ..cache.cache import ResponseCache
    from ..config.settings import Endpoint, Settings
    from ..types import Record, Request
    from .effects import Flow
    from .limits import Pool
    from .prepare import Client, Options, PreparedCall
    from .single_flight import Flight

    Outcomes = dict[str, Outcome]  # by key

__all__ = ["RetryPolicy", "answer", "embed", "is_cut", "share", "vector"]

JITTER = 0.25  # the share of a wait that is added at random at most
REST = 1.0  # seconds that an endpoint rests after a 429 that named no time
UNSUPPORTED = frozenset({"unsupported_parameter", "unsupported_value"})
# OpenAI's limits for one request: 2,048 texts (API reference, embeddings, "input") and 300,000 tokens in all.
TEXTS_PER_BATCH = 2048
BYTES_PER_BATCH = 300_000  # no byte-level tokenizer makes more tokens than a text has bytes

_random = random.Random()  # not the module's own: a simulation's seeded draws must not depend on our retries


class RetryPolicy(NamedTuple):
    """Hold how often and when a failed call is tried again.

    :param max_attempts: attempts in all.
    :param waiting_time: seconds before the second attempt.
    :param factor: what each further wait is multiplied by.
    :param max_waiting_time: seconds that no wait of our own exceeds.
    :param deadline_at: the monotonic time after which nothing is tried, or ``None``.
    """

    max_attempts: int = 5
    waiting_time: float = 1.0
    factor: float = 2.0
    max_waiting_time: float = 60.0
    deadline_at: float | None = None

    @classmethod
    def of(cls, options: Options, settings: Settings) -> RetryPolicy:
        """Return that of a call; its deadline begins now."""
        deadline = settings.deadline if options.deadline is None else options.deadline
        factor = options.exponential_backoff_factor
        return cls(
            settings.retry_max_attempts if options.max_attempts is None else options.max_attempts,
            settings.retry_waiting_time if options.waiting_time is None else options.waiting_time,
            settings.retry_exponential_backoff_factor if factor is None else factor,
            settings.retry_max_waiting_time,
            None if deadline is None else time.monotonic() + deadline,
        )

    def time_left(self) -> float | None:
        """Return the seconds until the deadline, or ``None`` where there is none."""
        return None if self.deadline_at is None else self.deadline_at - time.monotonic()

    def wait(self, attempt: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after an attempt (counted from 1); the server's longer wish wins."""
        try:
            growing = self.waiting_time * self.factor ** (attempt - 1)
        except OverflowError:
            growing = self.max_waiting_time
        ours = min(growing, self.max_waiting_time) * (1 + JITTER * _random.random())
        return max(ours, retry_after or 0.0)

    def ended(self, error: APIError) -> bool:
        """Return whether it was the caller's own deadline that ended a call, which others need not share."""
        left = self.time_left()
        if left is None:
            return False
        waits = isinstance(error, (RateLimitError, RequestTimeoutError)) and error.status_code is None
        return left <= 0 or (error.attempts < self.max_attempts if error.retryable else waits)


class _Exchange(NamedTuple):
    """Hold what the attempts of one request need.

    :param call: the call that it is for; of several embeddings, the first.
    :param request: what is sent.
    :param stream: whether the text is handed on as it comes.
    :param wants_room: whether an answer that the context window cut is an error: there is a larger one to try.
    """

    call: PreparedCall
    request: Request
    policy: RetryPolicy
    stream: bool = False
    wants_room: bool = False

    @property
    def pool(self) -> Pool:
        return self.call.client.pool(self.request.model)

    @property
    def name(self) -> str:
        return _named(self.request)

    def seconds(self) -> float | None:
        """Return the seconds that an attempt, or the wait for the next chunk, may take: not more than the call has."""
        given = self.call.options.timeout
        timeout = self.call.settings.timeout if given is None else given
        left = self.policy.time_left()
        if left is not None and left <= 0:
            raise RequestTimeoutError("the call's deadline passed")
        return left if timeout is None else timeout if left is None else min(left, timeout)


def _named(request: Request) -> str:
    return f"{request.kind} request {request.cache_key[:12]} to {request.model}"


def answer(
    call: PreparedCall,
    *,
    stream: bool = False,
    fallback: bool = True,
    whole: bool = False,
    cut: Record | None = None,
) -> Flow[Outcome]:
    """Answer a chat call that is not recorded, by another model where the context is too long.

    :param stream: whether its text is handed on as it comes.
    :param fallback: whether another model may be asked.
    :param whole: whether an answer that the context window cut is an error even from the last model.
    :param cut: the recorded answer, which the context window cut; it is not asked for again.
    """
    policy = RetryPolicy.of(call.options, call.settings)
    models = _fallbacks(call.client, call.request.model) if fallback else []
    if models or cut is not None:
        outcome = yield from _in_turn(call, models, policy, stream, whole, cut)
    else:
        outcome = yield from _one(call, policy, stream, whole)
    record = call.keep(outcome.record)
    return outcome if record is outcome.record else Outcome(record)


def _one(call: PreparedCall, policy: RetryPolicy, stream: bool, wants_room: bool) -> Flow[Outcome]:
    def ask(calls: Sequence[PreparedCall]) -> Flow[Outcomes]:
        """Ask the model, count and store."""
        exchange = _Exchange(call, call.request, policy, stream, wants_room)
        return {call.request.cache_key: (yield from _ask(exchange))}

    outcomes = yield from (ask([call]) if stream else share([call], ask, policy))
    outcome: Outcome = outcomes[call.request.cache_key]
    if outcome.sent is None:
        call.add_usage(cached_calls=1, saved=outcome.record.cost)
    return outcome


def _in_turn(
    call: PreparedCall, models: list[str], policy: RetryPolicy, stream: bool, whole: bool, cut: Record | None
) -> Flow[Outcome]:
    """Ask the first model, and while the context is too long the next; the first one's record points to the answer."""
    left = [call, *(call._replace(request=_asked_of(call.request, model)) for model in models)]
    while True:
        current = left.pop(0)
        more, request = bool(left), current.request
        try:
            found = cut if current is call else lookup(current)
            if found is not None and not ((more or whole) and is_cut(found, request)):
                if current is not call:
                    current.add_usage(cached_calls=1, saved=found.cost)
                outcome = Outcome(found)
            elif found is not None:
                raise ContextLengthError("the recorded answer was cut where the context window ended")
            else:
                if more:
                    _check_room(current)
                # What a stream has told its reader cannot be told again by another model.
                outcome = yield from _one(current, policy, stream, (more or whole) and not stream)
        except ContextLengthError as error:
            if not more:
                raise
            _log().warning("%s: the context is too long (%s); %s is asked instead",
                           request.model, error, left[0].request.model)  # fmt: skip
            continue
        if current is not call and call.cache is not None:
            pointer = record_of(call.request, {"fallback": request.cache_key})
            yield Do(functools.partial(call.cache.store, pointer, mode=call.storing_mode))
        return outcome


def _asked_of(request: Request, model: str) -> Request:
    """Return the same request to another model."""
    asked = {**request.asked, "model": model}
    key = key_of(request.kind, asked, request.sample)
    return request._replace(model=model, asked=asked, body={**request.body, "model": model}, cache_key=key)


def _fallbacks(client: Client, model: str) -> list[str]:
    """Return the models whose context window may be larger than a model's; an unknown one may."""
    named = client.resolved.settings.fallbacks.get(model, ())
    names = [client.model_named(name) for name in named]
    window = client.capabilities(model).context_window if names else None
    if not window:
        return names
    return [name for name in names if (client.capabilities(name).context_window or window + 1) > window]


def is_cut(record: Record, request: Request) -> bool:
    """Return whether an answer ended at a limit that is not the caller's own."""
    return validate.cut_by_context(record.response, request.asked.get("max_tokens"))


def _check_room(call: PreparedCall) -> None:
    """Refuse a prompt that is known not to fit, before it is sent, where a larger window is left to try."""
    from ..models.tokens import count_tokens

    request, known = call.request, call.client.capabilities(call.request.model)
    if known.context_window is None:
        return
    counted = count_tokens(request.messages, request.model, encoding=known.encoding)
    if not counted.estimated and counted > known.context_window:
        raise ContextLengthError(
            f"the prompt has {counted} tokens, and {request.model} takes {known.context_window}",
            prompt_tokens=int(counted),
            context_window=known.context_window,
        )


class Shareable(Protocol):
    """What single flight needs of a call: of a model, or of a recorded function."""

    @property
    def request(self) -> Request:
        """Return what is asked."""

    @property
    def cache(self) -> ResponseCache | None:
        """Return the disk cache, or ``None`` where the call goes past it."""

    @property
    def storing_mode(self) -> str:
        """Return how the disk cache stores."""

    def stored(self) -> Record | None:
        """Return the answer that the disk cache holds by now, where it may supply it."""


def share(calls: Sequence[Shareable], ask: Callable[[Any], Flow[Outcomes]], policy: RetryPolicy) -> Flow[Outcomes]:
    """Answer calls that are not recorded: as the leader of each request's flight, or by another caller's answer.

    An error of the caller's own deadline, budget or cancellation is not shared: another one takes over.

    :param ask: answers those of them that nobody else does.
    """
    if any(call.cache is None or call.storing_mode == "off" for call in calls):
        return (yield from ask(calls))
    outcomes: Outcomes = {}
    left = {call.request.cache_key: call for call in calls}
    while left:
        followed = yield from _lead(list(left.values()), ask, policy, outcomes)
        left = {}
        for call, flight in followed:
            outcome = yield Wait(flight, policy.time_left())
            if outcome is ALONE:
                outcomes |= yield from ask([call])
            elif outcome is None:
                left[call.request.cache_key] = call
            else:
                outcomes[call.request.cache_key] = copy.deepcopy(outcome)
    return outcomes


def _lead(
    calls: list[Shareable],
    ask: Callable[[Any], Flow[Outcomes]],
    policy: RetryPolicy,
    outcomes: Outcomes,
) -> Flow[list[tuple[Shareable, Flight]]]:
    """Answer the calls that nobody is answering; return the others, each with its flight."""
    led: list[Flight] = []
    followed: list[tuple[Shareable, Flight]] = []
    missing: list[Shareable] = []
    shared: APIError | None = None
    try:
        for call in calls:
            cache = call.cache
            assert cache is not None
            leads, flight = process_flights.join((cache.path, call.request.cache_key))
            if not leads:
                followed.append((call, flight))
                continue
            led.append(flight)
            record = yield from look(cache, call.stored)  # another one may have stored it meanwhile
            if record is None:
                missing.append(call)
            else:
                outcomes[call.request.cache_key] = Outcome(record)
        if missing:
            outcomes |= yield from ask(missing)
    except APIError as error:
        if not policy.ended(error):
            shared = copy.copy(error)  # a traceback belongs to one
            shared.__cause__ = error.__cause__
        raise
    finally:
        for flight in led:
            outcome = outcomes.get(flight.key[1])
            # A copy of what is already its caller's when the others wake up.
            told = Outcome(copy.deepcopy(outcome.record)) if outcome is not None and flight.followers else None
            process_flights.land(flight, told, None if outcome is not None else shared)
    return followed


def _ask(exchange: _Exchange) -> Flow[Outcome]:
    """Ask, count and store."""
    call, request = exchange.call, exchange.request
    sent = yield from _sent(exchange)
    if exchange.wants_room and validate.cut_by_context(sent.response, request.asked.get("max_tokens")):
        _count(call, sent.response, sent.endpoint)
        raise ContextLengthError("the answer was cut where the context window ended", endpoint=sent.endpoint)
    in_turn = call.cache is not None and call.cache.storage.takes_one_at_a_time
    return (yield Do(lambda: _stored(call, sent), in_turn))  # type: ignore[no-any-return]


def _stored(call: PreparedCall, sent: Sent) -> Outcome:
    response = ordered(sent.response)  # as a cassette gives it back: a prompt may quote it
    cost = _count(call, sent.response, sent.endpoint)
    record = record_of(call.request, response, cost=cost, api_type=call.client.api_type, host=sent.host)
    _check_counts(call, sent.response)
    return Outcome(record if call.cache is None else call.cache.store(record, mode=call.storing_mode), sent)


def _count(call: PreparedCall, response: Any, endpoint: str | None, **amounts: Any) -> float | None:
    """Count a response or its tokens, from an endpoint, and amounts; return the response's USD, or ``None``."""
    request = call.request
    tokens = response if isinstance(response, TokenUsage) else TokenUsage.of(response)
    price = call.client.price(request.model, tokens.input_tokens or 0, endpoint)
    cost = None if price is None else price.cost(tokens)
    if price is not None and cost is not None:
        amounts["priced_by"] = price.source
    call.add_usage(**{
        "calls": 1,
        "input_tokens": tokens.input_tokens,
        "cached_input_tokens": tokens.cached_tokens,
        "output_tokens": 0 if request.kind == "embedding" else tokens.output_tokens,
        "cost": cost,
        **amounts,
    })  # fmt: skip
    return cost


def _check_counts(call: PreparedCall, response: Any) -> None:
    """Say so where a server may have cut the prompt, or gave fewer answers than it was asked for."""
    request, reported = call.request, TokenUsage.of(response).input_tokens
    wanted, given = request.asked.get("n", 1), len(response["choices"])
    if given != wanted:
        warn_once(
            f"{request.model} gives {given} of the {wanted} answers that n={wanted} asks for: its server ignores n",
            about=("n", request.model),
        )
    if not reported or not validate.looks_cut(request.messages, reported):
        return
    from ..models.tokens import count_tokens

    counted = count_tokens(request.messages, request.model, encoding=call.client.capabilities(request.model).encoding)
    if reported * 2 < counted:
        warn_once(
            f"{request.model}: the server reports {reported} prompt tokens, and {counted!r} are counted here: the "
            "prompt may have been cut silently, or the server counts otherwise",
            about=("prompt tokens", request.model),
        )


def _retrying(policy: RetryPolicy, sleep: Callable[[float], Any], name: str) -> Retrying:
    """Return tenacity's loop for a policy: ``for attempt in _retrying(…): with attempt: …``.

    The last error is raised as it is, its ``attempts`` set; a wait that would pass the deadline is not begun.
    """
    import tenacity

    waits: dict[int, float] = {}

    def wait(state: RetryCallState) -> float:
        """Return the seconds before the next attempt, the same however often it is asked."""
        # Up to tenacity 8.2 stop is asked before wait, later on after it: whoever comes first draws the jitter.
        number = state.attempt_number
        if number not in waits:
            waits[number] = policy.wait(number, getattr(_error(state), "retry_after", None))
        return waits[number]

    def stop(state: RetryCallState) -> bool:
        """Tell whether there is no further attempt, or no time for one."""
        left = policy.time_left()
        return state.attempt_number >= policy.max_attempts or (left is not None and wait(state) > left)

    return tenacity.Retrying(
        sleep=sleep,
        wait=wait,
        stop=stop,
        retry=_is_worth_another,
        before_sleep=lambda state: _announce(state, policy, name, wait(state)),
        reraise=True,
    )


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _is_worth_another(state: RetryCallState) -> bool:
    error = _error(state)
    if not isinstance(error, APIError):
        return False
    error.attempts = state.attempt_number
    return error.retryable


def _announce(state: RetryCallState, policy: RetryPolicy, name: str, seconds: float) -> None:
    """Tell of the first failed attempt of its kind at an endpoint; the others are counted, as retries."""
    error = _error(state)
    kind, endpoint = type(error).__name__, getattr(error, "endpoint", None) or "the endpoint"
    told = (
        f"{name}: attempt {state.attempt_number} of {policy.max_attempts} failed at {endpoint} ({kind}: {error}); "
        f"trying again in {seconds:.2f} s"
    )
    if not warn_once(f"{told} (further ones are counted in llmcall.usage())", about=("retry", endpoint, kind)):
        _log().debug("%s", told)


def _sent(exchange: _Exchange) -> Flow[Sent]:
    """Send a request until there is an answer or the policy ends; count what failed."""
    call, pauses = exchange.call, []  # type: ignore[var-annotated]
    body = sent_body(exchange.request.body, call.client.capabilities(exchange.request.model))
    if exchange.stream:
        body["stream_options"] = {"include_usage": True}
    try:
        for attempt in _retrying(exchange.policy, pauses.append, exchange.name):
            if pauses:
                yield Sleep(pauses.pop())
            sent: Sent | None = None
            with attempt:
                sent = yield from _attempt(exchange, body, attempt.retry_state.attempt_number)
            left = _error(attempt.retry_state)
            if left is not None and not isinstance(left, Exception):
                raise left  # at once: where garbage is collected, tenacity's generator may have ended before this one
            if sent is not None:
                if attempt.retry_state.attempt_number > 1:
                    call.add_usage(retries=attempt.retry_state.attempt_number - 1)
                return sent
    except APIError as error:
        call.add_usage(errors=1, retries=error.attempts - 1)
        raise
    raise AssertionError("the loop ends with an answer, or raises")


def _attempt(exchange: _Exchange, body: dict[str, Any], number: int) -> Flow[Sent]:
    """Send to one endpoint after the other until one answers or refuses; ``body`` loses what is unsupported."""
    call, client, refused = exchange.call, exchange.call.client, set[str]()
    request = exchange.request._replace(body=body)
    while True:
        with Admission(
            request,
            client.capabilities(request.model),
            exchange.pool,
            Limits.of(call.settings),
            lambda tokens, endpoint: client.price(request.model, tokens, endpoint),
            exchange.policy.deadline_at,
            time.monotonic,
        ) as admission:
            endpoint = yield from admission.acquire()
            begun = time.monotonic()
            try:
                response = yield from _response(exchange, endpoint, body, admission)
            except APIError as error:
                error.endpoint = endpoint.name
                if not _recover(exchange, endpoint, body, error, refused):
                    raise
            except BaseException:
                used = admission.abandon()
                if used is not None:  # a model answered, and what it said is billed
                    _count(call, used, endpoint.name, retries=number - 1)
                raise
            else:
                seconds = time.monotonic() - begun
                _log().debug("%s: %s answered in %.2f s", exchange.name, endpoint.name, seconds)
                return Sent(response, endpoint.name, client.host(endpoint), seconds)


def _response(exchange: _Exchange, endpoint: Endpoint, body: dict[str, Any], admission: Admission) -> Flow[Any]:
    """Send a request once, and check what comes."""
    request = exchange.request._replace(body=loads(dumps(body)))  # a transport may change what it is given
    timeout, transport = exchange.seconds(), exchange.call.client.transport_of(endpoint)
    if exchange.stream:
        chunks = yield Open(transport, request, timeout)
        if chunks is not None:
            return (yield from _streamed(exchange, chunks, admission))
        whole = {name: value for name, value in request.body.items() if name != "stream_options"}
        request = request._replace(body=whole)
    response = yield Send(transport, request, timeout)
    _check(exchange, response, admission)
    yield from admission.settle(response)
    if exchange.stream:
        from ..responses.streaming import text_pieces

        yield Emit("".join(text_pieces(response)))
    return response


def _streamed(exchange: _Exchange, chunks: Any, admission: Admission) -> Flow[Any]:
    from ..responses.streaming import Assembler

    assembler, begun, head, collected = Assembler(), False, Response({}), False
    try:
        while (chunk := (yield Next(chunks, exchange.seconds()))) is not END:
            if isinstance(chunk, Response) and not chunk:  # what came before the first chunk
                head = chunk
                continue
            text = assembler.add(chunk)
            admission.observe(chunk)
            if text:
                begun = True
                yield Emit(text)
        response = Response(assembler.response(), head.request_id, head.headers)
        _check(exchange, response, admission)
        yield from admission.settle(response)
    except APIError as error:
        if begun:
            error.retryable = False  # the reader has the first half already
        raise
    except GeneratorExit:  # the garbage collector found a cycle, whose parts it ends in any order: chunks too
        collected = True
        raise
    finally:
        if not collected:
            yield Close(chunks)
    return response


def _check(exchange: _Exchange, response: Any, admission: Admission) -> None:
    """Raise where a response is no answer; what it reports as used is billed all the same, and so counted."""
    request = exchange.request
    try:
        if request.kind == "chat":
            validate.check_chat(response)
            if not (exchange.wants_room and validate.cut_by_context(response, request.asked.get("max_tokens"))):
                validate.check_fits(request, response)
        else:
            validate.check_embeddings(response, len(request.body["input"]))
    except APIError:
        if admission.billed(response):
            _count(exchange.call, response, admission.endpoint, calls=0)
        raise


def _recover(exchange: _Exchange, endpoint: Endpoint, body: dict[str, Any], error: APIError, refused: set[str]) -> bool:
    """Return whether the same attempt can go on: with another endpoint, a fresh token, or without a parameter.

    :param endpoint: the one that refused.
    :param body: what was sent; it loses what is unsupported.
    :param refused: which endpoints refused in this attempt, and how; grows. None may do so twice in the same way.
    """
    if isinstance(error, RateLimitError) and not isinstance(error, QuotaExceededError):
        return _passed_on(exchange, endpoint, body, error, refused)
    if isinstance(error, AuthenticationError):
        # A function gives the key: api_key=, azure_ad_token_provider= or Entra ID.
        renewable = getattr(exchange.call.client.transport_of(endpoint), "renewable", False)
        if renewable and error.status_code == 401 and _is_new(refused, f"401 {endpoint.name}"):
            return True
        remains = exchange.pool.leave_out(endpoint, time.monotonic())
        if remains:
            _log().warning(
                "endpoint %s refused its key and is left out for %.0f minutes: %s", endpoint.name, LEFT_OUT / 60, error
            )
        return remains
    return isinstance(error, InvalidRequestError) and _drop_unsupported(body, error)


def _is_new(refused: set[str], how: str) -> bool:
    known = how in refused
    refused.add(how)
    return not known


def _passed_on(
    exchange: _Exchange, endpoint: Endpoint, body: dict[str, Any], error: APIError, refused: set[str]
) -> bool:
    """Let an endpoint rest; return whether another one, or the first that has rested, is asked in its place."""
    now, pool = time.monotonic(), exchange.pool
    seconds = _rest(exchange, endpoint, body, error, now)
    another = pool.rest(endpoint, now + seconds)
    if not error.retryable:
        return False  # a stream's reader has the first half already
    if another and _is_new(refused, f"429 {endpoint.name}"):
        kind = type(error).__name__
        warn_once(
            f"{exchange.name}: endpoint {endpoint.name} rests for {seconds:.2f} s ({kind}: {error}); another is asked, "
            "and whenever it rests again",
            about=("rests", endpoint.name),
        )
        return True
    if len(pool.endpoints) > 1:
        error.retry_after = pool.free_after(now)
    return False


def _rest(exchange: _Exchange, endpoint: Endpoint, body: dict[str, Any], error: APIError, now: float) -> float:
    """Return the seconds that an endpoint rests: those it asked for, else some, in which another may be asked.

    Where it asked for none, but said what is left of its limits, it rests until there is enough for the call, which
    does not come back before either.
    """
    if error.retry_after is not None:
        return error.retry_after
    own = REST if len(exchange.pool.endpoints) > 1 else exchange.policy.waiting_time
    if not error.quotas:
        return own
    model = exchange.request.model
    needed = estimate(exchange.request.kind, body, exchange.call.client.capabilities(model))
    refill = exchange.pool.set_quotas(endpoint, error.quotas, needed, model, now)
    error.retry_after = refill or None
    return max(own, refill)


def _drop_unsupported(body: dict[str, Any], error: APIError) -> bool:
    """Take the parameter that the API says it does not support out of the body; say so."""
    if "stream_options" in str(error) and body.pop("stream_options", None):
        return True  # an older server; the usage is then unknown
    name = error.param
    if error.code not in UNSUPPORTED or not isinstance(name, str) or name in ("model", "messages", "input"):
        return False
    if name == "max_tokens" and name in body and "max_completion_tokens" not in body:
        body["max_completion_tokens"] = body.pop(name)
        return True
    if body.pop(name, None) is None:
        return False
    model = body.get("model")
    warn_once(f"{model} does not support {name}, which is dropped: {error}", about=("unsupported", model, name))
    return True


def embed(calls: Sequence[PreparedCall]) -> Flow[list[list[float]]]:
    """Return the vectors of texts, one call each, asking in batches for those that are not recorded."""
    records: dict[str, Record] = {}
    hits: list[Record] = []
    missing: list[PreparedCall] = []
    for call in calls:
        record = yield from look(call.resolved.cache, functools.partial(lookup, call))
        if record is None:
            missing.append(call)
        else:
            records[call.request.cache_key] = record
            hits.append(record)
    if missing:
        policy = RetryPolicy.of(missing[0].options, missing[0].settings)
        outcomes = yield from share(missing, functools.partial(_ask_in_batches, policy=policy), policy)
        for call in missing:
            outcome = outcomes[call.request.cache_key]
            records[call.request.cache_key] = call.keep(outcome.record)
            if outcome.sent is None:
                hits.append(outcome.record)
    if hits:
        costs = [record.cost for record in hits]
        calls[0].add_usage(cached_calls=1, saved=None if None in costs else sum(cost or 0.0 for cost in costs))
    return [vector(records[call.request.cache_key]) for call in calls]


def _ask_in_batches(calls: Sequence[PreparedCall], policy: RetryPolicy) -> Flow[Outcomes]:
    outcomes: Outcomes = {}
    for batch in _batches({call.request.cache_key: call for call in calls}.values()):
        first, texts = batch[0], [call.request.body["input"] for call in batch]
        request = first.request._replace(body={**first.request.body, "input": texts})
        sent = yield from _sent(_Exchange(first, request, policy))
        for record in (yield Do(functools.partial(_stored_vectors, batch, texts, sent))):
            outcomes[record.cache_key] = Outcome(record, sent)
    return outcomes


def _batches(calls: Any) -> Iterator[list[PreparedCall]]:
    batch: list[PreparedCall] = []
    size = 0
    for call in calls:
        length = len(call.request.body["input"].encode())
        if batch and (len(batch) == TEXTS_PER_BATCH or size + length > BYTES_PER_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(call)
        size += length
    if batch:
        yield batch


def _stored_vectors(batch: list[PreparedCall], texts: list[str], sent: Sent) -> list[Record]:
    cost = _count(batch[0], sent.response, sent.endpoint)
    tokens = TokenUsage.of(sent.response).input_tokens
    parts = [None] * len(batch) if tokens is None else shares(tokens, texts)
    vectors = [_packed(item["embedding"]) for item in _in_order(sent.response["data"])]
    _check_dimensions(batch[0].request, len(vectors[0]) // array("f").itemsize)
    records = []
    for call, packed, part in zip(batch, vectors, parts, strict=True):
        response: dict[str, Any] = {"model": sent.response.get("model"), "embedding": packed}
        if part is not None:
            response["usage"] = {"prompt_tokens": part, "total_tokens": part}
        own = cost * part / tokens if cost and part and tokens else cost and 0.0
        record = record_of(call.request, response, cost=own, api_type=call.client.api_type, host=sent.host)
        records.append(record if call.cache is None else call.cache.store(record, mode=call.storing_mode))
    return records


def _check_dimensions(request: Request, given: int) -> None:
    wanted = request.asked.get("dimensions")
    if wanted is not None and given != wanted:
        warn_once(
            f"{request.model} gives {given} dimensions, not the {wanted} asked for: its server ignores dimensions",
            about=("dimensions", request.model),
        )


def _in_order(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the vectors in the order of the texts; servers that number none of them, or all with 0, keep it."""
    indexes = [index if isinstance(index := item.get("index"), int) else 0 for item in data]
    if any(indexes) and sorted(indexes) != list(range(len(data))):
        raise ServiceError(f"a malformed answer: {len(data)} embeddings with the indexes {indexes}")
    return [item for _, item in sorted(zip(indexes, data, strict=True), key=lambda numbered: numbered[0])]


def _packed(embedding: Any) -> bytes:
    """Return a vector as little-endian float32, whether it came as numbers or as base64 of the same."""
    try:
        if not isinstance(embedding, str):
            return _little_endian(array("f", embedding)).tobytes()
        packed = base64.b64decode(embedding, validate=True)
        array("f").frombytes(packed)
    except (TypeError, ValueError, OverflowError) as error:
        raise ServiceError(f"a malformed answer: an embedding that is no list of numbers ({error})") from error
    return packed


def _little_endian(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def vector(record: Record) -> list[float]:
    """Return a record's embedding as numbers, each rounded to float32."""
    numbers = array("f")
    numbers.frombytes(record.response["embedding"])
    return _little_endian(numbers).tolist()


def _log() -> Any:
    import logging

    return logging.getLogger("llmcall")
