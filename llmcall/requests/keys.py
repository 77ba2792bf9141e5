"""What identifies a request: canonical JSON, hashed.

The key is the SHA-256 of ``{"key":VERSION,"kind":…,"request":{…},"sample":…}``: keys sorted, no blanks, UTF-8, every
number in its shortest form. ``request`` is the whole of what was asked, the namespace included where there is one, its
texts without what a normalizer takes out.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from .plain_data import leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ANEW", "KEY_VERSION", "NORMALIZERS", "canonical", "identity", "key_of", "normalizer", "sampled_key"]

KEY_VERSION = 1
ANEW = ".anew"  # ends the sample of what is asked since the recorded answer does not fit its response_format
_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp]\.?[Mm]\b\.?)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})\b)?"
_YEAR = r"(?:19|20)\d{2}\b"
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_WEEKDAY = r"(?:(?:Mon|Tue(?:s)?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?\.?,? )?"
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
# What each named normalizer takes out of a text, and leaves its name in its place. A date in words or with slashes
# counts where it has its year: "May 3 people enter?" has none.
NORMALIZERS = {
    "times": re.compile(
        rf"\b(?:\d{{4}}-\d{{2}}-\d{{2}}|{_WEEKDAY}{_MONTH} {{1,2}}{_DAY},? {_YEAR}"
        rf"|{_WEEKDAY}{_DAY}(?: of|\.)? {_MONTH},? {_YEAR}"
        rf"|\d{{1,2}}(?P<mark>[/.])\d{{1,2}}(?P=mark){_YEAR}|{_YEAR}/\d{{1,2}}/\d{{1,2}})"
        rf"(?:(?:T|,? (?:at )?){_CLOCK}{_ZONE})?(?!\w)"
        rf"|\b{_WEEKDAY}{_MONTH} {{1,2}}{_DAY},? {_CLOCK}(?: [A-Z]{{3,5}})? {_YEAR}"  # strftime("%c")
        rf"|\b{_CLOCK}"
    ),
    "uuids": re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"),
    "addresses": re.compile(r"\b0x[0-9a-fA-F]{4,16}\b"),
    "temporary_paths": re.compile(
        r"(?:/private)?(?:/var/folders/[^/\s]+/[^/\s]+/T|/var/tmp|/tmp|[A-Za-z]:\\[^\s\"']{0,260}?\\Temp)[/\\][^\s\"',;)\]}]+"
    ),
}


def canonical(value: Any, place: str = "request") -> bytes:
    """Return plain data as canonical JSON in UTF-8.

    :param value: data as :func:`llmcall.requests.plain_data.plain` makes it.
    :param place: how an error names the value.
    :raises ValueError: where a text holds a lone surrogate, naming its place.
    """
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        found = next(name for name, leaf in leaves(value, place) if isinstance(leaf, str) and not _is_text(leaf))
        raise ValueError(f"{found} holds a lone surrogate, which UTF-8 cannot encode") from None
    except RecursionError:
        raise ValueError(f"{place} is nested too deeply") from None


def _is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def identity(kind: str, asked: Mapping[str, Any]) -> Any:
    """Return the SHA-256 object of a request's canonical JSON up to its sample, which alone comes after."""
    return sha256(b'{"key":%d,"kind":"%s","request":%s' % (KEY_VERSION, kind.encode(), canonical(asked)))


def sampled_key(identified: Any, sample: str | None) -> str:
    """Return the key, 64 hexadecimal digits, of what :func:`identity` returned and a sample."""
    hashed = identified.copy()
    hashed.update(b',"sample":%s}' % (b"null" if sample is None else canonical(sample, "sample")))
    return hashed.hexdigest()  # type: ignore[no-any-return]


def key_of(kind: str, asked: Mapping[str, Any], sample: str | None) -> str:
    """Return the key, 64 hexadecimal digits, of a stored request."""
    return sampled_key(identity(kind, asked), sample)


@lru_cache(maxsize=32)
def normalizer(names: tuple[str, ...]) -> Callable[[str], str] | None:
    """Return what replaces the parts of a text that do not matter, or ``None`` where there is nothing to replace.

    :param names: names of ``NORMALIZERS``, or regular expressions; the settings check them.
    """
    if not names:
        return None
    patterns = [(NORMALIZERS.get(name) or re.compile(name), name if name in NORMALIZERS else "…") for name in names]

    def normalize(text: str) -> str:
        """Replace each match by its name."""
        for pattern, name in patterns:
            text = pattern.sub(f"<{name}>", text)
        return text

    return normalize
