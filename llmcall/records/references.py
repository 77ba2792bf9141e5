"""How a line refers to a long text in another line."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

from ..surrogates import joined_surrogates

INLINE_CHARACTERS = 500
TEXT = re.compile(r'"\$text": "([0-9a-f]{32})"')
CHANGED_BY_HAND = (
    "a line was changed by hand or removed: take it from version control, or record again"
)


def digest_of(text: str) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of a text's UTF-8.

    A lone surrogate is encoded as if it were a character; two that make one count as that one, since
    JSON reads them so.
    """
    return sha256(joined_surrogates(text).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def stands_for_another(data: dict[str, Any]) -> bool:
    """Return whether an object of a line stands for something else: ``{"$text": digest}``, say."""
    return len(data) == 1 and next(iter(data)).startswith("$")
