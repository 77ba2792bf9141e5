"""A request's key: the hash of its canonical JSON.

The key is the SHA-256 of ``{"key":VERSION,"kind":…,"request":{…},"sample":…}``: keys sorted, no
blanks, UTF-8, every number in its shortest form. ``request`` is the whole request, including its
namespace if there is one, with normalized texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from .plain_data import recordable

if TYPE_CHECKING:
    from typing_extensions import Self

KEY_VERSION = 1
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


class Identity(Protocol):
    """The identity of a request: an object of hashlib that has hashed all but the sample, which comes last."""

    def copy(self) -> Self: ...
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...


def identity(kind: str, request: Mapping[str, object]) -> Identity:
    """Return the SHA-256 of a request's canonical JSON, which lacks the sample yet."""
    return sha256(
        b'{"key":%d,"kind":"%s","request":%s'
        % (KEY_VERSION, kind.encode(), canonical_json(request))
    )


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
