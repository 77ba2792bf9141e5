"""How a line refers to a long text or to messages in other lines."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..surrogates import joined_surrogates

if TYPE_CHECKING:
    from collections.abc import Iterator

INLINE_CHARACTERS = 500
FEWEST_MESSAGES = 4
TEXT = re.compile(r'"\$text": "([0-9a-f]{32})"')
CHANGED_BY_HAND = (
    "a line was changed by hand or removed: take it from version control, or record again"
)
SYSTEM_ROLES = ("system", "developer")

_canonical = json.JSONEncoder(sort_keys=True).encode


def digest_of(text: str) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of a text's UTF-8.

    A lone surrogate is encoded as if it were a character; two that make one count as that one, since
    JSON reads them so.
    """
    return sha256(joined_surrogates(text).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def stands_for_another(data: dict[str, Any]) -> bool:
    """Return whether an object of a line stands for something else: ``{"$text": digest}``, say."""
    return len(data) == 1 and next(iter(data)).startswith("$")


def reference_in(item: Any) -> str | None:
    """Return the digest of ``{"$messages": digest}``, and ``None`` of anything else."""
    digest = item.get("$messages") if isinstance(item, dict) and len(item) == 1 else None
    return digest if isinstance(digest, str) and digest else None


def has_histories(messages: Any, refers: bool = True) -> bool:
    """Return whether other requests may refer to a request's messages, or these refer to others.

    :param refers: whether the request's line may hold references.
    """
    if not isinstance(messages, list):
        return False
    return len(messages) >= FEWEST_MESSAGES or (refers and any(map(reference_in, messages)))


def after_system(messages: list[Any]) -> int:
    """Return the index of the first message after the system's; 0 if all are the system's."""
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in SYSTEM_ROLES:
            return index
    return 0


def histories_of(messages: list[Any]) -> Iterator[tuple[str, int, int, str]]:
    """Yield the histories that other requests may refer to: the digest, the first message, the message
    after the last one, and the digest of the history that it continues.
    """
    begin = after_system(messages)
    reference = reference_in(messages[begin])
    starts = {(begin + 1, reference)} if reference is not None else {(0, ""), (begin, "")}
    for first, previous in sorted(starts):
        digest = previous
        for end in range(first, len(messages)):
            digest = digest_of(digest + _canonical(messages[end]))
            yield digest, first, end + 1, previous
