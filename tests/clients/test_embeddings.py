"""Embeddings: one record a text, float32 live as in replay, batches of what is missing, shared
while under way.
"""

from __future__ import annotations

import base64
import math
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from clients import Responding
from commands import LONGEST
from hypothesis import given
from hypothesis import strategies as st

from llmcall import InvalidRequestError, ServiceError
from llmcall.testing import ScriptedClient


def of(text: str) -> list[float]:
    """Return a vector that tells its text."""
    return [float(len(text)), float(sum(map(ord, text)))]


def embedder(mode: str = "auto", **settings: Any) -> ScriptedClient:
    """Return a client whose vectors tell their texts."""
    return ScriptedClient(lambda texts: [of(text) for text in texts], cache_mode=mode, **settings)


def asked(client: ScriptedClient) -> list[list[str]]:
    """List the texts of each request that was sent."""
    return [request.body["input"] for request in client.requests]


def data(*vectors: Any, **fields: Any) -> dict[str, Any]:
    """Return a response with some vectors."""
    items = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"data": items, "model": "m", **fields}


@given(st.lists(st.floats(-1e38, 1e38), min_size=1, max_size=6))
def test_an_embedding_is_rounded_to_float32_when_it_is_returned_first(vector: list[float]) -> None:
    """So every later run gets what the first one got; without a cache it is rounded, too."""
    client = Responding(data(vector))
    client.cache.clear()
    live = client.get_embedding("text")
    replayed = Responding(cache_mode="replay").get_embedding("text")
    rounded = [struct.unpack("<f", struct.pack("<f", number))[0] for number in vector]
    assert live == replayed == rounded
    assert Responding(data(vector), cache_mode="off").get_embedding("text") == rounded


@given(st.lists(st.text(max_size=3), max_size=12), st.sets(st.text(max_size=3), max_size=4))
def test_embeddings_come_in_the_order_of_the_texts(texts: list[str], known: set[str]) -> None:
    """Some may be recorded, and a text may come several times: one request has all that are not, once."""
    client = embedder()
    client.cache.clear()
    client.get_embedding(sorted(known))
    client.requests.clear()
    assert client.get_embedding(tuple(texts)) == [of(text) for text in texts]
    missing = list(dict.fromkeys(text for text in texts if text not in known))
    assert asked(client) == ([missing] if missing else [])
    assert [client.get_embedding(text) for text in texts] == client.get_embedding(texts)


def test_a_record_holds_one_text_its_little_endian_float32_and_its_share() -> None:
    """It is no draw. The shares of tokens and cost follow the lengths of the texts; usage has one call."""
    client = Responding(
        data([1.0, 0.1], [2.0, -0.5], usage={"prompt_tokens": 7, "total_tokens": 7}),
        prices={"m": (1.0, 0.0)},
    )
    client.get_embedding(["abc", "d"], "m")
    records = {record.request["input"]: record for record in client.cache.records()}
    assert records["abc"].response["embedding"] == struct.pack("<2f", 1.0, 0.1)
    assert {(record.kind, record.sample) for record in records.values()} == {("embedding", None)}
    tokens = {text: record.response["usage"]["prompt_tokens"] for text, record in records.items()}
    assert tokens == {"abc": 5, "d": 2}
    assert math.isclose(sum(record.cost or 0 for record in records.values()), 7e-6)
    usage = client.usage
    assert (usage.calls, usage.cached_calls) == (1, 0)
    assert (usage.input_tokens, usage.output_tokens) == (7, 0)
    assert usage.cost == pytest.approx(7e-6)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [None, None, None], [0, 0, 0]])
def test_the_index_says_which_vector_is_whose(order: list[Any]) -> None:
    """Vectors in any order are put right; those without an index, or all with 0, are in order."""
    items = [
        {"embedding": [float(index if any(order) else position)]}
        for position, index in enumerate(order)
    ]
    for item, index in zip(items, order, strict=True):
        item |= {} if index is None else {"index": index}
    assert Responding({"data": items}).get_embedding(["a", "b", "c"]) == [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize(
    "response",
    [
        data([1.0]),
        data([1.0], [2.0], [3.0]),
        {"data": []},
        {},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 0}]},
        {"data": [{"index": 1, "embedding": [1.0]}, {"index": 1, "embedding": [2.0]}]},
        data([1.0], "not base64!"),
        data([1.0], []),
        data([1.0], [1e300]),
        data([1.0], [float("nan")]),
    ],
)
def test_malformed_embeddings_are_a_service_error(response: Any) -> None:
    """Their number or an index is wrong, or one is no vector; nothing of them is stored."""
    client = Responding(response)
    error = client.get_embedding(["a", "b"], on_error="return")
    assert type(error) is ServiceError
    assert "malformed" in str(error)
    assert len(client.cache) == 0


def test_embeddings_that_are_not_as_long_as_was_asked_are_refused() -> None:
    """A server that ignores ``dimensions`` would be recorded as having kept it."""
    client = Responding(data([1.0, 2.0]))
    error = client.get_embedding("a", dimensions=1, on_error="return")
    assert type(error) is InvalidRequestError
    assert "dimensions=1, but the embeddings have 2" in str(error)
    assert len(client.cache) == 0


def test_an_embedding_in_base64_is_the_same_as_one_in_numbers() -> None:
    """It is base64 of the float32, and its record serves both."""
    packed = base64.b64encode(struct.pack("<3f", 0.1, -2.5, 1e-30)).decode()
    found = Responding(data(packed)).get_embedding("text", encoding_format="base64")
    assert found == Responding(data([0.1, -2.5, 1e-30])).get_embedding("text")
    assert Responding(cache_mode="replay").get_embedding("text", encoding_format="base64") == found


def test_the_embedding_model_is_the_argument_or_the_configured_one() -> None:
    """An alias stands for its model."""
    client = embedder(embedding_model="mine", aliases={"short": "text-embedding-3-large"})
    client.get_embedding("a")
    client.get_embedding("a", "short")
    assert [request.model for request in client.requests] == ["mine", "text-embedding-3-large"]


def in_eight_threads(client: ScriptedClient, lists: list[list[str]]) -> None:
    """Embed lists of texts at once, from threads that take turns very often."""
    interval, barrier = sys.getswitchinterval(), threading.Barrier(8, timeout=LONGEST)

    def ask(texts: list[str]) -> None:
        barrier.wait()
        assert client.get_embedding(texts) == [of(text) for text in texts]

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as executor:
            list(executor.map(ask, lists))
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize(
    ("lengths", "batches"),
    [([100_000] * 4, [3, 1]), ([400_000, 1], [1, 1]), ([1] * 2049, [2048, 1])],
    ids=["size", "long", "number"],
)
def test_a_request_has_no_more_texts_than_servers_take(
    lengths: list[int], batches: list[int]
) -> None:
    """OpenAI takes 2,048 texts and 300,000 tokens at a time; a token has at least one byte."""
    client = embedder()
    client.get_embedding([f"{number:0{length}}" for number, length in enumerate(lengths)])
    assert [len(batch) for batch in asked(client)] == batches


NUMBERS = [str(number) for number in range(200)]


def test_threads_embed_each_text_once() -> None:
    """The interleaving and the order of their lists do not matter."""
    client = embedder()
    turned = [NUMBERS[number:] + NUMBERS[:number] for number in range(0, 8, 2)]
    in_eight_threads(client, [*turned, *[NUMBERS[::-1]] * 4])
    assert sorted(text for batch in asked(client) for text in batch) == sorted(NUMBERS)
