"""The cache as users meet it, in a directory and in Redis: modes, records, what is stored, and who
shares it.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import diskcache
import pytest
from disks import DATABASE, in_database
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import ran
from redis_servers import RedisProcess
from servers import TOOL_CALL, completion

import llmcall
from llmcall import (
    CacheCorruptError,
    CacheError,
    CacheMissError,
    ConfigError,
    Record,
    ResponseCache,
)
from llmcall.testing import ScriptedClient

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
    path: Any = None, answers: Any = ("one", "two", "three"), mode: str = "auto", **given: Any
) -> Any:
    """Return a client that stores its answers, in the project's own cache unless a path is given."""
    return ScriptedClient(answers, cache_mode=mode, cache_path=path, on_error="raise", **given)


def said(client: Any, message: str = "Hello", **arguments: Any) -> tuple[str, bool]:
    """Ask, and return the answer's text and whether it was cached."""
    reply = client.send_message(message, **arguments)
    return reply.content, reply.cached


@pytest.fixture
def cache(place: str) -> Iterator[ResponseCache]:
    """An empty cache of each kind."""
    with ResponseCache(place) as made:
        yield made


def filled(cache: ResponseCache, count: int) -> list[Any]:
    """Store some answers; return their requests."""
    requests = [asked(f"question {number}") for number in range(count)]
    for number, request in enumerate(requests):
        cache.put(request, answer(str(number)), cost=number / 10)
    return requests


def spoil(place: str, key: str, value: Any) -> None:
    """Put something else in the place of a record's bytes."""
    if "://" in place:
        import redis

        with redis.Redis.from_url(place) as client:
            client.hset("llmcall:rows", key, struct.pack("<d", 1.0) + (value or b""))
        return
    in_database(place, "UPDATE Cache SET value = ? WHERE key = ?", value, key)


# Modes


def test_a_question_is_asked_once(place: str) -> None:
    """Another client, and another process, get the recorded answer; streamed or not is the same
    record.
    """
    first, second = client_at(place), client_at(place, ())
    assert [said(first), said(first), said(second)] == [
        ("one", False),
        ("one", True),
        ("one", True),
    ]
    with second.stream_message("Hello") as stream:
        assert "".join(stream) == "one" and stream.reply.cached
    program = """
        client = ScriptedClient((), cache_mode="replay", cache_path=sys.argv[1])
        print(client.send_message("Hello").content)
    """
    assert (ran(program, place), len(first.cache)) == ("one", 1)


def test_replay_never_calls(place: str) -> None:
    """What is recorded is answered; anything else is a CacheMissError that names the place,
    whatever on_error is.
    """
    said(client_at(place), "known")
    client = client_at(place, mode="replay")
    assert said(client, "known") == ("one", True)
    for on_error in ("none", "raise", "return"):
        with pytest.raises(CacheMissError, match="MODE = auto") as caught:
            client.send_message("unknown", on_error=on_error)
        assert "://" not in place or place in str(caught.value)  # a long path is broken into lines
        with pytest.raises(CacheMissError):
            client.get_embedding("unknown", on_error=on_error)
    with pytest.raises(CacheMissError):
        list(client.stream_message("unknown"))
    assert not client.requests


def test_replay_needs_no_key_and_no_address() -> None:
    """A recorded answer is given where nothing is configured; the miss comes before the missing
    key.
    """
    said(client_at(), "known", model="gpt-4o-mini")
    client = llmcall.OpenAIClient(cache_mode="replay")
    assert said(client, "known") == ("one", True)
    with pytest.raises(CacheMissError):
        client.send_message("unknown")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        llmcall.OpenAIClient().send_message("unknown")


def test_refresh_asks_each_question_once_per_process(place: str) -> None:
    """The new answer replaces the old one, and is read from then on, by other clients of the
    process too.
    """
    said(client_at(place, ["old"]))
    client = client_at(place, ["new", "newer"], mode="refresh")
    assert [said(client), said(client), said(client_at(place, (), "refresh"))] == [
        ("new", False),
        ("new", True),
        ("new", True),
    ]
    assert said(client, "another") == ("newer", False)
    assert (said(client_at(place, ())), len(client.cache)) == (("new", True), 2)


def test_refresh_overwrites_each_time_it_asks(place: str) -> None:
    """Each process asks once more, and its answer takes the place of the last one, chat or
    embedding.
    """
    program = """
        client = ScriptedClient(["from a child"], cache_mode="refresh", cache_path=sys.argv[1])
        embedder = ScriptedClient([[3.0]], cache_mode="refresh", cache_path=sys.argv[1])
        print(client.send_message("Hello").content, embedder.get_embedding("Hello"))
    """

    def recorded() -> tuple[str, list[float]]:
        reading = client_at(place, ())
        return said(reading)[0], reading.get_embedding("Hello")

    said(client_at(place, ["old"]))
    client_at(place, [[1.0]]).get_embedding("Hello")
    assert said(client_at(place, ["new"], "refresh")) == ("new", False)
    assert client_at(place, [[2.0]], "refresh").get_embedding("Hello") == [2.0]
    assert recorded() == ("new", [2.0])
    assert ran(program, place) == "from a child [3.0]"
    assert recorded() == ("from a child", [3.0])


def test_refresh_overwrites_a_record_once_per_process(place: str) -> None:
    """What a process stored in the place of an old answer counts for it from then on."""
    with ResponseCache(place) as cache:
        cache.put(asked("Hello"), answer("old"))
    with ResponseCache(place, mode="refresh") as cache:
        stored = [text_of(cache.put(asked("Hello"), answer(text))) for text in ("new", "newer")]
    assert stored == ["new", "new"]


def test_off_and_one_call_past_the_cache() -> None:
    """Both neither read nor store; in replay, cache=False is a miss that says why."""
    said(client_at(answers=["stored"]))
    client = client_at(mode="off")
    assert [said(client), said(client)] == [("one", False), ("two", False)]
    client = client_at()
    assert [said(client), said(client, cache=False), said(client)] == [
        ("stored", True),
        ("one", False),
        ("stored", True),
    ]
    assert said(client, "other", cache=False) == ("two", False)
    assert len(client.cache) == 1
    with pytest.raises(CacheMissError, match="cache=False"):
        client_at(mode="replay").send_message("Hello", cache=False)
    off, request = ResponseCache(client.cache.path, mode="off"), client.build_request("Hello")
    assert (off.get(request), text_of(off.put(request, answer("4"))), said(client)) == (
        None,
        "4",
        ("stored", True),
    )
    with pytest.raises(ValueError, match="auto, replay, refresh, off"):
        ResponseCache("cache", mode="sometimes")


# What is stored


def test_a_record_holds_what_was_asked_and_who_answered(cache: ResponseCache) -> None:
    """The request, the response, its cost, the sample; of a client's also api_type, host and
    version.
    """
    request = asked("Käse?", temperature=0.5, sample=3)
    assert cache.get(request) is None
    cache.put(request, answer("3"), cost=0.25)
    record = cache.get(request)
    assert record is not None and record.stored_at is not None
    assert record.replace(stored_at=None) == Record(
        cache_key=request.cache_key,
        kind="chat",
        sample="#3",
        request={
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "Käse?"}],
            "temperature": 0.5,
        },
        response=answer("3"),
        cost=0.25,
        version=llmcall.__version__,
    )
    client = client_at()
    said(client)
    (record,) = client.cache.records()
    assert (record.api_type, record.host, record.version) == (
        "scripted",
        "scripted",
        llmcall.__version__,
    )


def test_callers_get_copies(place: str) -> None:
    """Whatever a caller does with messages, a reply or a record, the next one is as it was
    recorded.
    """
    client = client_at(
        place, [{"role": "assistant", "content": "3", "tool_calls": [TOOL_CALL]}, "4"]
    )
    messages = [{"role": "user", "content": "Hello"}]
    for _ in range(3):
        reply = client.send_message(messages)
        assert (reply.content, reply.tool_calls, len(reply.choices)) == ("3", [TOOL_CALL], 1)
        reply["content"] = "changed"
        reply.tool_calls[0].clear()
        reply.raw["choices"].clear()
        client.cache.get(client.build_request(messages)).response.clear()
    messages[0]["content"] = "Good bye"
    assert said(client, messages) == ("4", False)  # type: ignore[arg-type]
    given = answer("mine")
    client.cache.put(client.build_request("planted"), given).response.clear()
    given["choices"].clear()
    assert said(client, "planted") == ("mine", True)


def test_a_hit_of_another_host_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    """Answers of one server used for another are named once, with the remedy; a namespace keeps
    them apart.
    """
    for message in ("Hello", "again"):
        said(client_at(), message, model="m", temperature=0)
    assert not caplog.records
    elsewhere = llmcall.OpenAIClient(base_url="http://localhost:1/v1")
    for message in ("Hello", "again", "Hello"):
        assert elsewhere.send_message(message, model="m", temperature=0) is not None
    (warning,) = caplog.messages
    assert all(word in warning for word in ("scripted", "localhost", "[Cache] NAMESPACE"))
    apart = llmcall.OpenAIClient(
        base_url="http://localhost:1/v1", cache_namespace="local", cache_mode="replay"
    )
    with pytest.raises(CacheMissError):
        apart.send_message("Hello", model="m", temperature=0)


@pytest.mark.parametrize("asked_at", ["http://LocalHost:1/v1", "HTTP://LOCALHOST:2/v1"])
def test_a_hit_of_the_same_host_in_other_letters_does_not_warn(
    asked_at: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A host's name is the same in capital and in small letters, in a record as in an address."""
    transport = ScriptedClient(["one"])
    for base_url in ("http://localhost:1/v1", asked_at):
        client = llmcall.OpenAIClient(base_url=base_url, transport=transport, on_error="raise")
        said(client, "Hello", model="m", temperature=0)
        assert client.cache.get(client.build_request("Hello", model="m", temperature=0))
    assert len(transport.requests) == 1 and not caplog.records


# The cache's own functions


STEPS = st.one_of(
    st.tuples(st.sampled_from(["put", "replace"]), st.sampled_from("abc"), st.sampled_from("123")),
    st.tuples(st.just("delete"), st.sampled_from("abc"), st.sampled_from("abc")),
    st.tuples(st.just("clear")),
)


@settings(max_examples=25)
@given(st.lists(STEPS, max_size=12))
def test_both_kinds_do_the_same(
    redis_process: RedisProcess, tmp_path_factory: Any, steps: list[Any]
) -> None:
    """Whatever is stored, replaced and deleted, a directory and a Redis server hold what a dict
    would.
    """
    with redis_process.client() as client:
        client.flushall()
    for place in (str(tmp_path_factory.mktemp("any") / "cache"), redis_process.url):
        expected: dict[str, str] = {}
        with ResponseCache(place) as cache:
            for name, *given_to in steps:
                if name == "clear":
                    assert cache.clear() == len(expected)
                    expected = {}
                elif name == "delete":
                    found = expected.keys() & set(given_to)
                    assert cache.delete(
                        keys=[asked(key).cache_key for key in set(given_to)]
                    ) == len(found)
                    expected = {key: value for key, value in expected.items() if key not in found}
                else:
                    key, value = given_to
                    writer = cache if name == "put" else ResponseCache(place, mode="refresh")
                    kept = expected.get(key, value) if name == "put" else value
                    assert text_of(writer.put(asked(key), answer(value))) == kept
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


def test_delete_and_clear(cache: ResponseCache, place: str) -> None:
    """Deleting takes exactly what is meant and tells how many, damaged records too; what is meant
    must be said.
    """
    requests = filled(cache, 6)
    assert cache.delete(where=lambda record: int(text_of(record)) % 2 == 1) == 3
    assert [cache.get(request) is None for request in requests] == [False, True] * 3
    assert cache.delete(keys=[requests[0].cache_key, requests[1].cache_key, "0" * 64]) == 1
    for arguments in ({}, {"where": bool, "keys": []}, {"keys": requests[2].cache_key}):
        with pytest.raises(TypeError, match="keys"):
            cache.delete(**arguments)  # type: ignore[arg-type]
    spoil(place, requests[2].cache_key, b"nonsense")
    assert (len(cache), cache.clear(), len(cache), cache.clear()) == (2, 2, 0, 0)
    assert (cache.verify(), list(cache.records())) == ([], [])


def test_statistics(cache: ResponseCache) -> None:
    """They tell path, number and size; an empty cache is true all the same, and asking makes none."""
    assert (cache.stats().records, cache.stats().size, bool(cache), cache.exists()) == (
        0,
        0,
        True,
        False,
    )
    assert (len(cache), list(cache.records()), cache.delete(keys=["a"]), cache.clear()) == (
        0,
        [],
        0,
        0,
    )
    assert not isinstance(cache.path, Path) or not cache.path.exists()
    filled(cache, 3)
    stats = cache.stats()
    assert (stats.path, stats.records, stats.size > 300) == (str(cache.path), 3, True)
    assert repr(cache) == f"ResponseCache({str(cache.path)!r}, mode='auto')"


def test_a_frame() -> None:
    """A row for each record, in the order of storing."""
    pytest.importorskip("pandas")
    client = client_at(answers=lambda messages: "Two.", model="gpt-4o")
    said(client, "How many?")
    with llmcall.scope("trial"), llmcall.scope("lisa"):
        said(client, "And now?")
    frame = client.cache.to_frame()
    assert list(frame.columns) == [
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
    ]
    assert list(frame["prompt"]) == ["How many?", "And now?"] and list(frame["answer"]) == [
        "Two.",
        "Two.",
    ]
    assert (frame["scope"][1], frame["draw"][1]) == ("trial/lisa", 0)
    assert len(client.cache.to_frame(lambda record: record.sample is None)) == 1


def test_a_frame_says_who_answered_and_how_the_answer_ended(cache: ResponseCache) -> None:
    """The name that the server gave, why the answer ended, and the text of a refusal."""
    pytest.importorskip("pandas")
    message = {"role": "assistant", "content": None, "refusal": "No."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    cut = completion("Yes, I w", finish_reason="length")
    for question, response in (("one", {"choices": [choice]}), ("two", cut)):
        cache.put(asked(question), response)
    frame = cache.to_frame()
    assert frame["served"].fillna("").tolist() == ["", "gpt-4o-mini-2024-07-18"]
    assert frame["finish_reason"].tolist() == ["stop", "length"]
    assert frame["refusal"].fillna("").tolist() == ["No.", ""]


def test_a_frame_says_which_records_calls_of_this_process_used(place: str) -> None:
    """Those that a call made or was answered by; who looks at records uses none."""
    pytest.importorskip("pandas")
    cache = ResponseCache(place)
    filled(cache, 2)
    assert cache.to_frame()["used"].tolist() == [False, False]
    client = client_at(place, answers=lambda messages: "Two.")
    for question in ("question 1", "question 2"):
        said(client, question)
    assert ResponseCache(place).to_frame()["used"].tolist() == [False, True, True]


def test_a_frame_has_the_levels_of_the_scopes() -> None:
    """Each level that is named has a column; a repeat is no level, and a shorter scope lacks some."""
    pytest.importorskip("pandas")
    client = client_at(answers=lambda messages: "Two.")
    with llmcall.scope("rep-1"):
        said(client, "How many?")
        llmcall.map(lambda _: said(client, "And now?"), ["lisa"], key=str, repeats=2)
    frame = client.cache.to_frame(levels=["rep", "agent"])
    assert list(frame.columns[:4]) == ["scope", "rep", "agent", "draw"]
    assert frame["rep"].tolist() == ["rep-1"] * 3
    assert frame["agent"].fillna("").tolist() == ["", "lisa", "lisa"]


@pytest.mark.parametrize(
    ("levels", "error", "words"),
    [
        (["rep"], ValueError, r"names 1 \(rep\), but the deepest scope has 2 levels.*'rep-1/lisa'"),
        (["rep", "agent", "round"], ValueError, "names 3 .* has 2 levels"),
        (["rep", "draw"], ValueError, "names 'draw', which is another column already.*cache_key"),
        (["rep", "rep"], ValueError, "names 'rep', which is another column already"),
        ("rep", TypeError, "must be a list of names"),
    ],
)
def test_levels_that_do_not_fit(levels: Any, error: type[Exception], words: str) -> None:
    """The error says which levels or columns there are."""
    pytest.importorskip("pandas")
    client = client_at(answers=lambda messages: "Two.")
    with llmcall.scope("rep-1"), llmcall.scope("lisa"):
        said(client, "How many?")
    with pytest.raises(error, match=words):
        client.cache.to_frame(levels=levels)


# Damage


@pytest.mark.parametrize("value", [b"nonsense", b"", b"\x80\x04.", "text", 7, None])
def test_a_damaged_record(
    value: Any, place: str, cache: ResponseCache, caplog: pytest.LogCaptureFixture
) -> None:
    """Damage is never an answer: replay refuses, the other modes ask anew, say so, and mend it."""
    if "://" in place and not isinstance(value, bytes):
        pytest.skip("only a directory can hold other types")
    request, sound = filled(cache, 2)
    spoil(place, request.cache_key, value)
    with pytest.raises(CacheCorruptError, match=request.cache_key[:12]):
        said(client_at(place, (), "replay"), "question 0")
    with pytest.raises(CacheCorruptError):
        list(cache.records())
    assert cache.verify() == [request.cache_key]
    client = client_at(place)
    assert [said(client, "question 0"), said(client, "question 0")] == [
        ("one", False),
        ("one", True),
    ]
    assert "asks for the answer again" in caplog.text
    assert (cache.verify(), len(cache), text_of(cache.get(sound))) == ([], 2, "1")


def test_a_record_under_a_wrong_key_is_damage(tmp_path: Path) -> None:
    """A sound record of another request, as a damaged index gives, is no answer, also to one who
    had the right one.
    """
    client = client_at(tmp_path / "cache", lambda messages: messages[-1]["content"])
    one, two = (client.send_message(question) for question in ("one", "two"))
    [(swapped,)] = in_database(
        tmp_path / "cache", "SELECT value FROM Cache WHERE key = ?", one.cache_key
    )
    spoil(str(tmp_path / "cache"), two.cache_key, swapped)
    assert client.cache.verify() == [two.cache_key]
    assert said(client, "two") == ("two", False)
    assert client.cache.verify() == []


# Sharing


def test_changes_of_others_are_seen(place: str) -> None:
    """A record that was answered from before, and that somebody else replaces or deletes, is not
    remembered.
    """
    client = client_at(place)
    assert [said(client)[0] for _ in range(2)] == ["one", "one"]
    request = client.build_request("Hello")
    ResponseCache(place, mode="refresh").put(request, answer("replaced"))
    assert said(client)[0] == "replaced"
    assert ResponseCache(place).delete(keys=[request.cache_key]) == 1
    assert said(client)[0] == "two"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_while_others_write_and_call(place: str) -> None:
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
    assert ran(program, place) == "0 153 True True"


# The directory


def test_the_directory_is_private_and_out_of_git(tmp_path: Path) -> None:
    """It has mode 0700 and a .gitignore that covers itself; one in which other things lie stays as
    it is.
    """
    for name, mode in (("new", 0o700), ("empty", 0o700), ("used", 0o755)):
        if name != "new":
            (tmp_path / name).mkdir(mode=0o755)
        if name == "used":
            (tmp_path / name / "other.txt").write_text("mine")
        filled(ResponseCache(tmp_path / name), 1)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
        assert (tmp_path / name / ".gitignore").exists() == (name != "used")
    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names <= {".gitignore", DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"}


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~ and $NAME mean what they mean to diskcache; a relative path stays what it was at first."""
    monkeypatch.setenv("SHELF", "shelf")
    assert ResponseCache("~/$SHELF").path == tmp_path / "shelf"
    relative = ResponseCache("here")
    monkeypatch.chdir("/")
    assert relative.path == tmp_path / "here"


def test_diskcache_evicts_and_limits_nothing(tmp_path: Path) -> None:
    """Opened by diskcache itself, the directory is one that loses nothing; what it adds there is no
    record.
    """
    cache = ResponseCache(tmp_path / "cache")
    filled(cache, 2)
    cache.close()
    with diskcache.Cache(str(tmp_path / "cache")) as opened:
        assert (opened.eviction_policy, opened.cull_limit, opened.statistics) == ("none", 0, 0)
        assert opened.size_limit >= 2**60 and opened.expire() == opened.cull() == 0
        assert isinstance(opened[asked("question 0").cache_key], bytes)
        opened["theirs"] = b"plain bytes"
        assert len(opened) == len(cache) == 3
    assert cache.verify() == ["theirs"]


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells which files are open"
)
def test_no_handle_stays_open(tmp_path: Path) -> None:
    """Neither of a directory that is gone, whose space is given back, nor of a cache that is closed
    or forgotten.
    """

    def opened() -> list[str]:
        found = []
        for handle in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # it is closed meanwhile
                found.append(os.readlink(os.path.join("/proc/self/fd", handle)))
        return [name for name in found if str(folder) in name]

    folder = tmp_path / "cache"
    cache = ResponseCache(folder)
    (before,) = filled(cache, 1)
    assert cache.get(before) is not None
    shutil.rmtree(folder)
    cache.put(asked("after"), answer("yes"))
    assert cache.get(before) is None and cache.get(asked("after")) is not None
    assert opened() and not [name for name in opened() if "(deleted)" in name]
    cache.close()
    assert not opened()
    assert len(cache) == 1 and opened()
    del cache
    assert not opened()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of open files")
def test_many_threads_read_with_few_files_open(tmp_path: Path) -> None:
    """A process that may open only a few dozen files reads the cache from a hundred threads."""
    import resource

    cache = ResponseCache(tmp_path / "cache", mode="replay")
    requests = filled(cache, 20)
    together = threading.Barrier(100)

    def read(_: int) -> list[Any]:
        together.wait()
        return [cache.get(request) for request in requests]

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ThreadPoolExecutor(100) as pool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_open() + 40, hard))
        try:
            answers = list(pool.map(read, range(100)))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(None not in each for each in answers)


def most_open() -> int:
    """Return the number that the next file to be opened gets."""
    with open(os.devnull, "rb") as file:
        return file.fileno()


def test_a_path_that_is_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That is an error with its remedy before anything is paid for, and the file stays."""
    (tmp_path / "cache").write_text("mine")
    for mode in ("auto", "replay"):
        client = client_at(tmp_path / "cache", mode=mode)
        with pytest.raises(CacheError, match=r"is a file; \[Cache\] PATH must name a directory"):
            client.send_message("a")
        assert not client.requests
    client = client_at(tmp_path / "cache", mode="refresh")  # which asks whatever is stored
    client.send_message("a")
    assert "is a file; [Cache] PATH must name a directory" in caplog.text
    assert (tmp_path / "cache").read_text() == "mine"
    (tmp_path / "cache").unlink()
    client.close()
    assert len(client.cache) == 1
