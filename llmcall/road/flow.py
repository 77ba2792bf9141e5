"""The road of a request that nobody has answered yet: single flight, pool, retry, transport, record."""

from __future__ import annotations

import copy
import time
from marshal import dumps, loads
from typing import TYPE_CHECKING, Any, NamedTuple

from ..admission.entrance import Admission
from ..admission.limits import NO_LIMITS, Limits
from ..admission.recourse import another_way
from ..answers import completeness as answers
from ..errors import APIError, ContextLengthError, RequestTimeoutError
from ..lines.references import ordered
from ..requests.parameters import sent_body
from ..types import Answer, Response, Sent, record_of
from .effects import ALONE, END, Close, Do, Emit, Next, Open, Send, Sleep, Wait
from .retry import RetryPolicy, retrying

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..admission.pools import Pool
    from ..config.current import Endpoint
    from ..models.facts import Capabilities
    from ..storage.cache import ResponseCache
    from ..types import Request
    from .effects import Flow
    from .flights import Flight

__all__ = ["Answer", "Call", "Sent", "answer", "exchange", "shareable", "time_left"]

class Call(NamedTuple):
    """Hold all that the road needs to know of one call.

    :param request: what is asked.
    :param cache: where it is recorded; ``None`` where the disk takes no part.
    :param mode: the cache's mode.
    :param pool: the endpoints that serve the model.
    :param transport: gives the transport of an endpoint.
    :param capabilities: what is known of the model.
    :param policy: how often and when it is tried again.
    :param timeout: seconds for one attempt, or ``None``.
    :param whole: tells whether the server read the whole prompt, as far as a response's token counts show.
    :param count: adds a response, or amounts, to the usage; gives the response's USD, or ``None``.
    :param api_type: recorded beside the answer.
    :param host: gives the host of an endpoint, recorded likewise.
    :param stream: whether the text is handed on as it comes.
    :param wants_room: whether an answer that the context window cut is an error: there is a larger one to try.
    :param limits: of each endpoint.
    :param price: gives, for a number of prompt tokens, USD per million tokens in and out, or ``None``.
    """

    request: Request
    cache: ResponseCache | None
    mode: str
    pool: Pool
    transport: Callable[[Endpoint], Any]
    capabilities: Capabilities
    policy: RetryPolicy
    timeout: float | None
    whole: Callable[[Any], bool]
    count: Callable[..., float | None]  # type: ignore[assignment]
    api_type: str
    host: Callable[[Endpoint], str]
    stream: bool = False
    wants_room: bool = False
    limits: Limits = NO_LIMITS
    price: Callable[[int], tuple[float, float] | None] = lambda tokens: None


def answer(call: Call) -> Flow[Answer]:
    """Answer a request that is not recorded: as the leader of its flight, or by another caller's answer."""
    if call.cache is None or call.mode == "off" or call.stream:
        return (yield from _asked(call))
    while True:
        leads, flight = call.cache.flights.join(call.request.cache_key)
        if leads:
            found = call.cache.get(call.request, mode=call.mode)  # it may have come since it was looked up
            if found is None or "fallback" in found.response:
                return (yield from _led(call, flight))
            shared = Answer(found)
            call.cache.flights.land(flight, shared)
            call.count(cached_calls=1, saved=found.cost)
            return shared
        shared = yield Wait(flight, time_left(call.policy))
        if shared is ALONE:
            return (yield from _asked(call))
        if shared is not None:
            call.count(cached_calls=1, saved=shared.record.cost)
            return Answer(copy.deepcopy(shared.record))


def _led(call: Call, flight: Flight) -> Flow[Answer]:
    assert call.cache is not None
    outcome: Answer | None = None
    shared: APIError | None = None
    try:
        outcome = yield from _asked(call)
    except APIError as error:
        shared = None if _own_deadline(call.policy) else shareable(error)
        raise
    finally:
        call.cache.flights.land(flight, outcome, shared, _shared)
    return outcome


def _shared(outcome: Answer) -> Answer:
    """Return a leader's answer for the others, with a copy of what is already its caller's when they wake up."""
    return outcome._replace(record=outcome.record._replace(response=copy.deepcopy(outcome.record.response)), sent=None)


def shareable(error: APIError) -> APIError:
    """Return a copy of an error for another caller to raise: a traceback belongs to one."""
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied


def _own_deadline(policy: RetryPolicy) -> bool:
    """Return whether the caller's own deadline may have ended its call: whoever follows then takes over."""
    return policy.deadline_at is not None


def _asked(call: Call) -> Flow[Answer]:
    """Ask, count and record."""
    try:
        sent = yield from exchange(call)
    except APIError as error:
        call.count(errors=1, retries=error.attempts - 1)
        raise
    if call.wants_room and answers.cut_by_context(sent.response, call.request.asked.get("max_tokens")):
        call.count(sent.response)
        raise ContextLengthError("the answer was cut where the context window ended", endpoint=sent.endpoint)
    in_turn = call.cache is not None and call.cache.store.takes_one_at_a_time
    return (yield Do(lambda: _recorded(call, sent), in_turn))  # type: ignore[no-any-return]


def _recorded(call: Call, sent: Sent) -> Answer:
    response = ordered(sent.response)  # as a cassette gives it back: a prompt may quote it
    record = record_of(
        call.request, response, cost=call.count(sent.response), api_type=call.api_type, host=sent.host
    )
    if not call.whole(sent.response):
        return Answer(record, sent, whole=False)
    return Answer(record if call.cache is None else call.cache.keep(record, mode=call.mode), sent)


def exchange(call: Call) -> Flow[Sent]:
    """Send until there is an answer or the policy ends."""
    pauses: list[float] = []
    body = sent_body(call.request.body, call.capabilities)
    if call.stream:
        body["stream_options"] = {"include_usage": True}
    first: APIError | None = None
    try:
        return (yield from _attempt(call, body))
    except APIError as error:  # so rarely that nothing is made ready for it
        first = error
    for attempt in retrying(call.policy, pauses.append, time.monotonic, _name(call)):
        if pauses:
            yield Sleep(pauses.pop())
        sent: Sent | None = None
        with attempt:
            if first is not None:
                failed, first = first, None
                raise failed
            sent = yield from _attempt(call, body)
        if sent is not None:
            call.count(retries=attempt.retry_state.attempt_number - 1)
            return sent
    raise AssertionError("the loop ends with an answer, or raises")


def _attempt(call: Call, body: dict[str, Any]) -> Flow[Sent]:
    """Send to one endpoint after the other until one answers or refuses; ``body`` loses what is unsupported."""
    renewed: set[str] = set()
    while True:
        with _admission(call, body) as admission:
            endpoint = yield from admission.enter()
            begun = time.monotonic()
            try:
                response = yield from _sent(call, endpoint, body, admission)
            except APIError as error:
                error.endpoint = endpoint.name
                if not another_way(call, endpoint, body, error, renewed, time.monotonic()):
                    raise
            else:
                seconds = time.monotonic() - begun
                _say("%s: %s answered in %.2f s", _name(call), endpoint.name, seconds)
                return Sent(response, endpoint.name, call.host(endpoint), seconds)


def _say(message: str, *values: object) -> None:
    import logging

    logging.getLogger("llmcall").debug(message, *values)


def _admission(call: Call, body: dict[str, Any]) -> Admission:
    request = call.request._replace(body=body)
    deadline = call.policy.deadline_at
    return Admission(request, call.capabilities, call.pool, call.limits, call.price, deadline, time.monotonic)


def _sent(call: Call, endpoint: Endpoint, body: dict[str, Any], admission: Admission) -> Flow[Any]:
    request = call.request._replace(body=loads(dumps(body)))  # a transport may change what it is given
    timeout = _time_for(call.timeout, call.policy)
    transport = call.transport(endpoint)
    if call.stream:
        chunks = yield Open(transport, request, timeout)
        if chunks is not None:
            return (yield from _streamed(call, chunks, timeout, admission))
        whole = {name: value for name, value in request.body.items() if name != "stream_options"}
        request = request._replace(body=whole)
    response = yield Send(transport, request, timeout)
    _check(call, response, admission)
    yield from admission.answered(response)
    if call.stream:
        from ..answers.assembly import text_pieces

        yield Emit("".join(text_pieces(response)))
    return response


def _streamed(call: Call, chunks: Any, timeout: float | None, admission: Admission) -> Flow[Any]:
    from ..answers.assembly import Assembler

    assembler, begun, head = Assembler(), False, Response({})
    try:
        while (chunk := (yield Next(chunks, _time_for(timeout, call.policy)))) is not END:
            if isinstance(chunk, Response) and not chunk:  # what came before the first chunk
                head = chunk
                continue
            text = assembler.add(chunk)
            if text:
                begun = True
                admission.hear(text)
                yield Emit(text)
        response = Response(assembler.response(), head.request_id, head.headers)
        _check(call, response, admission)
        yield from admission.answered(response)
    except APIError as error:
        if begun:
            error.retryable = False  # the reader has the first half already
        raise
    finally:
        yield Close(chunks)
    return response


def _check(call: Call, response: Any, admission: Admission) -> None:
    """Raise where a response is no answer; what it reports as used is billed all the same, and so counted."""
    try:
        if call.request.kind == "chat":
            answers.check_chat(response)
        else:
            answers.check_embeddings(response, len(call.request.body["input"]))
    except APIError:
        if admission.billed(response):
            call.count(response, calls=0)
        raise


def _name(call: Call) -> str:
    return f"{call.request.kind} request {call.request.cache_key[:12]} to {call.request.model}"


def time_left(policy: RetryPolicy) -> float | None:
    """Return the seconds until a call's deadline, or ``None`` where it has none."""
    return None if policy.deadline_at is None else policy.deadline_at - time.monotonic()


def _time_for(timeout: float | None, policy: RetryPolicy) -> float | None:
    """Return the seconds that an attempt, or the wait for the next chunk, may take: not more than the call has left."""
    left = time_left(policy)
    if left is not None and left <= 0:
        raise RequestTimeoutError("the call's deadline passed")
    return left if timeout is None else timeout if left is None else min(left, timeout)
