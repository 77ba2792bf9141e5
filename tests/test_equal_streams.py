"""Equal requests under way at once, outside any scope, some of them streamed: one answer serves all."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from sdk_programs import KEY, QUESTION, http, streamed_answer
from streaming import chunks_of, event

import llmcall
from llmcall.engine import flights

TIMEOUT = 30.0  # seconds; a test that waits longer hangs


class Slow(llmcall.LLMClient):
    """Answer each request with a text of its own, in pieces; the first waits to be let on.

    :ivar begun: is set when the first answer has begun.
    :ivar go_on: lets its rest go.
    """

    def __init__(self, *failing: int, **settings: Any) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.count, self._failing, self._lock = 0, failing, threading.Lock()
        super().__init__(**{"model": "m", "retry_max_attempts": 1, **settings})

    def send(self, request: Any, timeout: float | None) -> Any:
        """Answer as a whole."""
        number = self._number()
        self._wait(number)
        text = f"answer {number}"
        message = {"role": "assistant", "content": text}
        return {"choices": [{"message": message, "finish_reason": "stop"}]}

    def stream(self, request: Any, timeout: float | None) -> Iterator[Any]:
        """Answer in pieces."""
        number = self._number()
        opening, first, last, end = chunks_of("answer ", str(number), usage=None)
        yield from (opening, first)
        self._wait(number)
        if number in self._failing:
            raise llmcall.ServiceError("broken off")
        yield from (last, end)

    def _number(self) -> int:
        with self._lock:
            self.count += 1
            return self.count - 1

    def _wait(self, number: int) -> None:
        if number == 0:
            self.begun.set()
            assert self.go_on.wait(TIMEOUT)


def whole(client: llmcall.LLMClient) -> str | None:
    """Ask for a whole answer."""
    return client.send_message(QUESTION, on_error="raise").content


def stream(client: llmcall.LLMClient) -> str:
    """Read a stream to its end."""
    return "".join(client.stream_message(QUESTION, on_error="raise"))


async def awhole(client: llmcall.LLMClient) -> str | None:
    """Ask for a whole answer."""
    reply = await client.asend_message(QUESTION, on_error="raise")
    return reply.content


async def astream(client: llmcall.LLMClient) -> str:
    """Read a stream to its end."""
    pieces = [piece async for piece in client.astream_message(QUESTION, on_error="raise")]
    return "".join(pieces)


def waiting() -> int:
    """Return how many calls wait for an equal one."""
    return sum(flight.followers for flight in tuple(flights.flights.values()))


def let_on(client: Slow, followers: int) -> None:
    """Let the first answer go on once so many others wait for it."""
    assert client.begun.wait(TIMEOUT)
    turn = threading.Event()
    while waiting() < followers:
        turn.wait(0.001)
    client.go_on.set()


WAYS = [[stream] * 4, [stream, whole, stream, whole], [whole, stream, whole, stream]]


@pytest.mark.parametrize("ways", WAYS, ids=["streams", "a stream first", "a whole first"])
def test_threads_share_the_answer(ways: list[Callable[[llmcall.LLMClient], Any]]) -> None:
    """Four equal calls in threads send one request, and all get its text; a replay gives it too."""
    client = Slow()
    with llmcall.cassette("run.jsonl"), ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ways[0], client)]
        assert client.begun.wait(TIMEOUT)
        futures += [pool.submit(way, client) for way in ways[1:]]
        let_on(client, 3)
        assert [future.result(TIMEOUT) for future in futures] == ["answer 0"] * 4
    assert client.count == 1
    assert (client.usage.calls, client.usage.cached_calls) == (1, 3)
    with llmcall.cassette("run.jsonl", mode="none"):
        assert [way(client) for way in ways] == ["answer 0"] * 4


@pytest.mark.parametrize(
    "ways",
    [[astream] * 4, [astream, awhole, astream, awhole], [awhole, astream, awhole, astream]],
    ids=["streams", "a stream first", "a whole first"],
)
def test_tasks_share_the_answer(ways: list[Callable[[llmcall.LLMClient], Any]]) -> None:
    """So do four tasks of one event loop."""
    client = Slow()

    async def run() -> list[Any]:
        letting = asyncio.create_task(asyncio.to_thread(let_on, client, 3))
        found = await asyncio.wait_for(asyncio.gather(*(way(client) for way in ways)), TIMEOUT)
        await letting
        return list(found)

    assert asyncio.run(run()) == ["answer 0"] * 4
    assert client.count == 1


def answering() -> Iterator[Any]:
    """Give a program's server that answers each request with a stream of its own."""
    for number in range(10):
        yield [*chunks_of(f"answer {number}"), b"[DONE]"]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["threads", "tasks"])
def test_a_programs_equal_streams_share_the_answer(asynchronous: bool) -> None:
    """Four equal streams of a program at once are one request, and replay as what they were."""
    answers, requests = answering(), []
    begun = threading.Barrier(4)

    def answer(request: Any) -> Any:
        requests.append(request)
        return streamed_answer(b"".join(map(event, next(answers))))

    def text_in(chunk: Any) -> str:
        return "".join(choice.delta.content or "" for choice in chunk.choices)

    def run(mode: str) -> list[str]:
        asked: Any = {"model": "m", "messages": QUESTION, "stream": True}
        transport = http.MockTransport(answer)

        def ask(client: openai.OpenAI) -> str:
            begun.wait(TIMEOUT)
            return "".join(map(text_in, client.chat.completions.create(**asked)))

        async def aask(client: openai.AsyncOpenAI) -> str:
            chunks = await client.chat.completions.create(**asked)
            return "".join([text_in(chunk) async for chunk in chunks])

        async def arun() -> list[str]:
            http_client = llmcall.async_http_client(transport=transport, cache_mode=mode)
            async with openai.AsyncOpenAI(api_key=KEY, http_client=http_client) as client:
                return list(await asyncio.gather(*(aask(client) for _ in range(4))))

        if asynchronous:
            return asyncio.run(arun())
        http_client = llmcall.http_client(transport=transport, cache_mode=mode)
        client = openai.OpenAI(api_key=KEY, http_client=http_client)
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(ask, [client] * 4))

    live = run("auto")
    assert live == ["answer 0"] * 4 and len(requests) == 1
    assert run("replay") == live


def test_the_next_asks_where_a_reader_leaves() -> None:
    """A stream whose reader leaves gives nothing to others: the next one asks."""
    client = Slow()
    first = client.stream_message(QUESTION)
    assert next(first) == "answer "
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(way, client) for way in (stream, whole)]
        while waiting() < 2:
            pass
        first.close()
        assert [future.result(TIMEOUT) for future in futures] == ["answer 1"] * 2
    assert client.count == 2


def test_the_next_asks_where_a_stream_fails() -> None:
    """So it does where the stream breaks off: the others get a whole answer."""
    client = Slow(0)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(stream, client)
        assert client.begun.wait(TIMEOUT)
        others = [pool.submit(way, client) for way in (stream, whole)]
        let_on(client, 2)
        with pytest.raises(llmcall.ServiceError, match="broken off"):
            first.result(TIMEOUT)
        assert [each.result(TIMEOUT) for each in others] == ["answer 1"] * 2


@pytest.mark.parametrize("way", [stream, whole])
def test_a_thread_does_not_wait_for_its_own_stream(
    way: Callable[[llmcall.LLMClient], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It asks for itself, and is told that what it gets is not what is recorded."""
    client = Slow()
    client.go_on.set()
    with llmcall.cassette("run.jsonl"):
        first = client.stream_message(QUESTION)
        begun = next(first)
        assert way(client) == "answer 1"
        assert "was made while a stream of the same request is being read" in caplog.text
        assert begun + "".join(first) == "answer 0"
        assert way(client) == "answer 0"
    with llmcall.cassette("run.jsonl", mode="none"):
        assert way(client) == "answer 0"


@pytest.mark.parametrize("way", [astream, awhole])
def test_a_task_does_not_wait_for_its_own_stream(
    way: Callable[[llmcall.LLMClient], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does a task."""
    client = Slow()
    client.go_on.set()

    async def run() -> tuple[str, str]:
        first = client.astream_message(QUESTION)
        begun = await anext(first)
        beside = await asyncio.wait_for(way(client), TIMEOUT)
        return beside, begun + "".join([piece async for piece in first])

    assert asyncio.run(run()) == ("answer 1", "answer 0")
    assert "was made while a stream of the same request is being read" in caplog.text
    assert asyncio.run(way(client)) == "answer 0"


def test_nobody_waits_for_a_reader_who_waits_for_him(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who waits for another task that asks the same gets its answer, and so does that."""
    monkeypatch.setattr(flights, "PATIENCE", 0.05)
    client = Slow()
    client.go_on.set()

    async def run() -> tuple[str, str]:
        first = client.astream_message(QUESTION)
        begun = await anext(first)
        beside = await asyncio.wait_for(asyncio.create_task(astream(client)), TIMEOUT)
        return beside, begun + "".join([piece async for piece in first])

    assert asyncio.run(run()) == ("answer 1", "answer 0")


def test_a_dropped_stream_keeps_nobody_waiting() -> None:
    """A stream that its reader drops without a word makes way for the next one."""
    client = Slow()

    def begin() -> None:
        first = client.stream_message(QUESTION)
        assert next(first) == "answer "

    begin()
    gc.collect()
    assert whole(client) == "answer 1"
