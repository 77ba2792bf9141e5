"""The texts and messages of a file to which its records refer."""

from __future__ import annotations

from base64 import b64decode
from typing import Any, NamedTuple

from ..errors import CacheCorruptError
from ..types import Data
from .line import entry_of, line_at
from .references import (
    CHANGED_BY_HAND,
    after_system,
    digest_of,
    has_histories,
    histories_of,
    reference_in,
    stands_for_another,
)

NESTED = (dict, list)


class _Text(NamedTuple):
    """A text that records refer to.

    :param begin: where its line begins in the file, in bytes.
    :param text: the text.
    """

    begin: int
    text: str


class _History(NamedTuple):
    """Messages of a request, from the first on, that other requests may refer to.

    :param begin: where the request's line begins in the file, in bytes.
    :param first: the first of its messages.
    :param end: the message after the last one.
    :param previous: the digest of the history that it continues, or ``""``.
    """

    begin: int
    first: int
    end: int
    previous: str


class Resolver:
    """Resolves the references of records. Lines are known by where they begin in the file, in bytes.

    :param data: the bytes of the file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._texts: dict[str, _Text] = {}  # by digest
        self._histories: dict[str, _History] = {}  # by digest
        # By where its line begins: a request's own messages, which other requests may share.
        self._messages: dict[int, list[Any]] = {}

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

    def add_messages(self, begin: int, messages: list[Any]) -> None:
        """Add the messages of a request, to which others may refer."""
        for digest, first, end, previous in histories_of(messages):
            self._histories.setdefault(digest, _History(begin, first, end, previous))

    def begin_of_text(self, digest: str) -> int | None:
        """Return where the line of a text begins; ``None`` if no line has the text."""
        text = self._texts.get(digest)
        return None if text is None else text.begin

    def request(self, begin: int, encoded: dict[str, Any]) -> Data:
        """Return a chat's request with its references resolved.

        The first message after the system's may stand for messages of other requests.
        """
        messages: Any = encoded.get("messages")
        if not has_histories(messages):
            return self.resolved(encoded)
        first = after_system(messages)
        reference = reference_in(messages[first])
        resolved = self._own_messages(begin, messages)
        if reference is not None:
            resolved = [*resolved[:first], *self._history(reference), *resolved[first + 1 :]]
        return {**self.resolved({**encoded, "messages": None}), "messages": resolved}

    def _own_messages(self, begin: int, encoded: list[Any] | None = None) -> list[Any]:
        """Return a request's own messages, with ``None`` in place of those of other requests."""
        if begin not in self._messages:
            encoded = encoded or entry_of(line_at(self._data, begin))["request"]["messages"]
            first = after_system(encoded)
            if reference_in(encoded[first]) is not None:
                encoded = [*encoded[:first], None, *encoded[first + 1 :]]
            self._messages[begin] = self.resolved(encoded)
        return self._messages[begin]

    def _history(self, digest: str) -> list[Any]:
        """Return the messages of a history, after those of the histories that it continues."""
        pieces = []
        while digest:
            if digest not in self._histories:
                raise CacheCorruptError(
                    f"it refers to the messages {digest[:64]}, which no request contains; {CHANGED_BY_HAND}"
                )
            history = self._histories[digest]
            pieces.append(self._own_messages(history.begin)[history.first : history.end])
            digest = history.previous
        return [message for piece in reversed(pieces) for message in piece]

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
