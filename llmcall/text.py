"""Text as it is shown to people."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OUTSIDE", "brief", "check_unicode", "counted", "printable", "visible", "visible_json"]

OUTSIDE = "outside any scope"
# Controls, what turns the direction of text, what is not seen at all, and lone surrogates; line ends and tabs stay,
# and joiners, which scripts and emoji need.
_HIDDEN = (  # compiled when a text is shown
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Return a text in which what a terminal would obey, or would not show, is escaped; line ends and tabs stay."""
    if text.isprintable():
        return text
    return re.sub(_HIDDEN, lambda match: match[0].encode("unicode_escape").decode(), text)


def printable(text: str) -> str:
    """Return a text in one line: as :func:`visible`, with line ends and tabs escaped as well."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def visible_json(data: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Return plain data as indented JSON in which what a terminal would obey, or would not show, is escaped.

    :param default: what JSON has no form for is replaced by what this returns.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, default=default)
    return re.sub(_HIDDEN, lambda match: json.dumps(match[0])[1:-1], text)


def brief(text: str, limit: int) -> str:
    """Return a text on one line, cut where it is longer than so many characters."""
    flat = re.sub(r"\s+", " ", text[: 4 * limit]).strip()
    return flat if len(flat) <= limit and len(text) <= 4 * limit else flat[: limit - 1].rstrip() + "…"


def counted(number: int, noun: str) -> str:
    """Return a number of things, such as ``1 record`` or ``1,200 records``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def check_unicode(text: str, place: str) -> None:
    """Refuse a text with a lone surrogate by a ``ValueError`` that names its place."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{place} has a lone surrogate at index {error.start}, which is no text") from None
