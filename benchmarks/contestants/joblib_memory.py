"""``joblib.Memory`` around a function that calls the SDK."""

from __future__ import annotations

from typing import Any

import joblib

from ..workload import API_KEY, MODEL
from .base import SyncContestant

_clients: dict[str, Any] = {}


def complete(messages: list[dict[str, str]], base_url: str, actor: str = "") -> Any:
    """Return the assistant's message; the actor is only part of the key."""
    if base_url not in _clients:
        import openai

        _clients[base_url] = openai.OpenAI(api_key=API_KEY, base_url=base_url)
    response = _clients[base_url].chat.completions.create(model=MODEL, messages=messages)
    return response.choices[0].message.model_dump(exclude_unset=True)


class Contestant(SyncContestant):
    """Call the memorised function."""

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        memory = joblib.Memory(folder, verbose=0)
        self.complete = memory.cache(complete, ignore=["base_url"])

    def ask(self, prepared: Any) -> Any:
        """Return the assistant's message."""
        return self.complete(prepared, self.base_url)

    def ask_as(self, actor: str, prepared: Any) -> Any:
        """Return the assistant's message to an actor, who is an argument."""
        return self.complete(prepared, self.base_url, actor)

    def text(self, reply: Any) -> str:
        """Return the message's text."""
        return str(reply["content"])
