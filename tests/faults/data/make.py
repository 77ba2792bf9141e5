"""Make a cache and a cassette with the installed version, for later versions to read; see test_upgrades.py.

Run once for each version that is released, ``python tests/faults/data/make.py``: it makes a folder of the version's
name beside itself, and touches none that is there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import llmcall
from llmcall.testing import ScriptedClient

LONG = "A rule of the market. " * 40  # over 500 characters: a line of its own in a cassette
PIXEL = "data:image/png;base64,iVBORw0KGgo="
TOOL = {"type": "function", "function": {"name": "buy", "parameters": {"type": "object", "properties": {}}}}
PRICES = {"gpt-4o-mini": (0.15, 0.6), "gpt-4-32k": (60.0, 120.0)}
FALLBACKS = {"gpt-4": ("gpt-4-32k",)}


def answers(messages: list[Any]) -> Any:
    """Answer from the last message alone."""
    if not isinstance(messages[-1], dict):
        return [[len(text) / 4, -0.5] for text in messages]
    text = messages[-1]["content"]
    if text == "Use a tool":
        call = {"id": "call_1", "type": "function", "function": {"name": "buy", "arguments": '{"n": 2}'}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    return f"{len(messages)}: {text if isinstance(text, str) else text[0]['text']}"


class Model(ScriptedClient):
    """Answer as a server does, with identifiers and usage; its smaller model has too small a window."""

    def send(self, request: Any, timeout: float | None) -> dict[str, Any]:
        """Return the next answer."""
        if request.model == "gpt-4":
            raise llmcall.ContextLengthError("the prompt is too long", status_code=400)
        response = super().send(request, timeout)
        if request.kind == "chat":
            usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
            response |= {"id": "chatcmpl-1", "created": 1700000000, "usage": usage}
        return response


@llmcall.recorded(name="market.price", version=2)
def price_of(item: str) -> Any:
    """Return what is not a model's answer."""
    return {"item": item, "coins": 2.5, "raw": b"\x00\xff", "none": None, "many": [1, True]}


def play(**settings: Any) -> list[Any]:
    """Make one call of each kind; return what came of them."""
    client = Model(answers, on_error="raise", prices=PRICES, fallbacks=FALLBACKS, **settings)
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    said = [
        client.send_message("Wie viel? Käse 🧀"),
        client.send_message("With parameters", temperature=0.5, max_tokens=20, stop=["a", "b"], seed=7),
        client.send_message([{"role": "user", "content": [{"type": "text", "text": "Look"}, image]}]),
        client.send_message("Use a tool", tools=[TOOL]),
        client.send_message("Sampled", sample="a"),
        client.send_message("Too long", model="gpt-4"),
    ]
    history: list[Any] = [{"role": "system", "content": LONG}]
    with llmcall.scope("trial"), llmcall.scope("lisa"):
        for turn in range(3):
            history.append({"role": "user", "content": f"Turn {turn}"})
            history.append(client.send_message(history))
        price = price_of("bread")
    vectors = client.get_embedding(["bread", "an apple"])
    return [*(reply["content"] for reply in (*said, *history[2::2]) if reply), price, vectors]


def main() -> None:
    """Make the folder of this version."""
    target = Path(__file__).parent / llmcall.__version__
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with llmcall.configured(cache_mode="auto", cache_path="cache"), llmcall.cassette("tape.jsonl"):
            play(cache_mode="auto", cache_path="cache")
        llmcall.reset()
        target.mkdir()
        shutil.copy("tape.jsonl", target)
        shutil.copy("cache/cache.db", target)  # all is in it: the log was merged when the cache was closed


if __name__ == "__main__":
    main()
