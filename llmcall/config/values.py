"""Parsers of the values of settings: text or Python values in, checked values out.

The same parsers serve config.ini, ``.env``, the environment and arguments in code. A parser takes a
value and its location, for messages. Empty text means ``UNSET``, and the word ``none`` means ``None``,
unless the parser is one of ``WORDS``. If a setting's default is empty text, both are ordinary texts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar, cast

from ..errors import ConfigError
from ..support.arguments import nearest
from ..support.lazy_names import pattern
from ..support.normalizers import NORMALIZERS
from ..support.notices import warn_once
from ..support.secrets import names_credential
from ..support.system import unwatched

T = TypeVar("T")
# Takes a value from anywhere and its location, and returns the setting's value.
Parser = Callable[[object, str], Any]

MASK = "***"

# The words of configparser.RawConfigParser.BOOLEAN_STATES.
BOOLEANS = {
    **dict.fromkeys(("1", "yes", "true", "on"), True),
    **dict.fromkeys(("0", "no", "false", "off"), False),
}
LONGEST_VALUE = 60


class Unset:
    """The type of ``UNSET``, the value of a setting that a source does not set."""

    __slots__ = ()

    def __reduce__(self) -> str:
        return "UNSET"


UNSET: object = Unset()


class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed and can be pickled."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("settings are frozen: use configure(…)")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[str, Any]]]:
        return FrozenDict, (dict(self),)


def refuse(location: str, value: object, expected: str) -> NoReturn:
    """Raise the ``ConfigError`` for an invalid value.

    :param location: where the value was found.
    :param expected: the expected value, to follow "is not".
    """
    raise ConfigError(f"{location}: {_describe(value)} is not {expected}") from None


def _describe(value: object) -> str:
    """Return an invalid value in words, without repeating a long text or a possible key."""
    if isinstance(value, (bool, int, float)):
        return repr(value)
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    may_be_key = value.casefold().startswith(("sk-", "bearer ", "eyj"))
    if may_be_key or len(value) > LONGEST_VALUE:
        return f"a text of {len(value)} characters"
    return repr(without_password(value))


# Texts.


def text(value: object, location: str) -> str:
    """Return one line of text."""
    if not isinstance(value, str):
        refuse(location, value, "a text")
    if "\n" in value or "\0" in value:
        refuse(
            location,
            value,
            "one line of text (in a file, an indented line continues the value above it)",
        )
    return value


def credential(value: object, location: str) -> str | Callable[[], object]:
    """Return a key, or the function that returns it."""
    return function(value, location) if callable(value) else check_credential(value, location)


def check_credential(
    value: object,
    location: str,
    expected: str = "an API key or token: one word of text, or a function that returns it",
) -> str:
    """Return a text that an HTTP header can hold, without surrounding white space.

    :param location: where it was found, e.g. ``"environment variable OPENAI_API_KEY"``.
    :param expected: the expected value, to follow "not".
    :raises ConfigError: if it contains blanks, control characters or non-ASCII characters; the
        message does not show the text.
    """
    word = value.strip() if isinstance(value, str) else ""
    if not re.fullmatch(r"[\x21-\x7e]+", word):
        problem = "" if word.isascii() else " (it contains non-ASCII characters)"
        raise ConfigError(f"{location}: not {expected}{problem}") from None
    return word


def organization(value: object, location: str) -> str:
    """Return an organization's name, which is sent in a header."""
    return check_credential(value, location, "an organization: one word of text")


def parser(read: Callable[[object], object], expected: str) -> Parser:
    """Make a parser.

    :param read: returns the converted value, or ``None`` to refuse it.
    :param expected: the expected value, to follow "is not".
    """

    def parse(value: object, location: str) -> object:
        """Return the converted value."""
        parsed = read(value)
        return refuse(location, value, expected) if parsed is None else parsed

    return parse


def one_of(*words: str, **other_words: str) -> Parser:
    """Return a parser of one of several words, in any case.

    :param other_words: aliases, with the words that they mean.
    """
    allowed = {**{word: word for word in words}, **other_words}
    parse = parser(lambda value: allowed.get(str(value).casefold()), f"one of {', '.join(words)}")
    WORDS.add(parse)
    return parse


WORDS: set[Parser] = {credential}


function = parser(lambda value: value if callable(value) else None, "a function")


def path(value: object, location: str) -> str:
    """Return a path, or the address of a server."""
    return text(value.__fspath__() if isinstance(value, os.PathLike) else value, location)


@unwatched()
def absolute(path_or_address: str, folder: str | None) -> str:
    """Return an absolute path; the address of a server stays unchanged.

    :param folder: the directory that a relative path starts from; ``None`` is the working directory.
    """
    if "://" in path_or_address:
        return path_or_address
    return os.path.normpath(
        os.path.join(folder or os.getcwd(), os.path.expanduser(path_or_address))
    )


def cache_directory_name(file_name: str) -> str:
    """Return the cache directory for TinyTroupe's cache file: ``x.pickle`` becomes ``x.cache``."""
    stem, extension = os.path.splitext(file_name)
    return stem + ".cache" if extension == ".pickle" else file_name


# Numbers and switches.


LARGEST = 1e308
# Seconds, 23 days: the sockets of some systems take 2**31 milliseconds and no more.
LONGEST_TIME = 2_000_000


def as_number(value: Any, low: float = -LARGEST, high: float = LARGEST) -> float | None:
    """Return a value as a float within a range, or ``None`` for anything else (a bool, NaN, ``1,5``)."""
    try:
        float_value = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return float_value if low <= float_value <= high and not isinstance(value, bool) else None


def number(low: float, high: float = LARGEST) -> Parser:
    """Make the parser of a number in a range."""
    expected = f"of at least {low:g}" if high == LARGEST else f"between {low:g} and {high:g}"
    return parser(lambda value: as_number(value, low, high), f"a number {expected}")


def integer(low: int, *words: str) -> Parser:
    """Make the parser of a whole number, which may be written ``5.0``.

    :param words: words that are allowed instead, in upper or lower case.
    """

    def read(value: object) -> int | str | None:
        """Return a whole number, or a word."""
        word = str(value).casefold()
        if word in words:
            return word
        float_value = as_number(value, low)
        return None if float_value is None or float_value % 1 else int(float_value)

    return parser(read, " or ".join((f"a whole number of at least {low}", *words)))


seconds = parser(
    lambda value: as_number(value, 0, LONGEST_TIME) or None,
    f"a number of seconds above 0, at most {LONGEST_TIME}",
)
boolean = parser(
    lambda value: BOOLEANS.get(str(value).casefold()), "one of yes, no, true, false, on, off, 1, 0"
)


# Lists; the word "none" means an empty list.


def _items(value: object, location: str, separator: str) -> list[str]:
    """Return the texts of a list, or the parts of a text between separators."""
    if isinstance(value, str):
        value = () if value.strip().casefold() == "none" else re.split(separator, value)
    elif not isinstance(value, Iterable) or isinstance(value, (bytes, Mapping)):
        refuse(location, value, "a list of texts")
    items = list(value)
    for item in items:
        if not isinstance(item, str):
            refuse(location, item, "a text")
    return [item.strip() for item in items if item.strip()]


def names(value: object, location: str) -> tuple[str, ...]:
    """Return names from a list, or from a text with commas, spaces or line ends between them."""
    return tuple(_items(value, location, r"[,\s]"))


def patterns(value: object, location: str) -> tuple[str, ...]:
    """Return regular expressions, one per line."""
    return tuple(_pattern(line, location) for line in _items(value, location, r"\n"))


def normalizers(value: object, location: str) -> tuple[str, ...]:
    """Return normalizers. Each line holds names separated by commas, or one regular expression."""
    names_and_patterns: list[str] = []
    for line in _items(value, location, r"\n"):
        words = [word.strip().casefold() for word in line.split(",")]
        unknown = [word for word in words if word not in NORMALIZERS]
        if unknown:
            guess = nearest(unknown[0], NORMALIZERS, cutoff=0.7)
            if guess or len(unknown) < len(words):
                warn_once(
                    f"{location}: {line!r} is read as one regular expression{guess}",
                    about=(normalizers, line),  # an option's value is read again as a setting
                )
            words = [_pattern(line, location)]
        names_and_patterns += words
    return tuple(names_and_patterns)


def _pattern(expression: str, location: str) -> str:
    try:
        re.compile(expression)
    except re.error as error:
        refuse(location, expression, f"a regular expression: {error.msg} at position {error.pos}")
    return expression


WORDS |= {names, patterns, normalizers}

# Addresses. Backslashes are refused, since libraries disagree on whether the host ends before one.

_LABEL = r"[\w-]{1,63}"  # of a host's name; RFC 1035, 2.3.4
_ADDRESS = re.compile(
    r"(?i:https?)://(?:[^/?#\s\\]*@)?"
    rf"(\[[0-9A-Fa-f:.]+\]|{_LABEL}(?:\.{_LABEL})*\.?)(?::(\d*))?(?:[/?#][^\s\\]*)?"
)
_PARAMETER = pattern(r"(?<=[?&])([^?&=]*)=[^&]+")  # of a query


def check_address(value: object, location: str = "base_url") -> str:
    """Return the address of an HTTP server, without surrounding white space.

    :param location: where it was found: file, section and key, or the argument's name.
    :raises ConfigError: if scheme or host is missing, or a part is invalid.
    """
    address = text(value.strip() if isinstance(value, str) else value, location)
    match = _ADDRESS.fullmatch(address)
    if match is None or not address.isprintable() or int(match[2] or 1) not in range(1, 65536):
        refuse(location, value, "an address like https://host/v1")
    return address


def host_of(url: str) -> str:
    """Return the host of an address in lower case, without user, password and port."""
    match = _ADDRESS.fullmatch(url)
    return match[1].strip("[]").lower() if match else ""


def is_loopback(url: str) -> bool:
    """Return whether an address is on this machine: localhost, 127.0.0.0/8, ::1 (RFC 6761, 6890),
    0.0.0.0 or ::.
    """
    host = host_of(url)
    has_loopback_name = host in ("localhost", "::1", "0.0.0.0", "::") or host.endswith(".localhost")
    return has_loopback_name or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def without_password(url: T) -> T:
    """Return an address with the credentials before ``@`` and in its query masked.

    In an HTTP address, the host part ends at the first slash. In others it ends at the last ``@``,
    since an unquoted password may contain a slash. ``unix:///run/server.sock`` has no host part.
    """
    if not isinstance(url, str) or "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    credentials = "^[^/]+@" if scheme.casefold().startswith("http") else "^[^/].*@"
    rest = re.sub(credentials, f"{MASK}@", _PARAMETER.sub(_masked_parameter, rest))
    return cast("T", f"{scheme}://{rest}")


def _masked_parameter(parameter: re.Match[str]) -> str:
    """Return a parameter of a query, with its value masked if the name suggests a credential."""
    is_credential = names_credential(parameter[1], include_ambiguous=True)
    return f"{parameter[1]}={MASK}" if is_credential else parameter[0]
