"""What serving programs adds."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(
    commands={"serve": "features.serve.command:serve"},
    remedies={
        "a library with sockets of its own": "give it a base URL that 'llmcall serve --cassette FILE' prints",
    },
)
