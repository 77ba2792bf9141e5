"""Embeddings: one record a text, float32 live as in replay, batches of what is missing, shared
while under way.
"""

from __future__ import annotations

import asyncio
import base64
import math
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Responding

import llmcall
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
def test_live_equals_replay(vector: list[float]) -> None:
    """What is returned first is rounded to float32, so that it is what every later run gets."""
    client = Responding(data(vector))
    client.cache.clear()
    live = client.get_embedding("text")
    replayed = Responding(cache_mode="replay").get_embedding("text")
    rounded = [struct.unpack("<f", struct.pack("<f", number))[0] for number in vector]
    assert live == replayed == rounded
    assert Responding(data(vector), cache_mode="off").get_embedding("text") == rounded


@given(st.lists(st.text(max_size=3), max_size=12), st.sets(st.text(max_size=3), max_size=4))
def test_order_and_duplicates(texts: list[str], known: set[str]) -> None:
    """Whatever is known and however often a text comes, vectors come in the order of the texts,
    each asked for once.
    """
    client = embedder()
    client.cache.clear()
    client.get_embedding(sorted(known))
    client.requests.clear()
    assert client.get_embedding(tuple(texts)) == [of(text) for text in texts]
    assert [client.get_embedding(text) for text in texts] == client.get_embedding(texts)
    missing = list(dict.fromkeys(text for text in texts if text not in known))
    assert asked(client) == ([missing] if missing else [])


def test_records_are_bytes_of_float32() -> None:
    """A record holds one text and its little-endian float32, its share of the tokens and of the
    cost.
    """
    client = Responding(
        data([1.0, 0.1], [2.0, -0.5], usage={"prompt_tokens": 7, "total_tokens": 7}),
        prices={"m": (1.0, 0.0)},
    )
    client.get_embedding(["abc", "d"], "m")
    records = {record.request["input"]: record for record in client.cache.records()}
    assert records["abc"].response["embedding"] == struct.pack("<2f", 1.0, 0.1)
    assert {
        text: record.response["usage"]["prompt_tokens"] for text, record in records.items()
    } == {"abc": 5, "d": 2}
    assert math.isclose(sum(record.cost or 0 for record in records.values()), 7e-6)
    assert {(record.kind, record.sample) for record in records.values()} == {("embedding", None)}
    usage = client.usage
    assert (usage.calls, usage.cached_calls, usage.input_tokens, usage.output_tokens) == (
        1,
        0,
        7,
        0,
    )
    assert usage.cost == pytest.approx(7e-6)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [None, None, None], [0, 0, 0]])
def test_the_index_says_which_vector_is_whose(order: list[Any]) -> None:
    """Vectors in any order are put right; those without an index, or all with 0, are in order."""
    items = [
        {"embedding": [float(index if any(order) else place)]} for place, index in enumerate(order)
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
        "text",
    ],
)
def test_malformed_answers(response: Any) -> None:
    """Wrong counts, wrong indexes and what is no vector are ServiceErrors, and nothing of them is
    stored.
    """
    client = Responding(response)
    error = client.get_embedding(["a", "b"], on_error="return")
    assert type(error) is ServiceError and "malformed" in str(error)
    assert len(client.cache) == 0


def test_base64_answers() -> None:
    """A vector that comes as base64 of its float32 is the same as one in numbers."""
    packed = base64.b64encode(struct.pack("<3f", 0.1, -2.5, 1e-30)).decode()
    found = Responding(data(packed)).get_embedding("text", encoding_format="base64")
    assert found == Responding(data([0.1, -2.5, 1e-30])).get_embedding("text")
    assert Responding(cache_mode="replay").get_embedding("text", encoding_format="base64") == found


def test_the_model() -> None:
    """The configured embedding model is the default; a positional one, and aliases, take its place."""
    client = embedder(embedding_model="mine", aliases={"short": "text-embedding-3-large"})
    client.get_embedding("a")
    client.get_embedding("a", "short")
    assert [request.model for request in client.requests] == ["mine", "text-embedding-3-large"]


def test_batches_hold_what_one_request_may() -> None:
    """No request has more than 2,048 texts, nor more bytes than the API takes tokens; a failed one
    loses no other.
    """
    client = embedder()
    client.get_embedding([str(number) for number in range(2100)])
    assert [len(texts) for texts in asked(client)] == [2048, 52]
    assert (len(client.cache), client.usage.calls) == (2100, 2)
    large = [letter * 120_000 for letter in "abcde"]
    failing = ScriptedClient(
        [[of(large[0]), of(large[1])], InvalidRequestError("no")], cache_mode="auto"
    )
    assert failing.get_embedding(large) is None
    client = embedder()
    assert client.get_embedding(large) == [of(text) for text in large]
    assert [[text[0] for text in texts] for texts in asked(client)] == [["c", "d"], ["e"]]


def test_each_batch_is_shared_as_it_comes() -> None:
    """Who follows a batch gets what it brings, whatever becomes of the batches after it."""
    large = [letter * 200_000 for letter in "ab"]
    asked_for, opened = threading.Event(), threading.Event()

    def answer(texts: list[str]) -> Any:
        asked_for.set()
        assert opened.wait(30)
        return [of(text) for text in texts] if texts == large[:1] else InvalidRequestError("no")

    client = ScriptedClient(answer, cache_mode="auto")

    async def main() -> Any:
        leader = asyncio.create_task(client.aget_embedding(large))
        await asyncio.to_thread(asked_for.wait, 30)
        follower = asyncio.create_task(client.aget_embedding(large[0]))
        await asyncio.sleep(0)
        opened.set()
        return await leader, await follower

    assert asyncio.run(main()) == (None, of(large[0]))
    assert len(client.requests) == 2


@pytest.mark.parametrize("same", [True, False])
def test_lists_from_many_threads(same: bool) -> None:
    """Whatever the interleaving and the order, each text is asked for once, and an equal batch as a
    whole.
    """
    texts, interval = [str(number) for number in range(200)], sys.getswitchinterval()
    client, barrier = embedder(), threading.Barrier(8)

    def ask(number: int) -> Any:
        mine = texts if same else texts[::-1] if number % 2 else texts[number:] + texts[:number]
        barrier.wait()
        return client.get_embedding(mine) == [of(text) for text in mine]

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as executor:
            assert all(executor.map(ask, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert sorted(text for each in asked(client) for text in each) == sorted(texts)
    assert not same or asked(client) == [texts]


def test_embeddings_are_counted() -> None:
    """They count under their scope, and those of a batch that were recorded are saved ones."""
    client = ScriptedClient(lambda texts: [[1.0]] * len(texts), cache_mode="auto")
    with llmcall.scope("lisa"):
        client.get_embedding(["a", "b"])
        client.get_embedding(["b", "c"])
    client.get_embedding("a")
    counted = {
        name: (usage.calls, usage.cached_calls) for name, usage in client.usage.by_scope.items()
    }
    assert counted == {"lisa": (2, 1), "": (0, 1)}
