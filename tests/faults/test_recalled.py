"""Hits, which read no more than a record's head: the answer is the recorded one, whoever reads the rest, and when."""

from __future__ import annotations

import copy
import json
import pickle
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from processes import SECONDS, seeded
from test_upgrades import DATA, VERSIONS, played

import llmcall
from llmcall.cache.cache import ResponseCache, forget_shared
from llmcall.cache.record import pack
from llmcall.cache.rows import Rows, reply_of
from llmcall.cache.sqlite import DATABASE
from llmcall.errors import CacheCorruptError
from llmcall.testing import ScriptedClient
from llmcall.types import Record, Reply

KEY = "0123456789abcdef" * 4
CALL = {"id": "call_1", "type": "function", "function": {"name": "buy", "arguments": '{"n": 2}'}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "assistant", "content": "Two coins."},
    {"role": "assistant", "content": ""},
    {"role": "assistant", "content": None},
    {"role": "assistant"},
    {"role": None, "content": "no role"},
    {"content": "no role"},
    {"role": "assistant", "content": "\ud83d\ude00 \ud800 \0 \x1f \u2028 \x7f 🧀"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "assistant", "content": "and a call", "tool_calls": [CALL, CALL]},
    {"role": "assistant", "content": "no call", "tool_calls": []},
    {"role": "assistant", "content": None, "refusal": "No."},
    {"role": "assistant", "content": "no refusal", "refusal": ""},
    {"role": "assistant", "content": [{"type": "text", "text": "a part"}]},
    {"role": "assistant", "content": "heard", "audio": {"data": b"\xff"}, "reasoning_content": "hm"},
    {"role": 3, "content": 4},
]
SEEN = ("raw", "usage", "choices", "finish_reason", "model", "content", "tool_calls", "refusal", "cost", "cache_key")


def answered(*messages: dict[str, Any]) -> Record:
    """Return the record of an answer."""
    choices = [{"index": at, "message": each, "finish_reason": "stop"} for at, each in enumerate(messages)]
    response = {"choices": choices, "model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    return Record(KEY, "chat", "a#0", {"model": "m", "messages": []}, response, 0.5, "openai", "h", "1")


def seen(reply: Reply) -> str:
    """Return all that a reply shows."""
    return repr((type(reply), dict(reply), reply.cached, [getattr(reply, name) for name in SEEN]))


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("more", [(), ({"role": "assistant", "content": "another"},), "the same"])
def test_a_hit_is_the_record(message: dict[str, Any], more: Any) -> None:
    """Whatever the answer holds, a hit shows what the whole record does, and so do its copies, read or unread."""
    record = answered(message, *([message] if more == "the same" else more))
    packed, whole = pack(record), seen(reply_of(record))

    def hit() -> Reply:
        found = Rows().reply(KEY, packed)
        assert found is not None
        return found[1]

    assert seen(hit()) == whole
    pickled = [lambda each, protocol=protocol: pickle.loads(pickle.dumps(each, protocol)) for protocol in (2, 3, 4, 5)]
    for make in (copy.copy, copy.deepcopy, *pickled):
        unread, read = hit(), hit()
        assert read.raw == record.response
        assert seen(make(unread)) == seen(make(read)) == whole
    changed = hit()
    changed.raw["choices"][0]["message"]["content"] = changed["content"] = "mine"
    assert seen(hit()) == whole


READ_ELSEWHERE = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    replies = pickle.load(file)
print([(each.raw, each.usage, each.choices, each.finish_reason) for each in replies])
"""


def test_a_hit_outlives_its_cache(tmp_path: Path) -> None:
    """What was not read yet is read after the cache was emptied and deleted, also in another process."""
    client = ScriptedClient(["one"], cache_mode="auto", cache_path=str(tmp_path / "cache"), on_error="raise")
    live = client.send_message("a")
    replies = [client.send_message("a") for _ in range(3)]
    client.cache.clear()
    client.close()
    forget_shared()
    shutil.rmtree(tmp_path / "cache")
    Path("replies").write_bytes(pickle.dumps(replies))
    expected = str([(each.raw, each.usage, each.choices, each.finish_reason) for each in [live] * 3])
    done = subprocess.run(
        [sys.executable, "-c", READ_ELSEWHERE, "replies"], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.stdout.strip() == expected, done.stderr
    assert str([(each.raw, each.usage, each.choices, each.finish_reason) for each in replies]) == expected


@pytest.mark.parametrize("line", range(4))
def test_another_thread_reads_the_same_reply_meanwhile(line: int) -> None:
    """Between any two lines of the reading another thread may have read it all; both get the response."""
    record = answered({"role": "assistant", "content": "Two coins."})
    found = Rows().reply(KEY, pack(record))
    assert found is not None
    reply, others, passed = found[1], [], []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        """Read it, as another thread would, where it is the line's turn."""
        if frame.f_code is Reply.raw.fget.__code__ and event == "line":  # type: ignore[attr-defined]
            if len(passed) == line:
                others.append(reply.raw)  # what runs in here is not traced
            passed.append(event)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        mine = reply.raw
    finally:
        sys.settrace(before)
    assert mine == record.response and all(each == mine for each in others)
    assert others or line >= len(passed) > 1


def changed(packed: bytes, dice: random.Random, key: str) -> bytes:
    """Return a record with some bytes changed, and a checksum that fits."""
    body = bytearray(packed[:-4])
    for _ in range(dice.choice((1, 1, 2, 5))):
        place = dice.randrange(len(body))
        act = dice.randrange(3)
        if act == 0:
            body[place] ^= 1 << dice.randrange(8)
        elif act == 1:
            body[place : place + dice.randint(0, 3)] = dice.choice((b'"', b"null", b"[", b"0", b",", b"\x94", b"X"))
        else:
            other = dice.randrange(len(body))
            body[place : place + 8] = body[other : other + 8]
    return bytes(body) + crc32(body, crc32(key.encode())).to_bytes(4, "little")


@pytest.mark.parametrize("records", [200, pytest.param(3000, marks=pytest.mark.slow)])
def test_changed_records_under_a_right_checksum(records: int, tmp_path: Path) -> None:
    """A stranger's record is a reply or an error that says what to do, however much of it is read; nothing else."""
    dice = seeded()
    client = ScriptedClient(["one"], cache_mode="auto", cache_path=str(tmp_path / "cache"), on_error="raise")
    key, packed = client.send_message("question").cache_key, b""
    found = client.cache.storage.get(key)
    assert found is not None
    packed = found[0]
    refused = 0
    with llmcall.configured(cache_mode="replay"):
        client = ScriptedClient(cache_mode="replay", cache_path=str(tmp_path / "cache"), on_error="raise")
        for _ in range(records):
            client.cache.storage.set(key, changed(packed, dice, key))
            try:
                reply = client.send_message("question")
            except (CacheCorruptError, llmcall.CacheMissError) as error:
                assert "llmcall cache" in str(error) or isinstance(error, llmcall.CacheMissError)
                refused += 1
                continue
            assert isinstance(reply, Reply)
            for name in SEEN:
                with suppress(CacheCorruptError):
                    getattr(reply, name)
            json.dumps(reply)
            client.cache.verify()
    assert 0 < refused < records


@pytest.mark.parametrize("head", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, '["' + "\\u0000" * 10_000, "[NaN]"])
def test_a_head_that_explodes(head: str) -> None:
    """A head that is nested 100,000 levels deep, or a number of 10,000 digits, is refused."""
    text = head.encode()
    good = pack(answered({"role": "assistant", "content": "x"}))
    length = int.from_bytes(good[14:18], "little")
    body = good[:14] + len(text).to_bytes(4, "little") + text + good[18 + length : -4]
    with pytest.raises(CacheCorruptError, match="llmcall cache salvage"):
        Rows().reply(KEY, body + crc32(body, crc32(KEY.encode())).to_bytes(4, "little"))


@pytest.mark.parametrize("version", VERSIONS)
def test_old_and_new_records_in_one_cache(version: str, tmp_path: Path) -> None:
    """New answers stand beside old ones; both replay, are rekeyed together, and come back from a broken database."""
    (tmp_path / "cache").mkdir()
    shutil.copy(DATA / version / "cache.db", tmp_path / "cache")
    old = played(cache_mode="replay", cache_path=str(tmp_path / "cache"))
    with ScriptedClient(lambda messages: "new", cache_mode="auto", cache_path=str(tmp_path / "cache")) as client:
        replies = [client.send_message(f"new {number}") for number in range(20)]
        count = len(client.cache)
        assert client.cache.verify() == []
    with llmcall.configured(cache_namespace="other"), ResponseCache(tmp_path / "cache") as cache:
        assert cache.rekey() == count
        assert cache.verify() == []
    with ResponseCache(tmp_path / "cache") as cache:
        assert cache.rekey() == count
    forget_shared()
    assert played(cache_mode="replay", cache_path=str(tmp_path / "cache")) == old
    database = tmp_path / "cache" / DATABASE
    data = bytearray(database.read_bytes())
    data[:100] = bytes(100)
    forget_shared()
    database.write_bytes(data)
    with ResponseCache(tmp_path / "cache") as cache:
        assert cache.salvage(tmp_path / "saved") == count
    assert played(cache_mode="replay", cache_path=str(tmp_path / "saved")) == old
    with ScriptedClient(cache_mode="replay", cache_path=str(tmp_path / "saved"), on_error="raise") as client:
        assert [client.send_message(f"new {number}").raw for number in range(20)] == [each.raw for each in replies]
