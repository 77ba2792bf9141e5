"""aiohttp and urllib: what their sessions and openers send to models is recorded."""

from __future__ import annotations

from ...additions import Feature

FEATURE = Feature(
    patches={
        "aiohttp": "features.http_libraries.connectors:OF_AIOHTTP",
        "urllib.request": "features.http_libraries.openers:OF_URLLIB",
    },
)
