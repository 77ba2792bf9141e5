"""The type of plain data: None, bool, int, float, str, bytes, and lists and dicts of these; and its texts without lone
surrogates, halves of a character, which UTF-8 cannot write.
"""

from __future__ import annotations

from typing import Any

# A union of them would have type checkers refuse record.response["choices"][0] without a check at each step, to users,
# too.
Data = Any


def check_unicode(text: str, location: str) -> None:
    """Check that a text has no lone surrogate.

    :param location: where the text is, for the message.
    :raises ValueError: if it has one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"{location} has a lone surrogate at index {error.start}, which is not text"
        raise ValueError(message) from None


def joined_surrogates(text: str) -> str:
    """Return a text in which two surrogates that make one character are that character, as JSON
    reads them.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text


def without_surrogates(text: str) -> str:
    """Return a text with U+FFFD for each lone surrogate, so that UTF-8 can write it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
