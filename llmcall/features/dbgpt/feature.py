"""What DB-GPT's functions add."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(aio={"features.dbgpt.streams": "chat_completion chat_completion_stream"})
