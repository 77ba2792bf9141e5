"""The floor: diskcache with a hash of sorted JSON, in front of the SDK. It keeps the assistant's
message.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import diskcache

from ..workload import API_KEY, MODEL
from .base import SyncContestant


class Contestant(SyncContestant):
    """Do what a user without a library would: look up, else call and store."""

    tasks = True

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        self.cache = diskcache.Cache(folder)
        self._clients: dict[str, Any] = {}

    def ask(self, prepared: Any) -> Any:
        """Return the assistant's message."""
        request = {"model": MODEL, "messages": prepared}
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        message = self.cache.get(key)
        if message is None:
            response = self._client("OpenAI").chat.completions.create(**request)
            message = response.choices[0].message.model_dump(exclude_unset=True)
            self.cache.set(key, message)
        return message

    async def ask_async(self, prepared: Any) -> Any:
        """Return the assistant's message."""
        request = {"model": MODEL, "messages": prepared}
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        message = self.cache.get(key)
        if message is None:
            response = await self._client("AsyncOpenAI").chat.completions.create(**request)
            message = response.choices[0].message.model_dump(exclude_unset=True)
            self.cache.set(key, message)
        return message

    def _client(self, name: str) -> Any:
        """Return the SDK's client, made at the first miss: a replay imports no SDK."""
        if name not in self._clients:
            import openai

            self._clients[name] = getattr(openai, name)(api_key=API_KEY, base_url=self.base_url)
        return self._clients[name]

    def text(self, reply: Any) -> str:
        """Return the message's text."""
        return str(reply["content"])

    def close(self) -> None:
        """Close the cache and the connections."""
        self.cache.close()
        for name, client in self._clients.items():
            closing = client.close()
            if name == "AsyncOpenAI":
                self.run(closing)
        super().close()
