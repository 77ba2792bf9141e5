"""Embeddings on the road: each text is a record of its own; what is not recorded is asked for in batches."""

from __future__ import annotations

import base64
import copy
import functools
import sys
from array import array
from typing import TYPE_CHECKING, Any

from ..errors import APIError, RequestTimeoutError, ServiceError
from ..models.tokens import shares
from ..types import TokenUsage, record_of
from .calls import Call, time_left
from .effects import ALONE, Do, Wait, look
from .flow import Answer, Sent, exchange, shareable
from .single_flight import process_flights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..types import Record
    from .effects import Flow
    from .single_flight import Flight

__all__ = ["embed", "vector"]

# OpenAI's limits for one request: 2,048 texts (API reference, embeddings, "input") and 300,000 tokens in all.
TEXTS_PER_BATCH = 2048
TOKENS_PER_BATCH = 300_000
BYTES_PER_TOKEN = 1  # no byte-level tokenizer makes more tokens than a text has bytes


def embed(calls: Sequence[Call]) -> Flow[list[Answer]]:
    """Answer requests, one text each, that are not recorded; as the leader of each flight, or by another's answer."""
    led: list[tuple[Call, Flight | None]] = []
    followed: list[tuple[Call, Flight]] = []
    answers: dict[str, Answer] = {}
    try:
        yield from _join(calls, led, followed, answers)
        for batch in _batches([call for call, _ in led if call.request.cache_key not in answers]):
            for record, sent in (yield from _asked(batch)):
                answers[record.cache_key] = Answer(record, sent)
    except APIError as error:
        _land(led, answers, None if isinstance(error, RequestTimeoutError) else error)
        led = []
        raise
    finally:
        _land(led, answers, None)
    for call, flight in followed:
        shared = yield Wait(flight, time_left(call.policy))
        if shared is None or shared is ALONE:
            alone = [call._replace(cache=None)] if shared is ALONE else [call]
            answers.update(zip([call.request.cache_key], (yield from embed(alone)), strict=True))
        else:
            answers[call.request.cache_key] = Answer(copy.deepcopy(shared.record))
    return [answers[call.request.cache_key] for call in calls]


def _join(
    calls: Sequence[Call],
    led: list[tuple[Call, Flight | None]],
    followed: list[tuple[Call, Flight]],
    answers: dict[str, Answer],
) -> Flow[None]:
    """Part calls into those to make and those that are under way, and take what came since they were looked up."""
    for key, call in {call.request.cache_key: call for call in calls}.items():
        if call.cache is None or call.mode == "off":
            led.append((call, None))
            continue
        leads, flight = process_flights.join((call.cache.path, key))
        if not leads:
            followed.append((call, flight))
            continue
        led.append((call, flight))
        found = yield from look(call.cache, functools.partial(call.cache.get, call.request, mode=call.mode))
        if found is not None:
            answers[key] = Answer(found)


def _land(led: list[tuple[Call, Flight | None]], answers: dict[str, Answer], error: APIError | None) -> None:
    for call, flight in led:
        if flight is not None and call.cache is not None:
            answer = answers.get(call.request.cache_key)
            process_flights.land(flight, answer, None if answer or error is None else shareable(error))


def _batches(calls: list[Call]) -> Iterator[list[Call]]:
    batch: list[Call] = []
    size = 0
    for call in calls:
        length = len(_text(call).encode()) * BYTES_PER_TOKEN
        if batch and (len(batch) == TEXTS_PER_BATCH or size + length > TOKENS_PER_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(call)
        size += length
    if batch:
        yield batch


def _text(call: Call) -> str:
    return call.request.body["input"]  # type: ignore[no-any-return]


def _asked(batch: list[Call]) -> Flow[list[tuple[Record, Sent]]]:
    first = batch[0]
    texts = [_text(call) for call in batch]
    together = first._replace(request=first.request._replace(body={**first.request.body, "input": texts}))
    try:
        sent = yield from exchange(together)
    except APIError as error:
        first.count(errors=1, retries=error.attempts - 1)
        raise
    records = yield Do(lambda: _recorded(batch, texts, sent))
    return [(record, sent) for record in records]


def _recorded(batch: list[Call], texts: list[str], sent: Sent) -> list[Record]:
    cost = batch[0].count(sent.response)
    tokens = TokenUsage.of(sent.response).input_tokens
    parts = [None] * len(batch) if tokens is None else shares(tokens, texts)
    vectors = [_packed(item["embedding"]) for item in _ordered(sent.response["data"])]
    return [
        _kept(call, sent, vector, part, cost * part / tokens if cost and part and tokens else cost and 0.0)
        for call, vector, part in zip(batch, vectors, parts, strict=True)
    ]


def _ordered(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the vectors in the order of the texts; servers that number none of them, or all with 0, keep it."""
    indexes = [index if isinstance(index := item.get("index"), int) else 0 for item in data]
    if any(indexes) and sorted(indexes) != list(range(len(data))):
        raise ServiceError(f"a malformed answer: {len(data)} embeddings with the indexes {indexes}")
    return [item for _, item in sorted(zip(indexes, data, strict=True), key=lambda numbered: numbered[0])]


def _kept(call: Call, sent: Sent, embedding: bytes, tokens: int | None, cost: float | None) -> Record:
    response = {"model": sent.response.get("model"), "embedding": embedding}
    if tokens is not None:
        response["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    record = record_of(call.request, response, cost=cost, api_type=call.api_type, host=sent.host)
    return record if call.cache is None else call.cache.store(record, mode=call.mode)


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
