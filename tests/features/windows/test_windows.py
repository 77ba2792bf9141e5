"""Windows: answers that may take hours and cost less; what is begun is never lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import commands
import openai
import pytest
from commands import LONGEST, RunningProgram, no_ctrl_c_is_lost, start, wait_for_maps
from contracts import check_transport
from files import in_database, small
from pytest_httpserver import HTTPServer
from servers import Answer, BackgroundServer, completion, refusal
from werkzeug import Request

import llmcall
from llmcall import AzureClient, OpenAIClient, ResponseCache
from llmcall.clients.openai import OllamaClient
from llmcall.core.prepare import prepare_chat
from llmcall.errors import (
    BudgetExceededError,
    CacheCorruptError,
    ConfigError,
    ContentFilterError,
    InvalidRequestError,
    RequestTimeoutError,
    ServiceError,
)
from llmcall.features.windows.awaited import Awaited, Journal
from llmcall.features.windows.transport import WindowTransport
from llmcall.support.waits import Progress
from llmcall.testing import ScriptedClient

PRICES = {"gpt-6-luna": (1.0, 2.0)}
FULL = 10 * 1.0e-6 + 10 * 2.0e-6  # USD of an answer's 10 and 10 tokens at PRICES


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for answers after milliseconds."""
    monkeypatch.setattr("llmcall.features.windows.transport.FIRST_WAIT", 0.001)
    monkeypatch.setattr("llmcall.features.windows.transport.LONGEST_WAIT", 0.01)


@pytest.fixture
def server(httpserver: HTTPServer) -> BackgroundServer:
    """A server that makes responses in the background."""
    return BackgroundServer(httpserver)


def client_at(server: BackgroundServer, **settings: Any) -> OpenAIClient:
    """Return a client whose calls are answered within eight hours."""
    defaults = {"window": "8h", "on_error": "raise", "retry_waiting_time": 0, "prices": PRICES}
    return OpenAIClient(base_url=server.base_url, **{**defaults, **settings})


def client_without_window(server: BackgroundServer) -> OpenAIClient:
    """Return a client that takes its window from the settings."""
    return OpenAIClient(
        base_url=server.base_url, on_error="raise", retry_waiting_time=0, prices=PRICES, deadline=60
    )


def awaited() -> int:
    """Return how many answers are awaited, as the command line says."""
    return int(json.loads(commands.cache("stats", "--json"))["awaited"])


def leave_waiting(server: BackgroundServer, client: OpenAIClient, *texts: str) -> None:
    """Make calls that run into their deadlines while their responses are awaited."""
    server.looks = sys.maxsize
    for text in texts:
        begun, seconds = server.counts["create"], 0.2
        while server.counts["create"] == begun:  # what is slow at first must not take all of it
            seconds *= 2
            with pytest.raises(RequestTimeoutError):
                client.send_message(text, deadline=seconds)
    server.settle()  # a look that a call left may be under way
    server.looks = 0


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
    client = client_at(server)
    client.send_message("Hello", window="2h")
    assert server.bodies[0]["background_options"] == {"completion_window": "2h"}
    client.send_message("Goodbye", window="none")
    with llmcall.configured(window="2h"):
        client_at(server, window="none").send_message("Again")
    assert (server.counts["create"], server.counts["chat"]) == (1, 2)


@pytest.mark.parametrize("window", ["1h", "8", ""])
def test_an_unknown_window_is_an_error(server: BackgroundServer, window: str) -> None:
    """It names those that there are."""
    with pytest.raises(ValueError, match="'2h', '8h', 'none'"):
        client_at(server).send_message("Hello", window=window)
    with pytest.raises(ConfigError, match="none, 2h, 8h"):
        llmcall.configure(window="1h")


def test_the_window_is_part_of_no_key_and_no_header(
    server: BackgroundServer, tmp_path: Path
) -> None:
    """An answer that came in a window replays without one, and the other way round."""
    client = client_at(server)
    keys = {
        client.build_request("Hello", window=window).cache_key for window in ("2h", "8h", "none")
    }
    assert len(keys) == 1
    with llmcall.configured(window="2h"), llmcall.cassette(tmp_path / "c.jsonl"):
        client.send_message("Hello")
    header, _ = (tmp_path / "c.jsonl").read_text().splitlines()
    assert "window" not in header
    with llmcall.cassette(tmp_path / "c.jsonl", mode="none"):
        assert client.send_message("Hello", window="none").cached
        assert ScriptedClient([], model="gpt-6-luna").send_message("Hello", window="2h").cached


def test_other_calls_go_on_while_a_call_in_a_window_waits(server: BackgroundServer) -> None:
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

    assert [text[:10] for text in asyncio.run(ask())] == [
        f"question {number}" for number in range(5)
    ]
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


def test_a_note_that_cannot_be_removed_is_warned_of(
    server: BackgroundServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is returned and stored."""

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    def before(operation: str, _: Any) -> None:
        if operation == "look":
            monkeypatch.setattr("llmcall.features.windows.awaited._JournalRows.write", fail)

    server.before = before
    client = client_at(server)
    assert client.send_message("Hello").content == "Hello 1"
    assert "the note of an awaited answer cannot be removed" in caplog.text
    assert client.send_message("Hello").cached


def test_a_damaged_journal_keeps_no_recorded_answer_back(server: BackgroundServer) -> None:
    """A call that would ask names it."""
    client = client_at(server)
    client.send_message("Hello")
    client.close()
    llmcall.reset()
    (Path(client.cache.path) / "awaited" / "cache.db").write_bytes(b"damaged" * 1000)
    client = client_at(server)
    assert client.send_message("Hello").cached
    with pytest.raises(CacheCorruptError, match="awaited"):
        client.send_message("Goodbye")


def test_a_damaged_journal_is_named_by_the_command_line_and_deleted(
    server: BackgroundServer,
) -> None:
    """Awaited requests are sent again; the error says how to get there."""
    client = client_at(server)
    leave_waiting(server, client, "Hello")
    client.close()
    llmcall.reset()
    (Path(client.cache.path) / "awaited" / "cache.db").write_bytes(b"damaged" * 1000)
    with pytest.raises(CacheCorruptError, match=r"awaited is damaged.*clear --awaited"):
        client_at(server).send_message("Hello")
    assert "awaited: damaged" in commands.cache("stats")
    assert json.loads(commands.cache("stats", "--json"))["awaited"] == "damaged"
    commands.cache("clear", "--awaited", "--yes")
    assert awaited() == 0
    assert client_at(server).send_message("Hello").content == "Hello 2"


# Stopped, killed, cut off, and started again


def test_a_call_that_ran_into_its_deadline_goes_on_waiting(server: BackgroundServer) -> None:
    """It waits for the same response when it is made again, also within another window."""
    client = client_at(server)
    leave_waiting(server, client, "Hello")
    server.looks = sys.maxsize
    with pytest.raises(RequestTimeoutError, match="Repeat the call"):
        client.send_message("Hello", deadline=0.1)
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
import llmcall.features.windows.transport as windows
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


def killed_at(server: BackgroundServer, method: str, condition: str) -> None:
    """Run a program that asks, and that is killed where it calls one of llmcall's own functions."""
    kill = f"""
import llmcall.features.windows.awaited, llmcall.stores.cache.cache, signal
owner, name = {method}
function = getattr(owner, name)
def killed(self, *args, **kwargs):
    if {condition}:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(self, *args, **kwargs)
setattr(owner, name, killed)
"""
    with start(kill + PROGRAM, server.base_url) as process:
        assert process.wait(LONGEST) == -signal.SIGKILL


@pytest.mark.ci
def test_a_program_that_is_killed_while_it_waits_gets_the_same_response(
    server: BackgroundServer,
) -> None:
    """Nothing is sent twice, and nothing is left at the server."""
    killed_before(server, "look")
    assert client_at(server).send_message("Hello").content == "Hello 1"
    assert (server.counts["create"], server.responses, awaited()) == (1, {}, 0)


@pytest.mark.ci
def test_a_request_being_sent_at_a_kill_is_sent_again_with_a_warning(
    server: BackgroundServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have been paid for."""
    killed_before(server, "create")
    assert client_at(server).send_message("Hello").content == "Hello 2"
    assert "1 request was not acknowledged" in caplog.text
    assert awaited() == 0


def test_a_request_that_was_not_acknowledged_in_time_is_sent_again_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is said once; a server that refuses has not begun a response."""
    with HTTPServer(threaded=True) as http_server:
        server = BackgroundServer(http_server)
        client = client_at(server)
        server.failures["create"] = [refusal(500)]
        client.send_message("Hello")
        assert "pay twice" not in caplog.text
        server.before = lambda operation, _: operation == "create" and time.sleep(0.4)
        for text in ("Goodbye", "Again"):
            with pytest.raises(RequestTimeoutError):
                client.send_message(text, timeout=0.1, max_attempts=1)
    assert caplog.text.count("You may pay twice") == 1


@pytest.mark.slow
def test_a_kill_before_the_response_is_noted_sends_again(
    server: BackgroundServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The server's answer came, and nobody noted it."""
    killed_at(server, 'llmcall.features.windows.awaited.Journal, "note"', "args[1].id is not None")
    assert client_at(server).send_message("Hello").content == "Hello 2"
    assert "1 request was not acknowledged" in caplog.text


@pytest.mark.slow
def test_a_kill_after_the_answer_came_asks_for_it_once_more(server: BackgroundServer) -> None:
    """It was not recorded: the server still has it."""
    killed_at(server, 'llmcall.stores.cache.cache.ResponseCache, "store"', "True")
    assert client_at(server).send_message("Hello").content == "Hello 1"
    assert (server.counts["create"], server.responses) == (1, {})


@pytest.mark.slow
def test_a_kill_before_the_copy_is_deleted_leaves_it_to_the_next_window_call(
    server: BackgroundServer,
) -> None:
    """Of any process, whatever it asks; a recorded answer sends nothing."""
    killed_before(server, "delete")
    assert awaited() == 1
    client = client_at(server)
    assert client.send_message("Hello").cached
    assert awaited() == 1
    server.failures["delete"] = [refusal(503)]
    client.send_message("Goodbye")
    assert awaited() == 1
    llmcall.reset()
    assert client_at(server).send_message("Again").content.startswith("Again")
    assert (server.responses, awaited()) == ({}, 0)


# Looks


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_failed_poll_of_a_windows_response_does_not_fail_the_call(
    server: BackgroundServer, status: int
) -> None:
    """It neither counts as an attempt nor makes the call wait."""
    server.failures["look"] = [refusal(status)] * 3
    client = client_at(server, retry_max_attempts=1, retry_waiting_time=60)
    assert client.send_message("Hello").content == "Hello 1"
    assert (server.counts["look"], client.usage.retries) == (4, 0)


def test_polling_a_windows_response_counts_in_no_limit(server: BackgroundServer) -> None:
    """Three requests in any minute are three calls, however often each is looked for."""
    server.looks = 3
    client = client_at(server, limits_requests_per_minute=3, deadline=60)
    replies = [client.send_message(text) for text in ("one", "two", "three")]
    assert [reply.content[:3] for reply in replies] == ["one", "two", "thr"]
    assert server.counts["look"] == 9


def test_a_call_in_a_window_holds_its_slot_until_its_answer_arrives(
    server: BackgroundServer,
) -> None:
    """One at a time: the second begins once the first has its answer."""
    most = 0

    def before(operation: str, _: object) -> None:
        nonlocal most
        made = [
            response for response in server.responses.values() if response["status"] == "queued"
        ]
        most = max(most, len(made))

    server.before = before
    client = client_at(server, limits_max_concurrent_calls=1)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(client.send_message, ["one", "two", "three"]))
    assert most == 1


# How responses end


def test_a_response_that_failed_is_deleted_and_tried_again(server: BackgroundServer) -> None:
    """The retry does not wait for the one that failed."""
    failed = {"status": "failed", "error": {"code": "server_error", "message": "oh"}, "output": []}
    server.ends = [failed]
    client = client_at(server)
    assert client.send_message("Hello").content == "Hello 2"
    assert (client.usage.retries, server.responses, awaited()) == (1, {}, 0)
    server.ends = [failed, failed]
    with pytest.raises(ServiceError, match="oh"):
        client.send_message("Goodbye", max_attempts=2)
    assert (server.responses, awaited()) == ({}, 0)


def test_an_incomplete_response_is_an_answer_where_any_other_would_be(
    server: BackgroundServer,
) -> None:
    """One that ends at its limit is recorded; one that the filter cut is deleted and raised."""
    reason = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    filtered = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    server.ends = [reason, filtered]
    client = client_at(server)
    assert client.send_message("Hello").finish_reason == "length"
    with pytest.raises(ContentFilterError):
        client.send_message("Goodbye")
    assert (server.counts["create"], server.responses, awaited()) == (2, {}, 0)


def test_a_cancelled_response_is_not_tried_again(server: BackgroundServer) -> None:
    """It is deleted and forgotten: the call, made again, begins another one."""
    server.ends = [{"status": "cancelled"}]
    client = client_at(server)
    with pytest.raises(ServiceError, match="cancelled"):
        client.send_message("Hello")
    assert (server.counts["create"], server.responses, awaited()) == (1, {}, 0)
    assert client.send_message("Hello").content == "Hello 2"


def test_a_response_that_the_server_no_longer_knows_is_sent_again_once(
    server: BackgroundServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning says so; the second time it is an error."""
    lost = 1

    def lose(operation: str, identifier: str | None) -> None:
        if operation == "look" and int(str(identifier).removeprefix("resp_")) <= lost:
            server.responses.pop(str(identifier), None)

    server.before = lose
    client = client_at(server)
    assert client.send_message("Hello").content == "Hello 2"
    assert "no longer has the response resp_1; it is sent again" in caplog.text
    lost = 4
    with pytest.raises(InvalidRequestError, match="resp_4, nor the one before"):
        client.send_message("Goodbye")
    assert (server.counts["create"], awaited()) == (4, 0)


def test_a_response_whose_answer_another_process_has_stored_is_not_sent_again(
    server: BackgroundServer,
) -> None:
    """The server knows it no more: the answer is in the cache."""

    def store(operation: str, identifier: str | None) -> None:
        if operation == "look" and server.responses:
            server.responses.clear()
            other = client_at(server)
            with ResponseCache(other.cache.path) as cache:
                cache.put(other.build_request("Hello"), completion("Stored."))

    server.before = store
    client = client_at(server)
    reply = client.send_message("Hello")
    assert (reply.content, reply.cached) == ("Stored.", True)
    assert (server.counts["create"], client.usage.calls, client.usage.cached_calls) == (1, 0, 1)


def test_a_note_of_another_server_is_an_error_that_names_it(
    server: BackgroundServer, httpserver: HTTPServer
) -> None:
    """The address in a note is compared, and nothing is sent there: a stranger may have written it."""
    leave_waiting(server, client_at(server), "Hello")
    counts = dict(server.counts)
    with HTTPServer() as other:
        client = client_at(BackgroundServer(other))
        with pytest.raises(ConfigError, match=rf"{server.base_url}.*clear --awaited"):
            client.send_message("Hello")
        assert client.send_message("Goodbye").content == "Goodbye 1"
    assert dict(server.counts) == counts


def test_in_a_pool_a_response_is_waited_for_where_it_is(
    server: BackgroundServer, httpserver: HTTPServer
) -> None:
    """Calls go round-robin; a call that was begun does not."""
    server.looks = sys.maxsize
    with HTTPServer() as other:
        pool = tuple(
            llmcall.types.Endpoint(name, models=("gpt-6-luna",), base_url=url, api_key="k")
            for name, url in (("east", server.base_url), ("west", BackgroundServer(other).base_url))
        )
        client = OpenAIClient(endpoints=pool, window="8h", on_error="raise")
        leave_waiting(server, client, "Hello")
        assert client.send_message("Goodbye").endpoint == "west"
        assert client.send_message("Again").endpoint == "east"
        assert client.send_message("Hello").endpoint == "east"


def test_a_response_is_waited_for_and_deleted_with_the_key_that_it_was_begun_with(
    httpserver: HTTPServer,
) -> None:
    """Two endpoints may have one address: their notes name them. The first one there stands for a name
    that is gone.
    """
    with HTTPServer() as other:  # a first call may be so slow that another endpoint's turn comes
        client_at(BackgroundServer(other)).send_message("Hello")
    server = KeyedServer(httpserver)
    pool = tuple(
        llmcall.types.Endpoint(name, ("gpt-6-luna",), base_url=server.base_url, api_key=f"k{name}")
        for name in ("east", "west")
    )
    client = OpenAIClient(endpoints=pool, window="8h", on_error="raise")
    leave_waiting(server, client, "one", "two")
    assert server.keys == {"resp_1": "Bearer keast", "resp_2": "Bearer kwest"}
    assert client.send_message("two").content == "two 2"
    folder = Path(client.cache.path) / "awaited"
    ((note,),) = in_database(folder, "SELECT value FROM Cache")
    renamed = json.dumps([*json.loads(note)[:4], "north"])
    in_database(folder, "UPDATE Cache SET value = ?", renamed.encode())
    with llmcall.configured(endpoints=pool):
        commands.cache("clear", "--awaited", "--yes")
    assert (server.counts["cancel"], server.responses, awaited()) == (1, {}, 0)


class KeyedServer(BackgroundServer):
    """Know a response only by the key that it was begun with.

    :ivar keys: the header with the key of each response, by its id.
    """

    def __init__(self, server: HTTPServer) -> None:
        super().__init__(server)
        self.keys: dict[str, str] = {}

    def _answer(self, request: Request, operation: str, identifier: str | None) -> Answer:
        key = request.headers["Authorization"]
        if identifier is not None and self.keys[identifier] != key:
            return Answer(404, {"error": {"message": "no such response", "code": "not_found"}})
        answer = super()._answer(request, operation, identifier)
        if operation == "create":
            self.keys[f"resp_{len(self.bodies)}"] = key
        return answer


@pytest.mark.parametrize("identifier", ["../files/file-1", "", ["resp_1"]])
def test_a_strangers_note_reaches_no_other_path(
    server: BackgroundServer, identifier: object
) -> None:
    """An identifier that could lead elsewhere is no note."""
    folder = Path(client_at(server).cache.path) / "awaited"
    client = client_at(server)
    leave_waiting(server, client, "Hello")
    text = json.dumps([identifier, server.base_url, "8h", time.time(), ""])
    in_database(folder, "UPDATE Cache SET value = ?", text.encode())
    assert client.send_message("Hello").content == "Hello 2"
    assert set(server.counts) == {"create", "look", "delete"}


# Several calls for one answer


@pytest.mark.ci
def test_of_two_processes_the_second_deletes_its_own_response() -> None:
    """Both get the answer of the first."""
    both = threading.Barrier(2)

    def before(operation: str, _: object) -> None:
        if operation == "create":
            both.wait(LONGEST)

    with HTTPServer(threaded=True) as http_server:
        server = BackgroundServer(http_server)
        server.before = before
        with start(PROGRAM, server.base_url) as other:
            reply = client_at(server).send_message("Hello")
            printed, errors = other.communicate(timeout=LONGEST)
    assert printed.strip() == reply.content, errors
    assert (server.counts["create"], server.counts["cancel"]) == (2, 1)
    assert (server.responses, awaited()) == ({}, 0)


def test_a_request_that_another_process_recorded_meanwhile_is_not_sent(
    server: BackgroundServer,
) -> None:
    """It has deleted its note by then: only the record is left."""
    client = client_at(server)

    def store(operation: str, _: object) -> None:
        with ResponseCache(client.cache.path) as cache:
            cache.put(client.build_request("Hello"), completion("Stored."))

    server.before = store
    server.failures["create"] = [refusal(500)]
    assert client.send_message("Hello").content == "Stored."
    assert (server.counts["create"], awaited()) == (1, 0)


# Modes


def test_refresh_asks_anew_and_does_not_lose_what_is_awaited(server: BackgroundServer) -> None:
    """A response that another run in this mode awaits is not deleted for the older answer that is
    recorded.
    """
    client_at(server).send_message("Hello")
    leave_waiting(server, client_at(server, cache_mode="refresh"), "Hello")
    llmcall.reset()
    refreshing = client_at(server, cache_mode="refresh")
    assert refreshing.send_message("Goodbye").content == "Goodbye 3"
    assert refreshing.send_message("Hello").content == "Hello 2"
    assert client_at(server).send_message("Hello").content == "Hello 2"


# Prices and budgets


def test_the_price_is_that_of_the_window_if_the_response_says_so(server: BackgroundServer) -> None:
    """30 and 40 % below the standard price, or as [Prices] says."""
    client = client_at(server)
    costs = {
        window: client.send_message(window, window=window).cost for window in ("2h", "8h", "none")
    }
    assert costs["2h"] == pytest.approx(0.7 * FULL)
    assert costs["8h"] == pytest.approx(0.6 * FULL)
    named = client_at(server, prices={**PRICES, "gpt-6-luna 8h": (0.1, 0.2)})
    assert named.send_message("Hello").cost == pytest.approx(FULL / 10)


def test_an_answer_at_once_has_the_standard_price(server: BackgroundServer) -> None:
    """A server that knows no background mode answers so."""
    server.at_once = True
    reply = client_at(server).send_message("Hello")
    assert (reply.content, reply.cost) == ("Hello 1", pytest.approx(FULL))
    assert (server.counts["look"], awaited()) == (0, 0)


@pytest.mark.feature("plans")
def test_a_plan_reckons_with_the_price_of_the_window(server: BackgroundServer) -> None:
    """So does what is expected of it after a pilot."""
    plans = {}
    for window in ("none", "8h"):
        call = llmcall.LLMCall(
            user="{{ text }}", client=client_at(server, window=window), max_tokens=10
        )
        call(text="pilot")
        plans[window] = call.map([{"text": "pilot"}, {"text": "Hello"}], dry_run=True)
    assert plans["8h"].cost == pytest.approx([0.6 * bound for bound in plans["none"].cost])
    assert plans["8h"].expected_cost == pytest.approx(0.6 * plans["none"].expected_cost)


def test_a_call_in_a_window_counts_in_a_budget_once_its_answer_is_there(
    server: BackgroundServer,
) -> None:
    """One that ran into its deadline gives back what it had reserved, as every call that ends does."""
    client = client_at(server, max_tokens=10)
    with llmcall.budget(calls=1) as budget:
        leave_waiting(server, client, "Hello")
        assert budget.spent.calls == 0
        client.send_message("Hello")
        assert (budget.spent.calls, budget.spent.tokens) == (1, 20)
        with pytest.raises(BudgetExceededError):
            client.send_message("Another")


def test_a_budget_reserves_at_the_price_of_the_window(server: BackgroundServer) -> None:
    """A call that would pass it at the standard price goes."""
    client = client_at(server, max_tokens=1000)
    estimate = 1000 * 2.0e-6
    with llmcall.budget(usd=0.7 * estimate):
        client.send_message("Hello")
        with pytest.raises(BudgetExceededError):
            client.send_message("Goodbye", window="none")


# Maps


@pytest.mark.ci
@pytest.mark.parametrize(
    "way", ["setting", *(pytest.param(way, marks=pytest.mark.ci) for way in ("client", "call"))]
)
def test_a_map_in_a_window_has_as_many_workers_as_items(server: BackgroundServer, way: str) -> None:
    """Up to a thousand, where the setting, the client or the call names a window."""
    server.looks = sys.maxsize

    def before(operation: str, _: object) -> None:
        if operation == "look" and server.counts["create"] == 70:
            server.looks = 0

    server.before = before
    items = [f"item {number}" for number in range(70)]
    client = client_at(server, window="8h" if way == "client" else "none", deadline=60)
    with llmcall.configured(window="8h" if way == "setting" else "none"):
        if way == "client":
            answers = llmcall.map(client.send_message, items)
        else:
            params = {"window": "8h"} if way == "call" else {}
            asked = client if way == "call" else client_without_window(server)
            call = llmcall.LLMCall(user="{{ text }}", client=asked, **params)
            answers = call.map([{"text": text} for text in items])
    assert len(answers) == 70


@pytest.mark.ci
def test_after_ctrl_c_in_a_map_the_same_responses_are_waited_for(server: BackgroundServer) -> None:
    """Nothing is asked again."""
    server.looks = sys.maxsize

    def before(operation: str, _: object) -> None:
        if operation == "look" and server.counts["create"] == 34 and server.looks > 9:
            server.looks = 9
            os.kill(os.getpid(), signal.SIGINT)

    server.before = before
    client = client_at(server)
    items = [f"item {number}" for number in range(34)]
    with no_ctrl_c_is_lost(), pytest.raises(KeyboardInterrupt):
        llmcall.map(client.send_message, items)
    wait_for_maps()
    server.looks = 0
    assert len(llmcall.map(client.send_message, items)) == 34
    assert (server.counts["create"], server.responses, awaited()) == (34, {}, 0)


def test_the_number_of_workers_that_was_asked_for_holds(server: BackgroundServer) -> None:
    """Waiting calls change nothing about it."""
    most = 0

    def before(operation: str, _: object) -> None:
        nonlocal most
        most = max(most, len(server.responses))

    server.before = before
    client = client_at(server)
    llmcall.map(client.send_message, [f"item {number}" for number in range(8)], workers=2)
    assert most <= 2


# What cannot be sent in a window


@pytest.mark.parametrize(
    ("settings", "arguments", "words"),
    [
        ({"api": "chat"}, {}, "API = chat"),
        ({}, {"store": False}, "store=False"),
        ({}, {"cache": False}, "cache=False"),
        ({"cache_mode": "off"}, {}, "MODE = off"),
    ],
)
def test_a_window_for_a_request_without_background_mode_is_refused_before_it_is_sent(
    server: BackgroundServer, settings: dict[str, Any], arguments: dict[str, Any], words: str
) -> None:
    """The error says why, and how to send it."""
    client = client_at(server, **settings)
    with pytest.raises(ConfigError, match=rf"WINDOW = 8h.*{words}.*window='none'"):
        client.send_message("Hello", **arguments)
    assert not server.counts


def test_a_stream_has_no_window(server: BackgroundServer) -> None:
    """It is refused, unless it is recorded."""
    client = client_at(server)
    with pytest.raises(ConfigError, match="stream"):
        list(client.stream_message("Hello"))
    client.send_message("Hello")
    assert "".join(client.stream_message("Hello")) == "Hello 1"


def test_other_clients_have_no_windows(server: BackgroundServer) -> None:
    """Azure, Ollama and clients of one's own, also as endpoints of a pool."""
    azure = {"azure_endpoint": server.base_url, "azure_api_version": "1", "api_key": "k"}
    east = llmcall.types.Endpoint("east", models=("gpt-6-luna",), api_type="azure", **azure)
    clients = [
        AzureClient(**azure),
        OllamaClient(base_url=server.base_url),
        ScriptedClient(["Hi"]),
        OpenAIClient(transport=ScriptedClient(["Hi"]), base_url=server.base_url),
        OpenAIClient(endpoints=(east,)),
    ]
    for client in clients:
        with pytest.raises(ConfigError, match="WINDOW = 2h"):
            client.send_message("Hello", window="2h")
    assert not server.counts


def test_a_server_that_refuses_is_an_invalid_request(server: BackgroundServer) -> None:
    """The window is not dropped as other parameters are."""
    server.failures["create"] = [
        refusal(400, "no background", code="unsupported_parameter", param="background")
    ]
    with pytest.raises(InvalidRequestError, match="no background"):
        client_at(server).send_message("Hello")
    assert (server.counts["create"], awaited()) == (1, 0)


def test_a_request_that_failed_to_begin_is_tried_again(server: BackgroundServer) -> None:
    server.failures["create"] = [refusal(429), refusal(500)]
    client = client_at(server)
    assert client.send_message("Hello").content == "Hello 1"
    assert (client.usage.retries, awaited()) == (2, 0)


def test_embeddings_and_programs_are_sent_without_a_window(
    server: BackgroundServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once."""
    for text in ("one", "two"):
        client_at(server).get_embedding(text)
    with llmcall.configured(window="8h"):
        http_client = llmcall.http_client()
        program = openai.OpenAI(base_url=server.base_url, api_key="k", http_client=http_client)
        for text in ("one", "two"):
            messages: Any = [{"role": "user", "content": text}]
            program.chat.completions.create(model="gpt-6-luna", messages=messages)
    assert dict(server.counts) == {"embeddings": 2, "chat": 2}
    assert caplog.text.count("embeddings are sent without a window") == 1
    assert caplog.text.count("a program's calls are sent without a window") == 1


# The command line


def test_the_cache_says_how_many_answers_are_awaited_and_clears_them(
    server: BackgroundServer,
) -> None:
    """``clear`` leaves them; ``clear --awaited`` cancels and deletes them, and no record."""
    client = client_at(server)
    client.send_message("recorded")
    leave_waiting(server, client, "one", "two")
    assert "awaited: 2 answers" in commands.cache("stats")
    with llmcall.configured(base_url=server.base_url):
        assert "2 awaited answers left" in commands.cache("clear", "--yes")
        client.send_message("recorded", window="none")
        commands.cache("clear", "--awaited", "--yes")
    assert (server.counts["cancel"], server.responses, awaited()) == (2, {}, 0)
    assert "1 record" in commands.cache("stats")


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/v1", "https://api.openai.com/v1"])
def test_awaited_answers_at_another_address_are_forgotten_and_named(
    server: BackgroundServer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent there, nor to the settings' own server, which may need a key."""
    leave_waiting(server, client_at(server), "Hello")
    counts = dict(server.counts)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with llmcall.configured(base_url=address):
        printed = commands.cache("clear", "--awaited", "--yes")
    assert f"1 answer at {server.base_url}" in printed
    assert (dict(server.counts), awaited()) == (counts, 0)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"n": 2}, ValueError), ({"extra_headers": {"X": "a\nb"}}, ConfigError)],
    ids=["n", "header"],
)
def test_a_request_that_cannot_be_sent_leaves_no_note(
    server: BackgroundServer,
    arguments: dict[str, Any],
    error: type[Exception],
) -> None:
    """The next run does not take it for one that was sent and not acknowledged."""
    with pytest.raises(error):
        client_at(server).send_message("Hello", **arguments)
    folder = Path(client_at(server).cache.path) / "awaited"
    assert in_database(folder, "SELECT COUNT(*) FROM Cache") == [(0,)]
    assert server.counts["create"] == 0


def test_a_windows_transport_keeps_the_contract(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcall.features.windows.transport.FIRST_WAIT", 0.001)
    server = BackgroundServer(httpserver)
    client = OpenAIClient(base_url=server.base_url, api_key="k", window="8h", model="gpt-6-luna")
    call = prepare_chat(client, "Hello", {}).begun(Progress())
    [endpoint] = client.endpoints("gpt-6-luna")
    request = call.kind.to_send(call)
    check_transport(lambda: WindowTransport(call, endpoint), request, at_once=False)
    assert not server.responses


class Nowhere(llmcall.types.Storage, scheme="nowhere"):
    """A storage that keeps nothing."""

    def __init__(self, rest: str) -> None:
        self.rest = rest

    def get(self, key: str) -> None:
        """Return no row."""

    def rows(self) -> Iterator[Any]:
        """Yield no row."""
        yield from ()

    def write(self, changes: object) -> int:
        """Write nothing."""
        return 0


def test_a_cache_of_a_storage_of_ones_own_has_no_windows(server: BackgroundServer) -> None:
    """It has no place for the note of what is awaited."""
    client = client_at(server, cache_path="nowhere://a")
    with pytest.raises(ConfigError, match="only a cache in a directory has a journal"):
        client.send_message("Hello", window="2h")


def test_a_note_makes_a_private_directory_out_of_git(tmp_path: Path) -> None:
    """As the first answer in a cache does."""
    folder = tmp_path / "cache"
    ResponseCache(folder).beside(Journal).note("key", Awaited("id", "url", "2h", 0.0, ""))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"
