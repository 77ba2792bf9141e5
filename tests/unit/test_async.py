"""Asking without blocking: many tasks, cancellation, event loops that come and go."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from servers import RawServer, answers, completion, http

import llmcall
from llmcall.engine.single_flight import process_flights
from llmcall.errors import InvalidRequestError, RequestTimeoutError
from llmcall.testing import ScriptedClient

MANY = 500


def client_for(base_url: str, **settings: Any) -> llmcall.OpenAIClient:
    """Return a client that hardly waits between attempts."""
    return llmcall.OpenAIClient(base_url=base_url, **{"retry_waiting_time": 0, **settings})


class Waiting(llmcall.LLMClient):
    """Answer when it is let, on the event loop; tell who has come and who was cancelled."""

    api_type = "waiting"

    def __init__(self, **settings: Any) -> None:
        self.come: list[str] = []
        self.cancelled: list[str] = []
        self.open = asyncio.Event()
        super().__init__(**settings)

    def send(self, request: Any, timeout: float | None) -> Any:
        """Refuse: this transport is asked without blocking."""
        raise AssertionError("send() was called")

    async def asend(self, request: Any, timeout: float | None) -> Any:
        """Wait, and answer with the message."""
        text = request.messages[-1]["content"]
        self.come.append(text)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        return {"choices": [{"message": {"role": "assistant", "content": text.upper()}, "finish_reason": "stop"}]}

    async def until(self, count: int) -> None:
        """Wait until some calls have come."""
        while len(self.come) < count:
            await asyncio.sleep(0)


@asynccontextmanager
async def server_of(answer: Callable[[bytes], Awaitable[bytes]]) -> AsyncIterator[str]:
    """Serve on the loopback in the running event loop: any number of connections, each kept open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length")
                )
                writer.write(http(await answer(await reader.readexactly(length))))
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=MANY)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def test_many_calls_at_once() -> None:
    """Five hundred calls are under way together, each with an answer of its own, and all are stored."""
    client = Waiting()

    async def main() -> list[Any]:
        calls = [asyncio.create_task(client.asend_message(f"question {number}")) for number in range(MANY)]
        await client.until(MANY)
        client.open.set()
        return await asyncio.gather(*calls)

    replies = asyncio.run(main())
    assert [reply.content for reply in replies] == [f"QUESTION {number}" for number in range(MANY)]
    assert (len(client.cache), client.usage.calls) == (MANY, MANY)


def test_many_calls_over_sockets() -> None:
    """The same through the SDK and real connections, and again without a call."""

    async def answer(body: bytes) -> bytes:
        return json.dumps(completion(json.loads(body)["messages"][0]["content"].upper())).encode()

    async def main() -> None:
        async with server_of(answer) as base_url:
            client = client_for(base_url)
            for cached in (False, True):
                calls = (client.asend_message(f"question {number}", on_error="raise") for number in range(100))
                replies = await asyncio.gather(*calls)
                assert [reply.content for reply in replies] == [f"QUESTION {number}" for number in range(100)]
                assert {reply.cached for reply in replies} == {cached}
            await client.aclose()

    asyncio.run(main())


def test_the_event_loop_is_never_blocked() -> None:
    """While an answer is awaited, the loop goes on, also where the transport knows no asynchronous way."""
    gate = threading.Event()

    def answer(messages: Any) -> str:
        assert gate.wait(10)
        return "yes"

    async def main() -> Any:
        call = asyncio.create_task(ScriptedClient(answer).asend_message("Hello"))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not call.done()
        gate.set()
        return await call

    assert asyncio.run(main()) == {"role": "assistant", "content": "yes"}


def test_cancellation() -> None:
    """A cancelled call stops its transfer, stores nothing, leaves no flight, gives its draw back and is no failure."""
    client = Waiting()

    async def main() -> Any:
        with llmcall.scope("a"):
            call = asyncio.create_task(client.asend_message("x"))
            await client.until(1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert (client.cancelled, len(client.cache), process_flights._flights) == (["x"], 0, {})
            client.open.set()
            return await client.asend_message("x")

    reply = asyncio.run(main())
    assert (reply.sample, reply.cached) == ("a#0", False)
    assert (client.usage.calls, client.usage.errors) == (1, 0)


def test_a_cancelled_leader_hands_over() -> None:
    """Where the task that makes the call is cancelled, one of those who wait makes it; a waiter may leave as well."""
    client = Waiting()

    async def main() -> list[Any]:
        calls = [asyncio.create_task(client.asend_message("x")) for _ in range(4)]
        await client.until(1)
        for _ in range(5):
            await asyncio.sleep(0)
        calls[2].cancel()
        calls[0].cancel()
        await client.until(2)
        client.open.set()
        return await asyncio.gather(*calls, return_exceptions=True)

    outcomes = asyncio.run(main())
    assert [type(outcome).__name__ for outcome in outcomes] == ["CancelledError", "Reply", "CancelledError", "Reply"]
    assert client.come == ["x", "x"]
    assert process_flights._flights == {}


def test_a_timeout_of_asyncio() -> None:
    """asyncio.wait_for ends a call as a cancellation does."""
    client = Waiting()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.asend_message("x"), 0.01)
        assert client.cancelled == ["x"]

    asyncio.run(main())


def test_a_deadline() -> None:
    """A call's own deadline and an attempt's timeout end it on the event loop."""

    async def main() -> None:
        over = asyncio.Event()

        async def answer(body: bytes) -> bytes:
            await over.wait()
            return b""

        async with server_of(answer) as base_url:
            client = client_for(base_url)
            with pytest.raises(RequestTimeoutError):
                await client.asend_message("x", deadline=0.05, on_error="raise")
            assert await client.asend_message("x", timeout=0.05, max_attempts=2) is None
            assert client.usage.retries == 1
            await client.aclose()
            over.set()

    asyncio.run(main())


def test_blocking_calls_inside_a_running_loop() -> None:
    """send_message works in a coroutine, and beside a task that awaits the very same answer it goes alone."""
    client = Waiting()
    scripted = ScriptedClient(["yes"], cache_mode="auto")

    async def main() -> None:
        assert scripted.send_message("Hello") == {"role": "assistant", "content": "yes"}
        assert await scripted.asend_message("Hello") == {"role": "assistant", "content": "yes"}
        call = asyncio.create_task(client.asend_message("x"))
        await client.until(1)
        beside = llmcall.LLMClient(transport=ScriptedClient(["beside"]))
        assert beside.send_message("x", on_error="raise").content == "beside"
        client.open.set()
        assert (await call).content == "beside"  # type: ignore[union-attr]

    asyncio.run(main())
    assert len(scripted.requests) == 1


def test_one_client_for_many_event_loops() -> None:
    """A client serves one event loop after the other, and threads with loops of their own, without a warning."""

    async def main(client: llmcall.LLMClient, name: str) -> str:
        replies = await asyncio.gather(
            *(client.asend_message(f"{name} {number}", on_error="raise") for number in range(3))
        )
        return replies[0].content or ""

    with RawServer(*[answers()] * 30) as server:
        client = client_for(server.base_url)
        assert [asyncio.run(main(client, str(number))) for number in range(2)] == ["Two coins."] * 2
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(asyncio.run(main(client, f"thread {n}"))))
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == ["Two coins."] * 3
        assert client.send_message("blocking", on_error="raise").content == "Two coins."
        client.close()


def test_failures() -> None:
    """None, raised or returned, as on_error says; a bug passes through."""

    async def main() -> None:
        assert await ScriptedClient([InvalidRequestError("no")]).asend_message("x") is None
        assert isinstance(
            await ScriptedClient([InvalidRequestError("no")]).asend_message("x", on_error="return"), InvalidRequestError
        )
        for error in (InvalidRequestError("no"), ZeroDivisionError("a bug")):
            with pytest.raises(type(error)):
                await ScriptedClient([error]).asend_message("x", on_error="raise")

    asyncio.run(main())
