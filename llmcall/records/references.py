"""References in a line, in place of a long text, bytes, or an object whose name begins with "$"."""

from __future__ import annotations

from base64 import b64decode
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError, CacheError
from ..surrogates import joined_surrogates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INLINE_CHARACTERS = 500
_CHANGED_BY_HAND = (
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


def text_in(entry: Mapping[str, Any]) -> str:
    """Return the text of a text's line.

    :raises CacheCorruptError: if it does not have the digest.
    """
    text: str = "\n".join(entry["lines"])
    if digest_of(text) != entry["text"]:
        raise CacheCorruptError(
            f"the text does not have the digest {entry['text'][:64]}; {_CHANGED_BY_HAND}"
        )
    return text


def resolved(encoded: Any, text_of: Callable[[str], str | None]) -> Any:
    """Return a copy of a line's data with all that other things stand for.

    :param text_of: returns the long text of the file with a digest, or ``None``.
    :raises CacheCorruptError: if something stands for what is not there.
    :raises CacheError: if messages stand in another line, as an earlier version wrote them.
    """
    if isinstance(encoded, list):
        return [resolved(item, text_of) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if not stands_for_another(encoded):
        return {name: resolved(item, text_of) for name, item in encoded.items()}
    [(marker, value)] = encoded.items()
    if marker == "$text" and isinstance(value, str):
        text = text_of(value)
        if text is None:
            raise CacheCorruptError(
                f"it refers to the text {value[:64]}, which no line contains; {_CHANGED_BY_HAND}"
            )
        return text
    if marker == "$bytes" and isinstance(value, str):
        try:
            return b64decode(value, validate=True)
        except ValueError:
            raise CacheCorruptError(
                f"it contains bytes that are not Base64; {_CHANGED_BY_HAND}"
            ) from None
    if marker == "$data" and isinstance(value, dict) and stands_for_another(value):
        return {name: resolved(item, text_of) for name, item in value.items()}
    if marker == "$messages":
        raise CacheError(
            "it refers to messages of other lines ($messages), as llmcall no longer does: delete the "
            "file and record it again; what the disk cache holds is not asked again"
        )
    raise CacheCorruptError(
        f'its object with the single name "{marker[:40]}" has no meaning there; {_CHANGED_BY_HAND}'
    )
