"""What is interrupted by Ctrl-C at random instants: programs that call, stream and map until they are told to stop.

Each prints a line for every answer that it has in hand, in one go, so that what was printed was received.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import threading
from typing import Any

import llmcall
from llmcall.clients.base import LLMClient

ROUND = 40  # items of a map


def answered(item: str) -> dict[str, Any]:
    """Return the answer to an item."""
    message = {"role": "assistant", "content": f"answer to {item}"}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}


class Quick(LLMClient):
    """Answer at once, without a network."""

    api_type = "quick"

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Answer the last message."""
        return answered(request.messages[-1]["content"])

    def stream(self, request: Any, timeout: float | None) -> Any:
        """Answer word by word."""
        for word in answered(request.messages[-1]["content"])["choices"][0]["message"]["content"].split(" "):
            yield {"choices": [{"index": 0, "delta": {"content": word + " "}, "finish_reason": None}]}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def client() -> LLMClient:
    """Return a client of the server in the environment, or of none."""
    address = os.environ.get("SERVER")
    return llmcall.OpenAIClient(base_url=address, timeout=60) if address else Quick()


def tell(item: str) -> None:
    """Say that an item's answer is in hand."""
    os.write(1, f"{item}\n".encode())


def call(asking: LLMClient, item: str) -> None:
    """Ask by send_message."""
    reply = asking.send_message(item, on_error="raise")
    assert reply.content == f"answer to {item}", reply
    tell(item)


def stream(asking: LLMClient, item: str) -> None:
    """Ask by stream_message."""
    with asking.stream_message(item, on_error="raise") as pieces:
        text = "".join(pieces)
    assert text.strip() == f"answer to {item}", text
    tell(item)


def many(asking: LLMClient, item: str) -> None:
    """Ask by map."""
    items = [f"{item}/{number}" for number in range(ROUND)]

    def one(each: str) -> None:
        call(asking, each)

    llmcall.map(one, items, workers=4, progress=False)


def tasks(asking: LLMClient, item: str) -> None:
    """Ask by asend_message, in an event loop."""

    async def one(each: str) -> None:
        await asking.asend_message(each, on_error="raise")
        tell(each)

    async def all_of_them() -> None:
        await asyncio.gather(*(one(f"{item}/{number}") for number in range(8)))

    asyncio.run(all_of_them())


DOINGS = {"call": call, "stream": stream, "map": many, "async": tasks}


def check(asking: LLMClient) -> None:
    """Show, in the interrupted process itself, that all locks are free and that nothing is left half done."""
    with llmcall.scope("after"), llmcall.budget(calls=10):
        first = asking.send_message("after", on_error="raise")
        assert (first.sample, first.content) == ("after#0", "answer to after"), first
    done: list[Any] = []
    thread = threading.Thread(
        target=lambda: done.append(asking.send_message("elsewhere", on_error="raise")), daemon=True
    )
    thread.start()
    thread.join(100)
    assert done and done[0].content == "answer to elsewhere", "a lock is held"
    under_way = asking.cache.flights._flights
    assert all(flight.has_ended() for flight in under_way.values()), under_way
    assert asking.cache.verify() == []


def main(name: str) -> None:
    """Do one thing in turn until Ctrl-C comes; then see that all is as it should be."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asking = client()
    asking.send_message("warm up", on_error="raise")
    try:
        os.write(1, b"ready\n")
        with llmcall.scope("work"):
            for number in itertools.count():
                DOINGS[name](asking, f"{name} {number}")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    check(asking)
    os.write(1, b"well\n")


if __name__ == "__main__":
    main(sys.argv[1])
