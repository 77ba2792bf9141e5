"""A response cache in Redis: the records of a cache on the disk, shared by clients, whatever the server does."""

from __future__ import annotations

import asyncio
import io
import logging
import signal
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from programs import ran, start
from redis_servers import RedisProcess

import llmcall
from llmcall.cache.cache import ResponseCache
from llmcall.cache.storage import each_row
from llmcall.cli.doctor import checks
from llmcall.cli.main import main
from llmcall.errors import CacheCorruptError, CacheError, CacheMissError
from llmcall.testing import ScriptedClient
from llmcall.types import Record


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisProcess]:
    """A server for the tests of this file."""
    with RedisProcess() as made:
        yield made


@pytest.fixture
def server(shared: RedisProcess) -> RedisProcess:
    """The server, empty."""
    with shared.client() as client:
        client.flushall()
        client.config_set("maxmemory", "0")
    return shared


@pytest.fixture
def cache(server: RedisProcess) -> Iterator[ResponseCache]:
    """A cache in the server, with three answers."""
    client_at(server.url).send_message("a")
    with llmcall.scope("trial"):
        client_at(server.url, ["two", "three"]).send_message("b")
        client_at(server.url, ["three"], temperature=0.5).send_message("b")
    with ResponseCache(server.url) as made:
        yield made


@pytest.fixture
def mortal() -> Iterator[RedisProcess]:
    """A server that a test stops and starts again, at a socket; it saves all."""
    with RedisProcess(port="0", appendonly="yes", appendfsync="always") as made:
        yield made


@pytest.fixture
def guarded() -> Iterator[RedisProcess]:
    """A server with a password."""
    with RedisProcess(requirepass="sesame/street") as made:
        yield made


def client_at(path: Any, answers: Any = ("one", "two", "three"), mode: str = "auto", **settings: Any) -> ScriptedClient:
    """Return a client that stores at a path."""
    return ScriptedClient(answers, cache_mode=mode, cache_path=path, **settings)


def without_time(records: Any) -> list[Record]:
    """List records without the moment in which they were stored."""
    return [record.replace(stored_at=None) for record in records]


def test_records_are_those_of_the_disk(cache: ResponseCache, tmp_path: Path) -> None:
    """The same keys hold the same bytes as in a directory, in the same order, back and forth."""
    with ResponseCache(tmp_path / "disk") as disk, ResponseCache(cache.storage.place[:-1] + "1") as back:  # type: ignore[operator]
        assert disk.load(str(cache.path)) == 3
        assert back.load(tmp_path / "disk") == 3
        for key, packed, _ in each_row(disk.storage):
            assert cache.storage.get(key)[0] == back.storage.get(key)[0] == packed  # type: ignore[index]
        assert without_time(disk.records()) == without_time(cache.records()) == without_time(back.records())
        assert client_at(tmp_path / "disk", mode="replay").send_message("a") == {"role": "assistant", "content": "one"}


def test_clients_share_what_was_stored_first(server: RedisProcess) -> None:
    """Two processes that ask the same at the same time get one answer, and a third one replays it."""
    program = """
        client = ScriptedClient(lambda messages: f"{sys.argv[2]} about {messages[-1]['content']}",
                                cache_mode="auto", cache_path=sys.argv[1])
        sys.stdin.readline()
        print([client.send_message(str(number), on_error="raise").content for number in range(30)])
    """
    processes = [start(program, server.url, name) for name in ("lisa", "bart")]
    (first, complaints), (second, more) = [process.communicate("go\n", timeout=300) for process in processes]
    assert (complaints, more) == ("", "")
    assert first == second
    replaying = client_at(server.url, mode="replay")
    replies = [replaying.send_message(str(number)) for number in range(30)]
    assert [reply.content for reply in replies if reply] == literal_eval(first)


def test_streams_embeddings_and_functions(server: RedisProcess) -> None:
    """All kinds of records are kept there, and found by a process that comes later."""
    client = client_at(server.url, ["streamed"])
    with client.stream_message("a") as stream:
        assert "".join(stream) == "streamed"
    with llmcall.configured(cache_path=server.url):
        clock = iter(range(5))

        @llmcall.recorded
        def now() -> int:
            return next(clock)

        assert (now(), now()) == (0, 0)
    again = client_at(server.url, mode="replay").send_message("a")
    assert again is not None
    assert (again.content, again.cached) == ("streamed", True)
    assert sorted(record.kind for record in client.cache.records()) == ["chat", "function"]


def test_modes(server: RedisProcess) -> None:
    """``refresh`` calls each key once and overwrites it, ``replay`` never calls, ``off`` neither reads nor stores."""
    client_at(server.url).send_message("a")
    refreshing = client_at(server.url, ["newer", "newest"], mode="refresh")
    assert [refreshing.send_message("a").content for _ in range(2)] == ["newer", "newer"]  # type: ignore[union-attr]
    replaying = client_at(server.url, mode="replay")
    assert replaying.send_message("a").content == "newer"  # type: ignore[union-attr]
    with pytest.raises(CacheMissError) as caught:
        replaying.send_message("never asked")
    assert server.url in str(caught.value)
    assert client_at("redis://127.0.0.1:1/0", mode="off").send_message("a") is not None


def test_what_a_cache_can_do(cache: ResponseCache, tmp_path: Path) -> None:
    """Export, load, delete, clear, verify, stats and explain do what they do in a directory."""
    assert (len(cache), cache.verify(), cache.exists()) == (3, [], True)
    stats = cache.stats()
    assert (stats.path, stats.records, stats.size > 300) == (cache.path, 3, True)
    assert cache.export(tmp_path / "all.jsonl") == 3
    assert cache.delete(where=lambda record: record.sample is None) == 1
    assert cache.load(tmp_path / "all.jsonl") == 1
    assert cache.load(tmp_path / "all.jsonl", on_conflict="replace") == 0
    first = next(iter(cache.records()))
    assert cache.storage.starting(first.cache_key[:12], 10) == [first.cache_key]
    miss = cache.explain(client_at(cache.path).build_request("b", temperature=0.7))
    assert miss.nearest is not None
    assert str(cache.path) in str(miss)
    assert repr(cache) == f"ResponseCache({cache.path!r}, mode='auto')"
    assert (cache.clear(), len(cache), list(cache.records())) == (3, 0, [])


def test_rekey(cache: ResponseCache) -> None:
    """After a change of the namespace every record is found under its new key, at its place and with its time."""
    before = [(record.sample, record.stored_at) for record in cache.records()]
    with llmcall.configured(cache_namespace="lab"):
        assert cache.rekey() == 3
        assert cache.rekey() == 0
        assert client_at(cache.path, mode="replay").send_message("a").content == "one"  # type: ignore[union-attr]
    assert [(record.sample, record.stored_at) for record in cache.records()] == before
    assert cache.verify() == []


def test_damage(cache: ResponseCache, server: RedisProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged record is found, said in replay, asked anew otherwise, and what is sound is salvaged."""
    key = next(iter(cache.records())).cache_key
    with server.client() as client:
        client.hset("llmcall:rows", key, b"x" * 30)
    assert cache.verify() == [key]
    with pytest.raises(CacheCorruptError, match="damaged"):
        client_at(server.url, mode="replay").send_message("a")
    assert cache.salvage(tmp_path / "saved") == 2
    assert cache.salvage(server.url[:-1] + "1") == 2
    with ResponseCache(tmp_path / "saved") as saved, ResponseCache(server.url[:-1] + "1") as other:
        assert list(saved.records()) == list(other.records()) == list(_sound(cache))
    with pytest.raises(CacheError, match="into itself"):
        cache.salvage(server.url)
    asking = client_at(server.url, ["anew"])
    assert [asking.send_message("a").content for _ in range(2)] == ["anew", "anew"]  # type: ignore[union-attr]
    assert "asked anew" in caplog.text
    assert cache.verify() == []


def _sound(cache: ResponseCache) -> Iterator[Record]:
    for key, _, _ in each_row(cache.storage):
        try:
            record = cache.lookup(key)
        except CacheCorruptError:
            continue
        assert record is not None
        yield record


def test_a_server_that_is_down_is_said_before_paying(server: RedisProcess) -> None:
    """Where the server does not answer no call is made, and the error says what to do."""
    for mode in ("auto", "replay"):
        client = client_at(f"unix://:sesame@{server.folder}/nobody", mode=mode)
        with pytest.raises(CacheError, match=r"unix://\*\*\*@/.*nobody cannot be reached .*: start it, or name"):
            client.send_message("a")
        assert client.requests == []


def test_a_server_that_stops_during_a_call(mortal: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    """The paid answer is returned, kept, and stored as soon as the server takes one; a warning says so once."""

    def answer(messages: Any) -> str:
        mortal.stop()
        return f"about {messages[-1]['content']}"

    path = f"unix://{mortal.socket}"
    client = client_at(path, answer)
    replies = [client.send_message("a"), client.send_message("a")]
    assert [(reply.content, reply.cached) for reply in replies if reply] == [("about a", False), ("about a", True)]
    assert len([each for each in caplog.records if "kept in memory until it can" in each.getMessage()]) == 1
    with pytest.raises(CacheError, match="cannot be reached"):
        client.send_message("b")
    assert len(client.requests) == 1
    mortal.start()
    assert len(client.cache) == 0
    later = client_at(path, ["later"])
    assert later.send_message("c").content == "later"  # type: ignore[union-attr]
    assert ran("print(len(ResponseCache(sys.argv[1])))", path) == "2"
    assert client_at(path, mode="replay").send_message("a").content == "about a"  # type: ignore[union-attr]


def test_a_server_that_stops_when_it_has_stored(mortal: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the answer is stored and the server stops before it is read again, the answer is returned."""
    client = client_at(f"unix://{mortal.socket}")
    store = client.cache.storage
    add = store.add

    def add_and_stop(key: str, value: bytes) -> bool:
        stored = add(key, value)
        mortal.stop()
        return stored

    monkeypatch.setattr(store, "add", add_and_stop)
    assert client.send_message("a").content == "one"  # type: ignore[union-attr]


def test_a_server_without_room(server: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    """Answers that the server's memory does not take are kept, and stored once it has room."""
    client = client_at(server.url)
    client.send_message("a")
    with server.client() as redis:
        redis.config_set("maxmemory", "1")
        assert [client.send_message(word).content for word in "bb"] == ["two", "two"]  # type: ignore[union-attr]
        assert len(client.cache) == 1
        redis.config_set("maxmemory", "0")
    client.send_message("c")
    assert len(client.cache) == 3
    assert [each.levelno for each in caplog.records if "kept in memory" in each.getMessage()] == [logging.WARNING]


def test_a_refreshed_answer_is_stored_in_place_of_the_old_one(server: RedisProcess) -> None:
    """What ``refresh`` could not overwrite is overwritten later."""
    client_at(server.url, ["old"]).send_message("a")
    client = client_at(server.url, ["new", "other"], mode="refresh")
    with server.client() as redis:
        redis.config_set("maxmemory", "1")
        client.send_message("a")
        redis.config_set("maxmemory", "0")
    client.send_message("b")
    assert client_at(server.url, mode="replay").send_message("a").content == "new"  # type: ignore[union-attr]
    assert ran("print([r.response['choices'][0]['message']['content'] for r in ResponseCache(sys.argv[1]).records()])",
               server.url) == "['new', 'other']"  # fmt: skip


@pytest.mark.parametrize("way", ["file", "environment", "code", "forced"])
def test_the_address_is_no_path(
    way: str, server: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the address is set, it is left as it is, and records are found there."""
    client_at(server.url).send_message("a")
    if way == "file":
        (tmp_path / "config.ini").write_text(f"[Cache]\nPATH = {server.url}\n", encoding="utf-8")
    elif way == "environment":
        monkeypatch.setenv("LLMCALL_CACHE_PATH", server.url)
    elif way == "code":
        llmcall.configure(cache_path=server.url)
    else:
        llmcall.force_api_cache(True, server.url)
    llmcall.configure(cache_mode="replay")
    assert llmcall.settings().cache_path == server.url
    assert ScriptedClient([], cache_mode="replay").send_message("a").content == "one"  # type: ignore[union-attr]
    assert [path.name for path in tmp_path.iterdir() if path.name != "config.ini"] == []


def test_the_password_is_said_nowhere(guarded: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting, repr, statistic, command, log line or error shows the password, whatever happens to the server."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    logging.getLogger("llmcall").setLevel(logging.DEBUG)
    url = f"redis://:sesame%2Fstreet@127.0.0.1:{guarded.port}/0"
    monkeypatch.setenv("LLMCALL_CACHE_PATH", url)
    llmcall.configure(api_type="local")
    client = client_at(url)
    client.send_message("a")
    cache = client.cache
    said = [repr(llmcall.settings()), repr(cache), repr(client), str(cache.stats()), str(cache.path)]
    said.append(str(cache.explain(client.build_request("b"))))
    commands = [
        ["config"], ["config", "--json"], ["doctor"], ["cache", "stats"], ["cache", "ls"], ["cache", "verify"],
        ["cache", "load", url], ["cache", "salvage", url], ["cache", "salvage", url[:-1] + "1"], ["cache", "rekey"],
        ["cache", "show", "fff"], ["cache", "export", str(tmp_path / "all.jsonl")],
        ["cache", "load", str(tmp_path / "all.jsonl")], ["cache", "--path", url, "clear", "--yes"],
    ]  # fmt: skip
    said += [CliRunner().invoke(main, command).output for command in commands]
    with llmcall.budget(calls=5, name="survey") as budget:
        said += [repr(budget), repr(budget.account)]
        guarded.stop()
        for command in commands:
            result = CliRunner().invoke(main, command)
            said.append(result.output)
        assert sum("cannot be reached" in text for text in said) >= 9
        for call in (lambda: client.send_message("c"), lambda: budget.spent, lambda: client.cache.lookup("a")):
            with pytest.raises(CacheError) as caught:
                call()
            said.append(repr(caught.value))
    logging.getLogger().removeHandler(handler)
    logging.getLogger("llmcall").setLevel(logging.NOTSET)
    everything = "\n".join([*said, log.getvalue()])
    assert "redis://***@127.0.0.1" in everything
    assert "sesame" not in everything
    assert "street" not in everything


def test_doctor(server: RedisProcess) -> None:
    """It says how many records are there and what may lose them, or that the server does not answer."""
    client_at(server.url).send_message("a")
    llmcall.configure(api_type="local", cache_path=server.url)
    (found,) = [check for check in checks() if check.name == "cache"]
    assert (found.ok, found.found) == (True, f"{server.url}: 1 records")
    assert found.remedy.endswith("set appendonly yes")
    llmcall.configure(cache_path=f"unix://{server.folder}/nobody")
    (found,) = [check for check in checks() if check.name == "cache"]
    assert (found.ok, "cannot be reached" in found.found) == (False, True)
    llmcall.configure(cache_path="s3://bucket")
    assert any("s3://bucket" in check.found for check in checks() if not check.ok)


def test_commands(server: RedisProcess, tmp_path: Path) -> None:
    """``llmcall cache`` looks after a cache in Redis as after one on the disk."""
    client_at(server.url).send_message("a")

    def run(*command: str) -> str:
        result = CliRunner().invoke(main, ["cache", "--path", server.url, *command])
        assert result.exit_code == 0, result.output
        return result.output

    assert run("stats").startswith(f"{server.url}: 1 records, ")
    key = run("ls").splitlines()[-1].split()[0].rstrip("…")
    assert "one" in run("show", key)
    assert run("verify") == "1 records, all sound\n"
    assert run("salvage", str(tmp_path / "saved")).startswith(f"1 records read from {server.url}")
    assert run("clear", "--yes") == "1 records deleted\n"
    assert run("load", str(tmp_path / "saved")).startswith("1 records loaded")
    assert run("load", server.url).startswith("0 records loaded")


def test_an_event_loop_goes_on_while_a_server_hangs(mortal: RedisProcess) -> None:
    """Of calls in an event loop, each waits for itself; the others go on, and the error names the server."""
    client = client_at(f"unix://{mortal.socket}?socket_timeout=1", on_error="raise")
    client.send_message("a")

    async def beats(ended: asyncio.Event) -> int:
        count = 0
        while not ended.is_set():
            await asyncio.sleep(0.01)
            count += 1
        return count

    async def play() -> tuple[int, list[Any]]:
        ended = asyncio.Event()
        beating = asyncio.ensure_future(beats(ended))
        calls: list[Any] = [client.asend_message("a"), client.asend_message("b"), client.aget_embedding("c")]
        calls.append(streamed(client, "a"))
        with llmcall.scope("trial"):
            calls.append(client.asend_message("a"))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        ended.set()
        return await beating, outcomes

    assert mortal.process is not None
    mortal.process.send_signal(signal.SIGSTOP)
    try:
        count, outcomes = asyncio.run(play())
    finally:
        mortal.process.send_signal(signal.SIGCONT)
    assert [type(outcome) for outcome in outcomes] == [CacheError] * 5
    assert all(f"the Redis server unix://{mortal.socket}" in str(outcome) for outcome in outcomes)
    assert count > 10  # a second's worth; of a loop that stands still there would be one for each call


async def streamed(client: ScriptedClient, text: str) -> str:
    """Return the answer to a text, as it comes."""
    return "".join([piece async for piece in client.astream_message(text)])
