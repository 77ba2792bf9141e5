"""For tests of code that calls models: a client whose answers the test scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from .apis.chunks import chunks_of
from .clients.base import LLMClient
from .keys.request import Request
from .support.system import lock

__all__ = ["ScriptedClient"]

# Its default settings: a unit test stores nothing and waits for nothing.
AT_ONCE = {
    "cache_mode": "off",
    "retry_waiting_time": 0,
    "limits_max_concurrent_calls": "none",
    "limits_requests_per_minute": "none",
    "limits_tokens_per_minute": "none",
}


class ScriptedClient(LLMClient):
    """A client that answers from a script, sends nothing, and stores nothing unless ``cache_mode`` says so.

    :param answers: answers in order, or a function of the messages that returns one. An answer is a
        text, a message dict, a whole response (a dict with ``choices``), an exception to raise, or
        anything else, which becomes JSON. For embeddings it is a vector, or a list
        with one for each text, and the function gets the texts.
    :param overrides: settings by name; ``cache_mode="auto"`` stores the answers as any client does.
        By default retries do not wait, and the project's ``[Limits]`` do not apply.
    :ivar requests: all requests so far, in order.

    >>> scripted = llmcall.testing.ScriptedClient(["Yes.", "No."])
    >>> scripted.send_message("Bread?").content, scripted.send_message("Cake?").content
    ('Yes.', 'No.')
    >>> scripted.requests[1].messages
    [{'role': 'user', 'content': 'Cake?'}]
    """

    api_type: ClassVar[str] = "scripted"
    sends_nothing = True

    def __init__(
        self, answers: Sequence[Any] | Callable[[list[Any]], Any] = (), **overrides: Any
    ) -> None:
        if isinstance(answers, str):
            raise TypeError(
                "answers is a string; it must be a list of answers, or a function that returns one"
            )
        self._answers = answers if callable(answers) else iter(list(answers))
        self.requests: list[Request] = []
        without_none = {name: value for name, value in overrides.items() if value is not None}
        super().__init__(**{**AT_ONCE, **without_none})

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        """Return the next answer in the format of the API.

        :raises AssertionError: if the script has no answer left.
        """
        messages_or_texts = request.messages or request.body["input"]
        with lock:
            self.requests.append(request)
            answer = None if callable(self._answers) else next(self._answers, self)
        if answer is self:
            raise AssertionError(
                f"the script has no answer left; request {len(self.requests)} was {messages_or_texts[-1]!r}"
            )
        if callable(self._answers):
            answer = self._answers(messages_or_texts)
        if isinstance(answer, BaseException):
            raise answer
        return (
            _embeddings_response(request, answer)
            if request.kind == "embedding"
            else _chat_response(request, answer)
        )

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        """Yield the next answer, a word of a text at a time."""
        yield from chunks_of(self.send(request, timeout))


def _chat_response(request: Request, answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict) and "choices" in answer:
        return {"object": "chat.completion", "model": request.model, **answer}
    message = answer
    if not (isinstance(answer, dict) and "role" in answer):
        if hasattr(answer, "model_dump_json"):
            answer = str(answer.model_dump_json())
        message = {
            "role": "assistant",
            "content": answer if isinstance(answer, str) else json.dumps(answer),
        }
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
    }
    return {"object": "chat.completion", "model": request.model, "choices": [choice]}


def _embeddings_response(request: Request, answer: Any) -> dict[str, Any]:
    vectors = answer if answer and isinstance(answer[0], (list, tuple)) else [answer]
    data = [{"index": index, "embedding": list(numbers)} for index, numbers in enumerate(vectors)]
    return {"model": request.model, "data": data}
