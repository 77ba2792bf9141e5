"""Clients without a network: llmcall's own with scripted answers, and the OpenAI SDK's on a server in
this process; and the four ways to ask.
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import itertools
import json
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from servers import chunks_of, completion, embeddings, event

import llmcall
from llmcall import LLMClient, OpenAIClient
from llmcall.testing import ScriptedClient

RETRY_AT_ONCE = {"retry_waiting_time": 0.0001, "retry_max_attempts": 3}


class Responding(LLMClient):
    """Answer with whole responses, without a server: one after the other, the last one again and
    again.
    """

    api_type = "responding"

    def __init__(self, *responses: Any, **settings: Any) -> None:
        self.responses = list(responses)
        super().__init__(**{"retry_waiting_time": 0, "retry_max_attempts": 1, **settings})

    def send(self, request: Any, timeout: float | None) -> Any:
        """Return a copy of the next response."""
        return copy.deepcopy(
            self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        )


def client_for(base_url: str, **settings: Any) -> OpenAIClient:
    """Return a client that tries three times and hardly waits; without certificates to load, it is
    made in no time.
    """
    http_client = openai.DefaultHttpxClient(verify=False)
    client = OpenAIClient(
        base_url=base_url, http_client=http_client, **{**RETRY_AT_ONCE, **settings}
    )
    weakref.finalize(client, http_client.close)
    return client


PRICES = {"gpt-4o-mini": (1.0, 2.0)}


def numbered(**settings: Any) -> ScriptedClient:
    """Return a client whose every call that is asked gets another answer."""
    numbers = itertools.count()
    return ScriptedClient(
        lambda messages: f"answer {next(numbers)}",
        **{"cache_mode": "auto", "on_error": "raise", **settings},
    )


class Streamed(llmcall.LLMClient):
    """Stream chunks; an exception among them is raised."""

    api_type = "streamed"

    def __init__(self, *chunks: Any, **settings: Any) -> None:
        self.chunks, self.closed = chunks, 0
        super().__init__(
            **{"model": "gpt-4o-mini", "prices": PRICES, "retry_waiting_time": 0, **settings}
        )

    def send(self, request: Any, timeout: float | None) -> Any:
        """Never answer as a whole."""
        raise AssertionError("a stream was asked for")

    def stream(self, request: Any, timeout: float | None) -> Iterator[Any]:
        """Yield the chunks."""
        try:
            for chunk_or_error in self.chunks:
                if isinstance(chunk_or_error, BaseException):
                    raise chunk_or_error
                yield chunk_or_error
        finally:
            self.closed += 1


def sync_call(
    client: llmcall.LLMClient, messages: Any, **arguments: Any
) -> llmcall.types.Reply | None:
    """Ask by send_message."""
    return client.send_message(messages, **arguments)


def async_call(
    client: llmcall.LLMClient, messages: Any, **arguments: Any
) -> llmcall.types.Reply | None:
    """Ask by asend_message, in an event loop of its own."""
    return asyncio.run(client.asend_message(messages, **arguments))


def stream_call(
    client: llmcall.LLMClient, messages: Any, **arguments: Any
) -> llmcall.types.Reply | None:
    """Ask by stream_message and read to the end; the pieces are the text."""
    with client.stream_message(messages, **arguments) as stream:
        text = "".join(stream)
    assert stream.reply is None or text == (stream.reply.content or "")
    return stream.reply


def astream_call(
    client: llmcall.LLMClient, messages: Any, **arguments: Any
) -> llmcall.types.Reply | None:
    """Ask by astream_message and read to the end, in an event loop of its own."""

    async def read() -> llmcall.types.Reply | None:
        async with client.astream_message(messages, **arguments) as stream:
            text = "".join([piece async for piece in stream])
        assert stream.reply is None or text == (stream.reply.content or "")
        return stream.reply

    return asyncio.run(read())


WAYS = {"sync": sync_call, "async": async_call, "stream": stream_call, "astream": astream_call}

BASE = next(base for base in openai.DefaultHttpxClient.__mro__ if base.__name__ == "Client")
# httpx for openai 1 and 2, httpx2 for openai 3
http: Any = importlib.import_module(BASE.__module__.partition(".")[0])
SDK_VERSION = tuple(map(int, openai.__version__.split(".")[:2]))
NEW_IN_EACH = ("id", "created", "system_fingerprint", "obfuscation")
QUESTION = [{"role": "user", "content": "Bread for 3 coins?"}]
TOOLS = [{"type": "function", "function": {"name": "price_of", "parameters": {"type": "object"}}}]
KEY = "sk-" + "program-of-its-own"


def needs_sdk(major: int, minor: int) -> pytest.MarkDecorator:
    """Return a mark that leaves a test out where the openai SDK is older than a version."""
    return pytest.mark.skipif(
        (major, minor) > SDK_VERSION, reason=f"openai {major}.{minor} has what it tests"
    )


def parsing(client: Any) -> Any:
    """Return what has ``parse`` and ``stream`` of a client of the SDK; before 1.92, these were in ``beta``."""
    return (client if SDK_VERSION >= (1, 92) else client.beta).chat.completions


def lasting(found: Any) -> Any:
    """Return what a replay has, too, of what a program got: all but what is new in each answer to a chat.

    :param found: an answer as plain data, as JSON, or in lines or pieces of these.
    """
    if isinstance(found, (list, tuple)):
        return [lasting(part) for part in found]
    if isinstance(found, (str, bytes)):
        return lasting(json.loads(found)) if found[:1] in ("{", b"{") else found
    if not isinstance(found, dict):
        return found
    return {name: found[name] for name in found if name not in NEW_IN_EACH}


class Server:
    """A model's server in this process: each answer is another one.

    :ivar failures: what is answered first: status, headers and body.
    :ivar broken: an exception of the HTTP library that every other request raises.
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.broken: Any = None
        self.failures: list[tuple[int, dict[str, str], Any]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.transport = http.MockTransport(self.answer)

    def answer(self, request: Any) -> Any:
        """Answer a request."""
        with self._lock:
            self.requests.append(request)
            number = next(self._numbers)
            if self.failures:
                status, headers, content = self.failures.pop(0)
                return http.Response(status, headers=headers, json=content)
            if self.broken is not None:
                raise self.broken("no route", request=request)
        path = request.url.path
        if not path.endswith(("/embeddings", "/completions")):
            listed = {
                "object": "list",
                "data": [{"id": f"model-{number}"}],
                "output": [],
                "results": [],
            }
            return http.Response(200, json={"id": f"other-{number}", **listed})
        body = json.loads(request.content)
        if path.endswith("/embeddings"):
            texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
            return http.Response(200, json=embeddings(*([len(text), 0.5] for text in texts)))
        if body.get("stream"):
            return streamed_answer(events(number))
        choices = [
            {
                "index": i,
                "message": self.message(number, body),
                "finish_reason": "stop",
                "logprobs": None,
            }
            for i in range(body.get("n") or 1)
        ]
        return http.Response(200, json=completion(choices=choices, model=body["model"]))

    def message(self, number: int, body: dict[str, Any]) -> dict[str, Any]:
        """Return an answer's message."""
        if body.get("tools"):
            call = {
                "id": "c1",
                "type": "function",
                "function": {"name": "price_of", "arguments": '{"item": "bread"}'},
            }
            return {"role": "assistant", "content": None, "tool_calls": [call]}
        if body.get("response_format"):
            return {"role": "assistant", "content": json.dumps({"buys": True, "coins": number})}
        return {"role": "assistant", "content": f"answer number {number}"}


def events(number: int) -> bytes:
    """Return an answer as server-sent events."""
    return b"".join(map(event, [*chunks_of("answer ", f"number {number}"), b"[DONE]"]))


def streamed_answer(content: bytes, media_type: str = "text/event-stream") -> Any:
    """Return a response that streams."""
    return http.Response(200, headers={"content-type": media_type}, content=content)


def program(server: Any, **overrides: Any) -> openai.OpenAI:
    """Return the client of a program, which asks by the ``transport`` of a server."""
    return openai.OpenAI(
        api_key=KEY, http_client=llmcall.http_client(transport=server.transport, **overrides)
    )


def plain_program(server: Any) -> openai.OpenAI:
    """Return the client of a program that knows nothing of llmcall."""
    return openai.OpenAI(api_key=KEY, http_client=http.Client(transport=server.transport))


def ask(client: openai.OpenAI, **params: Any) -> str:
    """Ask the question and return the answer's text."""
    params = {"model": "gpt-4o-mini", "temperature": 1, **params}
    return client.chat.completions.create(messages=QUESTION, **params).choices[0].message.content  # type: ignore[no-any-return]
