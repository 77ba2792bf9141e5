"""A cache in Redis that several machines share: what only a server can do to it, and what is said
of the server.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import signal
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import pytest
from programs import ran
from redis_servers import RedisProcess, made_certificate

import llmcall
from llmcall import CacheCorruptError, CacheError, ConfigError, ResponseCache
from llmcall.testing import ScriptedClient

asked = ScriptedClient(cache_mode="off").build_request
YES: dict[str, Any] = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}}]
}


@pytest.fixture
def server(redis_process: RedisProcess) -> Iterator[RedisProcess]:
    """The server without data; afterwards it is as it was configured at first."""
    with redis_process.client() as client:
        client.flushall()
        yield redis_process
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "noeviction")


@pytest.fixture
def mortal() -> Iterator[RedisProcess]:
    """A server that a test stops and starts again: at a socket, since a port may be taken
    meanwhile; it saves all.
    """
    with RedisProcess(port="0", appendonly="yes", appendfsync="always") as made:
        yield made


def client_at(
    path: Any, answers: Any = ("one", "two", "three"), mode: str = "auto", **given: Any
) -> Any:
    """Return a client that stores at a path."""
    return ScriptedClient(
        answers, cache_mode=mode, cache_path=path, **{"on_error": "raise", **given}
    )


def said(client: Any, *questions: str) -> list[str]:
    """Return what is answered."""
    return [client.send_message(question).content for question in questions]


def told(error: BaseException) -> str:
    """Return all that is shown of an error where nobody catches it."""
    return "".join(traceback.format_exception(error)) + repr(error)


def test_records_are_those_of_the_disk(server: RedisProcess, tmp_path: Path) -> None:
    """Chats, embeddings and functions go to a directory and back with their order; rekey keeps
    order and times.
    """
    client = client_at(server.url, ["one", [0.5, 0.25], "two"])
    client.send_message("a")
    client.get_embedding("text")
    with llmcall.configured(cache_path=server.url):
        assert llmcall.recorded(name="clock")(lambda: 5)() == 5
    with llmcall.scope("trial"):
        client.send_message("a")
    cache, before = client.cache, list(client.cache.records())
    with ResponseCache(tmp_path / "disk") as disk, ResponseCache(server.url[:-1] + "1") as back:
        assert (disk.load(server.url), back.load(tmp_path / "disk"), cache.load(back)) == (4, 4, 0)
        for other in (disk, back):
            assert [record.replace(stored_at=None) for record in other.records()] == [
                record.replace(stored_at=None) for record in before
            ]
    with llmcall.configured(cache_namespace="lab"):
        assert (cache.rekey(), cache.rekey(), cache.verify()) == (4, 0, [])
        assert said(client_at(server.url, mode="replay"), "a") == ["one"]
    assert [(each.sample, each.stored_at) for each in cache.records()] == [
        (r.sample, r.stored_at) for r in before
    ]
    assert cache.export(tmp_path / "all.jsonl") == 4
    assert str(cache.path) in str(cache.explain(asked("b")))


def test_half_an_emoji(server: RedisProcess, tmp_path: Path) -> None:
    """An answer with a lone surrogate is kept and exported like any other."""
    client = client_at(server.url, ["half \ud83d", "whole"])
    assert said(client, "a", "b", "a") == ["half \ud83d", "whole", "half \ud83d"]
    assert client.cache.export(tmp_path / "all.jsonl") == 2


def test_on_the_command_line(server: RedisProcess, tmp_path: Path) -> None:
    """``llmcall cache`` looks after a cache in Redis as after one on the disk; salvage saves what
    is sound.
    """
    client = client_at(server.url)
    said(client, "a", "b")
    assert "one" in commands.cache("--path", server.url, "ls")
    with server.client() as redis:
        redis.hset("llmcall:rows", client.build_request("a").cache_key, b"short")
    for other in (str(tmp_path / "saved"), server.url[:-1] + "1"):
        assert commands.cache("--path", server.url, "salvage", other).startswith(
            f"1 record copied from {server.url}"
        )
        assert said(client_at(other, mode="replay"), "b") == ["two"]
    with pytest.raises(CacheError, match="into itself"):
        client.cache.salvage(server.url)


def test_what_is_not_ours(server: RedisProcess) -> None:
    """Other data stays, databases are apart, a row that somebody spoilt is damage, and one somebody
    took is gone.
    """
    caches = [ResponseCache(server.url), ResponseCache(server.url[:-1] + "1")]
    caches.append(ResponseCache(f"unix://{server.socket}?db=1"))
    with server.client() as redis:
        redis.set("theirs", b"1")
        for number, cache in enumerate(caches):
            cache.put(asked("a"), {"answer": number})
        assert [cache.get(asked("a")).response["answer"] for cache in caches] == [0, 1, 1]  # type: ignore[union-attr]
        keys = [caches[0].put(asked(word), YES).cache_key for word in "bcd"]
        redis.hset("llmcall:rows", keys[0], b"short")
        redis.hdel("llmcall:rows", keys[1])
        assert caches[0].verify() == keys[:1]
        with pytest.raises(CacheCorruptError):
            list(caches[0].records())
        assert caches[0].get(asked("d")) is not None
        caches[0].clear()
        assert (len(caches[0]), redis.get("theirs")) == (0, b"1")
    for cache in caches:
        cache.close()


@pytest.mark.parametrize("mode", ["auto", "replay"])
def test_a_server_that_is_down_is_said_before_paying(mode: str, server: RedisProcess) -> None:
    """Where nobody listens no call is made, nothing is waited for, and the error says what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and listens to nobody
        address = f"127.0.0.1:{taken.getsockname()[1]}/0"
        for url, name in [
            (f"redis://lisa:sesame@{address}", f"redis://***@{address}"),
            (f"unix://:sesame@{server.folder}/nobody", f"unix://***@{server.folder}/nobody"),
        ]:
            client = client_at(url, mode=mode)
            with pytest.raises(CacheError) as caught:
                client.send_message("a")
            assert f"the Redis server {name} cannot be reached" in str(caught.value)
            assert "start it, or name another server or a directory in [Cache] PATH" in str(
                caught.value
            )
            assert "sesame" not in told(caught.value) and not client.requests
    assert said(client_at("redis://127.0.0.1:1/0", mode="off"), "a") == ["one"]


def test_a_server_that_stops_during_a_call(
    mortal: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """The paid answer is returned, kept, and stored as soon as the server takes one; a warning says
    so once.
    """

    def answer(messages: Any) -> str:
        mortal.stop()
        return f"about {messages[-1]['content']}"

    path = f"unix://{mortal.socket}"
    client = client_at(path, answer)
    replies = [client.send_message("a"), client.send_message("a")]
    assert [(reply.content, reply.cached) for reply in replies] == [
        ("about a", False),
        ("about a", True),
    ]
    assert caplog.text.count("kept in memory until it can") == 1
    for use in (
        lambda: said(client, "b"),
        lambda: len(client.cache),
        client.cache.clear,
        client.cache.stats,
    ):
        with pytest.raises(CacheError, match="cannot be reached"):
            use()
    assert len(client.requests) == 1
    mortal.start()
    assert len(client.cache) == 0
    assert said(client_at(path, ["later"]), "c") == ["later"]
    assert ran("print(len(ResponseCache(sys.argv[1])))", path) == "2"
    mortal.stop()
    mortal.start()
    assert said(client_at(path, mode="replay"), "a", "c") == ["about a", "later"]


def test_a_server_without_room(server: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    """Answers that its memory does not take are kept, and stored or put in place of old ones once
    it has room.
    """
    client, refreshing = (
        client_at(server.url),
        client_at(server.url, ["new", "other"], mode="refresh"),
    )
    said(client, "a", "d")
    with server.client() as redis:
        redis.config_set("maxmemory", "1")
        assert (said(client, "b", "b"), said(refreshing, "a")) == (["three", "three"], ["new"])
        with llmcall.cassette("anew.jsonl", mode="rewrite"):
            assert said(client_at(server.url, ["anew"]), "d") == ["anew"]
        assert len(client.cache) == 2 and "refuses a command" in caplog.text
        redis.config_set("maxmemory", "0")
    said(client_at(server.url, ["four"]), "c")
    assert said(client_at(server.url, mode="replay"), "a", "b", "c", "d") == [
        "new",
        "three",
        "four",
        "anew",
    ]
    # one cache object for all clients of a place
    assert caplog.text.count("kept in memory until it can") == 1


def test_a_server_that_evicts_is_warned_of(
    server: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the first answer is stored where it may be dropped, the log says so once, with the
    remedy.
    """
    with server.client() as redis:
        redis.config_set("maxmemory", "100mb")
        redis.config_set("maxmemory-policy", "allkeys-lru")
    client = client_at(server.url)
    assert client.cache.get(asked("a")) is None and not caplog.records
    said(client, "a", "b")
    (warning,) = caplog.messages
    assert f"{server.url}: it may discard answers" in warning and "set noeviction" in warning


def test_the_password_is_said_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting, repr, statistic, command, log line or error shows the password, whatever happens
    to the server.
    """
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    monkeypatch.setattr(logging.getLogger("llmcall"), "level", logging.DEBUG)
    with RedisProcess(requirepass="sesame/street") as guarded:
        url = f"redis://:sesame%2Fstreet@127.0.0.1:{guarded.port}/0"
        monkeypatch.setenv("LLMCALL_CACHE_PATH", url)
        llmcall.configure(api_type="local")
        client = client_at(url)
        client.send_message("a")
        cache = client.cache
        words = [
            repr(llmcall.settings()),
            repr(cache),
            repr(client),
            str(cache.stats()),
            str(cache.path),
        ]
        words.append(str(cache.explain(client.build_request("b"))))
        orders = [
            ["config"],
            ["config", "--json"],
            ["doctor"],
            ["cache", "stats"],
            ["cache", "ls"],
            ["cache", "verify"],
            ["cache", "load", url],
            ["cache", "salvage", url],
            ["cache", "salvage", url[:-1] + "1"],
            ["cache", "rekey"],
            ["cache", "show", "fff"],
            ["cache", "export", str(tmp_path / "all.jsonl")],
            ["cache", "load", str(tmp_path / "all.jsonl")],
            ["cache", "--path", url, "clear", "--yes"],
        ]
        words += [commands.run(*order).output for order in orders]
        with llmcall.budget(calls=5, name="survey") as budget:
            words.append(repr(budget))
            guarded.stop()
            words += [commands.run(*order).output for order in orders]
            assert sum("cannot be reached" in text for text in words) >= 9
            for call in (
                lambda: client.send_message("c"),
                lambda: budget.spent,
                lambda: len(cache),
            ):
                with pytest.raises(CacheError) as caught:
                    call()
                words.append(told(caught.value))
    logging.getLogger().removeHandler(handler)
    everything = "\n".join([*words, log.getvalue()])
    assert "redis://***@127.0.0.1" in everything
    assert "sesame" not in everything and "street" not in everything


def test_passwords() -> None:
    """The right password opens; without it, or with another, the error says where it belongs and
    shows none.
    """
    with RedisProcess(requirepass="a/b@c:d?e") as server:
        address = f"127.0.0.1:{server.port}/0"
        assert said(client_at(f"redis://:a%2Fb%40c%3Ad%3Fe@{address}"), "a") == ["one"]
        for url in (
            f"redis://{address}",
            f"redis://:other-word@{address}",
            f"redis://{address}?password=other-word",
        ):
            cache = ResponseCache(url)
            with pytest.raises(
                CacheError, match=r"refuses access \(.*\): set user and password in"
            ) as caught:
                cache.get(asked("a"))
            assert "other-word" not in told(caught.value) + str(cache.path)
            cache.close()


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:sesame@bucket/x",
        "redis://:sesa/me@host/0",
        "redis://:sesame@host:port/0",
        "rediss://host?sesame=1",
        "http://:sesame@host",
        "redis://:sesame@host/0?socket_timeout=soon",
        "file:///sesame",
    ],
)
def test_an_address_that_is_none(address: str) -> None:
    """It is refused before anything is asked, with the forms that there are, and its password stays
    unsaid.
    """
    pytest.importorskip("redis")
    with pytest.raises(ConfigError, match=r"redis://\[\[USER\]:PASSWORD@\]HOST") as caught:
        ResponseCache(address)
    assert "@" not in address or not ("same" in told(caught.value) or "sesa/" in told(caught.value))


def test_without_the_client_library() -> None:
    """Without redis-py an error names the extra, before anything is asked or paid for."""
    program = """
        sys.modules["redis"] = None
        llmcall.configure(cache_path="redis://:sesame@127.0.0.1/0")
        paid = []
        try:
            ScriptedClient(paid.append, cache_mode="auto").send_message("Hello")
        except llmcall.ConfigError as error:
            print(error, len(paid))
    """
    assert re.fullmatch(
        r"\[Cache\] PATH = redis://\*{3}@127.* needs .*: install the extra 'redis' 0", ran(program)
    )


def test_tls(tmp_path: Path) -> None:
    """``rediss://`` speaks to a server with a certificate, whose authority the address names, and
    to no other one.
    """
    certificate, key = made_certificate(tmp_path)
    files = {"tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": certificate}
    with RedisProcess(**files, **{"tls-auth-clients": "no"}) as server:
        address = f"rediss://localhost:{server.port}/0"
        assert said(client_at(f"{address}?ssl_ca_certs={certificate}"), "a") == ["one"]
        stranger = ResponseCache(address)
        with pytest.raises(CacheError, match=r"cannot be reached \(.*[Cc]ertificate"):
            stranger.get(asked("a"))
        stranger.close()


def test_an_event_loop_goes_on_while_a_server_hangs(mortal: RedisProcess) -> None:
    """Of calls in an event loop, each waits for itself; the others go on, and the error names the
    server.
    """
    client = client_at(f"unix://{mortal.socket}?socket_timeout=1")
    client.send_message("a")

    async def streamed() -> str:
        return "".join([piece async for piece in client.astream_message("a")])

    async def beats(ended: asyncio.Event) -> int:
        count = 0
        while not ended.is_set():
            await asyncio.sleep(0.01)
            count += 1
        return count

    async def play() -> tuple[int, list[Any]]:
        ended = asyncio.Event()
        beating = asyncio.ensure_future(beats(ended))
        calls: list[Any] = [
            client.asend_message("a"),
            client.asend_message("b"),
            client.aget_embedding("c"),
        ]
        with llmcall.scope("trial"):
            calls.append(client.asend_message("a"))
        outcomes = await asyncio.gather(streamed(), *calls, return_exceptions=True)
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
    # a second's worth; of a loop that stands still there would be one for each call
    assert count > 10
