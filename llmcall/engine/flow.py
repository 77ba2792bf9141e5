"""The road of a request that nobody has answered yet: single flight, pool, retry, transport, record."""

from __future__ import annotations

import copy
import functools
import time
from marshal import dumps, loads
from typing import TYPE_CHECKING, Any

from ..cassettes.format import ordered
from ..errors import APIError, ContextLengthError, RequestTimeoutError
from ..requests.parameters import sent_body
from ..responses import validate as answers
from ..types import Answer, Response, Sent, record_of
from .calls import Call, time_left
from .effects import ALONE, END, Close, Do, Emit, Next, Open, Send, Sleep, Wait, look
from .limits import Admission
from .recourse import another_way
from .retry import RetryPolicy, retrying
from .single_flight import process_flights

if TYPE_CHECKING:
    from ..config.settings import Endpoint
    from .effects import Flow
    from .single_flight import Flight

__all__ = ["Answer", "Sent", "answer", "exchange", "shareable"]


def answer(call: Call) -> Flow[Answer]:
    """Answer a request that is not recorded: as the leader of its flight, or by another caller's answer."""
    if call.cache is None or call.mode == "off" or call.stream:
        return (yield from _asked(call))
    while True:
        leads, flight = process_flights.join((call.cache.path, call.request.cache_key))
        if leads:
            return (yield from _led(call, flight))
        shared = yield Wait(flight, time_left(call.policy))
        if shared is ALONE:
            return (yield from _asked(call))
        if shared is not None:
            call.count(cached_calls=1, saved=shared.record.cost)
            return Answer(copy.deepcopy(shared.record))


def _led(call: Call, flight: Flight) -> Flow[Answer]:
    """Answer for all who follow, by what came since it was looked up, or by asking."""
    assert call.cache is not None
    outcome: Answer | None = None
    shared: APIError | None = None
    try:
        found = yield from look(call.cache, functools.partial(call.cache.get, call.request, mode=call.mode))
        if found is None or "fallback" in found.response:
            outcome = yield from _asked(call)
        else:
            outcome = Answer(found)
            call.count(cached_calls=1, saved=found.cost)
    except APIError as error:
        shared = None if _own_deadline(call.policy) else shareable(error)
        raise
    finally:
        process_flights.land(flight, outcome and (_shared(outcome) if flight.followers else None), shared)
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
    in_turn = call.cache is not None and call.cache.storage.takes_one_at_a_time
    return (yield Do(lambda: _recorded(call, sent), in_turn))  # type: ignore[no-any-return]


def _recorded(call: Call, sent: Sent) -> Answer:
    response = ordered(sent.response)  # as a cassette gives it back: a prompt may quote it
    record = record_of(call.request, response, cost=call.count(sent.response), api_type=call.api_type, host=sent.host)
    if not call.whole(sent.response):
        return Answer(record, sent, whole=False)
    return Answer(record if call.cache is None else call.cache.store(record, mode=call.mode), sent)


def exchange(call: Call) -> Flow[Sent]:
    """Send until there is an answer or the policy ends."""
    pauses: list[float] = []
    body = sent_body(call.request.body, call.capabilities)
    if call.stream:
        body["stream_options"] = {"include_usage": True}
    first: APIError | None = None
    try:
        return (yield from _attempt(call, body, 1))
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
            sent = yield from _attempt(call, body, attempt.retry_state.attempt_number)
        if sent is not None:
            call.count(retries=attempt.retry_state.attempt_number - 1)
            return sent
    raise AssertionError("the loop ends with an answer, or raises")


def _attempt(call: Call, body: dict[str, Any], number: int) -> Flow[Sent]:
    """Send to one endpoint after the other until one answers or refuses; ``body`` loses what is unsupported."""
    renewed: set[str] = set()
    while True:
        with _admission(call, body) as admission:
            endpoint = yield from admission.acquire()
            begun = time.monotonic()
            try:
                response = yield from _sent(call, endpoint, body, admission)
            except APIError as error:
                error.endpoint = endpoint.name
                if not another_way(call, endpoint, body, error, renewed, time.monotonic()):
                    raise
            except BaseException:
                _count_left(call, admission, number)
                raise
            else:
                seconds = time.monotonic() - begun
                _say("%s: %s answered in %.2f s", _name(call), endpoint.name, seconds)
                return Sent(response, endpoint.name, call.host(endpoint), seconds)


def _count_left(call: Call, admission: Admission, number: int) -> None:
    """Count a call whose caller leaves while it is answered: a model answered, and what it said is billed."""
    used = admission.abandon()
    if used is not None:
        call.count(used, retries=number - 1)


def _say(message: str, *values: object) -> None:
    _log().debug(message, *values)


@functools.cache
def _log() -> Any:
    """Return the logger: asked for at each call, Ctrl-C might leave logging's own lock held (Python before 3.13)."""
    import logging

    return logging.getLogger("llmcall")


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
    yield from admission.settle(response)
    if call.stream:
        from ..responses.streaming import text_pieces

        yield Emit("".join(text_pieces(response)))
    return response


def _streamed(call: Call, chunks: Any, timeout: float | None, admission: Admission) -> Flow[Any]:
    from ..responses.streaming import Assembler

    assembler, begun, head, collected = Assembler(), False, Response({}), False
    try:
        while (chunk := (yield Next(chunks, _time_for(timeout, call.policy)))) is not END:
            if isinstance(chunk, Response) and not chunk:  # what came before the first chunk
                head = chunk
                continue
            text = assembler.add(chunk)
            admission.observe(chunk)
            if text:
                begun = True
                yield Emit(text)
        response = Response(assembler.response(), head.request_id, head.headers)
        _check(call, response, admission)
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


def _check(call: Call, response: Any, admission: Admission) -> None:
    """Raise where a response is no answer; what it reports as used is billed all the same, and so counted."""
    try:
        if call.request.kind == "chat":
            answers.check_chat(response)
            if not (call.wants_room and answers.cut_by_context(response, call.request.asked.get("max_tokens"))):
                answers.check_fits(call.request, response)
        else:
            answers.check_embeddings(response, len(call.request.body["input"]))
    except APIError:
        if admission.billed(response):
            call.count(response, calls=0)
        raise


def _name(call: Call) -> str:
    return f"{call.request.kind} request {call.request.cache_key[:12]} to {call.request.model}"


def _time_for(timeout: float | None, policy: RetryPolicy) -> float | None:
    """Return the seconds that an attempt, or the wait for the next chunk, may take: not more than the call has left."""
    left = time_left(policy)
    if left is not None and left <= 0:
        raise RequestTimeoutError("the call's deadline passed")
    return left if timeout is None else timeout if left is None else min(left, timeout)
