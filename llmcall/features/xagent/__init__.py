"""XAgent's functions, which call a model as its own do."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    names={"features.xagent.functions": "chatcompletion_request"},
    aio={"features.xagent.asynchronous": "chatcompletion_request embedding_request"},
)
