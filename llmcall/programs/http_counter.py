"""Counts HTTP requests, which are recorded as they are, in usage, budgets and limits."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..call.attempt import REST_SECONDS
from ..call.effects import Close, Emit, Next, Send
from ..call.permit import Permit
from ..call.usage import amounts_of_answer, count, served_amount
from ..errors import APIError, RateLimitError
from ..recorded_functions import UnrecordedAnswer
from ..values import read_http_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..call.attempt import RetryPolicy
    from ..call.effects import Flow
    from ..call.usage import UsageDelta
    from ..clients.openai import OpenAIClient
    from ..recorded_functions import FunctionCall
    from ..values import Record


class HttpCounter:
    """Counts one HTTP request by the usage that its answer reports.

    :param client: the client of the request's address.
    :param host: the host's name, under which the request counts if its body names no model.
    :param body: the parsed body that is sent.
    :param model: that is asked; ``None`` if the request asks none: it counts as a call only.
    """

    def __init__(self, client: OpenAIClient, host: str, body: Any, model: Any) -> None:
        self._client = client
        self._body = body
        self._is_model = model is not None
        self._model = model if isinstance(model, str) and model else host

    def attempt(self, call: FunctionCall, policy: RetryPolicy, number: int) -> Flow[Any]:
        """Send the request once, as soon as budgets and limits allow it, and return its answer."""
        if number > 1:
            self._count(call, {"retries": 1})
        pool = self._client.pool(self._model)
        request = call.request._replace(model=self._model, body=self._body)
        with closing(Permit(pool, policy.time_left, calls_only=not self._is_model)) as permit:
            endpoint = yield from permit.acquire(request)
            try:
                value = yield Send(call, call.request, policy.time_left())
                if not isinstance(value, dict):
                    value = yield from _passed_on(value, policy)
            except UnrecordedAnswer:
                self._count_answer(call, permit, endpoint.name, body="")  # it reports no usage
                raise
            except RateLimitError as error:
                pool.rest(endpoint, time.monotonic() + (error.retry_after or REST_SECONDS))
                raise
            self._count_answer(call, permit, endpoint.name, value["body"])
        return value

    def _count_answer(self, call: FunctionCall, permit: Permit, endpoint: str, body: str) -> None:
        """Count what an answer used, in limits, budgets and usage.

        :param endpoint: the name of the endpoint that answered.
        :param body: the answer's.
        """
        answer = read_http_answer(body)
        usage, service_tier = answer.usage, answer.service_tier
        permit.use(usage, endpoint, service_tier=service_tier)
        amounts: dict[str, Any] = {"calls": 1}
        if self._is_model:
            pool = self._client.pool(self._model)
            amounts = amounts_of_answer(
                usage,
                pool.price(usage.input_tokens or 0, endpoint, service_tier),
                served=answer.model,
            )
        self._count(call, amounts)

    def cost(self, value: Mapping[str, Any]) -> float | None:
        """Return the USD that an answer cost, or ``None`` if that is unknown."""
        if not self._is_model:
            return 0.0
        answer = read_http_answer(value["body"])
        pool = self._client.pool(self._model)
        price = pool.price(answer.usage.input_tokens or 0, service_tier=answer.service_tier)
        return None if price is None else price.cost(answer.usage)

    def count_hit(self, call: FunctionCall, record: Record) -> None:
        """Count an answer that is recorded, or that an identical request got."""
        served = served_amount(record.served) if self._is_model else {}
        self._count(
            call,
            {
                "cached_calls": 1,
                "replayed_calls": 1 if call.is_replay(record) else 0,
                "saved": record.cost,
                **served,
            },
        )

    def count_error(self, call: FunctionCall) -> None:
        """Count a failure."""
        self._count(call, {"errors": 1})

    def _count(self, call: FunctionCall, amounts: UsageDelta) -> None:
        count(self._client.meter, self._model, call.scope, amounts, call.arm)


def _passed_on(pieces: Any, policy: RetryPolicy) -> Flow[Any]:
    """Emit the pieces of an answer as they come, and return what is recorded of it.

    :param pieces: an iterator or asynchronous iterator, whose last item is what is recorded.
    """
    has_begun = False
    try:
        while isinstance(piece := (yield Next(pieces, policy.time_left())), bytes):
            has_begun = True
            yield Emit("", piece)
    except APIError as error:
        error.retryable = error.retryable and not has_begun
        raise
    finally:
        yield Close(pieces)
    return piece
