"""What recording aiohttp and urllib adds."""

from __future__ import annotations

from .. import Feature

FEATURE = Feature(
    patches={
        "aiohttp": "features.http_libraries.patches:OF_AIOHTTP",
        "urllib.request": "features.http_libraries.patches:OF_URLLIB",
    },
)
