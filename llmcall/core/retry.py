"""Attempts: which models are tried, and how often and when a failed call is retried.

Whether it may be is the error's ``retryable``, set where the error is made: for an API's errors in
``clients/api_errors.py``. How long to wait, and whether an attempt is left, is ``pause_after``.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ..errors import APIError, ContextLengthError, RateLimitError
from ..stores.record import Received, Record
from ..support.display import sentence
from ..support.notices import logger, warn_once
from ..support.waits import check_stops, waits
from .calls import Call
from .effects import Look, Wait
from .kinds import Kind
from .seams import AlreadyRecorded, Response
from .send import Exchange

JITTER = 0.25  # the largest share of a wait that is added at random
# After a 429 that names no wait, waits are this times longer: with the defaults, four of them (5, 10, 20 and
# 40 s) last longer than the minute of most limits.
LIMIT_FACTOR = 5

T = TypeVar("T")
log = logger()
# The system's: our waits must change neither what a seed draws nor which generators a program makes.
_random = random.SystemRandom()


async def send_and_store(calls: Sequence[Call]) -> dict[str, Record]:
    """Send calls or, if the context is too long, try the fallbacks; store the answer."""
    kind = calls[0].kind
    call = kind.joined(calls)
    models = [*call.fallbacks]
    while True:
        exchange = Exchange(
            call,
            functools.partial(_store, kind, calls),
            # The reader of a stream has read one model's text: no other can replace it.
            must_fit_window=bool(models) and not call.is_streamed,
        )
        try:
            records, sent = await retry(call, exchange.attempt)
            break
        except AlreadyRecorded:
            found = await Look(call.store, call.request)
            return {} if found is None else {call.request.cache_key: found}
        except ContextLengthError as error:
            if not models:
                raise
            model = models.pop(0)
            logger().warning(
                "%s: the context is too long (%s); calling %s instead",
                call.request.model,
                error,
                model,
            )
            call = call.to_model(model)
            calls = [call]
    await sent.finish(is_stored=True)
    return {record.cache_key: record for record in records}


def _store(
    kind: Kind, calls: Sequence[Call], response: Response, received: Received
) -> list[Record]:
    """Record an answer; return the records that count, with the receipt of this call's own answer: another
    process may have been quicker, whose answer then counts, unless this one is a stream's.
    """
    records = []
    for call, record in zip(calls, kind.records(calls, response, received), strict=True):
        stored = call.store.add(record)  # no other code has it yet
        stored.received = received
        records.append(stored)
    for call, record in zip(calls, records, strict=True):
        call.notify("stored", record)
    return records


async def retry(call: Call, attempt: Callable[[], Awaitable[T]]) -> T:
    """Make attempts until one succeeds or the rule or the deadline forbids another, and return its result.

    :param attempt: makes one attempt.
    :raises APIError: the last attempt's, with ``attempts`` set.
    """
    for number in itertools.count(1):
        try:
            return await attempt()
        except APIError as error:
            error.attempts = number
            seconds = pause_after(error, call)
            if seconds is None:
                raise
            check_stops(waits().stops)
            _announce(call, error, seconds)
        await Wait(None, seconds)
    raise AssertionError("the last error is raised above")


def pause_after(error: APIError, call: Call) -> float | None:
    """Return the seconds to wait after a failed attempt: exponentially more, or as the server says. Return ``None`` if
    no other attempt may follow.

    :param error: the attempt's; its ``attempts`` are how many were made.
    """
    options = call.options
    if not error.retryable or options.max_attempts == 1:  # as of a recorded function
        return None
    from ..support.libraries import tenacity

    state = tenacity.RetryCallState(None, None, (), {})  # type: ignore[arg-type] # of no Retrying
    state.attempt_number = error.attempts
    if tenacity.stop_after_attempt(options.max_attempts)(state):
        return None
    is_limit = isinstance(error, RateLimitError) and error.retry_after is None
    exponential = tenacity.wait_exponential(
        multiplier=options.waiting_time * (LIMIT_FACTOR if is_limit else 1),
        exp_base=options.exponential_backoff_factor,
        max=call.settings.retry_max_waiting_time,
    )
    jitter = 1 + JITTER * _random.random()
    seconds = max(exponential(state) * jitter, error.retry_after or 0.0)
    seconds_left = call.deadline.time_left()
    if seconds_left is not None and seconds > seconds_left:
        error.note(is_late=True)
        return None
    return seconds


def _announce(call: Call, error: APIError, seconds: float) -> None:
    """Log an attempt that failed: a warning for the first of its kind at an endpoint."""
    error_name = type(error).__name__
    endpoint = error.endpoint or "the endpoint"
    line = (
        f"{call.label} failed at {endpoint} (attempt {error.attempts} of {call.options.max_attempts}): "
        f"{error_name}: {sentence(error)} Retrying in {seconds:.2f} s"
    )
    is_first = warn_once(
        f"{line}. llmcall.usage() counts further retries", about=("retry", endpoint, error_name)
    )
    if not is_first:
        log.debug("%s", line)
