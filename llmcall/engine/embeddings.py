"""Embeddings: of several texts, those that are not recorded are asked for in batches."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any

from .. import responses
from ..errors import ServiceError
from ..models.tokens import shares
from ..notices import warn_once
from ..types import Outcome, TokenUsage, record_of
from .drivers import Do, look
from .exchange import Exchange
from .flights import share
from .lookup import lookup
from .retry import RetryPolicy, repeated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..types import Record, Sent
    from .drivers import Flow
    from .flights import Outcomes
    from .prepared_call import PreparedCall

# OpenAI's limits for one request: 2,048 texts (API reference, embeddings, "input") and 300,000
# tokens in all.
TEXTS_PER_BATCH = 2048


BYTES_PER_BATCH = 300_000  # no byte-level tokenizer makes more tokens than a text has bytes


FLOAT32 = 4  # bytes


def embed(calls: Sequence[PreparedCall]) -> Flow[list[Record]]:
    """Return the records of texts, one call each, asking in batches for those that are not
    recorded.
    """
    if not calls:
        return []
    found: Outcomes = {}
    missing: dict[str, PreparedCall] = {}
    for call in calls:
        _, record = yield from look(call.resolved.cache, lookup, call)
        if record is None:
            missing[call.request.cache_key] = call
        else:
            found[call.request.cache_key] = Outcome(record)
    policy = RetryPolicy.of(calls[0].options, calls[0].resolved.settings)
    split = calls[0].client.splits_batches
    for batch in _batches(missing.values()) if split else filter(None, [[*missing.values()]]):
        outcomes = yield from share(
            batch, functools.partial(_ask_batch, policy=policy), policy, batch[0].shared_by
        )
        for call in batch:
            outcome = outcomes[call.request.cache_key]
            record = call.keep(outcome.record, outcome.source)
            found[call.request.cache_key] = outcome._replace(record=record)
    costs = [outcome.record.cost for outcome in found.values() if outcome.sent is None]
    if costs:
        calls[0].add_usage(
            cached_calls=1, saved=None if None in costs else sum(cost or 0.0 for cost in costs)
        )
    return [found[call.request.cache_key].record for call in calls]


def _ask_batch(calls: Sequence[PreparedCall], policy: RetryPolicy) -> Flow[Outcomes]:
    request, texts = calls[0].request, [call.request.body["input"] for call in calls]
    first = calls[0]._replace(request=request._replace(body={**request.body, "input": texts}))
    sent = yield from repeated(policy, first.name, Exchange(first, policy).attempt)
    stored = yield Do(functools.partial(_stored_vectors, calls, texts, sent))
    return {record.cache_key: Outcome(record, sent) for record in stored}


def _batches(calls: Iterable[PreparedCall]) -> Iterator[list[PreparedCall]]:
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


def _stored_vectors(batch: Sequence[PreparedCall], texts: list[str], sent: Sent) -> list[Record]:
    usage = TokenUsage.of(sent.response)
    cost, tokens = batch[0].count_answer(usage, sent.endpoint), usage.input_tokens
    parts = [None] * len(batch) if tokens is None else shares(tokens, texts)
    vectors = [
        responses.packed_vector(item["embedding"]) for item in _in_order(sent.response["data"])
    ]
    model, wanted, given = (
        batch[0].request.model,
        batch[0].request.asked.get("dimensions"),
        len(vectors[0]) // FLOAT32,
    )
    if wanted not in (None, given):
        warn_once(
            f"{model} gives {given} dimensions, not the {wanted} asked for: its server ignores dimensions",
            about=("dimensions", model),
        )
    records = []
    for call, packed, part in zip(batch, vectors, parts, strict=True):
        response: dict[str, Any] = {"model": sent.response.get("model"), "embedding": packed}
        if part is not None:
            response["usage"] = {"prompt_tokens": part, "total_tokens": part}
        own = cost * part / tokens if cost and part and tokens else cost and 0.0
        record = record_of(
            call.request, response, cost=own, api_type=call.client.api_type, host=sent.host
        )
        records.append(call.store(record))
    return records


def _in_order(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the vectors in the order of the texts; servers that number none of them, or all with
    0, keep it.
    """
    indexes = [index if isinstance(index := item.get("index"), int) else 0 for item in data]
    if any(indexes) and sorted(indexes) != list(range(len(data))):
        raise ServiceError(f"a malformed answer: {len(data)} embeddings with the indexes {indexes}")
    return [
        item
        for _, item in sorted(zip(indexes, data, strict=True), key=lambda numbered: numbered[0])
    ]


def vector_of(record: Record) -> list[float]:
    """Return a record's embedding as numbers, each rounded to float32."""
    packed = record.response["embedding"]
    return list(struct.unpack(f"<{len(packed) // FLOAT32}f", packed))
