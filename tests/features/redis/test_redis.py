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
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import pytest
from commands import ran
from servers import RedisProcess

import llmcall
from llmcall import CacheError, ConfigError, ResponseCache
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
    path: Any, answers: Any = ("one", "two", "three"), mode: str = "auto", **settings: Any
) -> Any:
    """Return a client that stores at a path."""
    return ScriptedClient(
        answers, cache_mode=mode, cache_path=path, **{"on_error": "raise", **settings}
    )


def answers_to(client: Any, *questions: str) -> list[str]:
    """Return what is answered."""
    return [client.send_message(question).content for question in questions]


def shown_of(error: BaseException) -> str:
    """Return all that is shown of an error where nobody catches it."""
    return "".join(traceback.format_exception(error)) + repr(error)


def test_the_commands_of_the_cache_take_a_server(server: RedisProcess) -> None:
    """``llmcall cache --path`` lists a cache in Redis as one on the disk."""
    answers_to(client_at(server.url), "a")
    assert "one" in commands.cache("--path", server.url, "ls")


@pytest.mark.feature("arms")
def test_a_record_names_all_arms_that_used_it_at_once(server: RedisProcess) -> None:
    client, begin = client_at(server.url, lambda messages: "one"), threading.Barrier(8)

    def play(arm: int) -> str:
        begin.wait()
        answer: str = client.send_message("Bread?").content
        return answer

    arms = {f"arm {arm}": {"arm": arm} for arm in range(8)}
    llmcall.arms(play, arms, scope="any", workers=8)
    assert [*client.cache.to_frame().arms] == [tuple(arms)]


@pytest.fixture
def damaged(server: RedisProcess) -> Any:
    """A client with two records in Redis, of which one is damaged."""
    client = client_at(server.url)
    answers_to(client, "a", "b")
    with server.client() as redis:
        redis.hset("llmcall:rows", client.build_request("a").cache_key, b"short")
    return client


@pytest.mark.usefixtures("damaged")
@pytest.mark.parametrize("kind", ["directory", "database"])
def test_salvage_saves_what_is_sound(kind: str, server: RedisProcess, tmp_path: Path) -> None:
    """To a directory, and to another database."""
    other = str(tmp_path / "saved") if kind == "directory" else server.url[:-1] + "1"
    printed = commands.cache("--path", server.url, "salvage", other)
    assert printed.startswith(f"1 record copied from {server.url}")
    assert answers_to(client_at(other, mode="replay"), "b") == ["two"]


@pytest.fixture
def answers(server: RedisProcess) -> Iterator[ResponseCache]:
    """A cache in Redis with four records."""
    with ResponseCache(server.url) as cache:
        for word in "abcd":
            cache.put(asked(word), YES)
        yield cache


def test_clearing_leaves_the_data_of_others(answers: ResponseCache, server: RedisProcess) -> None:
    """Only the cache's own keys go."""
    with server.client() as redis:
        redis.set("theirs", b"1")
        answers.clear()
        assert (len(answers), redis.get("theirs")) == (0, b"1")


@pytest.fixture
def unheard() -> Iterator[str]:
    """The address of a port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}/0"


@pytest.mark.parametrize("mode", ["auto", "replay"])
@pytest.mark.parametrize("scheme", ["redis", "unix"])
def test_a_server_that_is_down_is_an_error_before_paying(
    scheme: str, mode: str, unheard: str, server: RedisProcess
) -> None:
    """No call is made; the error names the server, without its password, and says what to do."""
    address, login = (
        (unheard, "lisa:sesame@") if scheme == "redis" else (f"{server.folder}/nobody", ":sesame@")
    )
    client = client_at(f"{scheme}://{login}{address}", mode=mode)
    with pytest.raises(CacheError) as caught:
        client.send_message("a")
    assert f"the Redis server {scheme}://***@{address} cannot be reached" in str(caught.value)
    remedy = "start it, or name another server or a directory in [Cache] PATH"
    assert remedy in str(caught.value)
    assert "sesame" not in shown_of(caught.value)
    assert not client.requests


@pytest.fixture
def stopping(mortal: RedisProcess) -> Iterator[Any]:
    """A client whose server stops while it is asked; at the end all that was kept is stored."""

    def answer(messages: Any) -> str:
        mortal.stop()
        return f"about {messages[-1]['content']}"

    path = f"unix://{mortal.socket}"
    yield client_at(path, answer)
    if mortal.process is None:
        mortal.start()
    answers_to(client_at(path), "the last question")


def test_an_answer_is_kept_while_its_server_is_down(
    stopping: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The paid answer is returned, and answers the same request again; one warning says so."""
    replies = [stopping.send_message("a"), stopping.send_message("a")]
    assert [(reply.content, reply.cached) for reply in replies] == [
        ("about a", False),
        ("about a", True),
    ]
    assert caplog.text.count("kept in memory until it can") == 1


def test_an_answer_that_was_kept_is_stored_as_soon_as_the_server_takes_one(
    stopping: Any, mortal: RedisProcess
) -> None:
    """It is stored with the next answer, for other processes too, and survives the server's end."""
    path = f"unix://{mortal.socket}"
    stopping.send_message("a")
    mortal.start()
    assert len(stopping.cache) == 0
    assert answers_to(client_at(path, ["later"]), "c") == ["later"]
    assert ran("print(len(ResponseCache(sys.argv[1])))", path) == "2"
    mortal.stop()
    mortal.start()
    assert answers_to(client_at(path, mode="replay"), "a", "c") == ["about a", "later"]


@pytest.fixture
def full(server: RedisProcess) -> Iterator[Any]:
    """A server with the answers to a and d, whose memory takes no more until ``maxmemory`` is 0; at
    the end all that was kept is stored.
    """
    answers_to(client_at(server.url), "a", "d")
    with server.client() as redis:
        redis.config_set("maxmemory", "1")
        yield redis
        redis.config_set("maxmemory", "0")
    answers_to(client_at(server.url), "the last question")


def test_an_answer_that_a_server_has_no_room_for_is_kept(
    full: Any, server: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers the same request again, and is not stored; one warning says so."""
    client = client_at(server.url)
    assert answers_to(client, "b", "b") == ["one", "one"]
    assert len(client.cache) == 2
    assert "refuses a command" in caplog.text
    # one cache object for all clients of a place
    assert answers_to(client_at(server.url, ["other"]), "c") == ["other"]
    assert caplog.text.count("kept in memory until it can") == 1


@pytest.mark.feature("local_model")
def test_the_password_of_redis_is_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
            ["cache", "load", url],
            ["cache", "salvage", url],
            ["cache", "salvage", url[:-1] + "1"],
            ["cache", "show", "fff"],
            ["cache", "export", str(tmp_path / "all.jsonl")],
            ["cache", "load", str(tmp_path / "all.jsonl")],
            ["cache", "--path", url, "clear", "--yes"],
        ]
        words += [commands.run(*order).output for order in orders]
        guarded.stop()
        words += [commands.run(*order).output for order in orders]
        assert sum("cannot be reached" in text for text in words) >= 9
        for call in (
            lambda: client.send_message("c"),
            lambda: len(cache),
        ):
            with pytest.raises(CacheError) as caught:
                call()
            words.append(shown_of(caught.value))
    logging.getLogger().removeHandler(handler)
    everything = "\n".join([*words, log.getvalue()])
    assert "redis://***@127.0.0.1" in everything
    assert "sesame" not in everything
    assert "street" not in everything


@pytest.fixture
def locked() -> Iterator[tuple[str, str]]:
    """The address of a server behind a password, and the password as an address spells it."""
    with RedisProcess(requirepass="a/b@c:d?e") as server:
        yield f"127.0.0.1:{server.port}/0", "a%2Fb%40c%3Ad%3Fe"


@pytest.mark.parametrize("login", ["{}", ":other-word@{}", "{}?password=other-word"])
def test_a_missing_or_wrong_password_is_an_error_that_shows_none(
    login: str, locked: tuple[str, str]
) -> None:
    """The error says where user and password belong."""
    with ResponseCache("redis://" + login.format(locked[0])) as cache:
        remedy = r"refuses access \(.*\): set user and password in"
        with pytest.raises(CacheError, match=remedy) as caught:
            cache.get(asked("a"))
        assert "other-word" not in shown_of(caught.value) + str(cache.path)


FORMS = "redis://[[USER]:PASSWORD@]HOST"
WRONG_ADDRESSES = {
    "redis://:sesa/me@host/0": FORMS,
    "redis://:sesame@host:port/0": FORMS,
    "redis://:sesame@host/0?socket_timeout=soon": FORMS,
    "rediss://host?color=1": FORMS,
    "s3://key:sesame@bucket/x": "no storage has the scheme 's3'",
    "http://:sesame@host": "no storage has the scheme 'http'",
    "file:///cache": "A directory has no '://'",
}


@pytest.mark.parametrize("address", WRONG_ADDRESSES)
def test_a_wrong_address_is_refused_with_the_forms_that_there_are(address: str) -> None:
    """It is refused before anything is asked, and its password is not shown."""
    pytest.importorskip("redis")
    with pytest.raises(ConfigError) as caught:
        ResponseCache(address)
    assert WRONG_ADDRESSES[address] in str(caught.value)
    assert "sesa" not in str(caught.value)


def test_without_the_client_library_an_error_names_the_extra() -> None:
    """It comes before anything is asked or paid for."""
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


@pytest.fixture
def hanging(mortal: RedisProcess) -> Iterator[Any]:
    """A client whose server hangs, until the test ends."""
    client = client_at(f"unix://{mortal.socket}?socket_timeout=0.3")
    client.send_message("a")
    assert mortal.process is not None
    mortal.process.send_signal(signal.SIGSTOP)
    yield client
    mortal.process.send_signal(signal.SIGCONT)


async def ask_everything(client: Any) -> list[Any]:
    """Make a stream, calls and an embedding at once, and return what came of each."""

    async def streamed() -> str:
        return "".join([piece async for piece in client.astream_message("a")])

    calls: list[Any] = [
        streamed(),
        client.asend_message("a"),
        client.asend_message("b"),
        client.aget_embedding("c"),
    ]
    with llmcall.scope("trial"):
        calls.append(client.asend_message("a"))
    return await asyncio.gather(*calls, return_exceptions=True)


def test_calls_to_a_server_that_hangs_are_errors_that_name_it(
    hanging: Any, mortal: RedisProcess
) -> None:
    """So is each of several calls in an event loop."""
    outcomes = asyncio.run(ask_everything(hanging))
    assert [type(outcome) for outcome in outcomes] == [CacheError] * 5
    assert all(f"the Redis server unix://{mortal.socket}" in str(outcome) for outcome in outcomes)
