"""Asking without blocking, streamed or not: the four ways agree on everything, among many tasks and
event loops.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from clients import WAYS, client_for
from commands import ran
from servers import (
    CALLING,
    OK,
    QUESTION,
    TWO_COINS,
    Answer,
    Behaviour,
    NumberedServer,
    RawServer,
    answers,
    chunk,
    chunks_of,
    completion,
    refusal,
    streams,
)

import llmcall
from llmcall import APIError, InvalidRequestError, ServiceError
from llmcall.testing import ScriptedClient

PIECE = {"index": 0, **CALLING["tool_calls"][0]}
CHOICE = {"index": 0, "message": CALLING, "finish_reason": "tool_calls", "logprobs": None}


def whole(content: str | None = None, **fields: Any) -> Behaviour:
    """Send an answer as a whole."""
    return answers(Answer(200, completion(content, **fields)))


def ending(reason: str, *texts: str) -> list[tuple[Behaviour, Behaviour]]:
    """Send a text that ends for a reason, streamed or as a whole."""
    return [
        (
            streams(*chunks_of(*texts, finish_reason=reason)),
            whole("".join(texts), finish_reason=reason),
        )
    ]


# What a scripted model answers to each attempt, and what is asked.
SCRIPTS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "a text with parameters": (
        ["Two coins."],
        {"temperature": 0.5, "max_tokens": 9, "stop": "x", "seed": 3},
    ),
    "blanks": (["  a  b\n\n c "], {}),
    "a refusal": ([{"role": "assistant", "content": None, "refusal": "I won't."}], {}),
    "a sample": (["Two coins."], {"sample": 7}),
    "past the cache": (["Two coins."], {"cache": False}),
    "no attempt left": ([ServiceError("no")] * 3, {}),
    "a request refused": ([InvalidRequestError("no", status_code=400)], {}),
    "a bug": ([ZeroDivisionError("a bug")], {}),
}

# What a server does to each attempt, streamed or not.
SERVED: dict[str, list[tuple[Any, Any]]] = {
    "an answer": [(streams(*TWO_COINS), answers(OK))],
    "an answer cut at its limit": ending("length", "Two"),
    "a filtered answer": ending("content_filter", "I"),
    "an empty answer": ending("stop"),
    "a tool call": [
        (
            streams(chunk(None, role="assistant", tool_calls=[PIECE]), chunk(None, "tool_calls")),
            whole(choices=[CHOICE], usage=None),
        )
    ],
    "a second attempt": [(answers(refusal(503)),) * 2, (streams(*TWO_COINS), answers(OK))],
    "refused": [(answers(refusal(400, "no such thing", code="no_such_thing")),) * 2],
    "too many": [(answers(refusal(429, "slow down", headers={"retry-after-ms": "1"})),) * 2],
    "too long": [
        (answers(refusal(400, "maximum context length is 10", code="context_length_exceeded")),) * 2
    ],
    "an answer sent as a whole": [(answers(OK),) * 2],
    "a tool call sent as a whole": [(whole(choices=[CHOICE]),) * 2],
    "HTML": [(answers(Answer(200, "<html>Sign in</html>")),) * 2],
    "an error with status 200": [
        (answers(Answer(200, {"error": {"message": "loading", "code": 503}})),) * 2
    ],
    "too long, with status 200": [
        (answers(Answer(200, {"error": "exceeds the available context size"})),) * 2
    ],
    "vLLM's error with status 200": [
        (answers(Answer(200, {"object": "error", "message": "no", "code": 400})),) * 2
    ],
}


def outcome(way: str, client: llmcall.LLMClient, arguments: dict[str, Any]) -> Any:
    """Return all that a caller can tell: the reply with its attributes, or the error."""
    try:
        reply = WAYS[way](client, QUESTION, **arguments)
    except (APIError, ZeroDivisionError) as error:
        # Of a response with status 200 a stream does not know the head.
        head = (
            ("status_code", "request_id")
            if getattr(error, "status_code", None) not in (None, 200)
            else ()
        )
        attributes = {
            name: getattr(error, name, None)
            for name in (*head, "attempts", "endpoint", "code", "retry_after")
        }
        return type(error), str(error), attributes
    if reply is None:
        return None
    names = "cached cache_key sample cost finish_reason model usage choices endpoint parsed"
    return dict(reply), {name: getattr(reply, name) for name in names.split()}


def recorded(client: llmcall.LLMClient) -> list[Any]:
    """Return the records of a client's cache, apart from when they were stored and what a stream
    does not say.
    """
    return [
        record.replace(
            stored_at=None, response={name: record.response[name] for name in ("model", "choices")}
        )
        for record in client.cache.records()
    ]


@pytest.mark.parametrize("on_error", ["none", "raise"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_four_ways_to_ask_agree(name: str, on_error: str) -> None:
    """Reply, key, record, usage and error are the same, and so is what a second call gets."""
    script, arguments = SCRIPTS[name]
    found = []
    for way in WAYS:
        settings = {
            "cache_mode": "auto",
            "cache_path": way,
            "retry_max_attempts": 3,
            "retry_waiting_time": 0,
        }
        client = ScriptedClient(script * 2, **settings)
        twice = [outcome(way, client, {**arguments, "on_error": on_error}) for _ in range(2)]
        found.append((twice, recorded(client), client.usage))
    assert found == [found[0]] * 4


@pytest.mark.parametrize("name", SERVED)
def test_the_four_ways_to_ask_a_server_agree(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The number of requests and the log are the same, too."""
    found = []
    for way in WAYS:
        streamed = "stream" in way
        llmcall.reset()  # what is told once is told again
        with RawServer(*[pair[0] if streamed else pair[1] for pair in SERVED[name]]) as server:
            caplog.clear()
            settings = {
                "cache_path": way,
                "prices": {"gpt-4o-mini": (1.0, 1.0)},
                "retry_max_attempts": 2,
            }
            client = client_for(server.base_url, **settings)
            result = outcome(way, client, {"on_error": "raise"})
            usage = client.usage
            logged = [
                (name, level, text[:60])
                for name, level, text in caplog.record_tuples
                if name == "llmcall"
            ]
            found.append((result, recorded(client), usage, len(server.requests), logged))
            client.close()
    assert found == [found[0]] * 4


class Waiting(llmcall.LLMClient):
    """A client that answers when the test says so, on the event loop, and knows who has come and
    who was cancelled.
    """

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
        return {
            "choices": [
                {"message": {"role": "assistant", "content": text.upper()}, "finish_reason": "stop"}
            ]
        }

    async def until(self, count: int) -> None:
        """Wait until some calls have come."""
        while len(self.come) < count:
            await asyncio.sleep(0)


def some_cancelled(client: Waiting) -> list[Any]:
    """Ask the same from four tasks; cancel the one that makes the call and one that waits for it."""

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

    return asyncio.run(main())


def test_a_task_that_waits_takes_over_from_one_that_is_cancelled() -> None:
    """The others get its answer. The transfer of the cancelled call stops, which is no failure."""
    client = Waiting()
    outcomes = [type(outcome).__name__ for outcome in some_cancelled(client)]
    assert outcomes == ["CancelledError", "Reply", "CancelledError", "Reply"]
    assert (client.come, client.cancelled) == (["x", "x"], ["x"])
    assert (client.usage.calls, client.usage.errors) == (1, 0)


def test_a_blocking_call_does_not_wait_for_a_task_of_its_own_loop() -> None:
    """It asks for itself, and the task gets what it recorded."""
    client = Waiting()

    async def main() -> list[Any]:
        call = asyncio.create_task(client.asend_message("x"))
        await client.until(1)
        beside = llmcall.LLMClient(transport=ScriptedClient(["beside"]))
        blocking = beside.send_message("x", on_error="raise")
        client.open.set()
        return [blocking.content, (await call).content]  # type: ignore[union-attr]

    assert asyncio.run(main()) == ["beside", "beside"]


WATCHED = """
    import asyncio
    import httpx
    from blockbuster import blockbuster_ctx

    async def every_call(mode):
        client = llmcall.client()
        llmcall.configure(cache_path="answers")
        tape = llmcall.cassette("cells.jsonl", mode=mode).open()
        print(await client.asend_message("Hello", on_error="raise"))
        tape.close()
        print("".join([text async for text in client.astream_message("Hello", sample=2)]))
        print(await llmcall.LLMCall(user_template_name="greet").acall(name="Ann"))
        print(llmcall.settings().temperature)
        with llmcall.cassette("run.jsonl", mode=mode), llmcall.scope("Ann"):
            print(await client.asend_message("Hello", on_error="raise"))
            async with httpx.AsyncClient(base_url=os.environ["MODEL_AT"], verify=False) as program:
                body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
                answer = await program.post("/chat/completions", json=body)
                print(answer.json()["choices"][0]["message"]["content"])
        for refuses in (llmcall.cassette("run.jsonl", mode="none"), llmcall.configured(cache_mode="replay")):
            try:
                with refuses:
                    await client.asend_message("Bread?")
            except llmcall.CacheMissError as error:
                print(str(error).splitlines()[0])

    with blockbuster_ctx():
        asyncio.run(every_call(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # its patches of C types may crash the interpreter's own end
"""


@pytest.mark.newest_only
def test_no_awaited_call_blocks_a_watched_loop(model: NumberedServer, tmp_path: Path) -> None:
    """BlockBuster forbids an event loop to touch a disk: neither the first call nor later ones, nor opening a
    cassette fails there, each answer is stored, and a miss is told."""
    (tmp_path / "config.ini").write_text("[OpenAI]\nTEMPERATURE = 0.5\n[Templates]\nPATH = .\n")
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-local\n")
    (tmp_path / "greet.txt").write_text("Greet {{ name }}.")
    environment = {"OPENAI_BASE_URL": model.address, "LLMCALL_CONFIG": ""}
    live = ran(WATCHED, "once", **environment)
    assert "0.5" in live.splitlines()
    assert live.count("is not recorded") == 2
    asked = len(model.asked)
    assert ran(WATCHED, "none", **environment) == live
    assert len(model.asked) == asked == 5
