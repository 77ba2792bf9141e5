"""Equal requests under way at once, outside any scope, some of them streamed: one answer serves all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import openai
import pytest
from clients import KEY, QUESTION, http, streamed_answer
from servers import chunks_of, event

import llmcall
from llmcall.core import effects, flights

TIMEOUT = 30.0  # seconds; a test that waits longer hangs


class Slow(llmcall.LLMClient):
    """A client that answers each request with a text of its own, in pieces; the first one waits.

    :ivar begun: is set when the first answer has begun.
    :ivar go_on: ends the first answer's waiting.
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


# What the calls wait for that wait for an equal one.
awaited: list[Future[Any]] = []


@pytest.fixture(autouse=True)
def _awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(future: Future[Any], seconds: float | None) -> effects.Wait:
        awaited.append(future)
        return effects.Wait(future, seconds)

    awaited.clear()
    monkeypatch.setattr(flights, "Wait", wait)


def wait_for_followers(count: int) -> None:
    """Wait until so many calls wait for an equal one."""
    turn = threading.Event()
    while sum(not future.done() for future in awaited) < count:
        turn.wait(0.001)


def let_on(client: Slow, followers: int) -> None:
    """End the first answer's waiting once so many others wait for it."""
    assert client.begun.wait(TIMEOUT)
    wait_for_followers(followers)
    client.go_on.set()


WAYS = [[stream] * 4, [stream, whole, stream, whole], [whole, stream, whole, stream]]


WaysToAsk = list[Callable[[llmcall.LLMClient], Any]]
in_all_orders = pytest.mark.parametrize(
    "ways", WAYS, ids=["streams", "a stream first", "a whole first"]
)


def shared(client: Slow, ways: WaysToAsk) -> list[Any]:
    """Ask the same in four threads, of which three wait for the first; return the texts."""
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ways[0], client)]
        assert client.begun.wait(TIMEOUT)
        futures += [pool.submit(way, client) for way in ways[1:]]
        let_on(client, 3)
        return [future.result(TIMEOUT) for future in futures]


@in_all_orders
def test_equal_calls_in_threads_are_one_request(ways: WaysToAsk) -> None:
    """All get its text, and usage counts three as saved."""
    client = Slow()
    assert shared(client, ways) == ["answer 0"] * 4
    assert client.count == 1
    assert (client.usage.calls, client.usage.cached_calls) == (1, 3)


@in_all_orders
def test_equal_calls_that_shared_an_answer_replay_it(ways: WaysToAsk) -> None:
    """A cassette holds it once for all."""
    client = Slow()
    with llmcall.cassette("run.jsonl"):
        shared(client, ways)
    with llmcall.cassette("run.jsonl", mode="none"):
        assert [way(client) for way in ways] == ["answer 0"] * 4


@pytest.mark.parametrize(
    "ways",
    [[astream] * 4, [astream, awhole, astream, awhole], [awhole, astream, awhole, astream]],
    ids=["streams", "a stream first", "a whole first"],
)
def test_equal_calls_in_tasks_are_one_request(ways: WaysToAsk) -> None:
    """All get its text."""
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


class Program:
    """A program that reads four equal streams at once, by threads or tasks, without knowing llmcall.

    :ivar requests: are those that reached its server, which answers each with another text.
    """

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous
        self.requests: list[Any] = []
        self._answers, self._begun = answering(), threading.Barrier(4)
        self._transport = http.MockTransport(self._answer)
        self._asked: Any = {"model": "m", "messages": QUESTION, "stream": True}

    def run(self, mode: str) -> list[str]:
        """Read the four streams; return their texts."""
        if self.asynchronous:
            return asyncio.run(self._arun(mode))
        http_client = llmcall.http_client(transport=self._transport, cache_mode=mode)
        client = openai.OpenAI(api_key=KEY, http_client=http_client)
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(self._ask, [client] * 4))

    def _answer(self, request: Any) -> Any:
        self.requests.append(request)
        return streamed_answer(b"".join(map(event, next(self._answers))))

    def _ask(self, client: openai.OpenAI) -> str:
        self._begun.wait(TIMEOUT)
        return "".join(map(text_in, client.chat.completions.create(**self._asked)))

    async def _aask(self, client: openai.AsyncOpenAI) -> str:
        chunks = await client.chat.completions.create(**self._asked)
        return "".join([text_in(chunk) async for chunk in chunks])

    async def _arun(self, mode: str) -> list[str]:
        http_client = llmcall.async_http_client(transport=self._transport, cache_mode=mode)
        async with openai.AsyncOpenAI(api_key=KEY, http_client=http_client) as client:
            return list(await asyncio.gather(*(self._aask(client) for _ in range(4))))


def text_in(chunk: Any) -> str:
    """Return the text in a chunk of the SDK's."""
    return "".join(choice.delta.content or "" for choice in chunk.choices)


@pytest.fixture(params=[False, True], ids=["threads", "tasks"])
def program(request: pytest.FixtureRequest) -> Program:
    """A program of each kind."""
    return Program(request.param)


def test_a_programs_equal_streams_are_one_request(program: Program) -> None:
    """All get its text."""
    assert program.run("auto") == ["answer 0"] * 4
    assert len(program.requests) == 1


def test_a_follower_asks_itself_if_the_reader_leaves_the_leading_stream() -> None:
    """The stream gives nothing to others."""
    client = Slow()
    first = client.stream_message(QUESTION)
    assert next(first) == "answer "
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(way, client) for way in (stream, whole)]
        wait_for_followers(2)
        first.close()
        assert [future.result(TIMEOUT) for future in futures] == ["answer 1"] * 2
    assert client.count == 2


def test_a_follower_asks_itself_if_the_leading_stream_breaks_off() -> None:
    """Its own reader has the error; the others get a whole answer."""
    client = Slow(0)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(stream, client)
        assert client.begun.wait(TIMEOUT)
        others = [pool.submit(way, client) for way in (stream, whole)]
        let_on(client, 2)
        with pytest.raises(llmcall.ServiceError, match="broken off"):
            first.result(TIMEOUT)
        assert [future.result(TIMEOUT) for future in others] == ["answer 1"] * 2


@pytest.mark.parametrize("way", [astream, awhole])
def test_a_task_does_not_wait_for_its_own_stream(
    way: Callable[[llmcall.LLMClient], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It asks for itself, with a warning; later calls get the stream's answer."""
    client = Slow()
    client.go_on.set()

    async def run() -> tuple[str, str]:
        first = client.astream_message(QUESTION)
        begun = await anext(first)
        beside = await way(client)
        return beside, begun + "".join([piece async for piece in first])

    assert asyncio.run(asyncio.wait_for(run(), TIMEOUT)) == ("answer 1", "answer 0")
    assert "was made inside another call while the same request is under way" in caplog.text
    assert asyncio.run(way(client)) == "answer 0"
