"""inspect_ai's model with its cache. It has coroutines only."""

from __future__ import annotations

import os
from typing import Any

from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model

from ..workload import API_KEY, MODEL
from .base import AsyncContestant

__all__ = ["Contestant"]


class Contestant(AsyncContestant):
    """Await ``generate`` of the model."""

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        os.environ["INSPECT_CACHE_DIR"] = folder
        config = GenerateConfig(max_connections=1000)  # its default would hold back the calls at once
        self.model = get_model(f"openai/{MODEL}", api_key=API_KEY, base_url=base_url, config=config)

    def prepared(self, messages: list[dict[str, str]]) -> Any:
        """Return inspect's messages."""
        system, user = messages
        return [ChatMessageSystem(content=system["content"]), ChatMessageUser(content=user["content"])]

    async def ask_async(self, prepared: Any) -> Any:
        """Return inspect's output."""
        return await self.model.generate(prepared, cache=True)

    def text(self, reply: Any) -> str:
        """Return the output's text."""
        return str(reply.completion)
