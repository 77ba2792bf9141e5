"""dspy's ``LM`` with both its caches, in memory and on the disk, as they are by default."""

from __future__ import annotations

from typing import Any

import dspy

from ..workload import API_KEY, MODEL
from .base import SyncContestant

__all__ = ["Contestant"]


class Contestant(SyncContestant):
    """Call the model object."""

    tasks = True

    def __init__(self, folder: str, base_url: str) -> None:
        super().__init__(folder, base_url)
        dspy.configure_cache(disk_cache_dir=folder)
        self.model = dspy.LM(f"openai/{MODEL}", api_key=API_KEY, api_base=base_url)

    def ask(self, prepared: Any) -> Any:
        """Return dspy's list of texts."""
        return self.model(messages=prepared)

    async def ask_async(self, prepared: Any) -> Any:
        """Return dspy's list of texts."""
        return await self.model.acall(messages=prepared)

    def text(self, reply: Any) -> str:
        """Return the first text."""
        return str(reply[0])
