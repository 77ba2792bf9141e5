"""A request's key, the hash of its canonical JSON; and plain data: checked, copied and walked.

The key is the SHA-256 of ``{"key":VERSION,"kind":…,"request":{…},"sample":…}``: keys sorted, no
blanks, UTF-8, every number in its shortest form. ``request`` is the whole request, including its
namespace if there is one, with normalized texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..surrogates import check_unicode, joined_surrogates

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

KEY_VERSION = 1
SPEAKER = ("role", "content")  # a message's fields that come first in a file
# Ends the sample of a request that is asked again because the recorded answer does not fit its
# response_format.
ANEW = ".anew"
_encode = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
).encode

_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp]\.?[Mm]\b\.?)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})\b)?"
_YEAR = r"(?:19|20)\d{2}\b"
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_WEEKDAY = r"(?:(?:Mon|Tue(?:s)?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?\.?,? )?"
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
# What each named normalizer replaces by its name. A date in words or with slashes needs a year:
# "May 3 people enter?" has none.
NORMALIZERS = {
    "times": (
        rf"\b(?:\d{{4}}-\d{{2}}-\d{{2}}|{_WEEKDAY}{_MONTH} {{1,2}}{_DAY},? {_YEAR}"
        rf"|{_WEEKDAY}{_DAY}(?: of|\.)? {_MONTH},? {_YEAR}"
        rf"|\d{{1,2}}(?P<mark>[/.])\d{{1,2}}(?P=mark){_YEAR}|{_YEAR}/\d{{1,2}}/\d{{1,2}})"
        rf"(?:(?:T|,? (?:at )?){_CLOCK}{_ZONE})?(?!\w)"
        # strftime("%c")
        rf"|\b{_WEEKDAY}{_MONTH} {{1,2}}{_DAY},? {_CLOCK}(?: [A-Z]{{3,5}})? {_YEAR}"
        rf"|\b{_CLOCK}"
    ),
    "uuids": r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b",
    "addresses": r"\b0x[0-9a-fA-F]{4,16}\b",
    "temporary_paths": (
        r"(?:/private)?(?:/var/folders/[^/\s]+/[^/\s]+/T|/var/tmp|/tmp|[A-Za-z]:\\[^\s\"']{0,260}?\\Temp)[/\\][^\s\"',;)\]}]+"
    ),
}


def canonical(value: Any, where: str = "request") -> bytes:
    """Return plain data as canonical JSON in UTF-8.

    :param value: data as :func:`llmcall.requests.keys.plain` makes it.
    :param where: where the value is, for messages.
    :raises ValueError: if a text holds a lone surrogate; the message says where.
    """
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        plain(value, where, exact=True)  # raises an error that says where
        raise


def identity(kind: str, asked: Mapping[str, Any]) -> Any:
    """Return the SHA-256 object of a request's canonical JSON up to its sample, which comes last."""
    return sha256(
        b'{"key":%d,"kind":"%s","request":%s' % (KEY_VERSION, kind.encode(), canonical(asked))
    )


def sampled_key(identified: Any, sample: str | None) -> str:
    """Return the key, 64 hexadecimal digits, of a request and a sample.

    :param identified: what :func:`identity` returned.
    """
    hashed = identified.copy()
    hashed.update(b',"sample":%s}' % (b"null" if sample is None else canonical(sample, "sample")))
    return hashed.hexdigest()  # type: ignore[no-any-return]


def key_of(kind: str, asked: Mapping[str, Any], sample: str | None) -> str:
    """Return the key, 64 hexadecimal digits, of a stored request."""
    return sampled_key(identity(kind, asked), sample)


@lru_cache(maxsize=32)
def normalizer(names: tuple[str, ...]) -> Callable[[str], str] | None:
    """Return the function that replaces the parts of a text that do not matter.

    :param names: names of ``NORMALIZERS``, or regular expressions; the settings check them.
    :returns: ``None`` for no names.
    """
    if not names:
        return None
    patterns = [
        (re.compile(NORMALIZERS.get(name, name)), name if name in NORMALIZERS else "…")
        for name in names
    ]

    def normalize(text: str) -> str:
        """Replace each match by its name."""
        for pattern, name in patterns:
            text = pattern.sub(f"<{name}>", text)
        return text

    return normalize


# Plain data.

INTEGER_BITS = 14_000  # 4,214 digits: Python reads and writes no decimal number of more than 4,300


def plain(value: Any, where: str, exact: bool = False, *, surrogates: bool = False) -> Any:
    """Return a copy of JSON-like data in which a number has one form (1.0 is 1).

    :param value: plain data; mappings, tuples and other kinds of numbers are converted.
    :param where: where the value is, for messages, e.g. ``messages[2].content``.
    :param exact: whether the data will be recorded: 1.0 stays 1.0, bytes are allowed, and lone
        surrogates and numbers with too many digits are refused.
    :param surrogates: whether lone surrogates are allowed, as in an answer; JSON can escape them.
    :raises TypeError: for anything else; the message says where.
    :raises ValueError: for NaN and the infinities.
    """
    kind = type(value)
    if value is None or kind is bool or ((kind is str or kind is int) and not exact):
        return value
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"{where} has the key {name!r}; keys must be strings")
        return {
            _text(name, where, exact and not surrogates): plain(
                item, f"{where}.{name}", exact, surrogates=surrogates
            )
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [
            plain(item, f"{where}[{index}]", exact, surrogates=surrogates)
            for index, item in enumerate(value)
        ]
    if isinstance(value, str):
        return _text(value, where, exact and not surrogates)
    return bytes(value) if exact and isinstance(value, bytes) else _number(value, where, exact)


def _text(text: str, where: str, whole: bool) -> str:
    if whole:
        check_unicode(text, where)
    return str.__str__(text)


def _number(value: Any, where: str, exact: bool) -> int | float:
    if type(value) is not float:
        from numbers import Integral, Rational, Real

        if isinstance(value, Integral):
            if exact and int(value).bit_length() > INTEGER_BITS:
                raise ValueError(f"{where} is a number of too many digits to be recorded")
            return int(value)
        if not isinstance(value, Real) or (exact and isinstance(value, Rational)):
            kinds = (
                "dict, list, str, number, bool, None or bytes"
                if exact
                else "dict, list, str, number, bool or None"
            )
            raise TypeError(f"{where} is {a(value)}; it must be plain data ({kinds})")
        value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{where} is {value}, which JSON cannot represent")
    return int(value) if value.is_integer() and not exact else value


def a(value: Any) -> str:
    """Return a value's type with its article, for an error message."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def ordered(data: Any) -> Any:
    """Return a copy of plain data as a cassette returns it.

    Each object's names are sorted, a message's role and content first. Two surrogates that make one
    character are joined.
    """
    if isinstance(data, dict):
        return {name: ordered(data[name]) for name in ordered_names(data)}
    if isinstance(data, list):
        return [ordered(item) for item in data]
    return joined_surrogates(data) if isinstance(data, str) else data


def ordered_names(data: Mapping[str, Any]) -> list[str]:
    """Return the names of an object in the order of :func:`ordered`."""
    names = sorted(data)
    if "role" not in data:
        return names
    return [name for name in SPEAKER if name in data] + [
        name for name in names if name not in SPEAKER
    ]


def is_same(one: Any, other: Any) -> bool:
    """Return whether two pieces of plain data have the same canonical JSON: ``True`` is not 1."""
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is dict:
        if one.keys() != other.keys():
            return False
        for name, item in one.items():
            its = other[name]
            if item != its if type(item) is str else not is_same(item, its):  # most are texts
                return False
        return True
    if kind is list:
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


def map_texts(value: Any, change: Callable[[str], str], kept: Collection[str] = ()) -> Any:
    """Return a copy of plain data with each text changed, but no names.

    :param change: returns the new text.
    :param kept: names of fields whose values stay.
    """
    if isinstance(value, dict):
        return {
            name: item if name in kept else map_texts(item, change, kept)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [map_texts(item, change, kept) for item in value]
    return change(value) if isinstance(value, str) else value
