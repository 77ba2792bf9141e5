"""Text as it is shown to people."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return a text in one line, with control and other invisible characters written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
