"""The asynchronous functions: in a running loop, many at once, cancelled, timed out."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest
from pytest_httpserver import HTTPServer
from servers import OK, Answer, RawServer, ScriptedServer, answers, completion, embeddings, http, stays_silent

import llmcall
from llmcall import aio


def content(response: dict[str, Any]) -> Any:
    """Return the text of a response."""
    return response["choices"][0]["message"]["content"]


def test_what_the_module_has() -> None:
    """The functions of all three ancestors are there under their names."""
    assert set(aio.__all__) == {
        "chat_completion", "chat_completion_stream", "chatcompletion_request", "embedding_request"
    }  # fmt: skip
    assert all(callable(getattr(aio, name)) for name in aio.__all__)


class Together(BaseHTTPRequestHandler):
    """Answer a request when eight are there."""

    barrier = threading.Barrier(8, timeout=20)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        self.barrier.wait()
        self.wfile.write(http(json.dumps(completion(f"{asked}!")).encode()))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_many_at_once() -> None:
    """Requests under way at once do not wait for one another, and each gets its own answer."""

    async def ask_all() -> list[dict[str, Any]]:
        return await asyncio.gather(*(aio.chatcompletion_request(prompt=str(number)) for number in range(8)))

    with ThreadingHTTPServer(("127.0.0.1", 0), Together) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        llmcall.configure(base_url=f"http://127.0.0.1:{server.server_port}/v1", retry_max_attempts=1)
        found = asyncio.run(ask_all())
        server.shutdown()
        thread.join()
    assert [content(response) for response in found] == [f"{number}!" for number in range(8)]


def test_identical_requests_at_once(httpserver: HTTPServer) -> None:
    """Identical requests under way make one call."""
    server = ScriptedServer(httpserver, OK)
    llmcall.configure(base_url=server.base_url)

    async def ask_all() -> list[dict[str, Any]]:
        return await asyncio.gather(*(aio.chatcompletion_request(prompt="Hello") for _ in range(20)))

    assert [content(response) for response in asyncio.run(ask_all())] == ["Two coins."] * 20
    assert len(server.requests) == 1


def test_loop_after_loop(httpserver: HTTPServer) -> None:
    """Each event loop has connections of its own; the end of one does not end those of the next."""
    server = ScriptedServer(httpserver, OK)
    llmcall.configure(base_url=server.base_url)
    for number in range(3):
        assert content(asyncio.run(aio.chatcompletion_request(prompt=str(number)))) == "Two coins."
    assert len(server.requests) == 3


def test_the_synchronous_function_in_a_running_loop(httpserver: HTTPServer) -> None:
    """In a notebook, whose loop is running, the synchronous function works too."""
    server = ScriptedServer(httpserver, OK, Answer(200, embeddings([1.0])))
    llmcall.configure(base_url=server.base_url)

    async def notebook() -> Any:
        return content(llmcall.chatcompletion_request(prompt="Hello")), await aio.embedding_request("Hello")

    assert asyncio.run(notebook()) == ("Two coins.", [1.0])


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
def test_request_timeout(asynchronous: bool) -> None:
    """request_timeout bounds an attempt; what remains is the SDK's APITimeoutError."""
    with RawServer(stays_silent) as server:
        llmcall.configure(base_url=server.base_url, retry_max_attempts=1)
        with pytest.raises(openai.APITimeoutError):
            if asynchronous:
                asyncio.run(aio.chatcompletion_request(prompt="Hello", request_timeout=0.05))
            else:
                llmcall.chatcompletion_request(prompt="Hello", request_timeout=0.05)


def test_cancellation() -> None:
    """A cancelled request ends at once, stores nothing, and is in nobody's way."""
    asked = threading.Event()

    def silent(connection: Any, stopped: threading.Event) -> None:
        asked.set()
        stays_silent(connection, stopped)

    async def ask() -> Any:
        task = asyncio.create_task(aio.chatcompletion_request(prompt="Hello"))
        await asyncio.to_thread(asked.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await aio.chatcompletion_request(prompt="Hello")

    with RawServer(silent, answers(OK)) as server:
        llmcall.configure(base_url=server.base_url, retry_max_attempts=1)
        assert content(asyncio.run(ask())) == "Two coins."
        assert len(server.requests) == 2 and len(llmcall.client().cache) == 1
