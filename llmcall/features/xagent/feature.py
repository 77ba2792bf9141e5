"""What XAgent's functions add."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(
    names={"features.xagent.functions": "chatcompletion_request"},
    aio={"features.xagent.asynchronous": "chatcompletion_request embedding_request"},
)
