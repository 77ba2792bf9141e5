"""Stores of a call's record, the cache and a cassette over it: the contract that each keeps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from servers import completion

from llmcall import ResponseCache
from llmcall.core.seams import Store
from llmcall.scopes.active import next_order
from llmcall.scopes.position import Position
from llmcall.stores.cassettes.cassette import Cassette
from llmcall.stores.cassettes.stores import CacheStore, CassetteStore
from llmcall.stores.record import make_record
from llmcall.testing import ScriptedClient


@pytest.fixture(params=["the cache", "a cassette", "a cassette without the cache"])
def make(request: pytest.FixtureRequest, cache: ResponseCache) -> Iterator[Callable[[], Store]]:
    """What makes a call's store."""
    mode = "off" if request.param.endswith("without the cache") else "auto"

    def of_cache() -> CacheStore:
        return CacheStore(cache, mode, Position(order=next_order()))

    with contextlib.ExitStack() as stack:
        if request.param == "the cache":
            yield of_cache
            return
        cassette = stack.enter_context(Cassette("tape.jsonl"))
        yield lambda: CassetteStore(cassette, of_cache(), Position(order=next_order()))


def test_a_store_keeps_the_contract(
    make: Callable[[], Store], request: pytest.FixtureRequest
) -> None:
    # A question of its own: the process remembers which keys of a server it used.
    asked = ScriptedClient(cache_mode="off").build_request(request.node.name)
    first, second = (make_record(asked, completion(text)) for text in ("one", "two"))
    store = make()
    assert store.get(asked) is None and not store.has_used(asked.cache_key)
    assert store.add(first).response == first.response
    assert store.has_used(asked.cache_key)
    other = make()
    assert other.add(second).response == first.response, "what was stored first counts"
    found = other.get(asked)
    assert found is not None and (found.response, found.is_hit) == (first.response, True)
