"""Turn plain data into JSON data in which what repeats is written once and referred to, and back.

Version 1 of the form. An object whose only name begins with ``$`` stands for something else::

    {"$text": DIGEST}       a text of over 500 characters, written elsewhere
    {"$bytes": BASE64}      bytes
    {"$data": {"$…": …}}    an object of the user's own whose only name begins with "$"
    {"$messages": DIGEST}   in a chat's ``messages`` only, first or after its system messages: two or more in
                            a row that another request holds, from its first or its first that is not a system message

A text's digest is the first 32 hexadecimal digits of the SHA-256 of its UTF-8. The digest of messages is a chain over
them as they are encoded: it begins with the empty text; each step is the first 32 hexadecimal digits of the SHA-256 of
the digest so far followed by the message as ASCII JSON with sorted names and the separators ``", "`` and ``": "``.
Requests of fewer than four messages neither refer to another's nor are referred to, so that short ones can be read
where they stand; and the last message always stands where it is asked.
"""

from __future__ import annotations

import json
import threading
from binascii import a2b_base64, b2a_base64
from hashlib import sha256
from math import isfinite
from typing import TYPE_CHECKING, Any

from ..errors import CacheCorruptError
from .entries import LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..types import Data

__all__ = ["INLINE_CHARACTERS", "Decoder", "Encoder", "check_unicode", "digest_of", "is_inline", "ordered"]

INLINE_CHARACTERS = 500
FEWEST_MESSAGES = 4
CHANGED = "a line was changed by hand or removed: take it from version control, or record again"
NESTED = (dict, list)
SYSTEM_ROLES = ("system", "developer")

_canonical = json.JSONEncoder(sort_keys=True).encode


def digest_of(text: str) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of a text's UTF-8."""
    return sha256(text.encode()).hexdigest()[:32]


def ordered(data: Data) -> Data:
    """Copy plain data, each object's names in the order of the file: sorted, but a message's role and content first."""
    if isinstance(data, dict):
        parts = {name: data[name] for name in _names(data)}
        return {name: ordered(part) if isinstance(part, NESTED) else part for name, part in parts.items()}
    return [ordered(item) for item in data] if isinstance(data, list) else data


def _names(data: dict[str, Data]) -> list[str]:
    if "role" in data:
        return sorted(data, key=lambda name: (name != "role", name != "content", name))
    return sorted(data)


def _stands_for_another(data: dict[str, Any]) -> bool:
    return len(data) == 1 and next(iter(data)).startswith("$")


def _reference(item: Any) -> str | None:
    """Return the digest of ``{"$messages": digest}``, and ``None`` of anything else."""
    digest = item.get("$messages") if isinstance(item, dict) and len(item) == 1 else None
    return digest if isinstance(digest, str) else None


def is_inline(messages: list[Any]) -> bool:
    """Tell whether a request's messages are so few that they neither hold references nor are referred to."""
    return len(messages) < FEWEST_MESSAGES and not any(map(_reference, messages))


def _after_system(messages: list[Any]) -> int:
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in SYSTEM_ROLES:
            return place
    return 0


def _chains(messages: list[Any]) -> Iterator[tuple[str, int, int, str]]:
    """Yield the runs that others may refer to: digest, begin and end here, and the digest of what it goes on from."""
    begin = _after_system(messages)
    reference = _reference(messages[begin])
    heads = {(begin + 1, reference)} if reference is not None else {(0, ""), (begin, "")}
    for first, before in sorted(heads):
        digest = before
        for end in range(first, len(messages)):
            digest = digest_of(digest + _canonical(messages[end]))
            yield digest, first, end + 1, before


class Encoder:
    """Encode the data of one file; ``new_texts`` gathers the digest and text of each text when it is first used."""

    def __init__(self) -> None:
        self.new_texts: list[tuple[str, str]] = []
        self._digests: dict[str, str] = {}
        self._runs: set[str] = set()

    def request(self, request: dict[str, Data]) -> dict[str, Any]:
        """Encode the request of a chat, referring to the messages that it has in common with an earlier one."""
        encoded = self._object(request, "request")
        messages = encoded.get("messages")
        if isinstance(messages, list) and not is_inline(messages):
            encoded["messages"] = shared = self._shared(messages)
            self._runs.update(digest for digest, *_ in _chains(shared))
        return encoded

    def data(self, data: Data, place: str) -> Any:
        """Encode plain data.

        :param data: dict with text keys, list, str, int, float, bool, None or bytes.
        :param place: where it stands, for the errors.
        :raises TypeError: for anything else.
        :raises ValueError: for NaN, an infinity or a lone surrogate.
        """
        if isinstance(data, str):
            return self._text(data, place)
        if isinstance(data, dict):
            return self._object(data, place)
        if isinstance(data, list):
            return [self.data(item, f"{place}[{index}]") for index, item in enumerate(data)]
        if isinstance(data, bytes):
            return {"$bytes": b2a_base64(data, newline=False).decode("ascii")}
        if isinstance(data, float) and not isfinite(data):
            raise ValueError(f"{place} is {data}, which JSON cannot hold; use None or a text")
        if data is None or isinstance(data, (int, float)):
            return data
        raise TypeError(
            f"{place} is of type {type(data).__name__}; "
            "only dict, list, str, int, float, bool, None and bytes can be recorded"
        )

    def _object(self, data: dict[str, Data], place: str) -> dict[str, Any]:
        for name in data:
            if not isinstance(name, str):
                raise TypeError(f"{place} has a key of type {type(name).__name__}; only text keys can be recorded")
            check_unicode(name, f"a key of {place}")
        encoded = {name: self.data(data[name], f"{place}.{name}") for name in _names(data)}
        return {"$data": encoded} if _stands_for_another(data) else encoded

    def _text(self, text: str, place: str) -> Any:
        check_unicode(text, place)
        if len(text) <= INLINE_CHARACTERS:
            return text
        if text not in self._digests:
            self._digests[text] = digest_of(text)
            self.new_texts.append((self._digests[text], text))
        return {"$text": self._digests[text]}

    def _shared(self, messages: list[Any]) -> list[Any]:
        """Put a reference in the place of the longest known run, the last message apart."""
        longest, begin, end = "", 0, 1
        for digest, first, after, _ in _chains(messages[:-1]):
            if digest in self._runs and after - first > end - begin:
                longest, begin, end = digest, first, after
        return [*messages[:begin], {"$messages": longest}, *messages[end:]] if longest else messages


def check_unicode(text: str, place: str) -> None:
    """Refuse a text with a lone surrogate by a ``ValueError`` that names its place."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{place} has a lone surrogate at index {error.start}, which is no text") from None


class Decoder:
    """Decode the data of one file, whose texts were made known to it in any order.

    What it is given to decode is never changed; what it returns is always new.

    :param requests: yields the encoded requests of the chats that others may refer to; read as far as needed.
    :ivar texts: those that were made known, by their digests.
    """

    def __init__(self, requests: Iterator[dict[str, Any]]) -> None:
        self.texts: dict[str, str] = {}
        self._requests = requests
        self._reading = threading.Lock()
        self._runs: dict[str, tuple[list[Any], int, int, str]] = {}

    def add_text(self, digest: str, text: str) -> None:
        """Make a text known.

        :raises CacheCorruptError: where the digest is not the text's.
        """
        if digest_of(text) != digest:
            raise CacheCorruptError(f"the text does not have the digest {digest[:64]}; {CHANGED}")
        self.texts[digest] = text

    def request(self, encoded: dict[str, Any]) -> Data:
        """Decode the request of a chat with all its messages.

        :raises CacheCorruptError: for a reference to what the file does not hold, or that is none of version 1.
        """
        messages = encoded.get("messages")
        if isinstance(messages, list) and messages:
            place = _after_system(messages)
            reference = _reference(messages[place])
            if reference is not None:
                full = [*messages[:place], *self._run(reference), *messages[place + 1 :]]
                encoded = {**encoded, "messages": full}
        return self.data(encoded)

    def data(self, encoded: Any) -> Data:
        """Decode data other than a chat's request; see :meth:`request`."""
        return self._data(encoded, [LINE_BYTES])

    def _data(self, encoded: Any, room: list[int]) -> Data:
        if isinstance(encoded, dict):
            if _stands_for_another(encoded):
                return self._meant(*next(iter(encoded.items())), room)
            return {name: self._data(item, room) for name, item in encoded.items()}
        return [self._data(item, room) for item in encoded] if isinstance(encoded, list) else encoded

    def _meant(self, sign: str, value: Any, room: list[int]) -> Data:
        """Return what an object stands for.

        :param room: the characters that texts may still have: a short line can refer to a long one many times.
        """
        if sign == "$text" and isinstance(value, str):
            if value not in self.texts:
                raise CacheCorruptError(f"it refers to the text {value[:64]}, which no line holds; {CHANGED}")
            room[0] -= len(self.texts[value])
            if room[0] < 0:
                raise CacheCorruptError(f"the texts it refers to have more than {LINE_BYTES} characters; {CHANGED}")
            return self.texts[value]
        if sign == "$bytes" and isinstance(value, str):
            return _bytes(value)
        if sign == "$data" and isinstance(value, dict) and _stands_for_another(value):
            return {name: self._data(item, room) for name, item in value.items()}
        raise CacheCorruptError(f'its object of the one name "{sign[:40]}" means nothing there; {CHANGED}')

    def _run(self, digest: str) -> list[Any]:
        """Collect the messages of a run, which may go on from another one, and that from a third."""
        messages, begin, end, before = self._known(digest)
        pieces = [messages[begin:end]]
        while before:
            messages, begin, end, before = self._known(before)
            pieces.append(messages[begin:end])
        return [message for piece in reversed(pieces) for message in piece]

    def _known(self, digest: str) -> tuple[list[Any], int, int, str]:
        if digest not in self._runs:
            with self._reading:
                self._read_to(digest)
        return self._runs[digest]

    def _read_to(self, digest: str) -> None:
        while digest not in self._runs:
            encoded = next(self._requests, None)
            if encoded is None:
                raise CacheCorruptError(f"it refers to the messages {digest[:64]}, which no request holds; {CHANGED}")
            messages = encoded.get("messages")
            if isinstance(messages, list) and not is_inline(messages):
                for run, begin, end, before in _chains(messages):
                    self._runs.setdefault(run, (messages, begin, end, before))


def _bytes(base64: str) -> bytes:
    try:
        decoded = a2b_base64(base64)
    except ValueError:
        decoded = b""
    if b2a_base64(decoded, newline=False) != base64.encode():
        raise CacheCorruptError(f"it holds bytes that are not Base64; {CHANGED}")
    return decoded
