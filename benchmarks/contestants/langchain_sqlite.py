"""langchain's ``ChatOpenAI`` with ``SQLiteCache``."""

from __future__ import annotations

import os
from typing import Any

from langchain_community.cache import SQLiteCache
from langchain_core.globals import set_llm_cache
from langchain_openai import ChatOpenAI

from ..workload import API_KEY, MODEL
from .base import SyncContestant


class Contestant(SyncContestant):
    """Invoke the chat model."""

    tasks = True

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        os.makedirs(folder, exist_ok=True)
        set_llm_cache(SQLiteCache(database_path=f"{folder}/langchain.db"))
        self.model = ChatOpenAI(
            model=MODEL, api_key=API_KEY, base_url=base_url, use_responses_api=False
        )

    def ask(self, prepared: Any) -> Any:
        """Return langchain's message."""
        return self.model.invoke(prepared)

    async def ask_async(self, prepared: Any) -> Any:
        """Return langchain's message."""
        return await self.model.ainvoke(prepared)

    def text(self, reply: Any) -> str:
        """Return the message's text."""
        return str(reply.content)
