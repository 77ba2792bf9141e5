"""The short way to a recorded answer: it is the same as the long one, under all circumstances, and imports little."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

import llmcall
from llmcall import CacheCorruptError, ScopeError
from llmcall.cache.cache import ResponseCache
from llmcall.testing import ScriptedClient
from llmcall.types import Record, record_of

MESSAGES = [{"role": "system", "content": "You are Lisa."}, {"role": "user", "content": "Bread?"}]
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "price", "arguments": "{}"}}

# What JSON tells apart and Python does not, and the reverse.
SCALARS = st.sampled_from([0, 1, True, False, 1.0, 0.0, -0.0, 1e300, 10**30, None, "", "1", 'é\u2028"\\', "x" * 300])
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner), max_leaves=4
)
TEXTS = st.sampled_from(["", "Bread?", "  at 10:30\n  or later", "1", "é", "x" * 5000])
PARTS = st.just([{"type": "text", "text": "  Look:"}, {"type": "image_url", "image_url": {"url": "data:;base64,AAA="}}])
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS | PARTS},
    optional={"name": st.sampled_from(["Lisa", "Oscar"]), "mood": DATA},
)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from([None, "gpt-4o-mini", "mine", "other"]),
        "temperature": st.sampled_from([0, 0.0, 1, 1.0, True, 0.7]),
        "max_tokens": st.sampled_from([1, 5, 5.0]),
        "stop": st.sampled_from(["x", ["x"], ("x",), ["x", "y"]]),
        "seed": st.sampled_from([0, 1, 1.0, True, False]),
        "n": st.sampled_from([1, None]),
        "logit_bias": DATA.filter(lambda value: value is not None),
        "user": TEXTS,
        "extra_body": st.dictionaries(st.sampled_from(["messages", "model", "zone"]), DATA),
        "timeout": st.sampled_from([1, 2.5]),
        "cache": st.sampled_from([True, False, None]),
        "sample": st.sampled_from([None, 1, "1", "a"]),
        "dedent_messages": st.booleans(),
    },
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 0.5]),
        "max_tokens": st.sampled_from([7, 8]),
        "cache_namespace": st.sampled_from(["", "east"]),
        "cache_normalize": st.sampled_from([(), ("times",)]),
        "aliases": st.sampled_from([{}, {"mine": "other"}]),
        "model": st.sampled_from(["gpt-4o-mini", "mine"]),
    },
)


def client_of(folder: Path, answers: Any = None, **settings: Any) -> ScriptedClient:
    """Return a client that stores in a folder; by default it answers each call in another way."""
    numbers = iter(range(10**9))
    answer = answers or (lambda messages: f"answer {next(numbers)}")
    return ScriptedClient(answer, **{"cache_mode": "auto", "cache_path": folder, "on_error": "raise", **settings})






def asked(client: ScriptedClient, messages: Any, arguments: dict[str, Any]) -> tuple[Any, ...]:
    """Return what is known of a call's answer, or the error of its arguments."""
    try:
        reply = client.send_message(messages, **arguments)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    assert reply is not None
    return reply.cache_key, reply.sample, dict(reply), reply.raw, reply.cost












def test_a_changed_message_is_another_call(tmp_path: Path) -> None:
    """What counts is what the messages hold at the call, not which objects they are."""
    client, messages = client_of(tmp_path), copy.deepcopy(MESSAGES)
    first = client.send_message(messages)
    messages[1]["content"] = "Salt?"
    second = client.send_message(messages)
    messages[1]["content"] = "Bread?"
    assert first != second
    assert client.send_message(messages) == first
    assert len(client.requests) == 2




@pytest.mark.parametrize("message", [{"content": "yes"}, {"content": None, "tool_calls": [TOOL_CALL]}])
def test_callers_get_copies(message: dict[str, Any], tmp_path: Path) -> None:
    """Whatever a caller does with a reply, the next one is as it was recorded."""
    client = client_of(tmp_path, lambda messages: {"role": "assistant", **copy.deepcopy(message)})
    whole = copy.deepcopy(client.send_message(MESSAGES))
    assert whole is not None
    for _ in range(4):
        reply = client.send_message(MESSAGES)
        assert reply is not None
        assert (dict(reply), reply.raw) == (dict(whole), whole.raw)
        reply["content"] = "no"
        for call in reply.tool_calls or []:
            call.clear()
        reply.raw["choices"].clear()


def test_pickled_replies_are_whole(tmp_path: Path) -> None:
    """A copy of a reply whose response nobody has looked at yet has it too."""
    client = client_of(tmp_path)
    first = client.send_message(MESSAGES)
    assert first is not None
    replies = [copy.deepcopy(client.send_message(MESSAGES)), copy.copy(client.send_message(MESSAGES))]
    assert all(reply is not None and reply.raw == first.raw for reply in replies)


def replaced(folder: Path, record: Record) -> None:
    """Put another answer in place of a record, as another process would."""
    response = {"choices": [{"message": {"role": "assistant", "content": "replaced"}}]}
    with ResponseCache(folder) as other:
        other.store(record.replace(response=response), mode="rewrite")


def removed(folder: Path, record: Record) -> None:
    """Delete all records, as another process would."""
    with ResponseCache(folder) as other:
        assert other.clear() == 1


@pytest.mark.parametrize(
    ("change", "content"), [(replaced, "replaced"), (removed, "answer 1")], ids=["replaced", "removed"]
)
@pytest.mark.parametrize("hits_before", range(3))
def test_changes_of_others_are_seen(
    change: Callable[[Path, Record], None], content: str, hits_before: int, tmp_path: Path
) -> None:
    """A record that was answered from before, and that somebody else deletes or replaces, is not remembered."""
    client = client_of(tmp_path)
    for _ in range(1 + hits_before):
        client.send_message(MESSAGES)
    change(tmp_path, next(client.cache.records()))
    assert [client.send_message(MESSAGES).content for _ in range(3)] == [content] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize("hits_before", range(3))
def test_damage_is_seen(hits_before: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A record that is damaged after it was answered from is asked anew, or in the mode replay an error."""
    client, replaying = client_of(tmp_path), client_of(tmp_path, cache_mode="replay")
    first = client.send_message(MESSAGES)
    assert first is not None
    for _ in range(hits_before):
        client.send_message(MESSAGES)
        replaying.send_message(MESSAGES)
    packed, _ = client.cache.storage.get(first.cache_key) or (b"", 0.0)
    client.cache.storage.set(first.cache_key, packed[:20] + b"?" + packed[21:])
    with pytest.raises(CacheCorruptError):
        replaying.send_message(MESSAGES)
    assert client.send_message(MESSAGES).content == "answer 1"  # type: ignore[union-attr]
    assert "asked anew" in caplog.text


def test_hits_are_counted(tmp_path: Path) -> None:
    """Each counts as a cached call: of the client, of the process, and of the blocks that are open."""
    client = client_of(tmp_path, prices={"gpt-4o-mini": (1, 1)})
    client.send_message(MESSAGES)
    before = llmcall.usage().cached_calls
    client.send_message(MESSAGES)
    with llmcall.track() as usage:
        client.send_message(MESSAGES)
        client.send_message(MESSAGES)
    assert (usage.cached_calls, client.usage.cached_calls, llmcall.usage().cached_calls - before) == (2, 3, 3)
    assert (usage.calls, client.usage.calls) == (0, 1)
    assert client.usage.by_model["gpt-4o-mini"].cached_calls == client.usage.by_scope[""].cached_calls == 3


def test_scopes_take_the_long_way(tmp_path: Path) -> None:
    """In a scope a repeated call is another draw; outside, and in none that is meant, it is a cache."""
    client = client_of(tmp_path)

    def three() -> list[Any]:
        return [client.send_message("Bread?") for _ in range(3)]

    assert len({str(reply) for reply in three()}) == 1
    with llmcall.scope("trial"):
        draws = three()
        with llmcall.scope(None):
            assert [reply.sample for reply in three()] == [None] * 3
    assert [reply.sample for reply in draws] == ["trial#0", "trial#1", "trial#2"]
    assert len({str(reply) for reply in [*draws, *three()]}) == 4
    with llmcall.scope("trial"):
        assert three() == draws


def test_a_thread_without_a_scope_is_told(tmp_path: Path) -> None:
    """A call that is answered at once is refused all the same where a scope is open in another thread."""
    client, errors = client_of(tmp_path), []
    client.send_message("Bread?")

    def ask() -> None:
        with pytest.raises(ScopeError) as caught:
            client.send_message("Bread?")
        errors.append(caught.value)

    with llmcall.scope("trial"):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert len(errors) == 1


def test_a_cassette_comes_first(tmp_path: Path) -> None:
    """Under a cassette its answers count, and what the cache supplies is put on it."""
    client = client_of(tmp_path / "cache")
    client.send_message("Bread?")
    with llmcall.cassette(tmp_path / "tape.jsonl", mode="new") as tape:
        cached = client.send_message("Bread?")
    assert tape.recorded == 1
    client.cache.clear()
    with llmcall.cassette(tmp_path / "tape.jsonl", mode="none"):
        assert client.send_message("Bread?") == cached
    assert client.send_message("Bread?") != cached


@pytest.mark.parametrize("mode", ["off", "refresh"])
def test_modes_that_do_not_read(mode: str, tmp_path: Path) -> None:
    """A mode that is set after an answer came the short way holds for the next call."""
    client = client_of(tmp_path)
    for _ in range(3):
        client.send_message("Bread?")
    client = client_of(tmp_path, cache_mode=mode)
    assert client.send_message("Bread?").cached is False  # type: ignore[union-attr]


def test_a_cache_that_is_forced(tmp_path: Path) -> None:
    """What force_api_cache says holds for clients that have answered before."""
    client = client_of(tmp_path / "one")
    first, *_ = [client.send_message("Bread?") for _ in range(3)]
    llmcall.force_api_cache(True, tmp_path / "other")
    assert client.send_message("Bread?") != first
    llmcall.force_api_cache(False)
    assert client.send_message("Bread?").cached is False  # type: ignore[union-attr]
    llmcall.force_api_cache(None)
    assert client.send_message("Bread?") == first


def test_a_pointer_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that points to another model's answer takes the long way, each time."""
    client = client_of(tmp_path)
    there = client.send_message("Bread?", model="larger")
    assert there is not None
    client.cache.store(record_of(client.build_request("Bread?", model="small"), {"fallback": there.cache_key}))
    assert [client.send_message("Bread?", model="small") for _ in range(3)] == [there] * 3


def test_a_host_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An answer of another host is announced also where it comes the short way."""
    server = llmcall.OpenAIClient(cache_path=tmp_path, base_url="http://one.test/v1", on_error="raise")
    server.transport = client_of(tmp_path)
    server.send_message("Bread?")
    other = llmcall.OpenAIClient(cache_path=tmp_path, base_url="http://two.test/v1", on_error="raise")
    for _ in range(3):
        assert other.send_message("Bread?").cached  # type: ignore[union-attr]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "one.test are used for two.test" in said[0]




def test_threads_share_it(tmp_path: Path) -> None:
    """Many threads that ask for the same and for others get the answers that were recorded."""
    client = client_of(tmp_path)
    live = {str(number): client.send_message(str(number)) for number in range(20)}
    found: list[bool] = []

    def ask(first: int) -> None:
        order = [str((first + step) % 20) for step in range(200)]
        found.append(all(client.send_message(question) == live[question] for question in order))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


# What the first hit of a process imports. Each costs a tenth of a millisecond, or more.


def test_what_marshal_takes_for_bytes(tmp_path: Path) -> None:
    """Objects that share their memory's bytes, but are no plain data, are told apart."""
    numpy = pytest.importorskip("numpy")
    client = client_of(tmp_path)
    whole, broken = numpy.int64(4607182418800017408), numpy.float64(1.0)
    assert whole.tobytes() == broken.tobytes()
    keys = [client.send_message("Bread?", seed=value).cache_key for value in (whole, broken, 1)]  # type: ignore[union-attr]
    assert keys[0] != keys[1] == keys[2]
