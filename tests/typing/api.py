"""Types as checkers see them: mypy --strict checks this file, which is never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from typing_extensions import assert_type

import llmcall
from llmcall import LLMCall, LLMClient, ResponseCache, llm
from llmcall.typed.functions import LLMFunction  # what @llm returns has no public name
from llmcall.types import (
    Answer,
    CallInfo,
    Listener,
    Record,
    Reply,
    Request,
    Transport,
    Usage,
)


class Person:
    """Somebody who is asked."""

    name = "Lisa"

    @llm(temperature=1)
    def would_buy(person, product: str, price: int = 3) -> bool:
        """You are {{ person.name }}. Would you buy {{ product }} for {{ price }}?"""
        raise NotImplementedError


@llm
def decide(names: Sequence[str]) -> Literal["buy", "sell"]:
    """What would {{ names }} do?"""
    raise NotImplementedError


def send(client: LLMClient) -> None:
    """Send messages."""
    assert_type(client.send_message("Hello"), Reply | None)
    assert_type(client.send_message("Hello", model="gpt-4o-mini", on_error="none"), Reply | None)
    assert_type(client.send_message("Hello", on_error="raise"), Reply)
    assert_type(client.send_message("Hello", on_error="raise").content, str | None)
    assert_type(client.build_request("Hello"), Request)
    with client.stream_message("Hello") as stream:
        assert_type(next(stream), str)
        assert_type(stream.reply, Reply | None)
    messages = [{"role": "user", "content": "Hello"}]
    messages.append(client.send_message(messages, on_error="raise"))
    assert_type(client.count_tokens(messages).estimated, bool)
    client.send_message(messages, tools=[decide, {"type": "function"}], response_format=Person)
    client.send_message(3)  # type: ignore[call-overload]


class Own(Transport):
    """A transport of one's own."""

    def send(self, request: Request, timeout: float | None) -> dict[str, object]:
        """Send nothing."""
        assert_type(request.kind, str)
        return {}


class Counter(Listener):
    """A listener of one's own."""

    count = 0

    def answered(self, call: CallInfo, record: Record) -> None:
        """Count the answers of a scope."""
        assert_type(call.scope, str)
        self.count += record.is_hit


def plug_in() -> None:
    """Use what is one's own."""
    assert_type(LLMClient(transport=Own()), LLMClient)
    with Counter() as counter:
        assert_type(counter, Counter)


@llmcall.cassette("market.jsonl")
def play(rounds: int) -> bool:
    """Play in a cassette."""
    return rounds > 3


async def asend(client: LLMClient) -> None:
    """Send messages without blocking."""
    assert_type(await client.asend_message("Hello"), Reply | None)
    assert_type(await client.asend_message("Hello", on_error="raise"), Reply)
    assert_type(await client.aget_embedding("Hello"), list[float] | None)
    assert_type(await decide.acall(["Lisa"]), Literal["buy", "sell"])


def embed(client: LLMClient) -> None:
    """Embed texts."""
    assert_type(client.get_embedding("Hello"), list[float] | None)
    assert_type(client.get_embedding(["Hello", "you"]), list[list[float]] | None)


def call() -> None:
    """Call functions of a model."""
    assert_type(decide(["Lisa"]), Literal["buy", "sell"])
    assert_type(decide.run(names=["Lisa"]), Answer)
    assert_type(decide.llm_call, LLMCall)
    assert_type(Person().would_buy("bread"), bool)
    assert_type(Person().would_buy("bread", price=1), bool)
    assert_type(Person.would_buy(Person(), "bread"), bool)
    _: LLMFunction[[Sequence[str]], Literal["buy", "sell"]] = llm()(decide)
    decide()  # type: ignore[call-arg]
    decide([1])  # type: ignore[list-item]
    Person().would_buy(3)  # type: ignore[arg-type]


def process() -> None:
    """Use what holds for the process."""
    assert_type(llmcall.client(), LLMClient)
    assert_type(llmcall.client("azure").cache, ResponseCache)
    assert_type(llmcall.settings().model, str)
    assert_type(llmcall.count_tokens("Hello").estimated, bool)
    with (
        llmcall.cassette("market.jsonl", mode="once", actor="system", hosts=["api.example"]),
        llmcall.scope("trial-3"),
        llmcall.budget(usd=1),
    ):
        assert_type(price_of("bread"), float)
    assert_type(play(3), bool)
    assert_type(llmcall.CacheMissError().miss, llmcall.types.Miss | None)
    assert_type(llmcall.compare("a.jsonl", "b.jsonl").same, int)


@llmcall.recorded
def price_of(item: str) -> float:
    """Look a price up."""
    return 3.0


def count(client: LLMClient) -> None:
    """Count."""
    assert_type(client.count_tokens("Hello") + 1, int)
    assert_type(client.usage, Usage)
