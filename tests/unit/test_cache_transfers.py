"""Moving records: exports, loads of files and directories, conflicts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import llmcall
from llmcall.cache.cache import ResponseCache
from llmcall.errors import CacheCorruptError, CacheError
from llmcall.testing import ScriptedClient


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
        record.cache_key: (record.kind, record.sample, record.request, record.response) for record in cache.records()
    }


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_round_trip(kind: str, tmp_path: Path) -> None:
    """What is exported and loaded again answers the same requests with the same answers."""
    source = recorded(tmp_path / "source", {"b": "1", "a": "2 🧀\n" * 300})
    if kind == "file":
        assert source.export(tmp_path / "export.jsonl") == 3
    place = tmp_path / ("export.jsonl" if kind == "file" else "source")
    with ResponseCache(tmp_path / "target") as target:
        assert target.load(place) == 3
        assert contents(target) == contents(source)
        assert target.verify() == []
        assert target.load(place) == 0
        assert len(target) == 3
        target.export(tmp_path / "again.jsonl")
    if kind == "file":
        assert (tmp_path / "again.jsonl").read_bytes() == place.read_bytes()


def test_loaded_answers_replay(tmp_path: Path) -> None:
    """A loaded cache needs no model: chat in a scope and embeddings replay."""
    recorded(tmp_path / "source", {"a": "yes"}).export(tmp_path / "export.jsonl")
    client = ScriptedClient((), cache_mode="replay", cache_path=tmp_path / "target")
    client.cache.load(tmp_path / "export.jsonl")
    with llmcall.scope("actor-a"):
        reply = client.send_message("a", on_error="raise", temperature=0.5)
    assert (reply.content, reply.sample) == ("yes", "actor-a#0")
    assert client.get_embedding("text") == [0.5, 0.25]


def test_export_is_lines_of_json_sorted_by_scope(tmp_path: Path) -> None:
    """An export is UTF-8 JSON Lines with a header, records by scope path; host, time and key are not in it."""
    recorded(tmp_path / "source", {"b": "1", "a": "2"}).export(tmp_path / "export.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "export.jsonl").read_text(encoding="utf-8").splitlines()]
    assert "llmcall" in lines[0]
    assert [line.get("sample") for line in lines[1:]] == [None, "actor-a#0", "actor-b#0"]
    assert not any({"host", "stored_at", "cache_key", "version"} & line.keys() for line in lines[1:])


def test_export_of_some(tmp_path: Path) -> None:
    """where= says which records go out."""
    source = recorded(tmp_path / "source", {"a": "1", "b": "2"})
    assert source.export(tmp_path / "some.jsonl", where=lambda record: record.kind == "embedding") == 1
    with ResponseCache(tmp_path / "target") as target:
        assert target.load(tmp_path / "some.jsonl") == 1


def test_an_empty_cache_is_exported_and_loaded(tmp_path: Path) -> None:
    """Nothing becomes a file with a header, and loads as nothing."""
    with ResponseCache(tmp_path / "empty") as cache:
        assert cache.export(tmp_path / "empty.jsonl") == 0
        assert cache.load(tmp_path / "empty.jsonl") == 0


def test_another_cache_is_loaded_by_itself(tmp_path: Path) -> None:
    """Another cache is taken as it is or by its path; an empty one, and what is neither, are refused."""
    theirs = recorded(tmp_path / "theirs", {"a": "1", "b": "2"})
    with ResponseCache(tmp_path / "ours") as ours:
        assert ours.load(theirs) == len(theirs) > 0
        assert contents(ours) == contents(theirs)
        assert ours.load(theirs) == ours.load(ours) == 0
        with pytest.raises(CacheError, match="nowhere holds no cache"):
            ours.load(ResponseCache(tmp_path / "nowhere"))
        with pytest.raises(TypeError, match="not 5"):
            ours.load(5)  # type: ignore[arg-type]
    assert len(theirs) > 0


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("on_conflict", ["keep", "replace", "raise"])
def test_conflicts(on_conflict: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another answer to a key is kept out, put in place of ours, or refused before anything is stored."""
    theirs = recorded(tmp_path / "theirs", {"a": "theirs", "new": "theirs"})
    theirs.export(tmp_path / "theirs.jsonl")
    ours = recorded(tmp_path / "ours", {"a": "ours"})
    before = contents(ours)
    place = tmp_path / ("theirs.jsonl" if kind == "file" else "theirs")
    if on_conflict == "raise":
        with pytest.raises(CacheCorruptError, match="1 records"):
            ours.load(place, on_conflict="raise")
        assert contents(ours) == before
        return
    assert ours.load(place, on_conflict=on_conflict) == (2 if on_conflict == "replace" else 1)
    answers = {record.request["messages"][0]["content"]: record.response["choices"][0]["message"]["content"]
               for record in ours.records(where=lambda record: record.kind == "chat")}  # fmt: skip
    assert answers == {"a": "theirs" if on_conflict == "replace" else "ours", "new": "theirs"}
    assert ours.load(place, on_conflict=on_conflict) == 0


def test_what_servers_name_anew_is_no_conflict(tmp_path: Path) -> None:
    """Ids, dates and fingerprints of two recordings may differ."""
    request = ScriptedClient().build_request("a")
    answer = {"choices": [{"message": {"role": "assistant", "content": "1"}, "finish_reason": "stop"}]}
    for name, identifier in (("one", "x"), ("other", "y")):
        with ResponseCache(tmp_path / name) as cache:
            cache.put(request, {"id": identifier, "created": 1, "system_fingerprint": identifier, **answer})
    with ResponseCache(tmp_path / "one") as cache:
        assert cache.load(tmp_path / "other", on_conflict="raise") == 0


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    """A broken line is named by its number; a missing file and a folder without a cache are errors, too."""
    source = recorded(tmp_path / "source", {"a": "1"})
    source.export(tmp_path / "export.jsonl")
    lines = (tmp_path / "export.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "broken.jsonl").write_text("\n".join([*lines[:-1], lines[-1][:-9]]), encoding="utf-8")
    (tmp_path / "folder").mkdir()
    with ResponseCache(tmp_path / "target") as target:
        with pytest.raises(CacheCorruptError, match=rf"broken\.jsonl:{len(lines)}"):
            target.load(tmp_path / "broken.jsonl")
        with pytest.raises(FileNotFoundError):
            target.load(tmp_path / "missing.jsonl")
        with pytest.raises(CacheError, match="holds no cache"):
            target.load(tmp_path / "folder")
        with pytest.raises(ValueError, match="keep, replace, raise"):
            target.load(tmp_path / "export.jsonl", on_conflict="ask")
        assert len(target) == 0
    assert not (tmp_path / "folder" / "cache.db").exists()


def test_loading_from_itself_changes_nothing(tmp_path: Path) -> None:
    """A cache loaded into itself, or into its copy, stores nothing."""
    source = recorded(tmp_path / "source", {"a": "1"})
    source.close()
    shutil.copytree(tmp_path / "source", tmp_path / "copy")
    with ResponseCache(tmp_path / "copy") as copy:
        assert (copy.load(tmp_path / "source"), source.load(tmp_path / "source")) == (0, 0)


def test_a_credential_does_not_leave(tmp_path: Path) -> None:
    """An answer that looks like a key is refused with its place, and no file is written."""
    cache = recorded(tmp_path / "source", {"a": "the key is sk-proj-" + "aB3dE5gH7jK9" * 4})
    with pytest.raises(CacheError, match="response"):
        cache.export(tmp_path / "export.jsonl")
    assert not (tmp_path / "export.jsonl").exists()
