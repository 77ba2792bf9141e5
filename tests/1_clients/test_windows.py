"""Windows: answers that may take hours and cost less; what is begun is never lost."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import commands
import pytest
from background import BackgroundServer
from disks import small
from programs import LONGEST, RunningProgram, start
from pytest_httpserver import HTTPServer

import llmcall
from llmcall import OpenAIClient
from llmcall.errors import (
    ConfigError,
    RequestTimeoutError,
)
from llmcall.testing import ScriptedClient

PRICES = {"gpt-6-luna": (1.0, 2.0)}
FULL = 10 * 1.0e-6 + 10 * 2.0e-6  # USD of an answer's 10 and 10 tokens at PRICES


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for answers after milliseconds."""
    monkeypatch.setattr("llmcall.call.windows.FIRST_WAIT", 0.001)
    monkeypatch.setattr("llmcall.call.windows.LONGEST_WAIT", 0.01)


@pytest.fixture
def server(httpserver: HTTPServer) -> BackgroundServer:
    """A server that makes responses in the background."""
    return BackgroundServer(httpserver)


def client_at(server: BackgroundServer, **settings: Any) -> OpenAIClient:
    """Return a client whose calls are answered within eight hours."""
    given = {"window": "8h", "on_error": "raise", "retry_waiting_time": 0, "prices": PRICES}
    return OpenAIClient(base_url=server.base_url, **{**given, **settings})


def awaited() -> int:
    """Return how many answers are awaited, as the command line says."""
    return int(json.loads(commands.cache("stats", "--json"))["awaited"])


# What is sent, and what comes


def test_a_call_in_a_window_is_made_in_the_background(server: BackgroundServer) -> None:
    """Its reply is that of any other call; the server's copy is deleted."""
    reply = client_at(server).send_message("Hello")
    assert reply == {"role": "assistant", "content": "Hello 1"}
    (body,) = server.bodies
    assert body["background"] is True
    assert body["background_options"] == {"completion_window": "8h"}
    assert body["store"] is True
    assert (server.responses, awaited()) == ({}, 0)


def test_a_window_of_a_call_goes_before_that_of_a_client(server: BackgroundServer) -> None:
    """``"none"`` takes it back, in a call and in a client."""
    client = client_at(server, cache_mode="off")
    client.send_message("Hello", window="2h")
    assert server.bodies[0]["background_options"] == {"completion_window": "2h"}
    client.send_message("Hello", window="none")
    with llmcall.configured(window="2h"):
        client_at(server, window="none", cache_mode="off").send_message("Hello")
    assert (server.counts["create"], server.counts["chat"]) == (1, 2)


@pytest.mark.parametrize("window", ["1h", "8", ""])
def test_any_other_window_is_an_error(server: BackgroundServer, window: str) -> None:
    """It names those that there are."""
    with pytest.raises(ValueError, match="'2h', '8h', 'none'"):
        client_at(server).send_message("Hello", window=window)
    with pytest.raises(ConfigError, match="none, 2h, 8h"):
        llmcall.configure(window="1h")


def test_the_window_is_part_of_no_key_and_no_header(
    server: BackgroundServer, tmp_path: Path
) -> None:
    """What was answered in a window replays without one, and the other way round."""
    client = client_at(server)
    keys = {client.build_request("Hello", window=each).cache_key for each in ("2h", "8h", "none")}
    assert len(keys) == 1
    with llmcall.configured(window="2h"), llmcall.cassette(tmp_path / "c.jsonl"):
        client.send_message("Hello")
    header, _ = (tmp_path / "c.jsonl").read_text().splitlines()
    assert "window" not in header
    with llmcall.cassette(tmp_path / "c.jsonl", mode="none"):
        assert client.send_message("Hello", window="none").cached
        assert ScriptedClient([], model="gpt-6-luna").send_message("Hello", window="2h").cached


def test_other_calls_go_on_while_one_waits(server: BackgroundServer) -> None:
    """An asynchronous call does not block its loop: all are begun before one is answered."""
    begun = threading.Event()
    server.looks = sys.maxsize

    def before(operation: str, _: object) -> None:
        if operation == "look" and server.counts["create"] == 5:
            server.looks = 0
            begun.set()

    server.before = before

    async def ask() -> list[str]:
        client = client_at(server)
        asked = (client.asend_message(f"question {number}") for number in range(5))
        return sorted([reply.content for reply in await asyncio.gather(*asked)])

    assert [text[:10] for text in asyncio.run(ask())] == [f"question {each}" for each in range(5)]
    assert begun.is_set()


def test_an_llm_call_takes_a_window(server: BackgroundServer) -> None:
    """It reads its answer as any other."""
    call = llmcall.LLMCall(user="{{ text }}", client=client_at(server, window="none"), window="2h")
    assert call(text="Hello") == "Hello 1"
    assert server.bodies[0]["background_options"] == {"completion_window": "2h"}


# The journal


def test_a_response_is_noted_before_it_is_waited_for(server: BackgroundServer) -> None:
    """It is noted under the request's key, which holds the draw: two draws are two responses."""
    noted: list[int] = []
    server.before = lambda operation, _: operation == "look" and noted.append(awaited())
    with llmcall.scope("trial"):
        texts = [client_at(server).send_message("Hello").content for _ in range(2)]
    assert texts == ["Hello 1", "Hello 2"]
    assert noted == [1, 1]


@pytest.mark.parametrize("settings", [{"cache": False}, {"cache_mode": "off"}])
def test_what_is_recorded_nowhere_is_not_noted(
    server: BackgroundServer, settings: dict[str, Any]
) -> None:
    """The server's copy is deleted all the same."""
    noted: list[int] = []
    server.before = lambda operation, _: operation == "look" and noted.append(awaited())
    if "cache" in settings:
        client_at(server).send_message("Hello", **settings)
    else:
        client_at(server, **settings).send_message("Hello")
    assert (noted, server.responses) == ([0], {})


def test_under_a_cassette_the_copy_is_deleted_once_the_file_is_written(
    server: BackgroundServer, tmp_path: Path
) -> None:
    """The disk cache is off: until then, only the server has the answer for certain."""
    with llmcall.cassette(tmp_path / "c.jsonl"):
        client_at(server, cache_mode="off").send_message("Hello")
        assert (len(server.responses), awaited()) == (1, 1)
    assert (server.responses, awaited()) == ({}, 0)


def test_a_store_that_failed_leaves_the_copy_at_the_server(
    server: BackgroundServer, tmp_path: Path
) -> None:
    """The answer is returned, and the next process finds it at the server."""
    with small(tmp_path / "disk", "1m") as disk:
        client = client_at(server, cache_path=str(disk / "cache"))
        client.send_message("small")
        question = "long " * 150_000
        assert client.send_message(question).content.startswith("long")
        assert len(server.responses) == 1


def test_a_response_that_cannot_be_noted_is_not_begun(
    server: BackgroundServer, tmp_path: Path
) -> None:
    """Nothing is paid that could be lost."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "awaited").write_text("a file")
    with pytest.raises(llmcall.errors.CacheError, match="awaited"):
        client_at(server, cache_path=str(tmp_path / "cache")).send_message("Hello")
    assert server.counts["create"] == 0


# Stopped, killed, cut off, and started again


def test_a_call_that_ran_into_its_deadline_goes_on_waiting(server: BackgroundServer) -> None:
    """It waits for the same response when it is made again, also within another window."""
    server.looks = sys.maxsize
    client = client_at(server)
    with pytest.raises(RequestTimeoutError, match="made again"):
        client.send_message("Hello", deadline=0.5)
    server.looks = 0
    assert client.send_message("Hello", window="2h").content == "Hello 1"
    assert server.counts["create"] == 1


def test_a_cancelled_call_has_noted_what_was_being_sent(server: BackgroundServer) -> None:
    """A cancellation does not part the request from its note."""
    is_asked, goes_on = threading.Event(), threading.Event()

    def before(operation: str, _: object) -> None:
        if operation == "create":
            is_asked.set()
            goes_on.wait(30)

    server.before = before

    async def ask() -> str:
        client = client_at(server)
        task = asyncio.create_task(client.asend_message("Hello"))
        await asyncio.to_thread(is_asked.wait, 30)
        task.cancel()
        goes_on.set()
        await asyncio.wait([task])
        while not awaited():
            await asyncio.sleep(0.01)
        return str((await client.asend_message("Hello")).content)

    assert asyncio.run(ask()) == "Hello 1"
    assert server.counts["create"] == 1


PROGRAM = """
import llmcall.call.windows as windows
windows.FIRST_WAIT = windows.LONGEST_WAIT = 0.01
client = llmcall.OpenAIClient(base_url=sys.argv[1], window="8h", on_error="raise", retry_waiting_time=0)
print(client.send_message("Hello").content)
"""


def killed_before(server: BackgroundServer, operation: str) -> None:
    """Start a program that asks, and kill it when the server gets an operation."""
    processes: list[RunningProgram] = []

    def before(asked: str, _: object) -> None:
        if asked == operation:
            processes[0].kill()
            processes[0].wait()

    server.before = before
    with start(PROGRAM, server.base_url) as process:
        processes.append(process)
        assert process.wait(LONGEST) == -signal.SIGKILL
    server.before = lambda *_: None


def killed_at(server: BackgroundServer, place: str, condition: str) -> None:
    """Run a program that asks, and that is killed where it calls one of llmcall's own functions."""
    kill = f"""
import llmcall.cache.awaited, llmcall.cache.cache, signal
owner, name = {place}
function = getattr(owner, name)
def killed(self, *args, **kwargs):
    if {condition}:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(self, *args, **kwargs)
setattr(owner, name, killed)
"""
    with start(kill + PROGRAM, server.base_url) as process:
        assert process.wait(LONGEST) == -signal.SIGKILL


def test_a_program_that_is_killed_while_it_waits_gets_the_same_response(
    server: BackgroundServer,
) -> None:
    """Nothing is sent twice, and nothing is left at the server."""
    killed_before(server, "look")
    assert client_at(server).send_message("Hello").content == "Hello 1"
    assert (server.counts["create"], server.responses, awaited()) == (1, {}, 0)


def test_what_was_being_sent_at_a_kill_is_sent_again_with_a_warning(
    server: BackgroundServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have been paid for."""
    killed_before(server, "create")
    assert client_at(server).send_message("Hello").content == "Hello 2"
    assert "1 request was not acknowledged" in caplog.text
    assert awaited() == 0


@pytest.mark.slow
def test_a_kill_before_the_response_is_noted_sends_again(
    server: BackgroundServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The server's answer came, and nobody noted it."""
    killed_at(server, 'llmcall.cache.awaited.Journal, "note"', "args[1].id is not None")
    assert client_at(server).send_message("Hello").content == "Hello 2"
    assert "1 request was not acknowledged" in caplog.text


@pytest.mark.slow
def test_a_kill_after_the_answer_came_asks_for_it_once_more(server: BackgroundServer) -> None:
    """It was not recorded: the server still has it."""
    killed_at(server, 'llmcall.cache.cache.ResponseCache, "store"', "True")
    assert client_at(server).send_message("Hello").content == "Hello 1"
    assert (server.counts["create"], server.responses) == (1, {})


@pytest.mark.slow
def test_a_kill_before_the_copy_is_deleted_leaves_it_to_the_next_window_call(
    server: BackgroundServer,
) -> None:
    """Of any process, whatever it asks."""
    killed_before(server, "delete")
    assert awaited() == 1
    assert client_at(server).send_message("Goodbye").content == "Goodbye 2"
    assert (server.responses, awaited()) == ({}, 0)
