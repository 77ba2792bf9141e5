"""The response cache: records by key, first writer wins, damage is noticed, copies are handed out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden_requests import asked

import llmcall
from llmcall.cache.cache import MODES, ResponseCache, shared_cache
from llmcall.cache.sqlite import DATABASE
from llmcall.errors import CacheCorruptError
from llmcall.types import Record, Request

ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "3"}, "finish_reason": "stop"}]}
OTHER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}]}


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ResponseCache]:
    """An empty cache."""
    with ResponseCache(tmp_path / "cache") as made:
        yield made


def filled(cache: ResponseCache, count: int) -> list[Request]:
    """Store some answers; return their requests."""
    requests = [asked(f"question {number}") for number in range(count)]
    for number, request in enumerate(requests):
        cache.put(request, {"answer": number}, cost=number / 10)
    return requests


def damage(cache: ResponseCache, key: str, value: Any = b"nonsense") -> None:
    """Put something else under a key."""
    with sqlite3.connect(cache.path / DATABASE) as connection:
        assert connection.execute("UPDATE Cache SET value = ? WHERE key = ?", (value, key)).rowcount == 1
    connection.close()


def test_put_and_get(cache: ResponseCache) -> None:
    """A record holds the request, the response, its cost, and what stood beside."""
    request = asked("Käse?", temperature=0.5, sample=3)
    assert cache.get(request) is None
    cache.put(request, ANSWER, cost=0.25)
    record = cache.get(request)
    assert isinstance(record, Record)
    assert record.replace(stored_at=None) == Record(
        cache_key=request.cache_key,
        kind="chat",
        sample="#3",
        request={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Käse?"}], "temperature": 0.5},
        response=ANSWER,
        cost=0.25,
        version=llmcall.__version__,
    )
    assert record.stored_at is not None


def test_first_answer_counts(cache: ResponseCache) -> None:
    """What was stored first is what every caller gets, the second writer included."""
    request = asked()
    cache.put(request, ANSWER)
    assert cache.put(request, OTHER).response == ANSWER
    assert cache.get(request).response == ANSWER  # type: ignore[union-attr]
    assert len(cache) == 1


def test_copies_are_handed_out(cache: ResponseCache) -> None:
    """Changing a record changes neither the stored one nor what another caller holds."""
    request = asked()
    given = {"choices": [{"message": {"role": "assistant", "content": "3"}}]}
    first = cache.put(request, given)
    given["choices"].clear()
    first.response["choices"].append("mine")
    cache.get(request).response.clear()  # type: ignore[union-attr]
    assert cache.get(request).response == {"choices": [{"message": {"role": "assistant", "content": "3"}}]}  # type: ignore[union-attr]


def test_modes_of_the_cache_itself(tmp_path: Path) -> None:
    """Off neither reads nor stores; refresh overwrites a key once and reads it from then on."""
    request = asked()
    with ResponseCache(tmp_path / "cache") as cache:
        cache.put(request, ANSWER)
    with ResponseCache(tmp_path / "cache", mode="off") as off:
        assert off.get(request) is None
        assert off.put(request, OTHER).response == OTHER
    with ResponseCache(tmp_path / "cache", mode="refresh") as refresh:
        assert refresh.get(request) is None
        assert refresh.put(request, OTHER).response == OTHER
        assert refresh.get(request).response == OTHER  # type: ignore[union-attr]
        assert refresh.put(request, ANSWER).response == OTHER
    with ResponseCache(tmp_path / "cache", mode="replay") as replay:
        assert replay.get(request).response == OTHER  # type: ignore[union-attr]


def test_an_unknown_mode_lists_the_known_ones(tmp_path: Path) -> None:
    """A mode that is none is a ValueError before anything is opened."""
    with pytest.raises(ValueError, match=", ".join(MODES)):
        ResponseCache(tmp_path, mode="sometimes")


def test_records_come_in_the_order_of_storing(cache: ResponseCache) -> None:
    """Listing yields every record once, or those that are wanted."""
    filled(cache, 5)
    assert [record.response["answer"] for record in cache.records()] == [0, 1, 2, 3, 4]
    assert [record.response["answer"] for record in cache.records(where=lambda record: record.cost > 0.2)] == [3, 4]
    assert next(cache.records()).request["messages"][0]["content"] == "question 0"


def test_delete_and_clear(cache: ResponseCache) -> None:
    """Deleting takes exactly what is meant and tells how many; the deleted are asked anew."""
    requests = filled(cache, 5)
    assert cache.delete(where=lambda record: record.response["answer"] % 2) == 2
    assert [cache.get(request) is None for request in requests] == [False, True, False, True, False]
    assert (len(cache), cache.clear(), len(cache), cache.clear()) == (3, 3, 0, 0)


def test_delete_by_key(cache: ResponseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are deleted by their keys without reading any; what is meant must be said, and in one way."""
    requests = filled(cache, 5)
    with monkeypatch.context() as patched:
        patched.setattr(cache.storage, "page", None)
        patched.setattr(cache.storage, "get", None)
        assert cache.delete(keys=[requests[1].cache_key, requests[3].cache_key, "0" * 64]) == 2
    assert [cache.get(request) is None for request in requests] == [False, True, False, True, False]
    for arguments in ({}, {"where": bool, "keys": []}, {"keys": requests[0].cache_key}):
        with pytest.raises(TypeError, match="keys"):
            cache.delete(**arguments)  # type: ignore[arg-type]
    assert len(cache) == 3


def test_stats_and_repr(cache: ResponseCache) -> None:
    """The statistics tell path, number and size; an empty cache is true all the same."""
    assert (cache.stats().records, cache.stats().size, bool(cache)) == (0, 0, True)
    filled(cache, 3)
    assert cache.stats().path == str(cache.path)
    assert cache.stats().records == 3
    assert cache.stats().size > 1000
    assert repr(cache) == f"ResponseCache({str(cache.path)!r}, mode='auto')"


def test_handles_open_again(cache: ResponseCache) -> None:
    """A closed cache is opened by its next use."""
    request = asked()
    cache.put(request, ANSWER)
    cache.close()
    cache.close()
    assert cache.get(request) is not None
    assert cache.put(request, OTHER).response == ANSWER


def test_one_cache_object_for_a_directory(tmp_path: Path) -> None:
    """All clients of a directory share one object, and so its flights."""
    assert shared_cache(tmp_path / "a") is shared_cache(str(tmp_path / "a"))
    assert shared_cache(tmp_path / "a") is not shared_cache(tmp_path / "b")


@pytest.mark.parametrize("value", [b"nonsense", b"", b"\x80\x04.", "text", 7, None])
def test_a_damaged_record(value: Any, cache: ResponseCache, caplog: pytest.LogCaptureFixture) -> None:
    """Damage is never an answer: replay refuses or misses, the other modes ask anew and mend it."""
    request, sound = filled(cache, 2)
    damage(cache, request.cache_key, value)
    with pytest.raises(CacheCorruptError, match=request.cache_key[:12]):
        cache.get(request, mode="replay")
    assert cache.get(request) is None
    assert "asked anew" in caplog.text
    with pytest.raises(CacheCorruptError):
        list(cache.records())
    assert cache.verify() == [request.cache_key]
    assert cache.put(request, ANSWER).response == ANSWER
    assert cache.get(request, mode="replay").response == ANSWER  # type: ignore[union-attr]
    assert (cache.verify(), len(cache)) == ([], 2)
    assert cache.get(sound).response == {"answer": 1}  # type: ignore[union-attr]


def test_verify_notices_a_record_under_a_wrong_key(cache: ResponseCache) -> None:
    """A sound record of another request is damage where it stands."""
    one, other = filled(cache, 2)
    with sqlite3.connect(cache.path / DATABASE) as connection:
        (swapped,) = connection.execute("SELECT value FROM Cache WHERE key = ?", (one.cache_key,)).fetchone()
    connection.close()
    assert cache.verify() == []
    damage(cache, other.cache_key, swapped)
    assert cache.verify() == [other.cache_key]


def test_clear_leaves_nothing_unreadable(cache: ResponseCache) -> None:
    """Damaged and foreign rows go as well, and count."""
    request, _ = filled(cache, 2)
    damage(cache, request.cache_key)
    assert cache.clear() == 2
    assert (len(cache), cache.verify(), list(cache.records())) == (0, [], [])
