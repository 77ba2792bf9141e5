"""The SDK's ways to call: a program gets in a replay what it got while it was recorded."""

from __future__ import annotations

import asyncio
import base64
import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
from clients import KEY, QUESTION, Server, http, lasting, parsing, program

import llmcall

ASKED: dict[str, Any] = {"model": "gpt-4o-mini", "messages": QUESTION}


class Decision(pydantic.BaseModel):
    """A buyer's decision."""

    buys: bool
    coins: int


def plain(found: Any) -> Any:
    """Return a response of the SDK's as plain data."""
    return found.model_dump(mode="json", warnings=False)


def raw(answer: Any) -> Any:
    """Return what a program can see of a raw response."""
    parsed = answer.parse()
    return (
        answer.status_code,
        answer.http_response.reason_phrase,
        plain(parsed) if hasattr(parsed, "model_dump") else [*map(plain, parsed)],
    )


def opened(manager: Any, read: Callable[[Any], Any]) -> Any:
    """Return what is read of a response that a program opens and closes."""
    with manager as answer:
        return read(answer)


WAYS: dict[str, Callable[[openai.OpenAI], Any]] = {
    "create": lambda c: plain(c.chat.completions.create(**ASKED)),
    "n": lambda c: plain(c.chat.completions.create(**ASKED, n=3)),
    "tools": lambda c: plain(c.chat.completions.create(**ASKED, tools=[{"type": "function"}])),
    "parse": lambda c: plain(parsing(c).parse(**ASKED, response_format=Decision)),
    "raw": lambda c: raw(c.chat.completions.with_raw_response.create(**ASKED)),
    "raw parse": lambda c: raw(
        parsing(c).with_raw_response.parse(**ASKED, response_format=Decision)
    ),
    "streaming, json": lambda c: opened(
        c.chat.completions.with_streaming_response.create(**ASKED), lambda response: response.json()
    ),
    "streaming, lines": lambda c: opened(
        c.chat.completions.with_streaming_response.create(**ASKED),
        lambda response: [*response.iter_lines()],
    ),
    "streaming, bytes": lambda c: opened(
        c.chat.completions.with_streaming_response.create(**ASKED),
        lambda response: b"".join(response.iter_bytes()),
    ),
    "posted": lambda c: c.post("/chat/completions", body=ASKED, cast_to=http.Response).json(),
    "embedding": lambda c: plain(c.embeddings.create(model="e", input="bread")),
    "embeddings": lambda c: plain(c.embeddings.create(model="e", input=["bread", "oil", "bread"])),
    "embeddings in base64": lambda c: c.embeddings.with_raw_response.create(
        model="e", input=["bread", "oil"], encoding_format="base64"
    ).http_response.json(),
    "embeddings of numbers": lambda c: plain(c.embeddings.create(model="e", input=[[1, 2], [3]])),
    "responses": lambda c: plain(c.responses.create(model="gpt-4o-mini", input="Bread?")),
    "models": lambda c: [model.id for model in c.models.list()],
}


class Headed(Server):
    """Answer with the headers of the API, embeddings in base64 where that is asked for."""

    def answer(self, request: Any) -> Any:
        """Answer a request."""
        answer = super().answer(request)
        body = json.loads(request.content or b"{}")
        if request.url.path.endswith("/embeddings"):
            found = {
                **answer.json(),
                "model": "e-002",
                "usage": {"prompt_tokens": 7, "total_tokens": 7},
            }
            if body.get("encoding_format") == "base64":
                for entry in found["data"]:
                    packed = array("f", entry["embedding"]).tobytes()
                    entry["embedding"] = base64.b64encode(packed).decode()
            answer = http.Response(200, json=found)
        answer.headers["x-request-id"] = f"req-{len(self.requests)}"
        answer.headers["x-ratelimit-remaining-requests"] = "3"
        return answer


def azure(server: Server, **overrides: Any) -> openai.OpenAI:
    """Return a client of Azure's addresses."""
    return openai.AzureOpenAI(
        api_key=KEY,
        azure_endpoint="https://mine.openai.azure.com",
        api_version="2024-10-21",
        http_client=llmcall.http_client(transport=server.transport, **overrides),
    )


@pytest.mark.parametrize(
    ("make", "name"),
    [*((program, name) for name in WAYS), (azure, "create"), (azure, "embeddings")],
)
def test_a_replay_gives_what_the_recording_gave(name: str, make: Any) -> None:
    """Status and body of every way to call are the same from a cassette, but for what is new in each answer."""
    server, found = Headed(), []
    for mode in ("once", "none"):
        with llmcall.cassette("run.jsonl", mode=mode):
            found.append(WAYS[name](make(server, cache_mode="off")))
    assert lasting(found[0]) == lasting(found[1])
    assert len(server.requests) == 1


@pytest.mark.parametrize("texts", ["bread", ["bread", "oil", "bread"]], ids=["one", "several"])
def test_an_embeddings_response_is_that_of_the_plain_sdk(texts: Any) -> None:
    """The model that answered, the usage and the vectors are those of the API, replayed too."""
    server = Headed()
    http_client = http.Client(transport=server.transport)
    expected = openai.OpenAI(api_key=KEY, http_client=http_client).embeddings.create(
        model="e", input=texts
    )
    for mode in ("auto", "replay"):
        made = program(server, cache_mode=mode).embeddings.create(model="e", input=texts)
        given = {name: value for name, value in plain(made).items() if name != "id"}
        assert given == plain(expected)


STREAM: dict[str, Any] = {**ASKED, "stream": True}
RAW: dict[str, Callable[[Any], Any]] = {
    "chat": lambda c: c.chat.completions.with_raw_response.create(**ASKED),
    "stream": lambda c: c.chat.completions.with_raw_response.create(**STREAM),
    "embedding": lambda c: c.embeddings.with_raw_response.create(model="e", input="bread"),
    "response": lambda c: c.responses.with_raw_response.create(model="m", input="Bread?"),
}


async def araw(server: Server, call: Callable[[Any], Any]) -> Any:
    """Ask by an asynchronous client, and return the raw response, whose body is read."""
    http_client = llmcall.async_http_client(transport=server.transport, cache_mode="off")
    async with openai.AsyncOpenAI(api_key=KEY, http_client=http_client) as sdk:
        answer = await call(sdk)
        await answer.http_response.aread()
        return answer


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_response_headers_pass_while_recording_and_a_replay_has_none(
    name: str, is_async: bool
) -> None:
    """No header gets into the file."""
    server, found, texts = Headed(), [], []
    for mode in ("once", "none"):
        with llmcall.cassette("run.jsonl", mode=mode):
            if is_async:
                answer = asyncio.run(araw(server, RAW[name]))
            else:
                answer = RAW[name](program(server, cache_mode="off"))
                answer.http_response.read()
            remaining = answer.headers.get("x-ratelimit-remaining-requests")
            found.append((answer.request_id, remaining))
            texts.append(answer.http_response.text)
    assert len(server.requests) == 1
    assert name == "stream" or lasting(texts[0]) == lasting(texts[1])
    assert found == [("req-1", "3"), (None, None)]
    written = Path("run.jsonl").read_text(encoding="utf-8")
    assert "req-1" not in written and "ratelimit" not in written


def test_an_answer_that_another_call_got_has_no_headers() -> None:
    """They belong to the call that was sent."""
    sdk = program(Headed())
    found = [sdk.chat.completions.create(**ASKED)._request_id for _ in range(2)]
    assert found == ["req-1", None]
