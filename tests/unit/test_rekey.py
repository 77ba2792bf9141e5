"""Rekeying: after a change of aliases, namespace or key version, what was recorded is found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from golden_requests import asked
from hypothesis import given, settings
from hypothesis import strategies as st

import llmcall
from llmcall.cache import maintenance
from llmcall.cache.cache import ResponseCache
from llmcall.cli.main import main
from llmcall.engine.prepare import followed
from llmcall.requests import keys
from llmcall.testing import ScriptedClient
from llmcall.types import Record

NAMES = ("old", "new", "other", "last")


def recorder(**settings: Any) -> ScriptedClient:
    """A client that records."""
    return ScriptedClient(lambda messages: f"Answer to {messages[-1]}", cache_mode="auto", **settings)


def replayed(question: str, **arguments: Any) -> str | None:
    """What is recorded of a question."""
    reply = ScriptedClient(cache_mode="replay").send_message(question, **arguments)
    return None if reply is None else reply.content


def rows(cache: ResponseCache) -> list[Record]:
    """All records."""
    return list(cache.records())


def test_an_alias_that_came_later() -> None:
    """Records of a name that is an alias now are found under the model's own name, as old as they were."""
    client = recorder()
    client.send_message("Bread?", model="gpt-4-turbo")
    client.send_message("Milk?", model="gpt-4o")
    before = rows(client.cache)
    llmcall.configure(aliases={"gpt-4-turbo": "gpt-4-1106-preview"})
    with pytest.raises(llmcall.CacheMissError, match="rekey"):
        replayed("Bread?", model="gpt-4-turbo")
    assert client.cache.rekey() == 1
    assert "Bread?" in str(replayed("Bread?", model="gpt-4-turbo"))
    assert "Milk?" in str(replayed("Milk?", model="gpt-4o"))
    after = rows(client.cache)
    assert [record.stored_at for record in after] == [record.stored_at for record in before]
    assert [record.request["model"] for record in after] == ["gpt-4-1106-preview", "gpt-4o"]
    assert client.cache.verify() == [] and len(client.cache) == 2


def test_a_namespace_that_came_and_went() -> None:
    """The present namespace stands in every key, in those of functions too, or in none."""
    from llmcall.replay.recorded import recorded

    @recorded(name="clock")
    def clock() -> int:
        return 1

    client = recorder()
    with llmcall.scope("lisa"):
        client.send_message("Bread?")
        client.send_message("Bread?")
    clock()
    first = rows(client.cache)
    llmcall.configure(cache_namespace="here")
    assert client.cache.rekey() == 3
    assert {record.request["namespace"] for record in client.cache.records()} == {"here"}
    with llmcall.configured(cache_mode="replay"), llmcall.scope("lisa"):
        assert replayed("Bread?") and replayed("Bread?")
    with llmcall.configured(cache_mode="replay"):
        assert clock() == 1
    llmcall.configure(cache_namespace="")
    assert client.cache.rekey() == 3
    assert rows(client.cache) == first


def test_an_endpoints_own_namespace() -> None:
    """A model takes the namespace of the endpoint that serves it."""
    recorder().send_message("Bread?", model="gpt-4o")
    Path("config.ini").write_text(
        "[Cache]\nNAMESPACE = all\n[Endpoint one]\nMODELS = gpt-4o\nAPI_KEY = none\nNAMESPACE = mine\n",
        encoding="utf-8",
    )
    llmcall.reset()
    cache = recorder().cache
    assert cache.rekey() == 1
    client = llmcall.OpenAIClient(cache_mode="replay")
    assert "Bread?" in client.send_message("Bread?", model="gpt-4o", on_error="raise").content  # type: ignore[operator]


def test_another_key_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are made in another way are made anew from the stored requests."""
    client = recorder()
    for question in ("Bread?", "Milk?"):
        client.send_message(question)
    monkeypatch.setattr(keys, "KEY_VERSION", 2)
    with pytest.raises(llmcall.CacheMissError, match="recorded under another key: 'llmcall cache rekey'"):
        replayed("Milk?")
    assert client.cache.rekey() == 2
    assert "Milk?" in str(replayed("Milk?")) and client.cache.verify() == []


def test_running_it_twice_changes_nothing_more() -> None:
    """The second time all keys are as they should be."""
    client = recorder()
    for question in ("Bread?", "Milk?"):
        client.send_message(question)
    llmcall.configure(cache_namespace="here")
    assert (client.cache.rekey(), client.cache.rekey()) == (2, 0)


def test_nothing_to_rekey(tmp_path: Path) -> None:
    """A cache that is not there has no keys, and is not made."""
    assert ResponseCache(tmp_path / "none").rekey() == 0
    assert not (tmp_path / "none").exists()


def pointing(cache: ResponseCache) -> tuple[Any, Any]:
    """Store an answer of a longer model, and the first request's pointer to it."""
    first, longer = asked("Bread?", model="old"), asked("Bread?", model="other")
    cache.put(longer, {"answer": 1})
    cache.put(first, {"fallback": longer.cache_key})
    return first, longer


@pytest.mark.parametrize("alias", [{"old": "new"}, {"other": "last"}, {"old": "new", "other": "last"}])
def test_pointers_follow(alias: dict[str, str], tmp_path: Path) -> None:
    """The record of a request whose answer another model gave points to where that answer went."""
    with ResponseCache(tmp_path / "cache") as cache:
        pointing(cache)
        llmcall.configure(aliases=alias)
        assert cache.rekey() == (2 if "other" in alias else 1)
        found = cache.get(asked("Bread?", model=alias.get("old", "old")))
        assert found is not None and "fallback" in found.response
        answer = followed(found, cache.lookup)
        assert answer is not None and answer.response == {"answer": 1}


def test_the_first_keeps_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of records that come to one key, the one that has it keeps it; the other stays as it is, and it is said."""
    with ResponseCache(tmp_path / "cache") as cache:
        one, other = asked("Bread?", model="old"), asked("Bread?", model="new")
        cache.put(one, {"answer": "moving"})
        cache.put(other, {"answer": "there"})
        llmcall.configure(aliases={"old": "new"})
        assert (cache.rekey(), cache.rekey()) == (0, 0)
        assert cache.get(other).response == {"answer": "there"}  # type: ignore[union-attr]
        assert cache.get(one).response == {"answer": "moving"}  # type: ignore[union-attr]
    assert "1 records keep their keys, since others have the new ones already" in caplog.text


def test_the_first_of_two_that_move(tmp_path: Path) -> None:
    """Of two that move to one key, the one that was stored first gets it, and none is lost."""
    with ResponseCache(tmp_path / "cache") as cache:
        cache.put(asked("Bread?", model="old"), {"answer": "first"})
        cache.put(asked("Bread?", model="other"), {"answer": "second"})
        llmcall.configure(aliases={"old": "new", "other": "new"})
        assert cache.rekey() == 1
        assert cache.get(asked("Bread?", model="new")).response == {"answer": "first"}  # type: ignore[union-attr]
        assert len(cache) == 2


@pytest.mark.parametrize(
    ("wanted", "moves"),
    [
        ({"a": "b", "b": "a"}, {"a": "b", "b": "a"}),
        ({"a": "b", "b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "c", "b": "c", "c": "c"}, {}),
        ({"a": "c", "b": "a", "c": "c"}, {}),
        ({"a": "x", "b": "x", "d": "b"}, {"a": "x"}),
        ({"a": "a"}, {}),
    ],
)
def test_which_keys_move(wanted: dict[str, str], moves: dict[str, str]) -> None:
    """Keys may change places or follow one another; what cannot move holds its key against others."""
    assert maintenance._moves(wanted) == moves


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")))
def test_moves_never_collide(wanted: dict[str, str]) -> None:
    """Whatever is wanted, no two records end under one key, and who could have moved did."""
    moves = maintenance._moves(wanted)
    ends = [moves.get(key, key) for key in wanted]
    assert len(set(ends)) == len(ends)
    assert all(wanted[key] in ends for key in wanted)


def test_an_interruption_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken off in the middle, the cache is as it was; run again, it is done."""
    with ResponseCache(tmp_path / "cache") as cache:
        for number in range(5):
            cache.put(asked(f"question {number}"), {"answer": number})
        before = rows(cache)
        llmcall.configure(cache_namespace="here")
        packed: list[Record] = []

        def interrupted(record: Record) -> bytes:
            packed.append(record)
            if len(packed) == 3:
                raise KeyboardInterrupt
            return keys_pack(record)

        keys_pack = maintenance.pack
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(maintenance, "pack", interrupted)
            cache.rekey()
        assert rows(cache) == before
        assert cache.rekey() == 5


def test_damaged_rows_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A row that cannot be read stays as it is, and is counted in the log."""
    import sqlite3

    with ResponseCache(tmp_path / "cache") as cache:
        for number in range(3):
            cache.put(asked(f"question {number}"), {"answer": number})
        bad = next(cache.records()).cache_key
        with sqlite3.connect(tmp_path / "cache" / "cache.db") as connection:
            connection.execute("UPDATE Cache SET value = x'00' WHERE key = ?", (bad,))
        connection.close()
        llmcall.configure(cache_namespace="here")
        assert cache.rekey() == 2
        assert cache.verify() == [bad]
    assert "1 damaged rows stay" in caplog.text


@settings(max_examples=30)
@given(
    aliases=st.dictionaries(st.sampled_from(NAMES[:2]), st.sampled_from(NAMES[2:])),
    namespace=st.sampled_from(["", "here"]),
    models=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
)
def test_every_request_finds_its_answer(
    aliases: dict[str, str], namespace: str, models: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After any change, each model's request finds an answer that was given to a name of the same model."""
    with ResponseCache(tmp_path_factory.mktemp("any") / "cache") as cache:
        for model in models:
            cache.put(asked("Bread?", model=model), {"answer": model})
        with llmcall.configured(aliases=aliases, cache_namespace=namespace):
            cache.rekey()
            client = ScriptedClient(cache_mode="off")
            for model in models:
                found = cache.get(client.build_request("Bread?", model=model))
                assert found is not None
                answered = found.response["answer"]
                assert aliases.get(answered, answered) == aliases.get(model, model)


def test_on_the_command_line() -> None:
    """``llmcall cache rekey`` says how many records changed."""
    recorder().send_message("Bread?")
    llmcall.reset()
    Path("config.ini").write_text("[Cache]\nNAMESPACE = here\n", encoding="utf-8")
    done = CliRunner().invoke(main, ["cache", "rekey"])
    assert (done.exit_code, done.output) == (0, "1 of 1 records changed\n")
