"""Caches as files: export and load, new keys, salvage, and the bytes of a record."""

from __future__ import annotations

import enum
import json
import pickle
import shutil
from collections import OrderedDict
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import commands
import pytest
from files import DATABASE, in_database

import llmcall
from llmcall import CacheCorruptError, CacheError, ResponseCache
from llmcall.testing import ScriptedClient
from llmcall.types import Record

PAGE = 4096
asked = ScriptedClient(cache_mode="off").build_request


def recorded(path: Path, answers: dict[str, str]) -> ResponseCache:
    """Return a cache with answers to some questions, and an embedding."""
    client = ScriptedClient([*answers.values(), [0.5, 0.25]], cache_mode="auto", cache_path=path)
    for question in answers:
        with llmcall.scope(f"actor-{question}"):
            client.send_message(question, on_error="raise", temperature=0.5)
    client.get_embedding("text")
    return client.cache


def contents(cache: ResponseCache) -> dict[str, Any]:
    """Return what a cache answers to each key."""
    return {
        record.cache_key: (record.kind, record.sample, record.request, record.response)
        for record in cache.records()
    }


# Export and load


@pytest.fixture
def source(tmp_path: Path) -> ResponseCache:
    """A cache with two answers and an embedding, and a file to which it is exported."""
    cache = recorded(tmp_path / "source", {"b": "1", "a": "2 🧀\n" * 300})
    assert cache.export(tmp_path / "export.jsonl") == 3
    return cache


@pytest.mark.parametrize("kind", ["file", "directory", "object"])
def test_a_loaded_cache_has_the_same_records(
    kind: str, source: ResponseCache, tmp_path: Path
) -> None:
    """None is damaged. Loading a second time adds nothing, nor does a cache to itself; an export has the same bytes,
    whatever the order of loading.
    """
    loaded: Any = source
    if kind != "object":
        loaded = tmp_path / ("export.jsonl" if kind == "file" else "source")
    with ResponseCache(tmp_path / "target") as target:
        assert target.load(loaded) == 3
        assert contents(target) == contents(source)
        assert target.load(loaded) == target.load(target) == 0
        assert len(target) == 3
        target.export(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "export.jsonl").read_bytes()


@pytest.mark.parametrize("way", ["path", "link", "object"])
def test_a_cache_loaded_into_itself_by_another_handle_adds_nothing(
    way: str, source: ResponseCache, tmp_path: Path
) -> None:
    """It waits for no lock of its own."""
    folder, link = tmp_path / "source", tmp_path / "link"
    link.symlink_to(folder)
    other = {"path": folder, "link": link, "object": ResponseCache(folder)}[way]
    assert source.load(other, on_conflict="replace") == 0
    assert len(source) == 3


def test_an_export_of_no_record_writes_nothing(source: ResponseCache, tmp_path: Path) -> None:
    """An earlier recording stays."""
    tape, new = tmp_path / "tape.jsonl", tmp_path / "new.jsonl"
    source.export(tape)
    recorded = tape.read_bytes()
    for path in (tape, new):
        assert source.export(path, where=lambda record: False) == 0
    assert tape.read_bytes() == recorded
    assert not new.exists()


def test_an_export_replaces_an_earlier_export_and_no_other_file(
    source: ResponseCache, tmp_path: Path
) -> None:
    """So does ``cassette merge``. It returns how many records it has: all, or those that ``where`` selects."""
    export, notes = tmp_path / "export.jsonl", tmp_path / "notes.md"
    assert source.export(export, where=lambda record: record.kind == "embedding") == 1
    _, line = export.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["kind"] == "embedding"
    assert source.export(export) == 3
    notes.write_text("Dear diary,\n", encoding="utf-8")
    with pytest.raises(CacheCorruptError, match=r"notes\.md:1: this is not a cassette of llmcall"):
        source.export(notes)
    message = commands.done("cassette", "merge", export, export, "-o", notes, code=1)
    assert "this is not a cassette of llmcall" in message
    assert notes.read_text(encoding="utf-8") == "Dear diary,\n"


CONFIGURED = """
[OpenAI]
MODEL = other
EMBEDDING_MODEL = other-embedding
TEMPERATURE = 0
MAX_TOKENS = 7
[Cache]
NORMALIZE = times, uuids
NAMESPACE = ours
[Aliases]
short = m
long = other
"""
SHOWN = {
    "model": "other",
    "embedding_model": "other-embedding",
    "temperature": 0,
    "max_tokens": 7,
    "cache_normalize": ["times"],
    "cache_namespace": "ours",
    "aliases": {"long": "other"},
}


def configure(text: str) -> None:
    """Make a configuration file the current one."""
    Path("config.ini").write_text(text, encoding="utf-8")
    llmcall.reset()


def exported(path: Path) -> dict[str, Any]:
    """Export the cache and return the settings in the header."""
    with ResponseCache("cache") as cache:
        cache.export(path)
    first: dict[str, Any] = json.loads(path.read_text(encoding="utf-8").partition("\n")[0])
    return dict(first["settings"])


CACHED: dict[str, Any] = {"cache_path": "cache", "cache_mode": "auto", "on_error": "raise"}


def test_an_export_has_only_settings_that_its_records_show(tmp_path: Path) -> None:
    """The exporter's default model would stand above that of whoever reads it."""
    ScriptedClient(["yes"], model="m", **CACHED).send_message("Hi")
    ScriptedClient([[1.0]], **CACHED).get_embedding("Hi", "e")
    configure(CONFIGURED)
    assert exported(tmp_path / "a.jsonl") == {"aliases": {"short": "m"}}


@pytest.mark.parametrize("model", ["other", "long"])
def test_an_export_keeps_the_settings_that_decided_its_keys(model: str, tmp_path: Path) -> None:
    """Under them its records are found; the default model may be an alias."""
    configure(CONFIGURED.replace("\nMODEL = other\n", f"\nMODEL = {model}\n"))
    asking: Any = ScriptedClient(["yes", [1.0]], **CACHED)
    asking.send_message("It is 10:15. Bread?")
    asking.get_embedding("Hi")
    assert exported(tmp_path / "a.jsonl") == {**SHOWN, "model": model}
    configure("")
    with llmcall.cassette(tmp_path / "a.jsonl", mode="none"):
        replaying: Any = ScriptedClient([], cache_mode="off", on_error="raise")
        assert replaying.send_message("It is 11:45. Bread?").content == "yes"
        assert replaying.get_embedding("Hi") == [1.0]


@pytest.mark.parametrize("setting", ["LLMCALL_CACHE_NAMESPACE", "LLMCALL_CACHE_NORMALIZE"])
def test_a_file_of_other_keys_is_loaded_with_a_warning(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A colleague's namespace is part of each key, so every call would be asked and paid again."""
    monkeypatch.setenv(setting, "times")
    llmcall.reset()
    with llmcall.cassette(tmp_path / "a.jsonl"):
        ScriptedClient(["yes"]).send_message("It is 10:15. Bread?")
    with ResponseCache(tmp_path / "here") as cache:
        cache.load(tmp_path / "a.jsonl")
        assert not caplog.messages
        monkeypatch.delenv(setting)
        llmcall.reset()
        assert cache.load(tmp_path / "a.jsonl") == 0
    assert "was recorded with other settings" in caplog.text


def test_an_export_stands_by_the_levels_of_its_scopes() -> None:
    """Records below a scope follow it, before the next scope; those in no scope come first, after the header."""
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto", on_error="raise")
    for path in ("a-b", "a/b", "a", ""):
        with ExitStack() as stack:
            for name in filter(None, path.split("/")):
                stack.enter_context(llmcall.scope(name))
            client.send_message("Hello", temperature=1)
    client.cache.export("exported.jsonl")
    header, *lines = Path("exported.jsonl").read_text("utf-8").splitlines()
    assert "llmcall" in json.loads(header)
    samples = [json.loads(line).get("sample") for line in lines]
    assert samples == [None, "a#0", "a/b#0", "a-b#0"]


@pytest.fixture
def conflict(tmp_path: Path) -> tuple[ResponseCache, Path]:
    """A cache, and a file with another answer to its request and a new record."""
    theirs = tmp_path / "theirs.jsonl"
    recorded(tmp_path / "theirs", {"a": "theirs", "new": "theirs"}).export(theirs)
    return recorded(tmp_path / "ours", {"a": "ours"}), theirs


@pytest.mark.parametrize(("on_conflict", "kept"), [("keep", "ours"), ("replace", "theirs")])
def test_on_conflict_says_which_answer_stays(
    on_conflict: str, kept: str, conflict: tuple[ResponseCache, Path]
) -> None:
    """``load`` returns how many records it stored; a second load stores none."""
    ours, theirs = conflict
    assert ours.load(theirs, on_conflict=on_conflict) == (2 if kept == "theirs" else 1)
    chats = ours.records(where=lambda record: record.kind == "chat")
    answers = {record.request["messages"][0]["content"]: record.answer for record in chats}
    assert answers == {"a": kept, "new": "theirs"}
    assert ours.load(theirs, on_conflict=on_conflict) == 0


def test_on_conflict_raise_stores_nothing(conflict: tuple[ResponseCache, Path]) -> None:
    """The error says how many requests have other answers, and what to do."""
    ours, theirs = conflict
    before = contents(ours)
    with pytest.raises(CacheError, match=r"answer 1 request .* 'replace'") as caught:
        ours.load(theirs, on_conflict="raise")
    assert type(caught.value) is CacheError
    assert contents(ours) == before


def test_a_file_with_a_broken_line_is_not_loaded(source: ResponseCache, tmp_path: Path) -> None:
    """The error names the line by its number; no line before it is stored."""
    broken = tmp_path / "broken.jsonl"
    text = (tmp_path / "export.jsonl").read_bytes()
    broken.write_bytes(text[:-9])
    last = len(text.splitlines())
    with ResponseCache(tmp_path / "target") as target:
        with pytest.raises(CacheCorruptError, match=rf"broken\.jsonl:{last}"):
            target.load(broken)
        assert len(target) == 0


# The bytes of a record


def answered(**fields: Any) -> dict[str, Any]:
    """Return a response with further fields."""
    return {"choices": [{"message": {"role": "assistant", "content": "yes"}}], **fields}


class Model(str, enum.Enum):
    """A string that belongs to a class."""

    MINI = "gpt-4o-mini"


def test_strings_mappings_and_tuples_are_stored_in_their_plain_form(tmp_path: Path) -> None:
    """A string of a class is a string, a mapping a dict, a tuple a list."""
    with ResponseCache(tmp_path / "cache") as cache:
        response = answered(model=Model.MINI, more=OrderedDict(a=(1, 2)))
        cache.put(asked("a"), {**response, "choices": tuple(response["choices"])})
        found = cache.get(asked("a")).response  # type: ignore[union-attr]
    assert type(found["model"]) is str
    assert found == answered(model="gpt-4o-mini", more={"a": [1, 2]})


class Planted:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "it ran")


def hostile_values(planted: Planted, protocol: int) -> list[Any]:
    """Return values that run code if a record or a file is unpickled without care."""
    head = (1, "chat", None, None, None, None, None)
    return [
        planted,
        (*head, {"a": planted}, pickle.dumps({})),
        (*head[:-1], planted, {}, pickle.dumps({})),
        [1],
        (),
        (*head, {}, pickle.dumps({"a": planted}, protocol)),
    ]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_in_a_records_place_runs_code(protocol: int, tmp_path: Path) -> None:
    """It is damage, though its checksum fits."""
    request = asked("a")
    with ResponseCache(tmp_path / "cache", mode="replay") as cache:
        cache.put(request, answered())
        for value in hostile_values(Planted(tmp_path / "planted"), protocol):
            body = pickle.dumps(value, protocol)
            sum_of = crc32(body, crc32(request.cache_key.encode())).to_bytes(4, "little")
            in_database(cache.path, "UPDATE Cache SET value = ?", body + sum_of)
            with pytest.raises(CacheCorruptError, match="cannot be read"):
                _ = cache.get(request).request  # type: ignore[union-attr]
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_that_is_loaded_runs_code(protocol: int, tmp_path: Path) -> None:
    """It is refused, or what it has is not taken."""
    with ResponseCache(tmp_path / "cache") as cache:
        for value in hostile_values(Planted(tmp_path / "planted"), protocol):
            for content in (value, {"key": value}, {value: 1} if value == () else 1):
                (tmp_path / "api.pickle").write_bytes(pickle.dumps(content, protocol))
                with suppress(CacheError, ValueError):
                    cache.load(tmp_path / "api.pickle")
    assert not (tmp_path / "planted").exists()


# Salvage


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record]]:
    """A cache of small records and some that fill several pages, and its records by their keys."""
    path = tmp_path_factory.mktemp("sound") / "cache"
    with ResponseCache(path) as cache:
        for number in range(60):
            cache.put(
                asked(f"question {number}", sample=number % 2 or None),
                answered(number=number),
                cost=number / 10,
            )
        for number in range(4):
            cache.put(asked(f"long question {number}"), answered(text=str(number) * 30_000))
        return path, {record.cache_key: record for record in cache.records()}


def salvaged(path: Path, to: Path) -> dict[str, Record]:
    """Return what is read of a cache, by the keys under which it is found then."""
    with ResponseCache(path) as cache, ResponseCache(to) as saved:
        count = cache.salvage(to)
        found = {record.cache_key: record for record in saved.records()}
        assert count == len(found)
    return found


def test_salvage_of_a_sound_cache_copies_all(sound: Any, tmp_path: Path) -> None:
    """Keys, answers, costs, times and order are the same; a second time changes nothing."""
    path, records = sound
    assert salvaged(path, tmp_path / "new") == records
    assert list(salvaged(path, tmp_path / "new")) == list(records)


def test_salvage_of_a_cache_without_a_sound_record_writes_nothing(tmp_path: Path) -> None:
    """For the command that is an error."""
    with ResponseCache(tmp_path / "hollow") as hollow:
        hollow.put(asked("a"), answered())
    in_database(tmp_path / "hollow", "UPDATE Cache SET value = X'00'")
    with ResponseCache(tmp_path / "hollow") as hollow:
        assert hollow.salvage(tmp_path / "new") == 0
    printed = commands.cache("--path", tmp_path / "hollow", "salvage", tmp_path / "new", code=1)
    assert "can be read, so nothing was written" in printed
    assert not (tmp_path / "new").exists()


def test_salvage_counts_what_is_lost(
    sound: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Most records are saved; the log has the number of the others."""
    path, records = sound
    torn = Path(shutil.copytree(path, tmp_path / "bad")) / DATABASE
    data = torn.read_bytes()
    last = max(at for at in range(PAGE, len(data), PAGE) if data[at] == 13)  # a page of rows
    torn.write_bytes(data[:last] + b"\xff" * PAGE + data[last + PAGE :])
    count = int(commands.cache("--path", torn.parent, "salvage", tmp_path / "new").split(" ")[0])
    assert len(records) / 2 < count < len(records)
    lost = f"{len(records) - count} of {len(records)} records cannot be read and are lost"
    assert lost in caplog.text
