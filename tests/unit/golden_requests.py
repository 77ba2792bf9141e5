"""Requests whose keys are pinned; run as a program, it prints the keys that this Python gives them, as JSON."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Callable
from typing import Any

import llmcall
from llmcall.engine.prepare import prepare_embeddings
from llmcall.testing import ScriptedClient
from llmcall.types import Request

HISTORY = [
    {"role": "system", "content": "You sell bread. Käse gibt es nebenan: 🧀"},
    {"role": "user", "content": "How much?"},
    {"role": "assistant", "content": "3 coins."},
    {"role": "user", "content": "Cafe\u0301, Caf\u00e9,\tspäť\r\n"},
]
PICTURE = {
    "role": "user",
    "content": [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ],
}
SOUND = {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]}
TOOL = {
    "type": "function",
    "function": {
        "name": "price_of",
        "description": "Look up a price.",
        "parameters": {
            "type": "object",
            "properties": {"item": {"type": "string"}, "count": {"type": "integer", "minimum": 1.0, "default": None}},
            "required": ["item"],
        },
    },
}
USED_TOOL = [
    {"role": "user", "content": "Bread?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "price_of", "arguments": '{"item":"bread"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "3"},
]
SAMPLING = {
    "temperature": 0.7, "max_tokens": 50, "top_p": 0.95, "frequency_penalty": -0.5, "presence_penalty": 1,
    "stop": ["\n", "END"], "seed": 42, "n": 2, "logit_bias": {"50256": -100}, "logprobs": True, "top_logprobs": 3,
}  # fmt: skip
JSON_ANSWER = {"response_format": {"type": "json_object"}, "extra_body": {"top_k": 40, "min_p": 0.05}}


def asked(messages: Any = "Hello", settings: Any = None, **arguments: Any) -> Request:
    """Build a request for a named model."""
    return ScriptedClient(**(settings or {})).build_request(messages, **{"model": "gpt-4o-mini", **arguments})


def embedded(text: str, **arguments: Any) -> Request:
    """Build the request of an embedding."""
    return prepare_embeddings(ScriptedClient(), text, "text-embedding-3-small", arguments)[0].request


def drawn() -> str:
    """Return the key of the second of two equal requests in a nested scope."""
    with llmcall.scope("trial-3"), llmcall.scope("lisa"):
        client = ScriptedClient()
        with client.stream_message("Hello", model="gpt-4o-mini"):  # holds the first draw and sends nothing
            return client.build_request("Hello", model="gpt-4o-mini").cache_key


PLAIN: dict[str, Callable[[], str]] = {
    "one message": lambda: asked().cache_key,
    "a history in several scripts": lambda: asked(HISTORY).cache_key,
    "sampling parameters": lambda: asked(**SAMPLING).cache_key,
    "a tool": lambda: asked(tools=[TOOL], tool_choice="auto").cache_key,
    "a used tool": lambda: asked(USED_TOOL, tools=[TOOL]).cache_key,
    "images": lambda: asked([PICTURE]).cache_key,
    "audio": lambda: asked([SOUND]).cache_key,
    "JSON and a server's own parameters": lambda: asked(**JSON_ANSWER).cache_key,
    "reasoning": lambda: asked(model="o3-mini", reasoning_effort="high", max_completion_tokens=500).cache_key,
    "a given sample": lambda: asked(sample=1).cache_key,
    "a second draw in a nested scope": drawn,
    "a namespace": lambda: asked(settings={"cache_namespace": "local llama"}).cache_key,
    "a text without its times": lambda: asked("It is 12:30.", {"cache_normalize": ["times"]}).cache_key,
    "an embedding": lambda: embedded("Käse 🧀").cache_key,
    "a short embedding": lambda: embedded("cheese", dimensions=256).cache_key,
}  # fmt: skip


def model_of_a_decision() -> Any:
    """Return a pydantic model with most of what a schema can hold."""
    import pydantic

    class Mood(enum.Enum):
        GLAD = "glad"
        SAD = "sad"

    class Item(pydantic.BaseModel):
        name: str = pydantic.Field(min_length=1, max_length=40)
        price: float = pydantic.Field(gt=0, le=1000)

    class Decision(pydantic.BaseModel):
        """Decide what to buy."""

        buys: bool
        items: list[Item]
        mood: Mood = Mood.GLAD
        words: str | None = pydantic.Field(default=None, description="What is said aloud")

    # Older pydantics do not find postponed annotations in a function.
    Decision.model_rebuild(_types_namespace={"Item": Item, "Mood": Mood})
    return Decision


def price_of(item: str, count: int = 1) -> float:
    """Look up a price."""
    raise NotImplementedError


TYPED: dict[str, Callable[[], str]] = {
    "a pydantic model": lambda: asked(response_format=model_of_a_decision()).cache_key,
    "a function as a tool": lambda: asked(tools=[price_of]).cache_key,
    "a pydantic model as a tool": lambda: asked(tools=[model_of_a_decision()]).cache_key,
}


def main() -> None:
    """Print the keys of all requests, or of those that need no library where "plain" is asked."""
    cases = PLAIN if "plain" in sys.argv else {**PLAIN, **TYPED}
    print(json.dumps({name: key() for name, key in cases.items()}))


if __name__ == "__main__":
    main()
