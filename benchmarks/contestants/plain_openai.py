"""The SDK alone, which records nothing."""

from __future__ import annotations

from typing import Any

import openai

from ..workload import API_KEY, MODEL
from .base import SyncContestant


class Contestant(SyncContestant):
    """Call ``client.chat.completions.create``."""

    tasks = True

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        self.client = openai.OpenAI(api_key=API_KEY, base_url=base_url)
        self.async_client = openai.AsyncOpenAI(api_key=API_KEY, base_url=base_url)

    def ask(self, prepared: Any) -> Any:
        """Return the SDK's model of the response."""
        return self.client.chat.completions.create(model=MODEL, messages=prepared)

    async def ask_async(self, prepared: Any) -> Any:
        """Return the SDK's model of the response."""
        return await self.async_client.chat.completions.create(model=MODEL, messages=prepared)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        self.run(self.async_client.close())
        super().close()

    def text(self, reply: Any) -> str:
        """Return the first choice's text."""
        return str(reply.choices[0].message.content)
