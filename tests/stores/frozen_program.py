"""A program with a call of every kind; ``tests/stores/frozen/`` holds what an earlier version recorded of
it.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, Literal

import openai
import pydantic

import llmcall
from llmcall.types import Request

BASE = next(base for base in openai.DefaultHttpxClient.__mro__ if base.__name__ == "Client")
# httpx for openai 1 and 2, httpx2 for openai 3
http: Any = importlib.import_module(BASE.__module__.partition(".")[0])
MODEL = "gpt-4o-mini"
# What config.ini said when the program was recorded; a cassette knows it itself.
SETTINGS: dict[str, Any] = {
    "temperature": 0.9,
    "aliases": {"cheap": "gpt-4o-mini-2024-07-18"},
    "cache_namespace": "market",
    "cache_normalize": ["times"],
    "models": {"large": {"refused_parameters": ("top_p",)}},
}
SEARCH = "search.example.org"
LONG = "The market opens at dawn.\n" * 30 + "Käse: 🧀\u2028"
PICTURE = {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "price_of",
        "description": "Look up a price.",
        "parameters": {"type": "object", "properties": {"item": {"type": "string"}}},
    },
}


class Offer(pydantic.BaseModel):
    item: str
    coins: float = pydantic.Field(gt=0)
    words: str | None = None


class Model(llmcall.LLMClient):
    """Answer each request otherwise; the context of ``small`` is always too small."""

    api_type = "frozen"

    def __init__(self, **settings: Any) -> None:
        self.asked = 0
        super().__init__(
            model=MODEL, fallbacks={"small": ("large",)}, **{"retry_max_attempts": 1, **settings}
        )

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Answer with a number, in the form that was asked for."""
        self.asked += 1
        if request.kind == "embedding":
            data = [
                {"index": index, "embedding": [self.asked + 0.1, len(text) / 3]}
                for index, text in enumerate(request.body["input"])
            ]
            return {"model": request.model, "data": data, "usage": {"prompt_tokens": 4}}
        if request.model == "small":
            raise llmcall.ContextLengthError("the prompt is too long")
        message: dict[str, Any] = {"role": "assistant", "content": self._text(request)}
        reason = "stop"
        if request.body.get("tools") and request.messages[-1]["role"] == "user":
            arguments = f'{{"item": "bread {self.asked}"}}'
            call = {"name": "price_of", "arguments": arguments}
            message |= {
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": call}],
            }
            reason = "tool_calls"
        if "secret" in str(request.messages[-1]["content"]):
            message |= {"content": None, "refusal": "I cannot say."}
        choices = [
            {"index": index, "message": message, "finish_reason": reason, "logprobs": None}
            for index in range(request.body.get("n") or 1)
        ]
        return {
            "id": f"chatcmpl-{self.asked}",
            "created": 1700000000 + self.asked,
            "model": request.model,
            "choices": choices,
            "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
        }

    def _text(self, request: Request) -> str:
        question = str(request.messages[-1]["content"])
        if "response_format" in request.body:
            fields = request.body["response_format"]["json_schema"]["schema"]["properties"]
            if "value" in fields:
                value = '"cheese"' if "cheese" in question else str(self.asked)
                return f'{{"value": {value}}}'
            return f'{{"item": "bread", "coins": {self.asked}, "words": null}}'
        if "at length" in question:
            return f"Answer {self.asked}.\n" + LONG
        return f"Answer {self.asked}."


def answer_over_http(request: Any) -> Any:
    """Answer a program's own HTTP requests: chats, and searches."""
    answer_over_http.asked += 1  # type: ignore[attr-defined]
    number = answer_over_http.asked  # type: ignore[attr-defined]
    if request.url.host == SEARCH:
        return http.Response(200, json={"found": [f"page {number}", LONG]})
    message = {"role": "assistant", "content": f"Said {number}."}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    answer = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [choice],
        "usage": usage,
    }
    return http.Response(200, json=answer)


answer_over_http.asked = 0  # type: ignore[attr-defined]


def refuse_over_http(request: Any) -> Any:
    """Answer nothing: a replay sends no request."""
    raise AssertionError(f"a replay sent {request.url}")


def seen(reply: Any) -> Any:
    """Return what is compared of a reply."""
    message = {name: reply[name] for name in sorted(reply)}
    return [message, reply.cache_key, reply.sample, reply.finish_reason, reply.usage.output_tokens]


def play(
    client: llmcall.LLMClient,
    over_http: Any = refuse_over_http,
    waits: tuple[int, ...] = (6, 0, 3),
) -> dict[str, Any]:
    """Make all calls, and return what came of each.

    :param waits: how often each of some tasks lets others go first.
    """
    results: dict[str, Any] = {}

    def ask(name: str, messages: Any, **arguments: Any) -> Any:
        reply = client.send_message(messages, on_error="raise", **arguments)
        results[name] = seen(reply)
        return reply

    _chats(client, ask, results)
    _scopes(client, ask, results)
    _functions(results)
    _typed(client, results)
    _over_http(over_http, results, waits)
    return results


def _chats(client: llmcall.LLMClient, ask: Any, results: dict[str, Any]) -> None:
    ask("a question", "What does bread cost?")
    ask(
        "sampling",
        "Name a fruit.",
        temperature=0.7,
        top_p=0.5,
        max_tokens=9,
        stop=["\n"],
        seed=4,
        n=2,
    )
    ask("a long answer", f"Tell at length. {LONG}", sample=1)
    ask("a refusal", "What is the secret?")
    ask("a fallback", "What does cheese cost?", model="small", top_p=0.5)
    ask("an alias and a time", "It is 12:30. Milk?", model="cheap")
    ask("a server's own parameter", "And milk?", extra_body={"top_k": 40})
    picture = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": PICTURE},
    ]
    ask("a picture", [{"role": "user", "content": picture}])
    messages: list[Any] = [{"role": "user", "content": "Bread?"}]
    messages.append(ask("a tool call", messages, tools=[TOOL], tool_choice="auto"))
    messages.append({"role": "tool", "tool_call_id": "c1", "content": "3"})
    ask("a tool's result", messages, tools=[TOOL])
    with client.stream_message("Count the stalls.") as stream:
        results["a stream's text"] = "".join(stream)
    results["a stream"] = seen(stream.reply)
    results["a parsed answer"] = client.send_message(
        "What do you offer?", response_format=Offer
    ).parsed.model_dump()
    results["an embedding"] = client.get_embedding("cheese", "text-embedding-3-small")
    results["embeddings"] = client.get_embedding(
        ["milk", LONG], "text-embedding-3-small", dimensions=2
    )


def _scopes(client: llmcall.LLMClient, ask: Any, results: dict[str, Any]) -> None:
    kept = llmcall.scope("kept")
    with llmcall.scope("trial-3"):
        for turn in range(2):
            with llmcall.scope("lisa"):
                ask(f"lisa in round {turn}", "Buy or sell?")
        with kept:
            ask("kept", "Buy or sell?")
        with kept:
            ask("kept again", "Buy or sell?", temperature=1)
            ask("kept once more", "Buy or sell?")
        messages: list[Any] = [{"role": "system", "content": "You are Tom."}]
        with llmcall.scope("tom"):
            for turn in range(6):
                messages.append({"role": "user", "content": f"It is day {turn}. {LONG[:300]}"})
                messages.append(ask(f"tom on day {turn}", messages))
        with llmcall.scope("streams"):
            for turn in range(2):
                results[f"stream {turn}"] = "".join(client.stream_message("Count the stalls."))
        items = ["bread", "milk", "bread"]
        results["a map"] = llmcall.map(
            lambda item: seen(client.send_message(f"Price of {item}?", on_error="raise")),
            items,
            repeats=2,
            workers=1,
        )
    with llmcall.scope("rep-1"):
        for arm in ("control", "treated"):
            with llmcall.arm(arm):
                ask(f"{arm} alike", "Do you sell?")
                ask(f"{arm} told apart", f"Do you sell? {arm == 'treated'}")
                results[f"a function in {arm}"] = coin()


@llmcall.recorded(name="market.coin", version=2)
def coin(sides: int = 2) -> Any:
    """Return another result each time."""
    coin_state.append(sides)
    return {"side": len(coin_state), "bytes": b"\x00\xff", "text": LONG}


@llmcall.recorded(name="market.clock")
async def clock() -> float:
    """Return another time each time."""
    coin_state.append(0)
    return len(coin_state) + 0.25


coin_state: list[int] = []


def _functions(results: dict[str, Any]) -> None:
    results["a function"] = [repr(coin()), repr(coin(6))]
    with llmcall.scope("functions"):
        results["functions"] = [repr(coin(sides=6)), repr(coin(6)), asyncio.run(clock())]
    for name in ("control", "treated"):
        results[f"a function in {name}"] = repr(results[f"a function in {name}"])


def _typed(client: llmcall.LLMClient, results: dict[str, Any]) -> None:
    @llmcall.llm(system="You are {{ name }}.", client=client, temperature=1)
    def price(name: str, item: str) -> int:
        """What does {{ item }} cost?"""
        raise NotImplementedError

    @llmcall.llm(client=client)
    def wish(name: str) -> Literal["cheese", "bread"]:
        """{{ name }}, cheese or bread?"""
        raise NotImplementedError

    @llmcall.llm(client=client)
    def offer(item: str) -> Offer:
        """Make an offer for {{ item }}."""
        raise NotImplementedError

    with llmcall.scope("typed"):
        results["typed answers"] = [
            price("Lisa", "bread"),
            price("Lisa", "bread"),
            wish("Tom"),
            offer("milk").model_dump(),
        ]


def _over_http(over_http: Any, results: dict[str, Any], waits: tuple[int, ...]) -> None:
    with llmcall.scope("program"):
        with http.Client(transport=http.MockTransport(over_http)) as client:
            results["searches"] = [
                client.post(f"https://{SEARCH}/v1/find?page=2", json={"query": query}).json()
                for query in ("bread", "milk", "bread")
            ]
        results["callers"] = asyncio.run(_gathered(over_http, waits))


async def _gathered(over_http: Any, waits: tuple[int, ...]) -> list[str]:
    http_client = openai.DefaultAsyncHttpxClient(transport=http.MockTransport(over_http))
    async with openai.AsyncOpenAI(
        api_key="none", base_url="http://127.0.0.1:9/v1", http_client=http_client
    ) as client:

        async def ask(wait: int) -> Any:
            for _ in range(wait):
                await asyncio.sleep(0)
            messages: Any = [{"role": "user", "content": "Toss a coin."}]
            done = await client.chat.completions.create(model=MODEL, messages=messages)
            return done.choices[0].message.content

        return [await ask(0), *await asyncio.gather(*map(ask, waits))]
