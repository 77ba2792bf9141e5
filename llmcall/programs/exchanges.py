"""Count the requests that are recorded as they are in usage, budgets and limits."""

from __future__ import annotations

import json
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from ..engine.admission import Admission
from ..engine.effects import Send
from ..engine.exchange import REST
from ..engine.service_tiers import PARAMETER, lacks_capacity
from ..engine.usage import amounts_of_answer, count, named
from ..errors import RateLimitError, ServiceError
from ..responses.event_stream import EventStreamDecoder
from ..types import TokenUsage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..clients.openai import OpenAIClient
    from ..engine.effects import Flow
    from ..engine.retry import RetryPolicy
    from ..engine.usage import UsageDelta
    from ..recorded_functions import FunctionCall
    from ..types import Record


class ExchangeCounter:
    """Counts a request that is recorded as it is, by the usage that its answer reports.

    :param client: of the address.
    :param host: it counts under the host's name if its body names no model.
    :param body: what is sent.
    :param is_model: whether a model answers it; others count as calls only.
    """

    def __init__(self, client: OpenAIClient, host: str, body: Any, *, is_model: bool) -> None:
        model = body.get("model") if isinstance(body, dict) else None
        self._client = client
        self._body = body
        self._is_model = is_model
        self._model = model if is_model and isinstance(model, str) and model else host

    def attempt(self, call: FunctionCall, policy: RetryPolicy, number: int) -> Flow[Any]:
        """Send it once, as soon as budgets and limits allow it, and return its answer."""
        if number > 1:
            self._count(call, {"retries": 1})
        pool = self._client.pool(self._model)
        request = call.request._replace(model=self._model, body=self._body)
        with closing(Admission(pool, policy.time_left, calls_only=not self._is_model)) as admission:
            endpoint = yield from admission.acquire(request)
            try:
                value = yield Send(call, call.request, policy.time_left())
            except RateLimitError as error:
                if not lacks_capacity(error, self._body):
                    pool.rest(endpoint, time.monotonic() + (error.retry_after or REST))
                raise
            used = usage_of(value)
            service_tier = served_tier(value)
            admission.use(used, endpoint.name, service_tier=service_tier)
            if used.input_tokens is None:
                admission.keep_reservation()
        amounts: dict[str, Any] = {"calls": 1}
        if self._is_model:
            price = pool.price(used.input_tokens or 0, endpoint.name, service_tier)
            amounts = amounts_of_answer(
                used,
                price,
                body=self._body,
                service_tier=service_tier,
                served=model_in(value),
            )
        self._count(call, amounts)
        return value

    def cost(self, value: Mapping[str, Any]) -> float | None:
        """Return the USD that an answer cost, or ``None`` where that is unknown."""
        if not self._is_model:
            return 0.0
        used = usage_of(value)
        pool = self._client.pool(self._model)
        price = pool.price(used.input_tokens or 0, service_tier=served_tier(value))
        return None if price is None else price.cost(used)

    def count_hit(self, call: FunctionCall, record: Record) -> None:
        """Count an answer that is recorded, or that an identical request got."""
        served = named(model_in(record.response["value"])) if self._is_model else {}
        self._count(
            call,
            {
                "cached_calls": 1,
                "replayed_calls": 1 if call.is_replayed else 0,
                "saved": record.cost,
                **served,
            },
        )

    def count_error(self, call: FunctionCall) -> None:
        """Count a failure."""
        self._count(call, {"errors": 1})

    def _count(self, call: FunctionCall, amounts: UsageDelta) -> None:
        count(self._client.meter, self._model, call.scope, amounts, call.arm)


def usage_of(value: Mapping[str, Any]) -> TokenUsage:
    """Return the tokens that an answer reports, in its body or in the events of its stream.

    :param value: what is recorded: a body and its media type.
    """
    usage: dict[str, Any] = {}
    for told in _told(value, "usage"):
        if isinstance(told, dict):
            # a stream tells of the output again and again, and of the input once
            usage.update({name: item for name, item in told.items() if item is not None})
    return TokenUsage.of({"usage": usage} if usage else {})


def model_in(value: Mapping[str, Any]) -> str | None:
    """Return the model that an answer names, in its body or in the events of its stream.

    :param value: what is recorded: a body and its media type.
    """
    return next((told for told in _told(value, "model") if isinstance(told, str)), None)


def served_tier(value: Mapping[str, Any]) -> str | None:
    """Return the service tier that an answer names last, in its body or in its stream's events.

    :param value: what is recorded: a body and its media type.
    """
    tiers = [told for told in _told(value, PARAMETER) if isinstance(told, str)]
    return tiers[-1] if tiers else None


def _told(value: Mapping[str, Any], name: str) -> Iterator[Any]:
    """Yield what an answer tells under a name, in its body or in the events of its stream."""
    for part in _parts(value["body"]):
        for each in (part, part.get("response"), part.get("message")):
            if isinstance(each, dict) and name in each:
                yield each[name]


def _parts(body: str) -> Iterator[dict[str, Any]]:
    """Yield the object that a body is, or the objects of its events."""
    with suppress(ValueError):
        whole = json.loads(body)
        if isinstance(whole, dict):
            yield whole
        return
    decoder = EventStreamDecoder()
    with suppress(ServiceError):  # no JSON: it tells nothing of its usage
        for event in (*decoder.feed(body.encode()), *decoder.close()):
            if isinstance(event, dict):
                yield event
