"""Texts without characters that a terminal obeys, or that are invisible."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

# Control characters, characters that turn the direction of text or are invisible, and lone
# surrogates. Line ends and tabs are no part of it, nor joiners, which scripts and emoji need.
UNSAFE = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Return a text with unsafe characters escaped; line ends and tabs stay."""
    if text.isprintable():
        return text
    return re.sub(UNSAFE, lambda match: match[0].encode("unicode_escape").decode(), text)


def printable(text: str) -> str:
    """Return a text on one line, with unsafe characters, line ends and tabs escaped."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def visible_json(data: object, default: Callable[[Any], object] | None = None) -> str:
    """Return plain data as indented JSON, with unsafe characters escaped as JSON does.

    :param default: replaces data that JSON has no form for.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, default=default)
    return re.sub(UNSAFE, lambda match: json.dumps(match[0])[1:-1], text)
