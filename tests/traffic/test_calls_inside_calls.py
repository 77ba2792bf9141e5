"""Calls inside other ones, in the loop over a stream or in a transport: none waits for what the outer
one holds, whatever limits it.

A stream holds its slot until its first piece; a call that a transport makes releases the slot of the call
that the transport sends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from clients import KEY, http, streamed_answer
from servers import chunks_of, completion, event

import llmcall
from llmcall import BudgetExceededError
from llmcall.testing import ScriptedClient

LONGEST = 30.0  # seconds: a call that waits longer waits for ever
ONE_AT_ONCE = {"limits_max_concurrent_calls": 1, "on_error": "raise"}
Ask = Callable[[llmcall.LLMClient], Any]


def answer(asked: Any) -> Any:
    """Answer a question, or a text with an embedding."""
    return [[1.0]] * len(asked) if isinstance(asked[0], str) else completion("one two three")


def client(**settings: Any) -> ScriptedClient:
    """Return a client that answers everything."""
    return ScriptedClient(answer, **{"on_error": "raise", **settings})


def ask(asked: llmcall.LLMClient) -> Any:
    """Ask something within the deadline."""
    return asked.send_message("inner", max_tokens=50, deadline=LONGEST)


def ask_in_a_map(asked: llmcall.LLMClient) -> Any:
    """Ask by a map."""
    return llmcall.map(lambda text: asked.send_message(text, deadline=LONGEST), ["a", "b"])


def ask_in_an_imap(asked: llmcall.LLMClient) -> Any:
    """Ask by an iterator of results."""
    return list(llmcall.imap(lambda text: asked.send_message(text, deadline=LONGEST), ["a", "b"]))


def ask_in_a_stream(asked: llmcall.LLMClient) -> Any:
    """Ask inside a further stream."""
    with asked.stream_message("further", max_tokens=50, deadline=LONGEST) as stream:
        next(stream)
        return ask(asked)


def ask_in_a_loop(asked: llmcall.LLMClient) -> Any:
    """Ask in an event loop of its own."""

    async def main() -> Any:
        return await asked.asend_message("inner", deadline=LONGEST)

    return asyncio.run(main())


WAYS: dict[str, Ask] = {
    "a call": ask,
    "embeddings": lambda asked: asked.get_embedding(["a", "b"], deadline=LONGEST),
    "a map": ask_in_a_map,
    "an imap": ask_in_an_imap,
    "a stream": ask_in_a_stream,
    "a loop": ask_in_a_loop,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_call_inside_a_stream_goes_on_at_once(way: Ask, caplog: pytest.LogCaptureFixture) -> None:
    """However it is made, it finds the slot free, and there is nothing to say."""
    asked = client(**ONE_AT_ONCE)
    with asked.stream_message("outer") as stream:
        assert [bool(way(asked)) for _ in stream] == [True] * 3  # its answer has three words
    assert not caplog.messages


async def agather(asked: llmcall.LLMClient) -> Any:
    """Ask by tasks that the stream's reader waits for."""
    texts = ("a", "b", "c")
    return await asyncio.gather(*(asked.asend_message(text, deadline=LONGEST) for text in texts))


async def aask(asked: llmcall.LLMClient) -> Any:
    """Ask in the reader's task."""
    return await asked.asend_message("inner", max_tokens=50, deadline=LONGEST)


async def ask_in_a_thread(asked: llmcall.LLMClient) -> Any:
    """Ask in a thread that the stream's reader waits for."""
    return await asyncio.to_thread(ask, asked)


async def ask_blocking(asked: llmcall.LLMClient) -> Any:
    """Ask in the loop's own thread, where nothing else goes on meanwhile."""
    return ask(asked)


@pytest.mark.parametrize("way", [aask, agather, ask_in_a_thread, ask_blocking])
def test_a_call_inside_an_asynchronous_stream_goes_on_at_once(way: Callable[..., Any]) -> None:
    """In its reader's task, in others and in threads."""
    asked = client(**ONE_AT_ONCE)

    async def main() -> None:
        async with asked.astream_message("outer") as stream:
            assert [bool(await way(asked)) async for _ in stream] == [True] * 3

    asyncio.run(main())


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_call_inside_a_transport_gets_the_slot_of_the_outer_call(way: Ask) -> None:
    """The transport's own client may have the same endpoint."""

    inner: list[Any] = []

    def ask_another(messages: Any) -> Any:
        if messages[-1:] == [{"role": "user", "content": "outer"}]:
            inner.append(way(asked))
        return answer(messages)

    asked = ScriptedClient(ask_another, **ONE_AT_ONCE)
    assert asked.send_message("outer", deadline=LONGEST).content == "one two three"
    assert [bool(found) for found in inner] == [True]


def test_a_budget_for_the_outer_call_alone_refuses_a_call_inside_a_transport() -> None:
    """Neither could settle before the other."""

    def ask_another(messages: Any) -> str:
        return str(ask(asked).content) if messages[-1]["content"] == "outer" else "yes"

    asked = ScriptedClient(ask_another, on_error="raise")
    with llmcall.budget(calls=1), pytest.raises(BudgetExceededError, match="reserve all"):
        asked.send_message("outer", deadline=LONGEST)


class Program:
    """A program that asks in the loop over a stream, and does not know llmcall."""

    def __init__(self) -> None:
        self.body: Any = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
        self.transport = http.MockTransport(self._answer)

    def _answer(self, request: Any) -> Any:
        if b'"stream"' in request.content:
            return streamed_answer(b"".join(map(event, [*chunks_of("one", "two"), b"[DONE]"])))
        return http.Response(200, json=completion())

    def run(self) -> list[Any]:
        """Ask in threads; return what is asked inside the stream."""
        front = llmcall.http_client(transport=self.transport, **ONE_AT_ONCE)
        with openai.OpenAI(api_key=KEY, http_client=front) as sdk:
            create = sdk.chat.completions.create
            return [create(**self.body, seed=1) for _ in create(**self.body, stream=True)]

    async def arun(self) -> list[Any]:
        """Ask in tasks; return likewise."""
        front = llmcall.async_http_client(transport=self.transport, **ONE_AT_ONCE)
        async with openai.AsyncOpenAI(api_key=KEY, http_client=front) as sdk:
            create = sdk.chat.completions.create
            return [
                await asyncio.gather(*(create(**self.body, seed=seed) for seed in range(2)))
                async for _ in await create(**self.body, stream=True)
            ]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["threads", "tasks"])
def test_a_programs_call_inside_its_stream_does_not_wait_for_it(asynchronous: bool) -> None:
    """Limits hold for programs' calls as for llmcall's own."""
    asked = Program()
    found = asyncio.run(asyncio.wait_for(asked.arun(), LONGEST)) if asynchronous else asked.run()
    assert len(found) > 1  # for each piece


def in_two_threads(*work: Callable[[], Any]) -> list[Any]:
    """Run functions at once; return what each returned, or its budget's refusal."""

    def run(function: Callable[[], Any]) -> Any:
        try:
            return function()
        except BudgetExceededError as error:
            return error

    with ThreadPoolExecutor(len(work)) as threads:
        return list(threads.map(run, work))


# Budgets


LIMITS: dict[str, dict[str, Any]] = {
    "calls": {"calls": 1},
    "tokens": {"tokens": 80},
    "usd": {"usd": 80e-6},
}
PRICED = {"prices": {"m": (1.0, 1.0)}, "model": "m"}


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
def test_a_budget_for_the_stream_alone_refuses_a_call_inside_it(
    limit: dict[str, Any],
) -> None:
    """It could not settle before, and the budget is never passed; the error says what to do."""
    asked = client(**PRICED)
    with llmcall.budget(**limit), asked.stream_message("outer", max_tokens=50) as stream:
        next(stream)
        with pytest.raises(BudgetExceededError, match="read a stream to its end, or close it"):
            ask(asked)
        assert list(stream) == [" two", " three"]


def test_a_call_inside_a_stream_waits_for_other_threads_to_settle() -> None:
    """Their reservations come free, so that it is not refused."""
    asked = client(**PRICED)
    begun, answered = threading.Event(), threading.Event()

    def slow(messages: Any) -> Any:
        begun.set()
        answered.wait(LONGEST)
        return completion("yes")

    with llmcall.budget(tokens=200), ThreadPoolExecutor(1) as threads:
        other = ScriptedClient(slow, **PRICED)
        threads.submit(other.send_message, "Hello", max_tokens=50)
        begun.wait(LONGEST)
        with asked.stream_message("outer", max_tokens=50) as stream:
            next(stream)
            threading.Timer(0.2, answered.set).start()
            assert asked.send_message("inner", max_tokens=90, deadline=LONGEST).content


def test_of_two_threads_inside_streams_none_waits_for_the_others_stream() -> None:
    """Neither stream ends before the call inside it, which needs what the other stream has reserved. One
    that comes when the other was refused, and has closed its stream, is answered.
    """
    both_read = threading.Barrier(2)
    asked = client(**PRICED)

    def read() -> Any:
        with asked.stream_message("outer", max_tokens=50) as stream:
            next(stream)
            both_read.wait(LONGEST)
            return ask(asked)

    with llmcall.budget(tokens=150):
        found = in_two_threads(read, read)
    outcomes = {type(outcome) for outcome in found}
    assert BudgetExceededError in outcomes
    assert outcomes <= {llmcall.types.Reply, BudgetExceededError}


# Equal requests


def stored(**settings: Any) -> ScriptedClient:
    """Return a client whose equal calls share an answer."""
    return client(cache_mode="auto", **settings)


@pytest.mark.parametrize(
    "way",
    [
        lambda asked: asked.send_message("outer"),
        lambda asked: llmcall.map(asked.send_message, ["outer"]),
    ],
)
def test_an_equal_call_inside_a_stream_asks_itself(
    way: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own thread reads the stream, or waits for the map that makes the call."""
    asked = stored()
    with asked.stream_message("outer") as stream:
        next(stream)
        assert way(asked)
    assert "llmcall sends it separately" in caplog.text


def test_an_equal_call_of_a_task_that_the_reader_waits_for_asks_itself() -> None:
    """The reader cannot read on before it has its answer."""

    async def main() -> Any:
        asked = stored()
        async with asked.astream_message("outer") as stream:
            await anext(stream)
            return await asyncio.wait_for(asyncio.gather(asked.asend_message("outer")), LONGEST)

    assert [reply.content for reply in asyncio.run(main())] == ["one two three"]


def test_two_threads_inside_equal_streams_do_not_wait_for_each_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each asks what the other streams, whose reader waits for the first."""
    asked, both_read = stored(), threading.Barrier(2)

    def read(outer: str, inner: str) -> Any:
        with asked.stream_message(outer) as stream:
            next(stream)
            both_read.wait(LONGEST)
            return asked.send_message(inner, deadline=LONGEST).content

    found = in_two_threads(lambda: read("one", "other"), lambda: read("other", "one"))
    assert found == ["one two three"] * 2
    assert "llmcall sends it separately" in caplog.text
