"""Embeddings: asked for in batches, checked, and recorded one text a record."""

from __future__ import annotations

import base64
import math
import struct
from typing import TYPE_CHECKING, Any

from ..apis.usage import TokenUsage
from ..errors import ServiceError
from ..models.tokens import shares
from ..stores.record import make_record
from .checks import brief, list_in, reject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..stores.record import Received, Record
    from .calls import Call

# OpenAI's limits for one request (API reference, embeddings, "input"): 2,048 texts, and 300,000
# tokens in all. No byte-level tokenizer makes more tokens than a text has bytes.
TEXTS_PER_BATCH = 2048
BYTES_PER_BATCH = 300_000
FLOAT32 = 4  # bytes


def batches(calls: Sequence[Call]) -> Iterator[Sequence[Call]]:
    """Yield the calls that one request asks for: embeddings in batches, except a program's, which has a
    request of its own.
    """
    if len(calls) == 1 or calls[0].transport is not None:
        yield calls
        return
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
    yield batch


def joined(calls: Sequence[Call]) -> Call:
    """Return one call that asks for the embeddings of all texts."""
    request = calls[0].request
    body = {**request.body, "input": [call.request.body["input"] for call in calls]}
    return calls[0]._replace(request=request._replace(body=body))


def embedding_records(calls: Sequence[Call], response: Any, received: Received) -> list[Record]:
    """Return the records of texts, each with its share of a response's tokens and cost."""
    vectors = [packed_vector(item["embedding"]) for item in ordered_embeddings(response)]
    total, cost = TokenUsage.of(response).input_tokens, received.cost
    texts = [call.request.body["input"] for call in calls]
    tokens_of_texts = [None] * len(calls) if total is None else shares(total, texts)
    records = []
    for call, vector, tokens in zip(calls, vectors, tokens_of_texts, strict=True):
        own_response: dict[str, Any] = {"model": response.get("model"), "embedding": vector}
        if tokens is not None:
            own_response["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        record = make_record(
            call.request,
            own_response,
            cost=cost and (cost * tokens / total if tokens and total else 0.0),
            api_type=call.client.api_type,
            host=received.host,
        )
        records.append(record)
    return records


def check_embeddings(response: Any, count: int) -> None:
    """Refuse an embeddings response that does not hold one vector of finite numbers a text.

    :param count: how many texts were sent.
    :raises ServiceError: if it is malformed.
    """
    data = list_in(response, "data")
    if len(data) != count:
        reject(
            ServiceError, f"a malformed answer: {len(data)} embeddings for {count} texts", response
        )
    for item in data:
        try:
            packed_vector(item["embedding"])
        except (LookupError, TypeError, ValueError, OverflowError, struct.error):
            reject(
                ServiceError,
                f"a malformed answer: an embedding that is not a vector ({brief(item)})",
                response,
            )


def packed_vector(embedding: Any) -> bytes:
    """Return a vector as little-endian float32, whether it came as numbers or as base64.

    :raises TypeError, ValueError, OverflowError, struct.error: if it is not a vector, or holds NaN
        or an infinity.
    """
    if isinstance(embedding, str):
        packed = base64.b64decode(embedding, validate=True)
    else:
        packed = struct.pack(f"<{len(embedding)}f", *embedding)
    if not packed or not math.isfinite(sum(struct.unpack(f"<{len(packed) // 4}f", packed))):
        raise ValueError("no finite numbers")
    return packed


def ordered_embeddings(response: Any) -> list[dict[str, Any]]:
    """Return the embeddings in the order of the texts.

    A server may leave out their numbers, or number all with 0: then they are in order.
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
