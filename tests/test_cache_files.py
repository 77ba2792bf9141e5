"""Caches as files: export and load, new keys, salvage, the bytes of a record, and TinyTroupe's
cache.
"""

from __future__ import annotations

import datetime
import enum
import json
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import commands
import openai
import pydantic
import pytest
from disks import DATABASE, in_database
from pytest_httpserver import HTTPServer
from servers import OK, ScriptedServer, completion

import llmcall
from llmcall import CacheCorruptError, CacheError, CacheMissError, Record, ResponseCache
from llmcall.testing import ScriptedClient

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


@pytest.mark.parametrize("kind", ["file", "directory", "object"])
def test_round_trip(kind: str, tmp_path: Path) -> None:
    """What is loaded again answers the same requests with the same answers; loading it twice
    changes nothing.
    """
    source = recorded(tmp_path / "source", {"b": "1", "a": "2 🧀\n" * 300})
    assert source.export(tmp_path / "export.jsonl") == 3
    place: Any = {
        "file": tmp_path / "export.jsonl",
        "directory": tmp_path / "source",
        "object": source,
    }[kind]
    with ResponseCache(tmp_path / "target") as target:
        assert target.load(place) == 3
        assert (contents(target), target.verify()) == (contents(source), [])
        assert (target.load(place), target.load(target), len(target)) == (0, 0, 3)
        target.export(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "export.jsonl").read_bytes()
    client = ScriptedClient(
        (), cache_mode="replay", cache_path=tmp_path / "target", on_error="raise"
    )
    with llmcall.scope("actor-b"):
        reply: Any = client.send_message("b", temperature=0.5)
    assert (reply.content, reply.sample, client.get_embedding("text")) == (
        "1",
        "actor-b#0",
        [0.5, 0.25],
    )


def test_an_export_is_a_cassette(tmp_path: Path) -> None:
    """UTF-8 JSON Lines with a header, records by scope path, those that ``where`` says; no host,
    time or key.
    """
    source = recorded(tmp_path / "source", {"b": "1", "a": "2"})
    source.export(tmp_path / "export.jsonl")
    lines = [
        json.loads(line)
        for line in (tmp_path / "export.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert "llmcall" in lines[0]
    assert [line.get("sample") for line in lines[1:]] == [None, "actor-a#0", "actor-b#0"]
    assert not any(
        {"host", "stored_at", "cache_key", "version"} & line.keys() for line in lines[1:]
    )
    assert (
        source.export(tmp_path / "some.jsonl", where=lambda record: record.kind == "embedding") == 1
    )
    with llmcall.cassette(tmp_path / "export.jsonl", mode="none"), llmcall.scope("actor-a"):
        assert ScriptedClient().send_message("a", temperature=0.5).content == "2"  # type: ignore[union-attr]
    with ResponseCache(tmp_path / "empty") as cache:
        assert (cache.export(tmp_path / "empty.jsonl"), cache.load(tmp_path / "empty.jsonl")) == (
            0,
            0,
        )


def test_an_export_stands_by_the_levels_of_its_scopes() -> None:
    """What is in a scope follows it, before the next scope; what is in none comes first."""
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto", on_error="raise")
    for path in ("a-b", "a/b", "a", ""):
        with ExitStack() as stack:
            for name in filter(None, path.split("/")):
                stack.enter_context(llmcall.scope(name))
            client.send_message("Hello", temperature=1)
    client.cache.export("exported.jsonl")
    _, *lines = Path("exported.jsonl").read_text("utf-8").splitlines()
    samples = [json.loads(line).get("sample") for line in lines]
    assert samples == [None, "a#0", "a/b#0", "a-b#0"]


@pytest.mark.parametrize("on_conflict", ["keep", "replace", "raise"])
def test_conflicts(on_conflict: str, tmp_path: Path) -> None:
    """Another answer to a key is kept out, put in place of ours, or refused before anything is
    stored.
    """
    place = tmp_path / "theirs.jsonl"
    recorded(tmp_path / "theirs", {"a": "theirs", "new": "theirs"}).export(place)
    ours = recorded(tmp_path / "ours", {"a": "ours"})
    before = contents(ours)
    if on_conflict == "raise":
        with pytest.raises(CacheError, match=r"answer 1 request .* 'replace'") as caught:
            ours.load(place, on_conflict="raise")
        assert type(caught.value) is CacheError
        assert contents(ours) == before
        return
    assert ours.load(place, on_conflict=on_conflict) == (2 if on_conflict == "replace" else 1)
    chats = ours.records(where=lambda record: record.kind == "chat")
    answers = {record.request["messages"][0]["content"]: record.answer for record in chats}
    assert answers == {"a": "theirs" if on_conflict == "replace" else "ours", "new": "theirs"}
    assert ours.load(place, on_conflict=on_conflict) == 0


def test_what_servers_name_anew_is_no_conflict(tmp_path: Path) -> None:
    """Ids, dates and fingerprints of two recordings may differ."""
    for name in ("one", "other"):
        with ResponseCache(tmp_path / name) as cache:
            cache.put(
                asked("a"),
                {"id": name, "created": len(name), "system_fingerprint": name, "choices": []},
            )
    assert ResponseCache(tmp_path / "one").load(tmp_path / "other", on_conflict="raise") == 0


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    """A broken line is named by its number; what holds no cache is an error, too; nothing is stored
    or made.
    """
    recorded(tmp_path / "source", {"a": "1"}).export(tmp_path / "export.jsonl")
    lines = (tmp_path / "export.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "broken.jsonl").write_text(
        "\n".join([*lines[:-1], lines[-1][:-9]]), encoding="utf-8"
    )
    (tmp_path / "folder").mkdir()
    with ResponseCache(tmp_path / "target") as target:
        for what, error, words in [
            (tmp_path / "broken.jsonl", CacheCorruptError, rf"broken\.jsonl:{len(lines)}"),
            (tmp_path / "missing.jsonl", FileNotFoundError, "missing"),
            (tmp_path / "folder", CacheError, "contains no cache"),
            (ResponseCache(tmp_path / "nowhere"), CacheError, "nowhere contains no cache"),
            (5, TypeError, "not int"),
        ]:
            with pytest.raises(error, match=words):  # type: ignore[arg-type]
                target.load(what)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="keep, replace, raise"):
            target.load(tmp_path / "export.jsonl", on_conflict="ask")
        assert len(target) == 0
    assert not (tmp_path / "folder" / DATABASE).exists()


# The bytes of a record


class Model(str, enum.Enum):
    """Be a string that belongs to a class."""

    MINI = "gpt-4o-mini"


def test_what_is_not_plain(tmp_path: Path) -> None:
    """What has a plain form is stored in it; anything else is refused before it is stored, naming
    its place.
    """
    with ResponseCache(tmp_path / "cache") as cache:
        cache.put(asked("a"), {"model": Model.MINI, "more": OrderedDict(a=(1, 2))})
        found = cache.get(asked("a")).response  # type: ignore[union-attr]
        assert type(found["model"]) is str and found["more"] == {"a": [1, 2]}
        with pytest.raises(TypeError, match=r"response\.choices\[0\]\.at is a datetime"):
            cache.put(asked("b"), {"choices": [{"at": datetime.datetime(2026, 1, 1)}]})
        with pytest.raises(TypeError, match="could not be read"):
            cache.put(asked("b"), {}, cost=True)
        assert len(cache) == 1


class Planted:
    """Write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "it ran")


def rewritten(cache: ResponseCache, key: str, change: Callable[[bytes], bytes]) -> None:
    """Put other bytes in the place of a record."""
    [(packed,)] = in_database(cache.path, "SELECT value FROM Cache WHERE key = ?", key)
    in_database(cache.path, "UPDATE Cache SET value = ? WHERE key = ?", change(packed), key)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_runs_code(protocol: int, tmp_path: Path) -> None:
    """Neither in a record's place, with a checksum that fits, nor in its response or request, nor
    as a file to load.
    """
    planted, request = Planted(tmp_path / "planted"), asked("a")
    head = (1, "chat", None, None, None, None, None)
    values = [
        planted,
        (*head, {"a": planted}, pickle.dumps({})),
        (*head[:-1], planted, {}, pickle.dumps({})),
        [1],
        (),
    ]
    with ResponseCache(tmp_path / "cache", mode="replay") as cache:
        cache.put(request, {"choices": []})
        for value in [*values, (*head, {}, pickle.dumps({"a": planted}, protocol))]:
            body = pickle.dumps(value, protocol)
            sum_of = crc32(body, crc32(request.cache_key.encode())).to_bytes(4, "little")
            rewritten(cache, request.cache_key, lambda packed, data=body + sum_of: data)  # type: ignore[misc]
            with pytest.raises(CacheCorruptError, match="cannot be read"):
                _ = cache.get(request).request  # type: ignore[union-attr]
            for data in (
                body,
                pickle.dumps({"key": value}, protocol),
                pickle.dumps({value: 1} if value == () else 1),
            ):
                (tmp_path / "api.pickle").write_bytes(data)
                with suppress(CacheError, ValueError):
                    cache.load(tmp_path / "api.pickle")
    assert not (tmp_path / "planted").exists()


# New keys


def recorder(**given: Any) -> ScriptedClient:
    """Return a client that records."""
    return ScriptedClient(lambda messages: f"Answer to {messages[-1]}", cache_mode="auto", **given)


def replayed(question: str, **arguments: Any) -> str | None:
    """Return what is recorded of a question."""
    reply = ScriptedClient(cache_mode="replay").send_message(question, **arguments)
    return None if reply is None else reply.content


def test_an_alias_that_came_later() -> None:
    """Records of a name that is an alias now are found under the model's own name, as old as they
    were.
    """
    client = recorder()
    client.send_message("Bread?", model="gpt-4-turbo")
    client.send_message("Milk?", model="gpt-4o")
    times = [record.stored_at for record in client.cache.records()]
    llmcall.configure(aliases={"gpt-4-turbo": "gpt-4-1106-preview"})
    with pytest.raises(CacheMissError, match="rekey"):
        replayed("Bread?", model="gpt-4-turbo")
    assert (client.cache.rekey(), client.cache.rekey()) == (1, 0)
    assert "Bread?" in str(replayed("Bread?", model="gpt-4-turbo"))
    assert "Milk?" in str(replayed("Milk?", model="gpt-4o"))
    after = list(client.cache.records())
    assert [record.stored_at for record in after] == times
    assert [record.request["model"] for record in after] == ["gpt-4-1106-preview", "gpt-4o"]
    assert client.cache.verify() == [] and len(client.cache) == 2


def test_a_namespace_that_came_and_went(tmp_path: Path) -> None:
    """The present namespace stands in every key, in those of functions too, or in none; an
    endpoint's goes before.
    """
    clock = llmcall.recorded(name="clock")(lambda: 1)
    client = recorder()
    with llmcall.scope("lisa"):
        client.send_message("Bread?")
        client.send_message("Bread?")
    clock()
    first = list(client.cache.records())
    llmcall.configure(cache_namespace="here")
    assert client.cache.rekey() == 3
    assert {record.request["namespace"] for record in client.cache.records()} == {"here"}
    with llmcall.configured(cache_mode="replay"), llmcall.scope("lisa"):
        assert replayed("Bread?") and replayed("Bread?")
    with llmcall.configured(cache_mode="replay"):
        assert clock() == 1
    endpoint = llmcall.Endpoint("one", models=("gpt-4o-mini",), namespace="mine")
    with llmcall.configured(endpoints=[endpoint]):
        assert client.cache.rekey() == 2
    assert [record.request["namespace"] for record in client.cache.records()] == [
        "mine",
        "mine",
        "here",
    ]
    llmcall.configure(cache_namespace="")
    assert (client.cache.rekey(), list(client.cache.records())) == (3, first)
    assert ResponseCache(tmp_path / "none").rekey() == 0 and not (tmp_path / "none").exists()


def test_another_version_of_keys_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are made in another way are made anew from the stored requests; how many is said."""
    for question in ("Bread?", "Milk?"):
        recorder().send_message(question)
    monkeypatch.setattr("llmcall.requests.keys.KEY_VERSION", 2)
    with pytest.raises(CacheMissError, match="recorded under an old key: 'llmcall cache"):
        replayed("Milk?")
    assert commands.cache("rekey") == "2 of 2 records changed\n"
    assert "Milk?" in str(replayed("Milk?")) and recorder().cache.verify() == []


@pytest.mark.parametrize(
    "alias", [{"old": "new"}, {"other": "last"}, {"old": "new", "other": "last"}]
)
def test_pointers_follow(alias: dict[str, str]) -> None:
    """The record of a request whose answer another model gave points to where that answer went."""
    client = recorder()
    longer = client.send_message("Bread?", model="other", on_error="raise")
    client.cache.put(client.build_request("Bread?", model="old"), {"fallback": longer.cache_key})
    llmcall.configure(aliases=alias)
    assert client.cache.rekey() == (2 if "other" in alias else 1)
    assert replayed("Bread?", model="old") == longer.content


def test_records_that_come_to_one_key(tmp_path: Path) -> None:
    """The one that has the key already, else the first, gets it; the others stay as they are."""
    names = ["old", "last", "one", "other"]
    with ResponseCache(tmp_path / "cache") as cache:
        for model in names:
            cache.put(asked("Bread?", model=model), {"answer": model})
        llmcall.configure(aliases={"old": "last", "one": "new", "other": "new"})
        assert (cache.rekey(), len(cache), cache.verify()) == (1, 4, [])
        found = [
            cache.get(ScriptedClient(cache_mode="off").build_request("Bread?", model=model))
            for model in names
        ]
    assert [record and record.response["answer"] for record in found] == [
        "last",
        "last",
        "one",
        "one",
    ]


def test_damage_stays_where_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A row that cannot be read keeps its key, and is counted in the log."""
    with ResponseCache(tmp_path / "cache") as cache:
        keys = [
            cache.put(asked(f"question {number}"), {"answer": number}).cache_key
            for number in range(5)
        ]
        rewritten(cache, keys[0], lambda packed: b"\0")
        llmcall.configure(cache_namespace="here")
        assert (cache.rekey(), cache.verify()) == (4, [keys[0]])
    assert "1 damaged row left unchanged" in caplog.text


# Salvage


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record]]:
    """A cache of small records and some that fill several pages, and its records by their keys."""
    path = tmp_path_factory.mktemp("sound") / "cache"
    with ResponseCache(path) as cache:
        for number in range(60):
            cache.put(
                asked(f"question {number}", sample=number % 2 or None),
                {"answer": number},
                cost=number / 10,
            )
        for number in range(4):
            cache.put(asked(f"long question {number}"), {"answer": str(number) * 30_000})
        return path, {record.cache_key: record for record in cache.records()}


def salvaged(path: Path, to: Path) -> dict[str, Record]:
    """Return what is read of a cache, by the keys under which it is found then."""
    with ResponseCache(path) as cache, ResponseCache(to) as saved:
        count = cache.salvage(to)
        found = {record.cache_key: record for record in saved.records()}
        assert (saved.verify(), count) == ([], len(found))
    return found


def damaged(path: Path, to: Path, offset: int, junk: bytes) -> Path:
    """Copy a cache, and put other bytes into its database."""
    shutil.copytree(path, to)
    with open(to / DATABASE, "r+b") as file:
        file.seek(offset)
        file.write(junk)
    return to


def test_a_sound_cache(sound: Any, tmp_path: Path) -> None:
    """All comes over: keys, answers, costs, times and order; running it again changes nothing, what
    is there stays.
    """
    path, records = sound
    assert salvaged(path, tmp_path / "new") == records
    assert list(salvaged(path, tmp_path / "new")) == list(records)
    with ResponseCache(tmp_path / "mine") as mine, ResponseCache(path) as cache:
        mine.put(asked("question 0"), {"answer": "mine"})
        assert cache.salvage(tmp_path / "mine") == len(mine) == len(records)
        assert mine.get(asked("question 0")).response == {"answer": "mine"}  # type: ignore[union-attr]
        with pytest.raises(CacheError, match="into itself"):
            cache.salvage(path.parent / "." / "cache")
    with pytest.raises(CacheError, match="contains no cache"):
        ResponseCache(tmp_path / "none").salvage(tmp_path / "new")


def leaf_pages(path: Path) -> Iterator[int]:
    """Yield where the pages begin that hold rows of tables."""
    data = (path / DATABASE).read_bytes()
    return (at for at in range(PAGE, len(data), PAGE) if data[at] == 13)


def test_nothing_to_save(sound: Any, tmp_path: Path) -> None:
    """Where no record can be read, that is an error of the command, and no new cache is made."""
    bad = damaged(sound[0], tmp_path / "bad", 0, b"no database")
    with (
        ResponseCache(bad) as cache,
        pytest.raises(CacheCorruptError, match="nothing of the cache"),
    ):
        cache.salvage(tmp_path / "new")
    with ResponseCache(tmp_path / "hollow") as hollow:
        hollow.put(asked("a"), {"answer": "a"})
    in_database(tmp_path / "hollow", "UPDATE Cache SET value = X'00'")
    with ResponseCache(tmp_path / "hollow") as hollow:
        assert hollow.salvage(tmp_path / "new") == 0
    told = commands.cache("--path", tmp_path / "hollow", "salvage", tmp_path / "new", code=1)
    assert "can be read, so nothing was written" in told
    assert not (tmp_path / "new").exists()


def test_the_error_names_the_command_that_mends(
    sound: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From the error of a damaged database to a cache that works, as a user would go; the log says
    what is lost.
    """
    bad = damaged(sound[0], tmp_path / "bad", list(leaf_pages(sound[0]))[-1], b"\xff" * PAGE)
    with ResponseCache(bad, mode="replay") as cache, pytest.raises(CacheCorruptError) as caught:
        list(cache.records())
    assert f"'llmcall cache salvage NEW_FOLDER --path {bad}'" in str(caught.value)
    count = int(commands.cache("--path", bad, "salvage", tmp_path / "new").split(" ")[0])
    assert len(sound[1]) / 2 < count < len(sound[1])
    assert (
        f"{len(sound[1]) - count} of {len(sound[1])} records cannot be read and are lost"
        in caplog.text
    )
    with ResponseCache(tmp_path / "new", mode="replay") as cache:
        assert (
            cache.verify() == []
            and {each.cache_key: each for each in cache.records()}.items() <= sound[1].items()
        )


# TinyTroupe's pickle cache

MESSAGES = [
    {
        "role": "system",
        "content": "You are Lisa's \"twin\".\nYou speak\tin riddles, \\ and 'quotes' – €.",
    },
    {"role": "user", "content": 'What do "apples" cost?'},
]
# The parameters of TinyTroupe's first public version, which keys every one of them, of 0.6, and of
# its Ollama client.
FIRST: dict[str, Any] = {
    "messages": MESSAGES,
    "temperature": 0.3,
    "max_tokens": 1024,
    "top_p": 0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "stop": [],
    "timeout": 30.0,
    "stream": False,
    "n": 1,
}
LATEST: dict[str, Any] = {
    "model": "gpt-5-mini",
    "messages": MESSAGES,
    "max_completion_tokens": 128000,
    "timeout": 480.0,
    "stream": False,
    "n": 1,
}
OLLAMA: dict[str, Any] = {
    "model": "gemma3:1b",
    "messages": MESSAGES,
    "stream": False,
    "n": 1,
    "options": {"temperature": 1.0, "frequency_penalty": 0.1, "num_ctx": 32000},
}


def key(model: str, params: dict[str, Any]) -> str:
    """Return the key of an entry, as TinyTroupe makes it."""
    return str((model, params))


def saved(entries: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> str:
    """Write a cache file as TinyTroupe does, and return its path."""
    Path("openai_api_cache.pickle").write_bytes(pickle.dumps(entries, protocol))
    return "openai_api_cache.pickle"


def sdk_completion() -> Any:
    """Return the SDK's object of a completion."""
    from openai.types.chat import ChatCompletion

    return ChatCompletion.model_validate(completion())


def found_in(path: str, messages: Any, **arguments: Any) -> str | None:
    """Load a file, and return what ``send_message`` finds where it may not call."""
    client = ScriptedClient(cache_mode="replay")
    client.cache.clear()
    client.cache.load(path)
    return client.send_message(messages, **arguments).content  # type: ignore[union-attr]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_entries_of_each_version(protocol: int) -> None:
    """Objects of the SDK and dumped responses are read; defaults and other names of parameters are
    no others.
    """
    path = saved({key("gpt-4", FIRST): sdk_completion()}, protocol)
    sampling = {
        name: FIRST[name]
        for name in ("temperature", "max_tokens", "frequency_penalty", "presence_penalty")
    }
    assert found_in(path, MESSAGES, model="gpt-4", **sampling, top_p=0, timeout=9) == "Two coins."
    assert found_in(path, MESSAGES, model="gpt-4", **sampling) == "Two coins."
    path = saved({key("gpt-5-mini", LATEST): sdk_completion().model_dump()}, protocol)
    assert found_in(path, MESSAGES, model="gpt-5-mini", max_tokens=128000) == "Two coins."
    assert (
        found_in(path, MESSAGES, model="gpt-5-mini", max_completion_tokens=128000, n=1)
        == "Two coins."
    )
    path = saved({key("gemma3:1b", OLLAMA): completion()}, protocol)
    assert (
        found_in(path, MESSAGES, model="gemma3:1b", temperature=1, frequency_penalty=0.1)
        == "Two coins."
    )


@pytest.mark.parametrize(
    "params",
    [
        {"stop": ["\n", "END"]},
        {"stop": "END"},
        {"n": 2},
        {"response_format": {"type": "json_object"}},
        {"temperature": 1e-07, "presence_penalty": -0.5},
        {"reasoning_effort": "low"},
        {"temperature": None},
    ],
    ids=str,
)
def test_parameters(params: dict[str, Any]) -> None:
    """A call of the same parameters finds the answer, and one of others does not."""
    path = saved({key("gpt-4o", {**LATEST, "model": "gpt-4o", **params}): completion()})
    arguments: dict[str, Any] = {"model": "gpt-4o", "max_tokens": 128000, **params}
    assert found_in(path, MESSAGES, **arguments) == "Two coins."
    with pytest.raises(CacheMissError):
        found_in(path, MESSAGES, **{**arguments, "max_tokens": 5})


class Colour(enum.Enum):
    """Be a class of the user's."""

    RED = 1


class Reading(pydantic.BaseModel):
    """Be a class given as response_format, as it stood where the cache was written."""

    a: int


EMPTY = {
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}
    ]
}
UNREADABLE: dict[str, tuple[Any, Any, str]] = {
    "no text": (5, completion(), "key is not TinyTroupe's"),
    "a call": ("('gpt-4o', {'messages': exit()})", completion(), "cannot be read as plain data"),
    "unbalanced": ("('gpt-4o', {'messages': [", completion(), "cannot be read"),
    "no model": (
        key("gpt-4o", {"messages": MESSAGES})[1:].replace("'gpt-4o'", "(None", 1),
        completion(),
        "does not name a model",
    ),
    "a parameter": (
        key("gpt-4o", {**LATEST, "temprature": 1}),
        completion(),
        "did you mean 'temperature'",
    ),
    "no choices": (key("gpt-4o", LATEST), {"choices": []}, "without choices"),
    "an empty answer": (key("gpt-4o", LATEST), EMPTY, "the answer is empty"),
    "another object": (key("gpt-4o", LATEST), Colour.RED, "not a pydantic model"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_entries(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Entries that cannot be read are counted in one warning, the first with number and reason; the
    others are read.
    """
    entry, value, words = UNREADABLE[name]
    path = saved(
        {
            key("gpt-4o", FIRST): completion(),
            entry: value,
            key("gemma3:1b", OLLAMA): completion(),
            "x": 1,
        }
    )
    # one for calls without top_p, which TinyTroupe wrote as 0 by itself
    assert ResponseCache("cache").load(path) == 3
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{path}: 2 of 4 entries cannot be read: entry 2: ")
    assert words in message and len(message) < 700


def of_a_class() -> str:
    """Write a cache whose only entry had a class as ``response_format``, and return its path."""
    # what parse() adds is left out
    message = {
        "role": "assistant",
        "content": '{"a": 1}',
        "parsed": Colour.RED,
    }
    entry = completion(choices=[{"index": 0, "message": message, "finish_reason": "stop"}])
    return saved({key("gpt-4o", {**LATEST, "model": "gpt-4o", "response_format": Reading}): entry})


def test_an_entry_whose_response_format_is_a_class(caplog: pytest.LogCaptureFixture) -> None:
    """The file has the class's name alone; ``classes`` gives it, and the call with that class finds
    its answer.
    """
    path = of_a_class()
    client = ScriptedClient(cache_mode="replay")
    assert client.cache.load(path) == 0
    assert "load(…, classes=[Reading])" in caplog.text
    client.cache.load(path, classes=[Colour, Reading])
    reply = client.send_message(
        MESSAGES, model="gpt-4o", max_tokens=128000, response_format=Reading
    )
    assert (
        reply is not None
        and reply.cached
        and reply.parsed == Reading(a=1)
        and "parsed" not in reply
    )


def test_tinytroupe_itself_finds_the_answers_of_its_cache() -> None:
    """What it asks by the SDK's ``parse()``, unchanged, is found by what the SDK sends for the
    class.
    """
    llmcall.client().cache.load(of_a_class(), classes=[Reading])
    arguments: dict[str, Any] = {
        "model": "gpt-4o",
        "messages": MESSAGES,
        "max_completion_tokens": 128000,
    }
    with openai.OpenAI(
        api_key="none", http_client=llmcall.http_client(cache_mode="replay")
    ) as client:
        parsed = (
            client.chat.completions.parse(response_format=Reading, n=1, **arguments)
            .choices[0]
            .message.parsed
        )
    assert parsed == Reading(a=1)


def test_a_class_that_a_command_names() -> None:
    """The command imports a class as from the working directory; what is none, or is not there, is
    an error.
    """
    path = of_a_class()
    Path("readings.py").write_text(
        "import pydantic\nclass Reading(pydantic.BaseModel):\n    a: int\nROUNDS = 3\n"
    )
    assert commands.cache("load", path, "--class", "readings.Reading").startswith(
        "2 records loaded into "
    )
    assert "No module named 'nowhere'" in commands.cache(
        "load", path, "--class", "nowhere.Reading", code=2
    )
    assert "readings.ROUNDS is not a class" in commands.cache(
        "load", path, "--class", "readings.ROUNDS", code=2
    )


def test_two_answers_to_one_request(caplog: pytest.LogCaptureFixture) -> None:
    """Entries that differ in what does not matter are one record; the first answer counts, another
    one is told.
    """
    other = {**LATEST, "timeout": 5, "temperature": None}
    for second, told in (("Two coins.", False), ("Three.", True)):
        path = saved(
            {key("gpt-5-mini", LATEST): completion(), key("gpt-5-mini", other): completion(second)}
        )
        assert found_in(path, MESSAGES, model="gpt-5-mini", max_tokens=128000) == "Two coins."
        assert ("entry 2: an earlier entry has a different answer" in caplog.text) == told


@pytest.mark.parametrize(
    "data", [b"\x80\x04]", b"\x80\x04K\x01.", b"\x80\x04\x8c\x01a.", b"no pickle"]
)
def test_another_file(data: bytes) -> None:
    """A file that is no such cache is an error that names it; an empty cache is none."""
    Path("some.pickle").write_bytes(data)
    with pytest.raises(CacheCorruptError, match=r"some\.pickle"):
        ResponseCache("cache").load("some.pickle")
    Path("empty").touch()
    assert [ResponseCache("cache").load(path) for path in ("empty", saved({}))] == [0, 0]


def test_a_script_of_its_form(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its config.ini, calls and cache, a script runs when only its import was changed."""
    server = ScriptedServer(httpserver, OK)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret")
    config = (Path(__file__).parent / "tinytroupe.ini").read_text(encoding="utf-8")
    Path("config.ini").write_text(
        config.replace("[OpenAI]", f"[OpenAI]\nBASE_URL={server.base_url}")
    )
    assert commands.cache("load", saved({key("gpt-5-mini", LATEST): completion()})).startswith(
        "2 records loaded into "
    )
    assert llmcall.client().send_message(MESSAGES).cached  # type: ignore[union-attr]
    with openai.OpenAI(
        http_client=llmcall.http_client()
    ) as itself:  # it does not send REASONING_EFFORT to this model
        itself.chat.completions.create(
            model="gpt-5-mini", messages=MESSAGES, max_completion_tokens=128000
        )  # type: ignore[arg-type]
    llmcall.force_api_type("openai")
    llmcall.force_api_cache(True, "openai_api_cache.pickle")
    messages = [{"role": "user", "content": "What do apples cost?"}]
    for _ in range(2):
        reply = llmcall.client().send_message(
            messages, temperature=1.0, max_completion_tokens=50, echo=False
        )
        assert reply == {"role": "assistant", "content": "Two coins."}
    assert Path("openai_api_cache.cache").is_dir()
    [sent] = (seen.body for seen in server.requests)
    assert (
        sent["max_completion_tokens"] == 50 and sent["model"] == "gpt-5-mini" and "echo" not in sent
    )
