"""Streams whose reader leaves: what they used is in the usage as it is in the budgets, and never 0."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from streaming import USAGE, chunk, chunks_of

import llmcall
from llmcall.engine.call import answer
from llmcall.engine.prepare import prepare_chat
from llmcall.engine.effects import Emit, Next, Open
from llmcall.errors import ServiceError

PRICES = {"gpt-4o-mini": (1.0, 2.0)}
PIECES = ("one", " two", " three")
Leave = Callable[..., None]


class Streamed(llmcall.LLMClient):
    """Stream chunks; an exception among them is raised."""

    api_type = "streamed"

    def __init__(self, *chunks: Any, **settings: Any) -> None:
        self.chunks = chunks
        super().__init__(**{"model": "gpt-4o-mini", "prices": PRICES, "retry_waiting_time": 0, **settings})

    def send(self, request: Any, timeout: float | None) -> Any:
        """Never answer as a whole."""
        raise AssertionError("a stream was asked for")

    def stream(self, request: Any, timeout: float | None) -> Iterator[Any]:
        """Yield the chunks."""
        for each in self.chunks:
            if isinstance(each, BaseException):
                raise each
            yield each


class AStreamed(Streamed):
    """Stream chunks to a task, too."""

    async def astream(self, request: Any, timeout: float | None) -> AsyncIterator[Any]:
        """Yield the chunks."""
        for each in self.stream(request, timeout):
            yield each


class Whole(llmcall.LLMClient):
    """Answer in one piece, and report some tokens."""

    api_type = "whole"

    def __init__(self, usage: Any) -> None:
        self.answer = {"choices": [{"message": {"content": "one two three"}, "finish_reason": "stop"}], "usage": usage}
        super().__init__(model="gpt-4o-mini", prices=PRICES)

    def send(self, request: Any, timeout: float | None) -> Any:
        """Return the answer."""
        return self.answer


def leave(client: llmcall.LLMClient, **arguments: Any) -> None:
    """Read one piece and close the stream."""
    with client.stream_message("Hello", **arguments) as stream:
        next(stream)


def drop(client: llmcall.LLMClient, **arguments: Any) -> None:
    """Read one piece, and forget the stream in a cycle, which the garbage collector finds."""
    kept: list[Any] = [client.stream_message("Hello", **arguments)]
    kept.append(kept)
    next(kept[0])
    del kept
    gc.collect()


def aleave(client: llmcall.LLMClient, **arguments: Any) -> None:
    """Read one piece in a task and close the stream."""

    async def main() -> None:
        async with client.astream_message("Hello", **arguments) as stream:
            await anext(stream)

    asyncio.run(main())


def adrop(client: llmcall.LLMClient, **arguments: Any) -> None:
    """Read one piece in a task and forget the stream, which the event loop then closes."""

    async def main() -> None:
        await anext(client.astream_message("Hello", **arguments))
        while not client.usage.calls:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), 60))


LEAVING = pytest.mark.parametrize("leaving", [leave, drop, aleave, adrop])


def counted(client: llmcall.LLMClient, text: str) -> tuple[int, int]:
    """Return the tokens of the prompt and of a text, as they are counted here."""
    prompt = client.count_tokens([{"role": "user", "content": "Hello"}])
    return int(prompt), int(client.count_tokens(text)) if text else 0


def billed(leaving: Leave, client: llmcall.LLMClient, tokens: tuple[int, int]) -> None:
    """Let the reader of a client's stream leave; usage and budget say that it is a call of so many tokens."""
    with llmcall.budget(usd=1, tokens=100_000) as budget, llmcall.track() as usage, llmcall.scope("trial"):
        leaving(client)
    cost = (tokens[0] * 1.0 + tokens[1] * 2.0) / 1e6
    found = (usage.calls, usage.cached_calls, usage.retries, usage.errors, usage.input_tokens, usage.output_tokens)
    assert found == (1, 0, 0, 0, *tokens)
    assert usage.cost == pytest.approx(cost)
    assert (usage.by_scope.keys(), usage.by_model.keys()) == ({"trial"}, {"gpt-4o-mini"})
    assert budget.spent == (pytest.approx(usage.cost), sum(tokens), usage.calls)


@LEAVING
@pytest.mark.parametrize("kind", [Streamed, AStreamed])
def test_it_counts_as_a_call(leaving: Leave, kind: type[Streamed]) -> None:
    """The prompt and what came until the reader left are billed, by the same count as in a budget."""
    client = kind(*chunks_of(*PIECES))
    billed(leaving, client, counted(client, "one"))


@LEAVING
def test_without_a_budget_it_counts_as_well(leaving: Leave) -> None:
    """The usage does not need a budget or limits to know what was used."""
    client = Streamed(*chunks_of(*PIECES))
    leaving(client)
    prompt, output = counted(client, "one")
    assert (client.usage.calls, client.usage.input_tokens, client.usage.output_tokens) == (1, prompt, output)


@LEAVING
def test_what_the_server_reported_counts(leaving: Leave) -> None:
    """A server that reports with each chunk what was used so far is believed."""
    usages = ({**USAGE, "completion_tokens": number} for number in range(10))
    client = Streamed(*({**each, "usage": usage} for each, usage in zip(chunks_of(*PIECES), usages, strict=False)))
    billed(leaving, client, (USAGE["prompt_tokens"], 1))


@LEAVING
def test_a_reader_who_leaves_an_answer_in_one_piece(leaving: Leave) -> None:
    """Where the transport does not stream, the whole answer was paid for and is counted as reported."""
    billed(leaving, Whole(USAGE), (USAGE["prompt_tokens"], USAGE["completion_tokens"]))


def test_what_nobody_reported_of_a_whole_answer_is_unknown() -> None:
    """A whole answer whose tokens the server did not report is unknown, as where its reader stays."""
    client = Whole(None)
    leave(client)
    usage = client.usage
    assert (usage.calls, usage.input_tokens, usage.output_tokens, usage.cost) == (1, None, None, None)


def test_an_unknown_price_is_none() -> None:
    """Without a price the tokens are known, and the cost is None, never 0."""
    client = Streamed(*chunks_of(*PIECES), model="my-model")
    leave(client)
    assert (client.usage.calls, client.usage.cost) == (1, None)
    assert client.usage.input_tokens


def tool(name: str | None, arguments: str) -> dict[str, Any]:
    """Return a chunk with a piece of a tool call."""
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return chunk(tool_calls=[{"index": 0, "id": "call-1", "type": "function", "function": function}])


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([chunk("", role="assistant")], ""),
        ([chunk(reasoning_content="Let me"), chunk(reasoning_content=" think")], "Let me think"),
        ([chunk(reasoning="Let me"), chunk("one", reasoning=" think")], "Let me thinkone"),
        ([tool("buy", '{"item"'), tool(None, ': "bread"}')], 'buy{"item": "bread"}'),
        ([{"choices": [], "prompt_filter_results": []}], ""),
    ],
    ids=["its beginning", "reasoning", "reasoning and text", "a tool call", "the prompt's filter"],
)
def test_an_interrupt_before_the_text(chunks: list[Any], text: str) -> None:
    """Once a chunk has come, a model has read the prompt: reasoning and calls are billed as text is."""
    client = Streamed(*chunks, KeyboardInterrupt())

    def interrupted(client: llmcall.LLMClient) -> None:
        with pytest.raises(KeyboardInterrupt):
            list(client.stream_message("Hello"))

    billed(interrupted, client, counted(client, text))


@pytest.mark.parametrize("kind", [Streamed, AStreamed])
def test_each_of_several_answers_counts(kind: type[Streamed]) -> None:
    """All choices are billed, though a reader sees the first."""
    second = {**chunk(), "choices": [{"index": 1, "delta": {"content": "four five"}, "finish_reason": None}]}
    client = kind(second, *chunks_of(*PIECES))
    prompt, output = counted(client, "one")
    billed(lambda client: aleave(client, n=2), client, (prompt, output + counted(client, "four five")[1]))


def test_nothing_came() -> None:
    """A stream that is closed before its first piece, or interrupted before its first chunk, is no call."""
    client = Streamed(KeyboardInterrupt())
    with llmcall.budget(tokens=100_000) as budget:
        client.stream_message("Hello").close()
        with pytest.raises(KeyboardInterrupt):
            next(client.stream_message("Hello"))
    assert (client.usage, budget.spent.calls, budget.spent.tokens) == (llmcall.Usage(), 0, 0)


def test_a_stream_that_fails_is_an_error() -> None:
    """What breaks off by itself failed for good: an error and no call, and its reservation is given back."""
    client = Streamed(*chunks_of(*PIECES)[:2], ServiceError("cut"))
    with llmcall.budget(tokens=100_000) as budget:
        assert list(client.stream_message("Hello")) == ["one"]
    assert (client.usage.calls, client.usage.errors, client.usage.input_tokens, budget.spent.tokens) == (0, 1, 0, 0)


def test_the_attempts_before_count_as_retries() -> None:
    """A stream that began at the third attempt has two retries, whoever leaves it."""
    client = Streamed()
    begun = iter([[ServiceError("busy")], [ServiceError("busy")], chunks_of(*PIECES)])
    client.stream = lambda request, timeout: Streamed.stream(Streamed(*next(begun)), request, timeout)  # type: ignore[method-assign]
    leave(client)
    assert (client.usage.calls, client.usage.retries, client.usage.errors) == (1, 2, 0)


def test_it_is_read_to_its_end_once() -> None:
    """A stream that was read to its end and then closed counts once, as reported."""
    client = Streamed(*chunks_of(*PIECES))
    with llmcall.budget(tokens=100_000) as budget, client.stream_message("Hello") as stream:
        assert "".join(stream) == "one two three"
    assert (client.usage.calls, client.usage.input_tokens) == (1, USAGE["prompt_tokens"])
    assert budget.spent.tokens == USAGE["prompt_tokens"] + USAGE["completion_tokens"]


def test_a_named_budget_agrees() -> None:
    """A budget that processes share says the same as the usage."""
    client = AStreamed(*chunks_of(*PIECES))
    with llmcall.budget(name="survey") as budget:
        for leaving in (adrop, leave, drop, aleave):
            leaving(client)
    usage = client.usage
    assert budget.spent == (pytest.approx(usage.cost), (usage.input_tokens or 0) + (usage.output_tokens or 0), 4)


def test_exact_from_many_threads() -> None:
    """No stream is lost or counted twice, however many threads leave theirs at once."""
    client = Streamed(*chunks_of(*PIECES))
    prompt, output = counted(client, "one")
    with llmcall.budget(tokens=10_000_000) as budget, ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda _: leave(client), range(100)))
    usage = client.usage
    assert (usage.calls, usage.input_tokens, usage.output_tokens) == (100, 100 * prompt, 100 * output)
    assert budget.spent[1:] == (100 * (prompt + output), 100)


def test_the_garbage_collector_ends_the_parts_in_any_order() -> None:
    """A flow that is ended from within, as in a cycle that is collected, yields no more, and counts all the same."""
    client = Streamed(*chunks_of(*PIECES))
    flow = answer(prepare_chat(client, "Hello", {}), stream=True)
    effect = next(flow)
    while not isinstance(effect, Emit):
        assert isinstance(effect, Open | Next)
        effect = flow.send(client.stream(None, None) if isinstance(effect, Open) else next(effect.chunks))
    flow.close()
    assert (client.usage.calls, client.usage.input_tokens) == (1, counted(client, "")[0])
