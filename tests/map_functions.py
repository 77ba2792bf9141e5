"""A model that never answers the same twice, for threads and processes, and functions of items that
ask it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import httpx

import llmcall
from llmcall import LLMCall, LLMClient, llm
from llmcall.testing import ScriptedClient
from llmcall.types import Request

CALLS = Path("calls.txt")  # in the working directory, which workers of other processes share
MENDED = Path("mended")  # where this is, nothing fails any more


class Dice(LLMClient):
    """Answer with a number that nobody has seen before, and note each call in a file."""

    api_type: ClassVar[str] = "dice"

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return a new answer; to a request that ends in "fail", an error."""
        text = request.messages[-1]["content"]
        with CALLS.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
        if text.endswith("fail") and not MENDED.exists():
            raise llmcall.InvalidRequestError("the dice fell off the table", status_code=400)
        message = {"role": "assistant", "content": f"{text} {os.urandom(6).hex()}"}
        return {
            "model": request.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 3},
        }


def calls() -> int:
    """Return how many calls were made."""
    return len(CALLS.read_text(encoding="utf-8").splitlines()) if CALLS.exists() else 0


def ask(item: Any) -> str:
    """Ask about an item and return the answer."""
    return Dice().send_message(f"item {item}", on_error="raise").content or ""


def ask_with_new_keys(address: str) -> str:
    """Ask with a key that is another one for each attempt."""
    client = llmcall.OpenAIClient(base_url=address, api_key=lambda: os.urandom(4).hex())
    return client.send_message("Bread?", on_error="raise").content or ""


class Alone(Dice):
    """Answer whether no other process or thread asked meanwhile."""

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return an answer after a moment in which only this call may be under way."""
        try:
            os.mkdir("under way")
        except FileExistsError:
            raise llmcall.InvalidRequestError("two at once", status_code=400) from None
        threading.Event().wait(0.02)
        os.rmdir("under way")
        return super().send(request, timeout)


def ask_alone(item: Any) -> bool:
    """Ask about an item while nobody else asks."""
    return Alone().send_message(f"item {item}", on_error="raise") is not None


def ask_inside_a_stream(item: Any) -> str:
    """Ask in the loop over a stream; whoever waits for itself passes the deadline."""
    client = ScriptedClient(lambda messages: "one two", on_error="raise", cache_mode="off")
    with client.stream_message(f"outer {item}", deadline=30) as stream:
        next(stream)
        return client.send_message(f"inner {item}", deadline=30).content or ""


def stream(item: Any) -> tuple[str, str | None]:
    """Read a stream of a client that does not stream: its answer comes whole; return it and the reply's."""
    with Dice().stream_message(f"item {item}") as answer:
        return "".join(answer), answer.reply.content


class Slow(Dice):
    """Answer after a random time."""

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return a new answer."""
        time.sleep(random.random() / 20)
        return super().send(request, timeout)


class ByDraw(Slow):
    """Answer each draw with a text of its own, the same whenever it is asked."""

    api_type: ClassVar[str] = "by_draw"

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return the answer of a draw."""
        answer = super().send(request, timeout)
        text = f"{request.messages[-1]['content']} {request.sample}"
        answer["choices"][0]["message"]["content"] = hashlib.sha256(text.encode()).hexdigest()
        return answer


def talk(name: str) -> list[Any]:
    """Ask twice the same, about the first answer, and in a scope."""
    client = ByDraw(on_error="raise")
    answers = [client.send_message(f"{name}?", temperature=1) for _ in range(2)]
    answers.append(client.send_message(f"{name}, after {answers[0].content}?", temperature=1))
    with llmcall.scope("inside"):
        answers.append(client.send_message(f"{name}?", temperature=1))
    return [answer.content for answer in answers]


PORTRAIT = LLMCall(user="Who is {{ name }}?", client=ByDraw())


def ask_slowly(item: Any) -> str:
    """Ask about an item and return the answer, which takes its time."""
    return Slow().send_message(f"item {item}", on_error="raise").content or ""


def ask_then_be_killed(item: Any) -> None:
    """Ask about an item, and be killed with the answer."""
    ask(item)
    os.kill(os.getpid(), signal.SIGKILL)


class Killing(Dice):
    """Kill its own process while it asks."""

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return nothing."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def ask_and_be_killed(item: Any) -> Any:
    """Ask about an item, and be killed meanwhile."""
    return Killing().send_message(f"item {item}", on_error="raise")


def sample(item: Any) -> str | None:
    """Ask about an item and return the reply's sample."""
    return Dice().send_message(f"item {item}", on_error="raise").sample


def samples(item: Any) -> list[str | None]:
    """Ask the same about an item twice, and once more in a scope, and return the samples."""
    with llmcall.scope("inside"):
        inside = sample(item)
    return [sample(item), sample(item), inside]


def samples_in_a_thread(item: Any) -> list[str | None]:
    """Return the samples of an item from a thread that gets its scope by ``bind``, as no context goes there."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(llmcall.bind(samples), item).result()


def first(item: tuple[str, str]) -> str:
    """Return the first part of an item."""
    return item[0]


def draw(item: tuple[str, str]) -> str | None:
    """Ask about the second part of an item and return the reply's sample."""
    return sample(item[1])


def describe(item: Any) -> tuple[int, str, float | None, int]:
    """Return where an item is worked on, and what settings hold there."""
    settings = llmcall.settings()
    return os.getpid(), settings.model, settings.temperature, threading.get_ident()


def model(item: Any) -> str:
    """Return the current model."""
    return llmcall.settings().model


def divide(item: int) -> float:
    """Return 6 by the item."""
    return 6 / item


def wait_or_fail(item: int) -> int:
    """Fail as item 0 as soon as item 1 has begun, which takes its time; leave a file where any
    other begins.
    """
    began = Path("began")
    if item == 0:
        while not began.exists():
            threading.Event().wait(0.01)
        raise ValueError("item 0 fails")
    if item == 1:
        began.touch()
        threading.Event().wait(0.2)
        Path("ended").touch()
    else:
        threading.Event().wait(0.2)
        Path(f"began-{item}").touch()
    return item


def nested(item: int) -> list[str]:
    """Run a map inside a map."""
    return llmcall.map(ask, [f"{item}.{number}" for number in range(2)])


def reply(item: Any) -> Any:
    """Return what is no plain value: the whole reply."""
    return Dice().send_message(f"item {item}", on_error="raise")


CALL = LLMCall(user="item {{ name }}", client=Dice())
AGE = LLMCall(
    user="How old is {{ name }}?", output_type=int, output_retries=0, client=ByDraw()
)  # its answers are no numbers


def post(item: tuple[str, str]) -> list[str]:
    """Ask a model's server twice, by a client that is not llmcall's.

    :param item: the server's address and a question.
    """
    address, question = item
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}
    responses = [httpx.post(f"{address}/chat/completions", json=body) for _ in range(2)]
    return [
        response.raise_for_status().json()["choices"][0]["message"]["content"]
        for response in responses
    ]


def post_as_twins(item: tuple[str, Sequence[float]]) -> list[str]:
    """Ask a model's server the same in tasks at once, each after a while.

    :param item: the server's address, and how long each task waits, in seconds.
    """
    address, waits = item
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Bread?"}]}

    async def ask_after(wait: float) -> str:
        await asyncio.sleep(wait)
        async with httpx.AsyncClient() as client:
            response = await client.post(f"{address}/chat/completions", json=body)
        return str(response.json()["choices"][0]["message"]["content"])

    async def ask_all() -> list[str]:
        return await asyncio.gather(*map(ask_after, waits))

    return asyncio.run(ask_all())


def post_and_fail_once(item: tuple[str, str, str]) -> list[str]:
    """Ask four times in the same way; fail after two if a file is missing, and make it.

    :param item: the server's address, a question, and the file's path.
    """
    address, question, path = item
    found = post((address, question))
    if not Path(path).exists():
        Path(path).touch()
        raise RuntimeError("failed")
    return [*found, *post((address, question))]


def post_and_go_on(item: tuple[str, str]) -> list[str]:
    """Ask in the same way, and go on without an answer if there is none."""
    try:
        return post(item)
    except httpx.HTTPStatusError:
        return []


@llm(client=Dice())
def greet(name: str, greeting: str = "Hello") -> str:
    """{{ greeting }}, {{ name }}!"""
    raise NotImplementedError


@llmcall.recorded
def ask_or_say_why_not(word: str) -> str:
    """Ask, and return a text where that fails."""
    try:
        return ask(word)
    except llmcall.APIError:
        return "no answer"
