"""Calls that share an answer, are left early, refused, or meet a server that does not do as it was asked."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydantic
import pytest

import llmcall
from llmcall import CacheMissError
from llmcall.testing import ScriptedClient


class CountsTen(ScriptedClient):
    """Report ten prompt tokens for any prompt."""

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Answer, with the tokens."""
        usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
        return {**super().send(request, timeout), "usage": usage}


def test_what_was_paid_for_is_stored(caplog: pytest.LogCaptureFixture) -> None:
    """A server that counts prompt tokens otherwise is warned of once for each model, and its answers are stored."""
    client = CountsTen(lambda messages: "Yes", cache_mode="auto", model="a-model-of-mine")
    prompts = [f"{number} apples and pears " * 200 for number in range(3)]
    for prompt in prompts:
        assert client.send_message(prompt) is not None
    assert [client.send_message(prompt).cached for prompt in prompts] == [True] * 3  # type: ignore[union-attr]
    said = [text for text in caplog.messages if "prompt tokens" in text]
    assert len(said) == 1 and "a-model-of-mine" in said[0] and " 10 prompt tokens" in said[0]


def test_servers_that_ignore_parameters(caplog: pytest.LogCaptureFixture) -> None:
    """Fewer answers than ``n``, or other ``dimensions``, than were asked for are said once."""
    client = ScriptedClient(lambda asked: "one" if isinstance(asked[0], dict) else [[1.0, 2.0, 3.0]])
    for _ in range(2):
        client.send_message("Hello", n=3)
        client.get_embedding("Hello", dimensions=2)
    assert len([text for text in caplog.messages if "ignores n" in text and "1 of the 3" in text]) == 1
    assert len([text for text in caplog.messages if "ignores dimensions" in text and "3 dimensions" in text]) == 1


class Offer(pydantic.BaseModel):
    """A price."""

    price: int


def test_the_arguments_of_tinytroupe() -> None:
    """``echo`` is not sent, and ``enable_pydantic_model_return`` gives the object, live and from the cache."""
    client = ScriptedClient(lambda messages: '{"price": 3}', cache_mode="auto")
    arguments = {"response_format": Offer, "echo": True, "enable_pydantic_model_return": True}
    assert [client.send_message("How much?", **arguments) for _ in range(2)] == [Offer(price=3)] * 2
    assert "echo" not in client.requests[0].body and len(client.requests) == 1
    assert asyncio.run(client.asend_message("How much?", **arguments)) == Offer(price=3)
    assert client.send_message("How much?", response_format=Offer).parsed == Offer(price=3)  # type: ignore[union-attr]


def test_an_argument_of_send_message_alone() -> None:
    """A template's call reads its answers by output_type, and says so where TinyTroupe's argument is given."""
    with pytest.raises(TypeError, match="output_type="):
        llmcall.LLMCall(user="How much?", response_format=Offer, enable_pydantic_model_return=True)


def test_embeddings_are_counted() -> None:
    """They count under their scope, and those of a batch that were recorded are saved ones."""
    client = ScriptedClient(lambda texts: [[1.0]] * len(texts), cache_mode="auto")
    with llmcall.scope("lisa"):
        client.get_embedding(["a", "b"])
        client.get_embedding(["b", "c"])
    client.get_embedding("a")
    counted = {name: (usage.calls, usage.cached_calls) for name, usage in client.usage.by_scope.items()}
    assert counted == {"lisa": (2, 1), "": (0, 1)}


def drawn(client: ScriptedClient) -> str | None:
    """Ask once more, and return which draw it is."""
    reply = client.send_message("Tell me", on_error="raise")
    assert reply is not None
    return reply.sample


def left_by_break(client: ScriptedClient) -> None:
    """Leave a stream after its first word."""
    for _ in client.stream_message("Tell me"):
        break


def left_closed(client: ScriptedClient) -> None:
    """Leave it as a context manager."""
    with client.stream_message("Tell me") as stream:
        next(stream)


async def _aleft_by_break(client: ScriptedClient) -> str | None:
    async for _ in client.astream_message("Tell me"):
        break
    reply = await client.asend_message("Tell me", on_error="raise")
    assert reply is not None
    return reply.sample


async def _cancelled(client: ScriptedClient, method: str) -> str | None:
    task = asyncio.ensure_future(getattr(client, method)("Tell me"))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    reply = await client.asend_message("Tell me", on_error="raise")
    assert reply is not None
    return reply.sample


@pytest.mark.parametrize(
    "leave",
    [
        lambda client: (left_by_break(client), drawn(client))[1],
        lambda client: (left_closed(client), drawn(client))[1],
        lambda client: asyncio.run(_aleft_by_break(client)),
        lambda client: asyncio.run(_cancelled(client, "asend_message")),
        lambda client: asyncio.run(_cancelled(client, "aget_embedding")),
    ],
    ids=["break", "closed", "async break", "cancelled", "cancelled embedding"],
)
@pytest.mark.parametrize(("where", "sample"), [("s", "s#0"), (None, None)])
def test_what_was_not_received_gives_its_draw_back(
    leave: Any, where: str | None, sample: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next call that asks the same draws the same number, and the end of the run tells of the one that was left."""
    client = ScriptedClient(lambda messages: "once upon a time", cache_mode="auto")
    with llmcall.cassette(tmp_path / "left.jsonl"), llmcall.scope(where):
        assert leave(client) == sample
    assert [text for text in caplog.messages if "1 call ended before the whole answer had come" in text]


def test_the_first_miss_is_named() -> None:
    """A later miss says which was the first of the process: what a program swallowed may have led to it."""
    client = ScriptedClient([], cache_mode="replay", on_error="raise")
    for question in ("the first one?", "another?"):
        with pytest.raises(CacheMissError) as caught:
            client.send_message(question)
    assert "first miss of this process" in str(caught.value)


HOLLOW = """
import multiprocessing, sys, threading, llmcall
from llmcall.testing import ScriptedClient
client = ScriptedClient(lambda messages: "yes", cache_mode="auto")
def act():
    try:
        client.send_message("Buy bread?")
    except Exception:
        pass
def run():
    with llmcall.track() as usage, llmcall.scope("world"):
        threads = [threading.Thread(target=act) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    print(usage.errors, flush=True)
if sys.argv[1] == "forked":
    client.send_message("Buy bread?", deadline=1e-9)  # told by the parent alone
    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join()
else:
    run()
"""


@pytest.mark.parametrize(
    "process",
    ["own", pytest.param("forked", marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"))],
)
def test_swallowed_refusals_are_told(process: str, tmp_path: Path) -> None:
    """A program that catches the errors of its threads is told at its end how many calls were refused."""
    done = subprocess.run(
        [sys.executable, "-c", HOLLOW, process], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3"]
    assert done.stderr.count("refused: ScopeError") == 3
    assert done.stderr.count("3 calls had no leave to ask, or no scope") == 1
    assert done.stderr.count("1 call failed for good") == (process == "forked")


def test_refusals_are_errors_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A miss is logged as an error."""
    with pytest.raises(CacheMissError):
        ScriptedClient([], cache_mode="replay").send_message("Bread?")
    assert [record.levelno for record in caplog.records if "CacheMissError" in record.getMessage()] == [logging.ERROR]
