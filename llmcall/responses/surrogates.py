"""Lone surrogates in JSON, which are no text: they can neither be printed, nor sent on, nor written to a cassette."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["may_have_surrogates", "without_surrogates"]

_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def may_have_surrogates(text: str | bytes | bytearray) -> bool:
    """Return whether JSON holds an escape of half a pair, as whole pairs are two of."""
    return _ESCAPE.search(text.encode(errors="replace") if isinstance(text, str) else text) is not None


def without_surrogates(value: Any) -> Any:
    """Return JSON-like data with U+FFFD in the place of each lone surrogate, as of bytes that are no UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {without_surrogates(name): without_surrogates(item) for name, item in value.items()}
    return [without_surrogates(item) for item in value] if isinstance(value, list) else value
