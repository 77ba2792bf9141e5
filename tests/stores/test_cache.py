"""The cache as users meet it, in a directory and in Redis: modes, records, what is stored, and who
shares it.
"""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import sqlite3
import stat
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import diskcache
import pytest
from commands import NEEDS_POSIX, ran, start
from files import in_database
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import TOOL_CALL, RedisProcess

import llmcall
from llmcall import CacheCorruptError, CacheError, CacheMissError, ConfigError, ResponseCache
from llmcall.testing import ScriptedClient
from llmcall.types import Record

asked = ScriptedClient(cache_mode="off").build_request


def answer(content: str | None, finish_reason: str = "stop") -> dict[str, Any]:
    """Return a response with a text."""
    message = {"role": "assistant", "content": content}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}


def text_of(record: Record | None) -> str:
    """Return the text that a record holds."""
    assert record is not None
    return str(record.response["choices"][0]["message"]["content"])


def client_at(
    path: Any = None, answers: Any = ("one", "two", "three"), mode: str = "auto", **settings: Any
) -> Any:
    """Return a client that stores its answers, in the project's own cache unless a path is given."""
    return ScriptedClient(answers, cache_mode=mode, cache_path=path, on_error="raise", **settings)


def answer_to(client: Any, message: str = "Hello", **arguments: Any) -> tuple[str, bool]:
    """Ask, and return the answer's text and whether it was cached."""
    reply = client.send_message(message, **arguments)
    return reply.content, reply.cached


def filled(cache: ResponseCache, count: int) -> list[Any]:
    """Store some answers; return their requests."""
    requests = [asked(f"question {number}") for number in range(count)]
    for number, request in enumerate(requests):
        cache.put(request, answer(str(number)), cost=number / 10)
    return requests


def spoil(cache_path: str, key: str, value: Any) -> None:
    """Put something else in the place of a record's bytes."""
    if "://" in cache_path:
        import redis

        with redis.Redis.from_url(cache_path) as client:
            client.hset("llmcall:rows", key, struct.pack("<d", 1.0) + (value or b""))
        return
    in_database(cache_path, "UPDATE Cache SET value = ? WHERE key = ?", value, key)


# Modes


def test_a_question_is_asked_once(cache_path: str) -> None:
    """Another client gets the recorded answer, too."""
    first, second = client_at(cache_path), client_at(cache_path, ())
    assert [answer_to(first), answer_to(first), answer_to(second)] == [
        ("one", False),
        ("one", True),
        ("one", True),
    ]
    assert len(first.cache) == 1


ways_to_ask = pytest.mark.parametrize(
    "way",
    [
        lambda client, how: client.send_message("unknown", **how),
        lambda client, how: client.get_embedding("unknown", **how),
        lambda client, how: list(client.stream_message("unknown", **how)),
    ],
    ids=["send_message", "get_embedding", "stream_message"],
)


@ways_to_ask
@pytest.mark.parametrize("on_error", ["none", "raise", "return"])
def test_replay_raises_for_what_is_not_recorded_whatever_on_error_says(
    way: Any, on_error: str, cache_path: str
) -> None:
    """Nothing is asked; the error names the place, and the mode that asks."""
    client = client_at(cache_path, mode="replay")
    with pytest.raises(CacheMissError, match="MODE = auto") as caught:
        way(client, {"on_error": on_error})
    assert not client.requests
    # a long path is broken into lines
    assert "://" not in cache_path or cache_path in str(caught.value)


def test_replay_needs_no_key_and_no_address() -> None:
    """A recorded answer is given where nothing is configured."""
    answer_to(client_at(), "known", model="gpt-6-luna")
    client = llmcall.OpenAIClient(cache_mode="replay")
    assert answer_to(client, "known") == ("one", True)


def test_refresh_asks_each_question_once_per_process(cache_path: str) -> None:
    """Other clients and cache objects of the process read the new answer; another question is asked."""
    answer_to(client_at(cache_path, ["old"]))
    client = client_at(cache_path, ["new", "newer"], mode="refresh")
    assert [
        answer_to(client),
        answer_to(client),
        answer_to(client_at(cache_path, (), "refresh")),
    ] == [
        ("new", False),
        ("new", True),
        ("new", True),
    ]
    other = ResponseCache(cache_path, mode="refresh")
    assert text_of(other.get(client.build_request("Hello"))) == "new"
    assert answer_to(client, "another") == ("newer", False)


def test_refresh_asks_once_more_in_each_process(cache_path: str) -> None:
    """Its answer takes the place of the last one, chat or embedding."""
    program = """
        client = ScriptedClient(["from a child"], cache_mode="refresh", cache_path=sys.argv[1])
        embedder = ScriptedClient([[3.0]], cache_mode="refresh", cache_path=sys.argv[1])
        print(client.send_message("Hello").content, embedder.get_embedding("Hello"))
    """

    def recorded() -> tuple[str, list[float]]:
        reading = client_at(cache_path, ())
        return answer_to(reading)[0], reading.get_embedding("Hello")

    answer_to(client_at(cache_path, ["old"]))
    client_at(cache_path, [[1.0]]).get_embedding("Hello")
    assert answer_to(client_at(cache_path, ["new"], "refresh")) == ("new", False)
    assert client_at(cache_path, [[2.0]], "refresh").get_embedding("Hello") == [2.0]
    assert recorded() == ("new", [2.0])
    assert ran(program, cache_path) == "from a child [3.0]"
    assert recorded() == ("from a child", [3.0])


def test_mode_off_neither_reads_nor_stores() -> None:
    """Each call asks."""
    answer_to(client_at(answers=["stored"]))
    client = client_at(mode="off")
    assert [answer_to(client), answer_to(client)] == [("one", False), ("two", False)]
    assert answer_to(client_at(answers=())) == ("stored", True)


def test_cache_false_neither_reads_nor_stores() -> None:
    """The calls before and after it do."""
    answer_to(client_at(answers=["stored"]))
    client = client_at()
    assert [answer_to(client), answer_to(client, cache=False), answer_to(client)] == [
        ("stored", True),
        ("one", False),
        ("stored", True),
    ]
    assert answer_to(client, "other", cache=False) == ("two", False)
    assert len(client.cache) == 1


# What is stored


def test_a_record_holds_what_was_asked_and_answered(cache: ResponseCache) -> None:
    """It has the request, the response, its cost, the sample, and when it was stored."""
    request = asked("Käse?", temperature=0.5, sample=3)
    assert cache.get(request) is None
    cache.put(request, answer("3"), cost=0.25)
    record = cache.get(request)
    assert record is not None
    assert record.stored_at is not None
    assert record.replace(stored_at=None) == Record(
        cache_key=request.cache_key,
        kind="chat",
        sample="#3",
        request={
            "model": "gpt-6-luna",
            "messages": [{"role": "user", "content": "Käse?"}],
            "temperature": 0.5,
            "reasoning_effort": "none",
        },
        response=answer("3"),
        cost=0.25,
        version=llmcall.__version__,
    )


def test_changing_a_reply_changes_no_record(cache_path: str) -> None:
    """Changing a record object changes none either."""
    reply = {"role": "assistant", "content": "3", "tool_calls": [TOOL_CALL]}
    client = client_at(cache_path, [reply])
    for _ in range(3):
        reply = client.send_message("Hello")
        assert (reply.content, reply.tool_calls, len(reply.choices)) == ("3", [TOOL_CALL], 1)
        reply["content"] = "changed"
        reply.tool_calls[0].clear()
        reply.raw["choices"].clear()
        client.cache.get(client.build_request("Hello")).response.clear()


@pytest.fixture
def asked_elsewhere() -> dict[str, Any]:
    """Record answers of one server, and return the settings of another one."""
    for message in ("Hello", "again"):
        answer_to(client_at(), message, model="m", temperature=0)
    return {"base_url": "http://localhost:1/v1", "on_error": "raise"}


def test_a_hit_of_another_host_warns_once(
    asked_elsewhere: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names both servers and the remedy."""
    assert not caplog.records
    elsewhere = llmcall.OpenAIClient(**asked_elsewhere)
    for message in ("Hello", "again", "Hello"):
        assert answer_to(elsewhere, message, model="m", temperature=0) == (
            "one",
            True,
        )
    (warning,) = caplog.messages
    assert "scripted" in warning
    assert "localhost" in warning
    assert "[Cache] NAMESPACE" in warning


# The cache's own functions


STEPS = st.one_of(
    st.tuples(st.sampled_from(["put", "replace"]), st.sampled_from("abc"), st.sampled_from("123")),
    st.tuples(st.just("delete"), st.sampled_from("abc"), st.sampled_from("abc")),
    st.tuples(st.just("clear")),
)


@settings(max_examples=10)
@given(st.lists(STEPS, max_size=12))
def test_a_cache_on_disk_and_one_in_redis_hold_what_a_dict_would(
    redis_process: RedisProcess, tmp_path_factory: Any, steps: list[Any]
) -> None:
    """Records are stored, replaced and deleted in any order."""
    with redis_process.client() as client:
        client.flushall()
    for path in (str(tmp_path_factory.mktemp("any") / "cache"), redis_process.url):
        expected: dict[str, str] = {}
        with ResponseCache(path) as cache:
            for name, *arguments in steps:
                if name == "clear":
                    assert cache.clear() == len(expected)
                    expected = {}
                elif name == "delete":
                    found = expected.keys() & set(arguments)
                    assert cache.delete(
                        keys=[asked(key).cache_key for key in set(arguments)]
                    ) == len(found)
                    expected = {key: value for key, value in expected.items() if key not in found}
                else:
                    key, value = arguments
                    record = cache.put(asked(key), answer(value))
                    if name == "replace":
                        new = record.replace(response=answer(value))
                        record = cache.store(new, replace=True)
                    kept = expected.get(key, value) if name == "put" else value
                    assert text_of(record) == kept
                    expected[key] = kept
            records = {
                record.request["messages"][0]["content"]: text_of(record)
                for record in cache.records()
            }
            assert (list(records.items()), len(cache)) == (list(expected.items()), len(expected))


def test_records_come_in_the_order_of_storing(cache: ResponseCache) -> None:
    """Listing yields each record once, or those that are wanted, also while others are added and
    deleted.
    """
    requests = filled(cache, 1203)
    assert [
        text_of(record) for record in cache.records(where=lambda record: record.cost > 120)
    ] == ["1201", "1202"]
    found = []
    for record in cache.records():
        found.append(text_of(record))
        if len(found) == 600:
            cache.put(asked("late"), answer("late"))
            cache.delete(keys=[request.cache_key for request in requests[400:1000]])
    assert found[:600] == [str(number) for number in range(600)]
    assert found[-204:] == [*(str(number) for number in range(1000, 1203)), "late"]
    assert len(found) == len(set(found))


def test_delete_takes_the_records_that_where_selects(cache: ResponseCache) -> None:
    """It returns how many."""
    requests = filled(cache, 6)
    assert cache.delete(where=lambda record: int(text_of(record)) % 2 == 1) == 3
    assert [cache.get(request) is None for request in requests] == [False, True] * 3


def test_clear_deletes_damaged_records_too(cache: ResponseCache, cache_path: str) -> None:
    """It returns how many records there were."""
    requests = filled(cache, 2)
    spoil(cache_path, requests[0].cache_key, b"nonsense")
    assert (len(cache), cache.clear(), len(cache), cache.clear()) == (2, 2, 0, 0)
    assert list(cache.records()) == []


def test_looking_at_a_cache_makes_none(cache: ResponseCache) -> None:
    """The folder is made when the first answer is stored."""
    cache.stats()
    cache.clear()
    assert (len(cache), list(cache.records())) == (0, [])
    assert not cache.exists()
    assert not isinstance(cache.path, Path) or not cache.path.exists()


@pytest.fixture
def two_records() -> ResponseCache:
    """A cache with a record outside any scope, and one in a scope."""
    client = client_at(answers=lambda messages: "Two.", model="gpt-4o")
    answer_to(client, "How many?")
    with llmcall.scope("trial"), llmcall.scope("lisa"):
        answer_to(client, "And now?")
    return client.cache  # type: ignore[no-any-return]


def test_a_frame_has_a_row_for_each_record_and_the_documented_columns(
    two_records: ResponseCache,
) -> None:
    """Rows stand in the order of storing; columns in this order, and then those of features."""
    frame = two_records.to_frame()
    assert list(frame.columns)[:15] == [
        "scope",
        "draw",
        "kind",
        "model",
        "served",
        "prompt",
        "answer",
        "finish_reason",
        "refusal",
        "input_tokens",
        "output_tokens",
        "cost",
        "used",
        "cache_key",
        "request",
    ]
    assert list(frame["prompt"]) == ["How many?", "And now?"]
    assert list(frame["answer"]) == ["Two.", "Two."]
    assert (frame["scope"][1], frame["draw"][1]) == ("trial/lisa", 0)


def test_a_question_has_the_same_request_in_each_recording(two_records: ResponseCache) -> None:
    """Whatever its scope and draw; another question has another."""
    then = two_records.to_frame()
    client = client_at(answers=lambda messages: "Three.", model="gpt-4o")
    with llmcall.cassette("later.jsonl") as later, llmcall.scope("wave-2"):
        for question in ("And now?", "And now?", "How many?"):
            answer_to(client, question)
    now = later.to_frame()
    assert then["request"].str.len().tolist() == [64, 64]
    assert then["request"].tolist() == [now["request"][2], now["request"][0]]
    assert now["request"].nunique() == 2


def test_a_frame_says_which_records_calls_of_this_process_used(cache_path: str) -> None:
    """Those that a call made or was answered by; who looks at records uses none."""
    cache = ResponseCache(cache_path)
    filled(cache, 2)
    assert cache.to_frame()["used"].tolist() == [False, False]
    client = client_at(cache_path, answers=lambda messages: "Two.")
    for question in ("question 1", "question 2"):
        answer_to(client, question)
    assert ResponseCache(cache_path).to_frame()["used"].tolist() == [False, True, True]


def test_a_frame_has_the_levels_of_the_scopes() -> None:
    """Each level that is named has a column, also by a text alone; a repeat is no level, a shorter scope lacks some."""
    client = client_at(answers=lambda messages: "Two.")
    with llmcall.scope("rep-1"):
        answer_to(client, "How many?")
        assert client.cache.to_frame(levels="rep")["rep"].tolist() == ["rep-1"]
        llmcall.map(lambda _: answer_to(client, "And now?"), ["lisa"], key=str, repeats=2)
    frame = client.cache.to_frame(levels=["rep", "agent"])
    assert list(frame.columns[:4]) == ["scope", "rep", "agent", "draw"]
    assert frame["rep"].tolist() == ["rep-1"] * 3
    assert frame["agent"].fillna("").tolist() == ["", "lisa", "lisa"]


# Damage


@pytest.fixture(params=[b"nonsense", b"", b"\x80\x04.", "text", 7, None])
def damaged(request: pytest.FixtureRequest, cache_path: str, cache: ResponseCache) -> Any:
    """Store two answers, and damage the first; return its key."""
    if "://" in cache_path and not isinstance(request.param, bytes):
        pytest.skip("Redis holds bytes only: it cannot be damaged like this")
    first, _ = filled(cache, 2)
    spoil(cache_path, first.cache_key, request.param)
    return first.cache_key


def test_a_damaged_record_is_an_error_in_replay_and_in_a_list(
    damaged: str, cache_path: str, cache: ResponseCache
) -> None:
    """The error has the record's key."""
    with pytest.raises(CacheCorruptError, match=damaged[:12]):
        answer_to(client_at(cache_path, (), "replay"), "question 0")
    with pytest.raises(CacheCorruptError, match=damaged[:12]):
        list(cache.records())


def test_a_damaged_record_is_asked_again_and_replaced(
    damaged: str, cache_path: str, cache: ResponseCache, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so; the other record stays."""
    client = client_at(cache_path)
    assert [answer_to(client, "question 0"), answer_to(client, "question 0")] == [
        ("one", False),
        ("one", True),
    ]
    assert "requests the answer again" in caplog.text
    assert len(list(cache.records())) == len(cache) == 2
    assert text_of(cache.get(asked("question 1"))) == "1"


def test_a_record_under_a_wrong_key_is_damaged(tmp_path: Path) -> None:
    """A sound record of another request, as a damaged index gives, is no answer, also to one who
    had the right one.
    """
    client = client_at(tmp_path / "cache", lambda messages: messages[-1]["content"])
    one, two = (client.send_message(question) for question in ("one", "two"))
    [(swapped,)] = in_database(
        tmp_path / "cache", "SELECT value FROM Cache WHERE key = ?", one.cache_key
    )
    spoil(str(tmp_path / "cache"), two.cache_key, swapped)
    with pytest.raises(CacheCorruptError, match=two.cache_key[:12]):
        list(client.cache.records())
    assert answer_to(client, "two") == ("two", False)
    assert len(list(client.cache.records())) == 2


# Sharing


@NEEDS_POSIX
def test_a_process_forked_while_others_write_and_call_uses_the_cache(cache_path: str) -> None:
    """The child uses handles of its own, and asks for itself what a thread of the parent is asking."""
    program = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, from Python 3.12 on
        asked, answer = threading.Event(), threading.Event()
        def slow(messages):
            if messages[-1]["content"] == "a":
                asked.set()
                answer.wait()
            return "yes"
        client = ScriptedClient(slow, cache_mode="auto", cache_path=sys.argv[1], temperature=0, on_error="raise")
        client.send_message("before")
        threads = [threading.Thread(target=client.send_message, args=("a",)),
                   threading.Thread(target=lambda: [client.send_message(str(number)) for number in range(150)])]
        for thread in threads:
            thread.start()
        asked.wait()
        child = os.fork()
        if not child:
            answer = threading.Event()  # another thread may hold the lock of the inherited one
            answer.set()
            assert client.send_message("before").cached and not client.send_message("of the child").cached
            assert not client.send_message("a").cached and len(list(client.cache.records())) >= 3
            os._exit(0)
        _, status = os.waitpid(child, 0)
        answer.set()
        for thread in threads:
            thread.join()
        print(status, len(client.cache), client.send_message("a").cached, client.send_message("of the child").cached)
    """
    assert ran(program, cache_path) == "0 153 True True"


@pytest.mark.ci
@NEEDS_POSIX
@pytest.mark.feature("executors")
def test_forked_processes_lose_nothing_where_other_threads_had_the_database_open(
    tmp_path: Path,
) -> None:
    """Each child closes the handles of all threads: beside an open one SQLite takes no lock of its own."""
    program = """
        import multiprocessing, time, warnings
        from concurrent.futures import ProcessPoolExecutor
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, from Python 3.12 on
        def answer(messages):
            time.sleep(0.01)
            return os.urandom(6).hex()
        client = ScriptedClient(answer, cache_mode="auto", cache_path=sys.argv[1], temperature=0)
        def three(item):
            return [client.send_message("Hello").content for _ in range(3)]
        lost = 0
        for number in range(8):
            llmcall.map(three, range(6), workers=4, scope=f"threads {number}")
            fork = multiprocessing.get_context("fork")
            with ProcessPoolExecutor(2, mp_context=fork) as executor:
                answers = llmcall.map(three, range(4), executor=executor, scope=f"processes {number}")
            lost += answers != llmcall.map(three, range(4), scope=f"processes {number}")
        print(lost)
    """
    assert ran(program, str(tmp_path / "cache")) == "0"
    assert in_database(tmp_path / "cache", "PRAGMA integrity_check") == [("ok",)]


def test_a_program_ends_while_a_daemon_thread_uses_the_cache(tmp_path: Path) -> None:
    """Python stops the thread in a look-up, which would keep the lock for ever."""
    program = """
        client = ScriptedClient(["yes"], cache_mode="auto", cache_path=sys.argv[1], temperature=0)
        client.send_message("Hello")
        looked_up = threading.Event()
        def look_up():
            while client.send_message("Hello").cached:
                looked_up.set()
        threading.Thread(target=look_up, daemon=True).start()
        looked_up.wait()
    """
    with start(program, tmp_path / "cache") as process:
        assert process.communicate(timeout=60) == ("", "")


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))]
)
def test_a_copy_of_a_cache_is_the_same_cache(copied: Any, cache_path: str) -> None:
    """It has its answers and its mode, and is closed by itself."""
    cache = ResponseCache(cache_path, mode="replay")
    filled(ResponseCache(cache_path), 2)
    keys = [record.cache_key for record in cache.records()]
    with copied(cache) as other:
        assert [record.cache_key for record in other.records()] == keys
        assert (other.path, other.mode) == (cache.path, "replay")
    assert len(cache) == 2


# The directory


@pytest.mark.parametrize("exists", [False, True])
def test_a_caches_directory_is_private_and_out_of_git(exists: bool, tmp_path: Path) -> None:
    """It has the mode 0700 and a .gitignore that covers all, whether it was made or was empty."""
    folder = tmp_path / "cache"
    if exists:
        folder.mkdir(mode=0o755)
    cache = ResponseCache(folder)
    filled(cache, 1)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"


def test_diskcache_loses_nothing_of_a_cache(tmp_path: Path) -> None:
    """Opened by it, the directory has no limit, no eviction and no statistics."""
    with ResponseCache(tmp_path / "cache") as cache:
        filled(cache, 2)
    with diskcache.Cache(str(tmp_path / "cache")) as opened:
        assert (opened.eviction_policy, opened.cull_limit, opened.statistics) == ("none", 0, 0)
        assert opened.size_limit >= 2**60
        assert opened.expire() == opened.cull() == 0
        assert isinstance(opened[asked("question 0").cache_key], bytes)


@pytest.mark.parametrize("mode", ["auto", "refresh", "replay"])
@pytest.mark.parametrize(
    ("limits", "named"),
    [({}, "eviction_policy"), ({"eviction_policy": "none", "cull_limit": 0}, "size_limit")],
    ids=["evicts", "keeps"],
)
def test_the_directory_of_another_diskcache_program_is_refused_before_a_call(
    limits: dict[str, Any], named: str, mode: str, tmp_path: Path
) -> None:
    """Its limits and rows stay as they are; the error names its limits and a remedy."""
    with diskcache.Cache(str(tmp_path / "theirs"), **limits) as theirs:
        theirs["row"] = [1]
        before = theirs.size_limit, theirs.eviction_policy, theirs.cull_limit
    client = ScriptedClient([], cache_path=str(tmp_path / "theirs"), cache_mode=mode)
    with pytest.raises(ConfigError, match=rf"of another program .*{named} .*salvage"):
        client.send_message("Bread?")
    with diskcache.Cache(str(tmp_path / "theirs")) as theirs:
        after = theirs.size_limit, theirs.eviction_policy, theirs.cull_limit
        assert (theirs["row"], after) == ([1], before)


def test_a_record_that_replaces_an_expired_row_of_diskcache_does_not_expire(tmp_path: Path) -> None:
    """It is deleted as every record is."""
    key = asked("question 0").cache_key
    with ResponseCache(tmp_path / "cache") as cache:
        filled(cache, 1)
        with diskcache.Cache(str(tmp_path / "cache")) as opened:
            opened.set(key, b"no record", expire=0)
        filled(cache, 1)
        assert (cache.delete(keys=[key]), len(cache)) == (1, 0)


@pytest.fixture
def a_file(tmp_path: Path) -> Iterator[Path]:
    """A file in the place of a cache, while the test runs."""
    path = tmp_path / "cache"
    path.write_text("mine")
    yield path
    if path.is_file():
        path.unlink()


@pytest.mark.parametrize("mode", ["auto", "replay"])
def test_a_path_that_is_a_file_is_refused_before_anything_is_paid_for(
    mode: str, a_file: Path
) -> None:
    """The error has its remedy, and the file stays."""
    client = client_at(a_file, mode=mode)
    with pytest.raises(CacheError, match=r"is a file; \[Cache\] PATH must name a directory"):
        client.send_message("a")
    assert not client.requests
    assert a_file.read_text() == "mine"


def test_an_event_loop_goes_on_while_another_writer_holds_the_database() -> None:
    """The answer is stored when the writer has ended."""
    client = client_at()
    client.send_message("first")

    async def ask() -> Any:
        with closing(sqlite3.connect(client.cache.path / "cache.db")) as writer:
            writer.execute("BEGIN IMMEDIATE")
            asking = asyncio.ensure_future(client.asend_message("second"))
            await asyncio.wait([asking], timeout=0.5)
            assert not asking.done()
            writer.rollback()
        return await asking

    assert asyncio.run(ask()).content == "two"
    assert answer_to(client_at(mode="replay"), "second") == ("two", True)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc: run it on Linux")
def test_a_closed_cache_has_no_file_open_that_a_maps_threads_looked_into(tmp_path: Path) -> None:
    """The threads may still run."""
    client = client_at(tmp_path, [str(number) for number in range(50)])
    questions = [f"question {number}" for number in range(50)]
    recorded = [client.send_message(question).content for question in questions]
    assert [reply.content for reply in llmcall.map(client.send_message, questions)] == recorded
    client.cache.close()
    folder = str(client.cache.path)
    open_files = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
    assert not [name for name in open_files if name.startswith(folder)]
