"""litellm's ``completion`` with its disk cache."""

from __future__ import annotations

from typing import Any

import litellm
from litellm.caching.caching import Cache

from ..workload import API_KEY, MODEL
from .base import SyncContestant


class Contestant(SyncContestant):
    """Call ``litellm.completion``."""

    tasks = True

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        litellm.cache = Cache(type="disk", disk_cache_dir=folder)
        self._arguments = {
            "model": f"openai/{MODEL}",
            "api_key": API_KEY,
            "api_base": base_url,
            "caching": True,
        }

    def ask(self, prepared: Any) -> Any:
        """Return litellm's response."""
        return litellm.completion(messages=prepared, **self._arguments)

    async def ask_async(self, prepared: Any) -> Any:
        """Return litellm's response."""
        return await litellm.acompletion(messages=prepared, **self._arguments)

    def text(self, reply: Any) -> str:
        """Return the first choice's text."""
        return str(reply.choices[0].message.content)
