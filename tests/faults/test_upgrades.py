"""A cache and a cassette of each released version: every later version reads every record of them, and replays them.

The files in ``data`` are never made anew; ``data/make.py`` tells how they came about.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

import llmcall
from llmcall.cache.cache import ResponseCache
from llmcall.cassettes import format as lines
from llmcall.requests.keys import key_of
from llmcall.types import Record

DATA = Path(__file__).parent / "data"
VERSIONS = ["0.1.0", "0.2.0"]
MINI, BIG, EMBEDDING, SAMPLE = "gpt-4o-mini", "gpt-4-32k", "text-embedding-3-small", "trial/lisa#0"
LONG = "A rule of the market. " * 40
PICTURE = "data:image/png;sha256,4c4b6a3be1314ab86138bef4314dde022e600960d8689a2c8f8631802d20dab6"
TOOL = {"type": "function", "function": {"name": "buy", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "buy", "arguments": '{"n": 2}'}}
SAID = {"role": "assistant", "content": None, "tool_calls": [CALL]}
VOLATILE = {"id": "chatcmpl-1", "created": 1700000000}


def user(content: Any) -> dict[str, Any]:
    """Return what a user says."""
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    """Return what a model says."""
    return {"role": "assistant", "content": content}


def asked(*messages: Any, model: str = MINI, **more: Any) -> dict[str, Any]:
    """Return a request as it is stored."""
    return {"model": model, "messages": list(messages), **more}


def answered(message: dict[str, Any], model: str = MINI, reason: str = "stop") -> dict[str, Any]:
    """Return a response as a cassette holds it."""
    return {
        "choices": [{"finish_reason": reason, "index": 0, "message": message}],
        "model": model,
        "object": "chat.completion",
        "usage": {"completion_tokens": 500, "prompt_tokens": 1000, "total_tokens": 1500},
    }


RULE, TURNS = {"role": "system", "content": LONG}, [user(f"Turn {turn}") for turn in range(3)]
SO_FAR = [RULE, TURNS[0], assistant("2: Turn 0"), TURNS[1], assistant("4: Turn 1"), TURNS[2]]

# In the order of storing: the beginning of the key, kind, sample, request, response and cost.
CALLS: list[tuple[Any, ...]] = [
    (
        "6533538a28", "chat", None, asked(user("Wie viel? Käse 🧀")),
        answered(assistant("1: Wie viel? Käse 🧀")), 0.00045,
    ),
    (
        "70fa7c4129", "chat", None,
        asked(user("With parameters"), temperature=0.5, max_tokens=20, stop=["a", "b"], seed=7),
        answered(assistant("1: With parameters")), 0.00045,
    ),
    (
        "c5d187b9d0", "chat", None,
        asked(user([{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": PICTURE}}])),
        answered(assistant("1: Look")), 0.00045,
    ),
    ("6b6c003239", "chat", None, asked(user("Use a tool"), tools=[TOOL]), answered(SAID, reason="tool_calls"), 0.00045),
    ("605c6cb480", "chat", "#a", asked(user("Sampled")), answered(assistant("1: Sampled")), 0.00045),
    ("c44ff94ab5", "chat", None, asked(user("Too long"), model=BIG), answered(assistant("1: Too long"), BIG), 0.12),
    (
        "e09fbd5707", "chat", None, asked(user("Too long"), model="gpt-4"),
        {"fallback": "c44ff94ab5faa8e49b3a28f629dbf55d84418ff1f4ecff5011dc214bd3635ab5"}, None,
    ),
    ("f0cadb5408", "chat", SAMPLE, asked(*SO_FAR[:2]), answered(assistant("2: Turn 0")), 0.00045),
    ("7ea97a2876", "chat", SAMPLE, asked(*SO_FAR[:4]), answered(assistant("4: Turn 1")), 0.00045),
    ("0925ec87dc", "chat", SAMPLE, asked(*SO_FAR[:6]), answered(assistant("6: Turn 2")), 0.00045),
    (
        "fd656f138e", "function", SAMPLE, {"function": "market.price", "arguments": {"item": "bread"}, "version": 2},
        {"value": {"coins": 2.5, "item": "bread", "many": [1, True], "none": None, "raw": b"\x00\xff"}}, None,
    ),
    (
        "47636c585d", "embedding", None, {"model": EMBEDDING, "input": "bread"},
        {"model": EMBEDDING, "embedding": b"\x00\x00\xa0?\x00\x00\x00\xbf"}, None,
    ),
    (
        "94fb20b848", "embedding", None, {"model": EMBEDDING, "input": "an apple"},
        {"model": EMBEDDING, "embedding": b"\x00\x00\x00@\x00\x00\x00\xbf"}, None,
    ),
]  # fmt: skip
WHAT_CAME = [
    "1: Wie viel? Käse 🧀", "1: With parameters", "1: Look", None, "1: Sampled", "1: Too long",
    "2: Turn 0", "4: Turn 1", "6: Turn 2",
    {"coins": 2.5, "item": "bread", "many": [1, True], "none": None, "raw": b"\x00\xff"},
    [[1.25, -0.5], [2.0, -0.5]],
]  # fmt: skip


@pytest.fixture(params=VERSIONS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a copy of what a version wrote: ``cache`` and ``tape.jsonl``."""
    (tmp_path / "cache").mkdir()
    shutil.copy(DATA / request.param / "cache.db", tmp_path / "cache")
    shutil.copy(DATA / request.param / "tape.jsonl", tmp_path)
    return tmp_path


def shown(record: Record) -> tuple[Any, ...]:
    """Return what the table above holds of a record."""
    return (record.cache_key[:10], record.kind, record.sample, record.request, record.response, record.cost)


def with_volatile(call: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a call as a cache holds it, with what a server makes anew for each answer."""
    *before, response, cost = call
    return (*before, {**response, **VOLATILE} if "choices" in response else response, cost)


def test_every_record_of_an_old_cache(old: Path) -> None:
    """Keys, requests, responses, costs and what stands beside them are as they were, and pass for sound."""
    with ResponseCache(old / "cache") as cache:
        records = list(cache.records())
        assert [shown(record) for record in records] == [with_volatile(call) for call in CALLS]
        assert {record.version for record in records} <= set(VERSIONS)
        assert {record.host for record in records} == {"scripted", None}
        assert all(record.stored_at and record.stored_at > 1.7e9 for record in records)
        assert cache.verify() == []
        assert len(cache) == len(CALLS)


def test_every_record_of_an_old_cassette(old: Path) -> None:
    """All records of the file are read as they were, with their keys."""
    found = {shown(record)[0]: shown(record) for record in lines.read(old / "tape.jsonl", key_of).records()}
    assert found == {call[0]: call for call in CALLS}


def played(**settings: Any) -> list[Any]:
    """Make the calls again that made the files."""
    place = importlib.util.spec_from_file_location("make", DATA / "make.py")
    assert place is not None and place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    found: list[Any] = module.play(**settings)
    return found


def test_an_old_cache_replays(old: Path) -> None:
    """The same calls have the same keys, and so their answers, without asking anybody."""
    with llmcall.configured(cache_mode="replay", cache_path=str(old / "cache")):
        assert played(cache_mode="replay", cache_path=str(old / "cache")) == WHAT_CAME


def test_an_old_cassette_replays(old: Path) -> None:
    """The same calls are answered by the file alone."""
    with llmcall.cassette(old / "tape.jsonl", mode="none") as tape:
        assert played() == WHAT_CAME
    assert tape.unused() == []


def test_an_old_cache_is_used_on(old: Path) -> None:
    """It takes new answers, exports what the cassette of its time holds, salvages and keeps its keys when rekeyed."""
    with ResponseCache(old / "cache") as cache:
        assert cache.rekey() == 0
        assert cache.export(old / "exported.jsonl") == len(CALLS)
        assert cache.salvage(old / "saved") == len(CALLS)
        assert cache.load(old / "tape.jsonl") == 0
    with_same = {shown(record)[0]: shown(record) for record in lines.read(old / "exported.jsonl", key_of).records()}
    assert with_same == {call[0]: call for call in CALLS}


def test_the_files_of_each_version_are_there() -> None:
    """What is tested is what lies in the folder."""
    assert sorted(path.name for path in DATA.iterdir() if path.is_dir() and path.name[0].isdigit()) == VERSIONS
