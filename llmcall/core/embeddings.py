"""Embeddings: those that are not recorded are asked for in batches."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Any

from ..apis.usage import TokenUsage, total_cost
from ..errors import ServiceError
from ..models.tokens import shares
from ..stores.record import record_of
from .checks import packed_vector
from .effects import with_cache
from .retry import retry
from .road import look_up
from .send import Exchange
from .share import share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..stores.record import Received, Record
    from .calls import Call

# OpenAI's limits for one request (API reference, embeddings, "input"): 2,048 texts, and 300,000
# tokens in all. No byte-level tokenizer makes more tokens than a text has bytes.
TEXTS_PER_BATCH = 2048
BYTES_PER_BATCH = 300_000
FLOAT32 = 4  # bytes


async def embed(calls: Sequence[Call]) -> list[Record]:
    """Return the records of texts, one call each."""
    if not calls:
        return []
    records: dict[str, Record] = {}
    missing: dict[str, Call] = {}
    for call in calls:
        record = await with_cache(call.cache, look_up, call)
        if record is None:
            # The first of equal calls gives the record its place on a cassette.
            missing.setdefault(call.request.cache_key, call.begun())
        else:
            records[call.request.cache_key] = record
    if missing:
        unrecorded = list(missing.values())
        for batch in _batches(unrecorded) if calls[0].transport is None else [unrecorded]:
            records |= await share(batch, _ask_batch)
    hits = [record for record in records.values() if record.is_hit]
    if hits:
        calls[0].count_hit(hits[0].replace(cost=total_cost(record.cost for record in hits)))
    return [records[call.request.cache_key] for call in calls]


def _batches(calls: Iterable[Call]) -> Iterator[list[Call]]:
    batch: list[Call] = []
    size = 0
    for call in calls:
        length = len(call.request.body["input"].encode())
        if batch and (len(batch) == TEXTS_PER_BATCH or size + length > BYTES_PER_BATCH):
            yield batch
            batch = []
            size = 0
        batch.append(call)
        size += length
    if batch:
        yield batch


async def _ask_batch(calls: Sequence[Call]) -> dict[str, Record]:
    """Ask for the embeddings of texts in one request, and store them."""
    request = calls[0].request
    texts = [call.request.body["input"] for call in calls]
    batch = calls[0]._replace(request=request._replace(body={**request.body, "input": texts}))
    records = await retry(batch, Exchange(batch, partial(_store_shares, calls, texts)).attempt)
    return {record.cache_key: record for record in records}


def _store_shares(
    calls: Sequence[Call], texts: list[str], response: Any, received: Received
) -> list[Record]:
    """Store the embeddings of a response, each with its share of tokens and cost."""
    vectors = [packed_vector(item["embedding"]) for item in ordered_embeddings(response)]
    total, cost = TokenUsage.of(response).input_tokens, received.cost
    tokens_of_texts = [None] * len(calls) if total is None else shares(total, texts)
    records = []
    for call, vector, tokens in zip(calls, vectors, tokens_of_texts, strict=True):
        own_response: dict[str, Any] = {"model": response.get("model"), "embedding": vector}
        if tokens is not None:
            own_response["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        record = record_of(
            call.request,
            own_response,
            cost=cost and (cost * tokens / total if tokens and total else 0.0),
            api_type=call.client.api_type,
            host=received.host,
        )
        records.append(call.store.add(record).replace(received=received))
    return records


def ordered_embeddings(response: Any) -> list[dict[str, Any]]:
    """Return the embeddings in the order of the texts.

    A server may number none of them, or all with 0: then they are in order.
    """
    data: list[dict[str, Any]] = response["data"]
    indexes = []
    for item in data:
        index = item.get("index")
        indexes.append(index if isinstance(index, int) else 0)
    if not any(indexes):
        return data
    if sorted(indexes) != list(range(len(data))):
        raise ServiceError(f"a malformed answer: {len(data)} embeddings with the indexes {indexes}")
    by_index = dict(zip(indexes, data, strict=True))
    return [by_index[index] for index in range(len(data))]


def vector_of(record: Record) -> list[float]:
    """Return a record's embedding as numbers, each rounded to float32."""
    packed = record.response["embedding"]
    return list(struct.unpack(f"<{len(packed) // FLOAT32}f", packed))
