"""The server of `llmcall serve`, for programs that the user starts, in any language."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    commands={"serve": "features.serve.command:serve"},
    remedies={
        "a library with sockets of its own": "give it a base URL that 'llmcall serve --cassette FILE' prints",
    },
)
