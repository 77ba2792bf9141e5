"""The functions of XAgent and DB-GPT, asynchronous: ``from llmcall.aio import chatcompletion_request``."""

from __future__ import annotations

from .ancestors.dbgpt import chat_completion, chat_completion_stream
from .ancestors.xagent_async import chatcompletion_request, embedding_request

__all__ = [
    "chat_completion",
    "chat_completion_stream",
    "chatcompletion_request",
    "embedding_request",
]
