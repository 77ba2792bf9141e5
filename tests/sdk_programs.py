"""Programs on the OpenAI SDK, and a model's server in this process that answers them."""

from __future__ import annotations

import importlib
import itertools
import json
import threading
from typing import Any

import openai
from servers import completion, embeddings
from streaming import chunks_of, event

import llmcall

BASE = next(each for each in openai.DefaultHttpxClient.__mro__ if each.__name__ == "Client")
# httpx for openai 2, httpx2 for openai 3
http: Any = importlib.import_module(BASE.__module__.partition(".")[0])
QUESTION = [{"role": "user", "content": "Bread for 3 coins?"}]
TOOLS = [{"type": "function", "function": {"name": "price_of", "parameters": {"type": "object"}}}]
KEY = "sk-" + "program-of-its-own"


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


def streamed_answer(content: bytes) -> Any:
    """Return a response that streams."""
    return http.Response(200, headers={"content-type": "text/event-stream"}, content=content)


def program(server: Server, **overrides: Any) -> openai.OpenAI:
    """Return the client of a program."""
    return openai.OpenAI(
        api_key=KEY, http_client=llmcall.http_client(transport=server.transport, **overrides)
    )


def async_program(server: Server, **overrides: Any) -> openai.AsyncOpenAI:
    """Return the asynchronous client of a program."""
    client = llmcall.async_http_client(transport=server.transport, **overrides)
    return openai.AsyncOpenAI(api_key=KEY, http_client=client)


def ask(client: openai.OpenAI, **params: Any) -> str:
    """Ask the question and return the answer's text."""
    params = {"model": "gpt-4o-mini", "temperature": 1, **params}
    return client.chat.completions.create(messages=QUESTION, **params).choices[0].message.content  # type: ignore[no-any-return]
