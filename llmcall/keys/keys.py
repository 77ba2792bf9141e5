"""A request's key: the hash of its canonical JSON.

The key is the SHA-256 of ``{"key":VERSION,"kind":…,"request":{…},"sample":…}``: keys sorted, no
blanks, UTF-8, every number in its shortest form. ``request`` is the whole request, including its
namespace if there is one, with normalized texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .plain_data import recordable

if TYPE_CHECKING:
    from typing_extensions import Self

KEY_VERSION = 1
_BEGINNING = b'{"key":%d,"kind":"%s","request":%s'
_encode = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
).encode


def canonical_json(value: object, location: str = "request") -> bytes:
    """Return plain data as canonical JSON in UTF-8.

    :param value: the result of :func:`llmcall.keys.plain_data.plain`.
    :param location: where the value is, for messages.
    :raises ValueError: if a text holds a lone surrogate; names its location.
    """
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        recordable(value, location)  # raises an error with the location
        raise


def canonical_messages(messages: Sequence[Mapping[str, object]], location: str) -> bytes:
    """Return a chat's messages as :func:`canonical_json` does.

    Most are a role, in which nothing is escaped, and a text alone: to start json's encoder of dicts takes longer than
    all texts of a short chat.
    """
    for message in messages:
        if len(message) != 2 or type(message.get("content")) is not str:
            return canonical_json(messages, location)
    texts = [
        f'{{"content":{_encode(message["content"])},"role":"{message["role"]}"}}'
        for message in messages
    ]
    try:
        return f"[{','.join(texts)}]".encode()
    except UnicodeEncodeError:
        recordable(messages, location)  # raises an error with the location
        raise


class Identity(Protocol):
    """The identity of a request: an object of hashlib that has hashed all but the sample, which comes last."""

    def copy(self) -> Self: ...
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...


def identity(kind: str, request: Mapping[str, object]) -> Identity:
    """Return the SHA-256 of a request's canonical JSON, which lacks the sample yet."""
    return sha256(_BEGINNING % (KEY_VERSION, kind.encode(), canonical_json(request)))


class OpenIdentity(NamedTuple):
    """The identity of requests that differ in one field alone.

    :param begun: has hashed what comes before the field's value.
    :param rest: what comes after it.
    """

    begun: Identity
    rest: bytes

    def with_value(self, value: bytes) -> Identity:
        """Return the identity of the request whose field has this value, in canonical JSON."""
        hashed = self.begun.copy()
        hashed.update(value + self.rest)
        return hashed


def open_identity(kind: str, fields: Mapping[str, object], name: str) -> OpenIdentity:
    """Return the identity of requests that have these fields, and one more.

    :param name: the name of that field.
    """
    before = {field: value for field, value in fields.items() if field < name}
    after = {field: value for field, value in fields.items() if field > name}
    begun = canonical_json(before)[:-1] + (b"," if before else b"") + b'"%s":' % name.encode()
    rest = (b"," if after else b"") + canonical_json(after)[1:]
    return OpenIdentity(sha256(_BEGINNING % (KEY_VERSION, kind.encode(), begun)), rest)


def sampled_key(identity: Identity, sample: str | None) -> str:
    """Return the key, 64 hexadecimal digits, of a request and a sample."""
    key_hash = identity.copy()
    key_hash.update(
        b',"sample":%s}' % (b"null" if sample is None else canonical_json(sample, "sample"))
    )
    return key_hash.hexdigest()


def key_of(kind: str, request: Mapping[str, object], sample: str | None) -> str:
    """Return the key, 64 hexadecimal digits, of a stored request."""
    return sampled_key(identity(kind, request), sample)


def short_key(key: str) -> str:
    """Return the first digits of a key, which name its record in messages and tables."""
    return key[:12]
