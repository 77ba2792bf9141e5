"""autogen's ``ChatCompletionCache`` on a ``DiskCacheStore``. It has coroutines only."""

from __future__ import annotations

from typing import Any

from autogen_core.models import SystemMessage, UserMessage
from autogen_ext.cache_store.diskcache import DiskCacheStore
from autogen_ext.models.cache import CHAT_CACHE_VALUE_TYPE, ChatCompletionCache
from autogen_ext.models.openai import OpenAIChatCompletionClient
from diskcache import Cache

from ..workload import API_KEY, MODEL
from .base import AsyncContestant


class Contestant(AsyncContestant):
    """Await ``create`` of the caching client."""

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        inner = OpenAIChatCompletionClient(
            model=MODEL,
            api_key=API_KEY,
            base_url=base_url,
            model_info={  # it does not know the model
                "vision": False,
                "function_calling": True,
                "json_output": True,
                "structured_output": True,
                "family": "unknown",
            },
        )
        self.cache = Cache(folder)
        self.client = ChatCompletionCache(inner, DiskCacheStore[CHAT_CACHE_VALUE_TYPE](self.cache))

    def prepared(self, messages: list[dict[str, str]]) -> Any:
        """Return autogen's messages."""
        system, user = messages
        return [
            SystemMessage(content=system["content"]),
            UserMessage(content=user["content"], source="user"),
        ]

    async def ask_async(self, prepared: Any) -> Any:
        """Return autogen's result."""
        return await self.client.create(prepared)

    def text(self, reply: Any) -> str:
        """Return the result's text."""
        return str(reply.content)

    def close(self) -> None:
        """Close the cache."""
        self.cache.close()
        super().close()
