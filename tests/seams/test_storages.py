"""Storages: the contract that each keeps, and how one's own are plugged in and refused."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contracts import check_storage
from errors import check_error, error_table
from servers import RedisProcess

import llmcall
from llmcall import CacheError, ConfigError, ResponseCache
from llmcall.additions import additions
from llmcall.stores.cache.addresses import storage_at
from llmcall.testing import ScriptedClient
from llmcall.types import Storage


class JsonFile(Storage, scheme="jsonfile"):
    """Rows in a file of JSON."""

    def __init__(self, rest: str) -> None:
        self.file = Path(rest)
        self.folder = self.file.parent  # a name of its own
        self.lock: contextlib.AbstractContextManager[object] = lock

    def read(self) -> dict[str, Any]:
        """Return all rows."""
        return json.loads(self.file.read_text()) if self.file.exists() else {}  # type: ignore[no-any-return]

    def get(self, key: str) -> tuple[bytes | None, float] | None:
        """Return a row."""
        text, seconds = self.read().get(key, (None, 0.0))
        return None if text is None else (base64.b64decode(text), seconds)

    def rows(self) -> Iterator[tuple[str, bytes, float]]:
        """Yield all rows."""
        for key, (text, seconds) in self.read().items():
            yield key, base64.b64decode(text), seconds

    def write(self, changes: Iterable[Any]) -> int:
        """Change rows."""
        with self.lock:
            rows, count = self.read(), 0
            for key, value, replaces, stored_at in changes:
                if value is None:
                    count += rows.pop(key, None) is not None
                elif replaces or key not in rows:
                    rows[key] = base64.b64encode(value).decode(), stored_at or time.time()
                    count += 1
            new = self.file.with_suffix(f".{next(numbers)}")
            new.write_text(json.dumps(rows))
            new.replace(self.file)
        return count


lock = threading.RLock()  # of all objects for one file
numbers = itertools.count()


@pytest.fixture(params=["disk", pytest.param("redis", marks=pytest.mark.feature("redis")), "json"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place of each kind."""
    if request.param == "redis":
        server: RedisProcess = request.getfixturevalue("redis_process")
        with server.client() as client:
            client.flushall()
        return server.url
    return f"{'jsonfile://' if request.param == 'json' else ''}{tmp_path / 'place'}"


def test_a_storage_keeps_the_contract(address: str) -> None:
    check_storage(lambda: storage_at(address))


def client_at(path: object, **settings: Any) -> ScriptedClient:
    """Return a client that stores there."""
    answers = lambda messages: f"answer {next(numbers)}"  # noqa: E731
    return ScriptedClient(
        answers, cache_mode="auto", cache_path=str(path), on_error="raise", **settings
    )


def test_the_address_of_a_storage_of_ones_own_is_a_cache(tmp_path: Path) -> None:
    path = f"jsonfile://{tmp_path / 'answers.json'}"
    first = client_at(path).send_message("Hello")
    again = client_at(path, model="gpt-6-luna").send_message("Hello")
    assert first is not None and again is not None
    assert (again.content, again.cached) == (first.content, True)
    cache = ResponseCache(path)
    assert len(list(cache.records())) == 1
    assert (len(cache), cache.path, cache.stats().records) == (1, path, 1)
    assert cache.export(tmp_path / "out.jsonl") == cache.clear() == 1


def test_all_objects_of_a_cache_read_the_answer_that_it_could_not_store(tmp_path: Path) -> None:
    """In a refresh, too, which has replaced the old answer."""

    class Full(JsonFile, scheme="full"):
        is_full = False

        def write(self, changes: Iterable[Any]) -> int:
            if self.is_full:
                raise OSError("no space left")
            return super().write(changes)

    path = f"full://{tmp_path / 'a.json'}"
    client_at(path).send_message("Hello")
    client = ScriptedClient(["new"], cache_mode="refresh", cache_path=path)
    Full.is_full = True
    client.send_message("Hello")
    record = ResponseCache(path, mode="refresh").get(client.build_request("Hello"))
    assert record is not None and "new" in str(record.response)
    Full.is_full = False
    client.cache.close()


def test_a_package_plugs_its_storage_in_by_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "stored-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stored\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[llmcall.storages]\nfiled = {__name__}:JsonFile\nwrong = {__name__}:Path\n"
        "gone = no_such_module:x\nfaulty = faulty_module:x\n"
    )
    (tmp_path / "faulty_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    assert client_at(f"filed://{tmp_path / 'a.json'}").send_message("Hello") is not None
    assert (tmp_path / "a.json").exists()
    for path, words in (
        ("wrong", r"PATH = wrong://x: Path made .* not a llmcall\.types\.Storage"),
        ("gone", r"no_such_module:x for .* PATH = gone://x cannot be loaded: ModuleNotFound"),
        ("faulty", r"faulty_module:x for .* cannot be loaded: ZeroDivisionError: division"),
        ("unknown", r"the scheme 'unknown'\. Known: .*faulty, filed, .*group llmcall\.storages"),
    ):
        with pytest.raises(ConfigError, match=words):
            ResponseCache(f"{path}://x")


def test_a_storage_whose_get_returns_another_type_is_named_at_its_first_use(tmp_path: Path) -> None:
    class Wrong(JsonFile, scheme="wrong-get"):
        def get(self, key: str) -> Any:
            return "text"

    client = client_at(f"wrong-get://{tmp_path / 'a.json'}")
    with pytest.raises(CacheError, match=r"Wrong\.get of the cache wrong-get://.*'text'"):
        client.send_message("Hello")
    assert not client.requests


@pytest.mark.parametrize(
    ("returned", "words"),
    [(lambda: 1 / 0, "ZeroDivisionError"), (lambda: "three", "'three', not the number")],
    ids=["raises", "returns another type"],
)
def test_an_answer_that_a_storage_does_not_store_is_returned_and_said_once(
    returned: Callable[[], Any], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    works = False

    class Failing(JsonFile, scheme="failing"):
        def write(self, changes: Iterable[Any]) -> int:
            return super().write(changes) if works else returned()

    client = client_at(f"failing://{tmp_path / 'a.json'}")
    with caplog.at_level(logging.WARNING, "llmcall"):
        answers = [client.send_message(text) for text in ("a", "b", "a")]
    assert [answer.cached for answer in answers if answer] == [False, False, True]
    said = [
        record.getMessage() for record in caplog.records if "cannot store" in record.getMessage()
    ]
    assert len(said) == 1 and "Failing.write" in said[0] and words in said[0]
    works = True
    client.close()
    assert len(ResponseCache(f"jsonfile://{tmp_path / 'a.json'}")) == 2


@pytest.mark.parametrize("has_cassette", [True, False])
def test_an_answer_is_kept_though_ctrl_c_ends_the_write_of_its_storage(
    has_cassette: bool, tmp_path: Path
) -> None:
    is_interrupted = True

    class Interrupted(JsonFile, scheme="interrupted"):
        def write(self, changes: Iterable[Any]) -> int:
            if is_interrupted:
                raise KeyboardInterrupt
            return super().write(changes)

    def ask() -> Any:
        with llmcall.cassette("tape.jsonl") if has_cassette else contextlib.nullcontext():
            return client.send_message("Hello")

    client = client_at(f"interrupted://{tmp_path / 'a.json'}")
    with pytest.raises(KeyboardInterrupt):
        ask()
    assert Path("tape.jsonl").exists() is has_cassette
    assert (ask().cached, len(client.requests)) == (True, 1)
    is_interrupted = False
    client.close()
    assert len(ResponseCache(f"jsonfile://{tmp_path / 'a.json'}")) == 1


def opened(path: str, methods: dict[str, Any], base: type[Storage] = JsonFile) -> object:
    """Open a cache in a storage that is defined for it."""
    type("Mine", (base,), methods, scheme=path.partition(":")[0])
    return ResponseCache(path)


def locked(self: Any, rest: str) -> None:
    """Fail."""
    raise PermissionError(f"{rest} is locked")


@error_table(
    (
        "ConfigError: ...PATH = unfinished://x: Mine raised TypeError: ...get",
        lambda: opened("unfinished://x", {"__init__": lambda self, rest: None}, Storage),
    ),
    (
        "ConfigError: ...locked://***@x: Mine raised PermissionError: ... is locked",
        lambda: opened("locked://me:sesame@x", {"__init__": locked}),
    ),
    *(
        (
            f"ValueError: Mine: the scheme '{scheme}' is llmcall's own",
            lambda scheme=scheme: opened(f"{scheme}://x", {}),
        )
        for scheme in additions("storages")
    ),
    (
        "ConfigError: ...'unknown'. Known: ...jsonfile...llmcall.types.Storage ...scheme='unknown'",
        lambda: ResponseCache("unknown://x"),
    ),
)
def test_an_error_names_the_address_and_the_storage(line: str, call: Callable[[], object]) -> None:
    """And what to do."""
    check_error(line, call)
