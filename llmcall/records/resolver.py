"""The texts of a file to which its records refer."""

from __future__ import annotations

from base64 import b64decode
from typing import Any, NamedTuple

from ..errors import CacheCorruptError, CacheError
from ..types import Data
from .references import CHANGED_BY_HAND, digest_of, stands_for_another

NESTED = (dict, list)


class _Text(NamedTuple):
    """A text that records refer to.

    :param begin: where its line begins in the file, in bytes.
    :param text: the text.
    """

    begin: int
    text: str


class Resolver:
    """Resolves the references of records."""

    def __init__(self) -> None:
        self._texts: dict[str, _Text] = {}  # by digest

    def add_text(self, begin: int, digest: str, lines: list[str]) -> None:
        """Add a text that records may refer to.

        :raises CacheCorruptError: if it does not have the digest.
        """
        text = "\n".join(lines)
        if digest_of(text) != digest:
            raise CacheCorruptError(
                f"the text does not have the digest {digest[:64]}; {CHANGED_BY_HAND}"
            )
        self._texts.setdefault(digest, _Text(begin, text))

    def begin_of_text(self, digest: str) -> int | None:
        """Return where the line of a text begins; ``None`` if no line has the text."""
        text = self._texts.get(digest)
        return None if text is None else text.begin

    def resolved(self, encoded: Any) -> Any:
        """Return a copy of data in which references are resolved."""
        if isinstance(encoded, dict):
            if stands_for_another(encoded):
                return self._resolved_reference(*next(iter(encoded.items())))
            return {
                name: self.resolved(item) if type(item) in NESTED else item
                for name, item in encoded.items()
            }
        if isinstance(encoded, list):
            return [self.resolved(item) if type(item) in NESTED else item for item in encoded]
        return encoded

    def _resolved_reference(self, marker: str, value: Any) -> Data:
        """Return what an object stands for.

        :param marker: its only name.
        """
        if marker == "$text" and isinstance(value, str):
            if value not in self._texts:
                raise CacheCorruptError(
                    f"it refers to the text {value[:64]}, which no line contains; {CHANGED_BY_HAND}"
                )
            return self._texts[value].text
        if marker == "$messages":
            raise CacheError(
                "it refers to messages of other lines ($messages), as llmcall no longer does: delete the "
                "file and record it again; what the disk cache holds is not asked again"
            )
        if marker == "$bytes" and isinstance(value, str):
            try:
                return b64decode(value, validate=True)
            except ValueError:
                raise CacheCorruptError(
                    f"it contains bytes that are not Base64; {CHANGED_BY_HAND}"
                ) from None
        if marker == "$data" and isinstance(value, dict) and stands_for_another(value):
            return {name: self.resolved(item) for name, item in value.items()}
        raise CacheCorruptError(
            f'its object with the single name "{marker[:40]}" has no meaning there; {CHANGED_BY_HAND}'
        )
