"""Embeddings of many texts: batches, and lists that are asked for at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llmcall.engine import call as embeddings
from llmcall.engine.single_flight import process_flights
from llmcall.errors import InvalidRequestError
from llmcall.testing import ScriptedClient

Texts = list[str]


def of(text: str) -> list[float]:
    """Return a vector that tells its text."""
    return [float(len(text)), float(sum(map(ord, text)))]


def embedder(**settings: Any) -> ScriptedClient:
    """Return a client whose vectors tell their texts."""
    return ScriptedClient(lambda texts: [of(text) for text in texts], **{"cache_mode": "auto", **settings})


def asked(client: ScriptedClient) -> list[Texts]:
    """List the texts of each request that was sent."""
    return [request.body["input"] for request in client.requests]


def test_batches_hold_what_one_request_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request has more texts, nor more bytes than tokens, than the API takes; every text is asked for once."""
    monkeypatch.setattr(embeddings, "TEXTS_PER_BATCH", 4)
    monkeypatch.setattr(embeddings, "BYTES_PER_BATCH", 20)
    client = embedder()
    texts = ["a", "b", "c", "d", "e", "ä" * 9, "f", "x" * 50, "g"]
    assert client.get_embedding(texts) == [of(text) for text in texts]
    assert asked(client) == [["a", "b", "c", "d"], ["e", "ä" * 9, "f"], ["x" * 50], ["g"]] or asked(client) == [
        ["a", "b", "c", "d"], ["e", "ä" * 9], ["f"], ["x" * 50], ["g"],
    ]  # fmt: skip
    assert client.usage.calls == len(asked(client))


def test_the_limits_are_those_of_the_api() -> None:
    """2,048 texts and 300,000 tokens, as the API reference says."""
    assert (embeddings.TEXTS_PER_BATCH, embeddings.BYTES_PER_BATCH) == (2048, 300_000)
    client = embedder()
    client.get_embedding([str(number) for number in range(2100)])
    assert [len(texts) for texts in asked(client)] == [2048, 52]
    assert len(client.cache) == 2100


def test_a_failed_batch_keeps_the_former_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was paid for before the failure is stored, and not asked for again."""
    monkeypatch.setattr(embeddings, "TEXTS_PER_BATCH", 2)
    script: list[Any] = [[of("a"), of("b")], InvalidRequestError("no"), [of("c")]]
    client = ScriptedClient(script, cache_mode="auto")
    assert client.get_embedding(["a", "b", "c"]) is None
    assert client.get_embedding(["a", "b", "c"]) == [of("a"), of("b"), of("c")]
    assert asked(client) == [["a", "b"], ["c"], ["c"]]


class Gate:
    """Answer once it is let, and count the callers that have come."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.come = threading.Semaphore(0)

    def __call__(self, texts: Texts) -> list[list[float]]:
        self.come.release()
        assert self.open.wait(30)
        return [of(text) for text in texts]


def test_lists_that_overlap_share_what_is_under_way() -> None:
    """Of lists asked for at once each text is asked for once, and nobody waits for ever."""
    gate = Gate()
    client = ScriptedClient(gate, cache_mode="auto")
    lists = [["a", "b"], ["b", "c"], ["c", "a"], ["b"], ["a", "b", "c"]]
    with ThreadPoolExecutor(len(lists)) as executor:
        first = executor.submit(client.get_embedding, lists[0])
        assert gate.come.acquire(timeout=30)
        second = executor.submit(client.get_embedding, lists[1])
        assert gate.come.acquire(timeout=30)
        others = [executor.submit(client.get_embedding, texts) for texts in lists[2:]]
        gate.open.set()
        found = [future.result(30) for future in (first, second, *others)]
    assert found == [[of(text) for text in texts] for texts in lists]
    assert sorted(text for texts in asked(client) for text in texts) == ["a", "b", "c"]
    assert not process_flights._flights


def test_lists_in_opposite_order_from_many_threads() -> None:
    """Whatever the interleaving, all vectors are right, each text was asked for once, and all threads end."""
    texts = [str(number) for number in range(20)]
    for attempt in range(10):
        client = embedder(cache_namespace=str(attempt))
        barrier = threading.Barrier(8)

        def ask(number: int, client: Any = client, barrier: threading.Barrier = barrier) -> Any:
            mine = texts[number:] + texts[:number] if number % 2 else texts[::-1]
            barrier.wait()
            return client.get_embedding(mine) == [of(text) for text in mine]

        with ThreadPoolExecutor(8) as executor:
            assert all(executor.map(ask, range(8)))
        assert sorted(text for each in asked(client) for text in each) == sorted(texts)


def test_a_failure_is_shared_by_those_who_wait() -> None:
    """The list that waits for another one's text gets its error."""
    gate = threading.Event()
    come = threading.Event()

    def fail(texts: Texts) -> Any:
        come.set()
        gate.wait(30)
        return InvalidRequestError("no such model")

    client = ScriptedClient(fail, cache_mode="auto")
    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(client.get_embedding, ["a"], on_error="return")
        come.wait(30)
        second = executor.submit(client.get_embedding, ["a"], on_error="return")
        (flight,) = process_flights._flights.values()
        while not flight.followers:
            threading.Event().wait(0.005)
        gate.set()
    assert [str(future.result()) for future in (first, second)] == ["no such model"] * 2
    assert len(client.requests) == 1


def test_async_is_the_same() -> None:
    """The asynchronous twin gives the same vectors, makes the same records, and shares what is under way."""
    client = embedder()

    async def main() -> Any:
        lists = [["a", "b"], ["b", "c"], ["c", "c"]] * 10
        return await asyncio.gather(*(client.aget_embedding(texts) for texts in lists), client.aget_embedding("a"))

    found = asyncio.run(main())
    assert found[:3] == [[of("a"), of("b")], [of("b"), of("c")], [of("c"), of("c")]]
    assert found[-1] == of("a")
    assert sorted(text for texts in asked(client) for text in texts) == ["a", "b", "c"]
    assert embedder(cache_mode="replay").get_embedding(["c", "a"]) == [of("c"), of("a")]


def test_async_failures() -> None:
    """An API failure is None, or raised."""

    async def main() -> Any:
        assert await ScriptedClient([InvalidRequestError("no")]).aget_embedding("a") is None
        with pytest.raises(InvalidRequestError):
            await ScriptedClient([InvalidRequestError("no")]).aget_embedding("a", on_error="raise")
        return await embedder().aget_embedding([])

    assert asyncio.run(main()) == []
