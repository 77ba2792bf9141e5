"""llmcall as a user calls it: ``client.send_message``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llmcall

from ..workload import API_KEY, MODEL
from .base import SyncContestant


class Contestant(SyncContestant):
    """Call a client that records in the given folder; many calls go through ``llmcall.map``."""

    tasks = True
    cache_mode = "auto"

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        self.client = llmcall.OpenAIClient(
            model=MODEL,
            api_key=API_KEY,
            base_url=base_url,
            cache_path=folder,
            cache_mode=self.cache_mode,
            on_error="raise",
        )

    def ask(self, prepared: Any) -> Any:
        """Return the reply."""
        return self.client.send_message(prepared)

    def ask_as(self, actor: str, prepared: Any) -> Any:
        """Return the reply to an actor, who has a scope of its own."""
        with llmcall.scope("trial"), llmcall.scope(actor):
            return self.ask(prepared)

    async def ask_async(self, prepared: Any) -> Any:
        """Return the reply."""
        return await self.client.asend_message(prepared)

    def ask_many(self, batch: Sequence[Any], workers: int | None) -> list[Any]:
        """Ask so many at once; ``None``: as many as llmcall lets run."""
        return list(llmcall.map(self.ask, batch, workers=workers, progress=False))

    def text(self, reply: Any) -> str:
        """Return the reply's text."""
        return str(reply.content)

    def close(self) -> None:
        """Close the client and its cache."""
        self.run(self.client.aclose())
        self.client.cache.close()
        super().close()
