"""DB-GPT's functions, which stream a chat from any address."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(aio={"features.dbgpt.streams": "chat_completion chat_completion_stream"})
