"""The values of the settings: text or Python values in, checked and typed values out.

The same checks serve config.ini, ``.env``, the environment and arguments in code. Text that is empty gives ``UNSET``:
the layer says nothing. The word ``none`` gives ``None`` to a setting that may be without a value, and is ``UNSET``
elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .names import Setting, nearest

if TYPE_CHECKING:
    from typing import NoReturn

__all__ = [
    "MASK",
    "NORMALIZERS",
    "UNSET",
    "check_value",
    "directory_named",
    "host_of",
    "is_loopback",
    "read_boolean",
    "read_names",
    "read_number",
    "refuse",
    "without_password",
]

MASK = "***"
UNSET: Any = type("Unset", (), {"__slots__": (), "__repr__": lambda self: "UNSET"})()

NORMALIZERS = ("times", "uuids", "addresses", "temporary_paths")
# The words of configparser.RawConfigParser.BOOLEAN_STATES.
BOOLEANS = {"1": True, "yes": True, "true": True, "on": True, "0": False, "no": False, "false": False, "off": False}
NO_NONE = frozenset({"text", "choice", "secret"})  # there, "none" is a word like any other
LISTS = frozenset({"names", "patterns", "normalizers"})
LONGEST_SHOWN = 60
# A backslash is refused: some libraries read the host before it, others after it.
_PASSWORD = r"(?<=[?&_]password=)[^&]+"  # in a query, as redis-py reads it
_ADDRESS = r"(?i:https?)://(?:[^/?#\s\\]*@)?(?:\[[0-9A-Fa-f:.]+\](?::\d+)?|[^/?#\s\\\[\]@]+)(?:[/?#][^\s\\]*)?"


def check_value(row: Setting, value: Any, where: str, folder: str | None = None) -> Any:
    """Return a value as the setting's type.

    :param row: the setting.
    :param value: text from a file or a variable, or a value from code.
    :param where: where it was found, for the message.
    :param folder: the directory that a relative path starts from; ``None`` is the working directory.
    :returns: the value, or ``UNSET`` for empty text.
    :raises ConfigError: if it is of the wrong type or outside the allowed range.
    """
    if isinstance(value, str):
        value = value.strip()
        if not value and row.kind != "text":
            return UNSET
        if value.casefold() == "none" and row.kind not in NO_NONE:
            return () if row.kind in LISTS else None if row.default is None else UNSET
    return _CHECKS[row.kind](row, value, where, folder)


def read_boolean(value: Any, where: str) -> bool:
    """Return yes/no, true/false, on/off or 1/0, in any case, as a bool.

    :raises ConfigError: for anything else.
    """
    if isinstance(value, bool):
        return value
    found = BOOLEANS.get(str(value).strip().casefold())
    return refuse(where, value, "one of yes, no, true, false, on, off, 1, 0") if found is None else found


def refuse(where: str, value: Any, expected: str) -> NoReturn:
    """Raise the ``ConfigError`` of a value that is not what its setting expects.

    :param where: where the value was found.
    :param expected: what it should be, to follow "is not".
    """
    raise ConfigError(f"{where}: {_shown(value)} is not {expected}") from None


def _shown(value: Any) -> str:
    """Describe a refused value; one that may be a misplaced key or is long is not repeated."""
    if isinstance(value, str):
        hidden = len(value) > LONGEST_SHOWN or value.casefold().startswith(("sk-", "bearer ", "eyj"))
        return f"a text of {len(value)} characters" if hidden else repr(without_password(value))
    return repr(value) if isinstance(value, (bool, int, float)) else f"a {type(value).__name__}"


def without_password(url: Any) -> Any:
    """Return an address with what stands before ``@`` in its host part, and a password in its query, masked.

    In an address of the web, the host part ends at the first slash; in others, at the last ``@``, since a password that
    was not quoted may hold a slash. One that begins with a path, such as ``unix:///run/redis.sock``, has no host part.
    """
    if not isinstance(url, str) or "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    rest = re.sub(_PASSWORD, MASK, rest)
    host, slash, path = rest.partition("/") if scheme.casefold().startswith("http") else (rest, "", "")
    credentials, at, address = ("", "", host) if host.startswith("/") else host.rpartition("@")
    return f"{scheme}://{MASK if credentials else ''}{at}{address}{slash}{path}"


def directory_named(file_name: str) -> str:
    """Return the name of the cache directory for TinyTroupe's cache file: ``x.pickle`` gives ``x.cache``."""
    stem, extension = os.path.splitext(file_name)
    return stem + ".cache" if extension == ".pickle" else file_name


def _text(row: Setting, value: Any, where: str, folder: str | None) -> str:
    if not isinstance(value, str):
        refuse(where, value, "a text")
    if "\n" in value or "\0" in value:
        refuse(where, value, "one line of text (in a file: an indented line goes on with the value above it)")
    return value


def _url(row: Setting, value: Any, where: str, folder: str | None) -> str:
    text = _text(row, value, where, folder)
    if not re.fullmatch(_ADDRESS, text):
        refuse(where, value, "an address like https://host/v1")
    return text


def _secret(row: Setting, value: Any, where: str, folder: str | None) -> Any:
    if callable(value):
        return value
    if not isinstance(value, str) or re.search(r"[\s\0]", value):
        raise ConfigError(f"{where}: not a key: one word of text, or a function that returns it")
    return value


def _function(row: Setting, value: Any, where: str, folder: str | None) -> Any:
    return value if callable(value) else refuse(where, value, "a function")


def _choice(row: Setting, value: Any, where: str, folder: str | None) -> str:
    word = value.casefold() if isinstance(value, str) else value
    if word not in row.choices:
        refuse(where, value, f"one of {', '.join(row.choices)}")
    return str(word)


def read_number(value: Any) -> float | None:
    """Return a finite float, or ``None`` for what is none (a bool, a NaN, a text like ``1,5``)."""
    if isinstance(value, bool) or not (isinstance(value, str) or hasattr(type(value), "__float__")):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found - found == 0 else None


def _whole(value: Any) -> int | None:
    """Return an int, also from ``5.0``, or ``None`` for what is no whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    found = read_number(value)
    return int(found) if found is not None and found.is_integer() else None


def _in_range(row: Setting, value: float) -> bool:
    return (row.low is None or value >= row.low) and (row.high is None or value <= row.high)


def _range(row: Setting) -> str:
    if row.high is not None:
        return f"between {row.low:g} and {row.high:g}"
    return "" if row.low is None else f"of at least {row.low:g}"


def _number(row: Setting, value: Any, where: str, folder: str | None) -> float:
    found = read_number(value)
    if found is None or not _in_range(row, found):
        refuse(where, value, f"a number {_range(row)}".strip())
    return found


def _integer(row: Setting, value: Any, where: str, folder: str | None) -> int:
    found = _whole(value)
    if found is None or not _in_range(row, found):
        refuse(where, value, f"a whole number {_range(row)}".strip())
    return found


def _seconds(row: Setting, value: Any, where: str, folder: str | None) -> float:
    found = read_number(value)
    if found is None or found <= 0:
        refuse(where, value, "a number of seconds above 0")
    return found


def _boolean(row: Setting, value: Any, where: str, folder: str | None) -> bool:
    return read_boolean(value, where)


def _path(row: Setting, value: Any, where: str, folder: str | None) -> str:
    text = _text(row, value.__fspath__() if isinstance(value, os.PathLike) else value, where, folder)
    if "://" in text:
        return text
    return os.path.normpath(os.path.join(folder or os.getcwd(), os.path.expanduser(text)))


def _items(value: Any, where: str, separator: str) -> list[str]:
    """Return the texts of a list, or those of a text that a separator or a line's end keeps apart."""
    if isinstance(value, str):
        items: list[Any] = re.split(separator, value)
    elif isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping)):
        items = list(value)
    else:
        refuse(where, value, "a list of texts")
    for item in items:
        if not isinstance(item, str):
            refuse(where, item, "a text")
    return [item.strip() for item in items if item.strip()]


def read_names(value: Any, where: str) -> tuple[str, ...]:
    """Return the names of a list, or those that commas, spaces or lines keep apart in a text.

    :raises ConfigError: for anything else.
    """
    return tuple(_items(value, where, r"[,\s]"))


def _names(row: Setting, value: Any, where: str, folder: str | None) -> tuple[str, ...]:
    return read_names(value, where)


def _patterns(row: Setting, value: Any, where: str, folder: str | None) -> tuple[str, ...]:
    return tuple(_pattern(line, where) for line in _items(value, where, r"\n"))


def _normalizers(row: Setting, value: Any, where: str, folder: str | None) -> tuple[str, ...]:
    found: list[str] = []
    for line in _items(value, where, r"\n"):
        words = [word.strip().casefold() for word in line.split(",")]
        if all(word in NORMALIZERS for word in words):
            found += words
        else:
            found.append(_pattern(line, where))
            _warn_of_misspelt(words, where)
    return tuple(found)


def _warn_of_misspelt(words: list[str], where: str) -> None:
    if all(re.fullmatch(r"[a-z_ ]+", word) for word in words):
        for word in words:
            guess = "" if word in NORMALIZERS else nearest(word, NORMALIZERS, cutoff=0.7)
            if guess:
                from ..notices import warn_once

                warn_once(f"{where}: {word!r} is read as a regular expression{guess}")


def _pattern(text: str, where: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        refuse(where, text, f"a regular expression: {error.msg} at position {error.pos}")
    return text


_CHECKS: dict[str, Callable[[Setting, Any, str, str | None], Any]] = {
    "boolean": _boolean,
    "choice": _choice,
    "function": _function,
    "integer": _integer,
    "name": _text,
    "names": _names,
    "normalizers": _normalizers,
    "number": _number,
    "path": _path,
    "patterns": _patterns,
    "secret": _secret,
    "seconds": _seconds,
    "text": _text,
    "url": _url,
}


_PLAIN = re.compile(r"https?://([A-Za-z0-9.-]+)(?::[0-9]+)?(?:/|\Z)")


def host_of(url: str) -> str:
    """Return the host of an address in small letters, without user, password and port."""
    plain = _PLAIN.match(url)
    if plain is not None:
        return plain[1].lower()
    from urllib.parse import urlsplit  # costs 3 ms, which a plain address does not need

    return (urlsplit(url).hostname or "").lower()


def is_loopback(url: str) -> bool:
    """Tell whether an address is on this machine: localhost, 127.0.0.0/8, ::1 (RFC 6761, 6890), or 0.0.0.0 and ::."""
    host = host_of(url)
    known = host in ("localhost", "::1", "0.0.0.0", "::") or host.endswith(".localhost")
    return known or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
