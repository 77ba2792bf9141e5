"""Errors of caches, cassettes and their files, by their words."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

from errors import check_error, error_table
from files import written

from llmcall import ResponseCache, cassette
from llmcall.testing import ScriptedClient

HEADER = '{"llmcall": 1, "settings": {}}\n'
REFERRING = '{"kind": "function", "request": {"messages": [{"$messages": "00"}]}, "response": {}, "key": "%s"}\n'
REFERRING %= "0" * 64


def opened(text: str, **options: Any) -> list[Any]:
    """Open a cassette with such a text, and read it."""
    written("f.jsonl", text)
    with cassette("f.jsonl", mode="none", **options) as tape:
        return tape.all_records()


def loaded(source: Any) -> object:
    """Load what is no cache into an empty one, which it leaves empty."""
    Path("folder").mkdir()
    cache: Any = ResponseCache("target")
    try:
        return cache.load(source)
    finally:
        assert not len(cache) and not Path("folder/cache.db").exists()
        assert not Path("nowhere").exists()


def pickled(data: bytes) -> object:
    """Load a pickle that is no cache of TinyTroupe's."""
    written("some.pickle", data)
    return loaded("some.pickle")


def put(response: Any) -> object:
    """Put something into a cache that it cannot store."""
    return ResponseCache("target").put(ScriptedClient().build_request("b"), response)


def _steps() -> Any:
    yield 1


async def _asteps() -> Any:
    yield 1


GENERATOR = "steps is a generator function; open the cassette with 'with' inside it"


@error_table(
    (f"TypeError: ...{GENERATOR}", lambda: cassette("f.jsonl")(_steps)),
    (f"TypeError: ...{GENERATOR}", lambda: cassette("f.jsonl")(_asteps)),
    (
        "ConfigError: ...the header has unknown settings: mood",
        lambda: opened(HEADER.replace("{}", '{"mood": "good"}')),
    ),
    (
        "CacheError: ...f.jsonl:1: ... version 2 ... up to version 1; upgrade",
        lambda: opened(HEADER.replace("1", "2", 1)),
    ),
    (
        "CacheError: ...f.jsonl:2: ...delete the file and record",
        lambda: opened(HEADER + REFERRING),
    ),
    *(
        (
            "CacheCorruptError: ...f.jsonl:2: ...'arms'",
            lambda arms=arms: opened(
                HEADER + REFERRING.replace(', "key', f', "arms": {arms}, "key')
            ),
        )
        for arms in ('"a"', "[1]", "{}")
    ),
    ("FileNotFoundError: ...missing", lambda: loaded("missing.jsonl")),
    ("CacheError: ...contains no cache", lambda: loaded("folder")),
    ("CacheError: ...nowhere contains no cache", lambda: loaded(ResponseCache("nowhere"))),
    ("TypeError: ...not int", lambda: loaded(5)),
    *(
        ("CacheCorruptError: ...some.pickle", lambda data=data: pickled(data))
        for data in (b"\x80\x04]", b"\x80\x04K\x01.", b"\x80\x04\x8c\x01a.", b"no pickle")
    ),
    (
        "TypeError: response.choices[0].at is a datetime",
        lambda: put({"choices": [{"at": datetime.datetime(2026, 1, 1)}]}),
    ),
)
def test_an_error_names_the_file_the_line_and_what_to_do(
    line: str, call: Callable[[], object]
) -> None:
    """Nothing is stored."""
    assert len(ResponseCache("target")) == 0
    check_error(line, call)
    assert len(ResponseCache("target")) == 0
