"""Read and write records as JSON Lines, the form of cassettes and of exported caches, made for review and for git.

Version 1 of the form. A file is UTF-8; each line is one JSON object, and one of these three::

    {"llmcall": 1, "settings": {…}}              the header, first; equal ones may follow anywhere
    {"text": DIGEST, "lines": [TEXT, …]}         a text of over 500 characters, split at each "\\n"
    {"kind": …, "sample": …, "request": {…}, "response": {…}, "cost": …}
                                                 a record; sample and cost where there are any

A text is written once, before its first use; requests and responses refer to it, and a request refers to the messages
that it has in common with an earlier one (see :mod:`llmcall.cassettes.references`). So a conversation's file grows
linearly with it, and no line depends on a later one. Blank lines, a byte order mark and carriage returns at line ends
are accepted.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from ..cache.drafts import draft
from .entries import LINE_BYTES, header, line_of
from .reader import Lines
from .references import Encoder, check_unicode, ordered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..types import Data, Record
    from .reader import KeyOf

__all__ = ["VOLATILE", "Lines", "decode", "encode", "read", "sort_key", "write"]

VOLATILE = ("id", "created", "system_fingerprint")  # fields of a model's response that are new in each


def sort_key(record: Record) -> tuple[str, ...]:
    """Return what records are sorted by: the names of their scope path; those without a sample come first."""
    return () if record.sample is None else tuple(record.sample.partition("#")[0].split("/"))


def encode(settings: Mapping[str, Data], records: Iterable[Record], *, allow: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the lines of a file, each with its newline.

    :param settings: the settings that entered the keys, as JSON data.
    :param records: the records in the order of the calls; they are written by scope path.
    :param allow: regular expressions of what is no secret though it looks like a credential.
    :raises ValueError: for NaN, an infinity, a lone surrogate or too deep a nesting, with its place.
    :raises TypeError: for anything but plain data, with its place.
    :raises CacheError: for text that looks like a credential, with its place.
    """
    from . import credentials
    credentials.refuse({"settings": dict(settings)}, allow, "the header")
    first = line_of(header(ordered(dict(settings))))
    check_unicode(first, "the settings")
    yield first
    encoder = Encoder()
    searched: set[str] = set()
    for number, record in enumerate(sorted(records, key=sort_key), 1):
        where = f"record {number}" + ("" if record.sample is None else f" (sample {record.sample!r})")
        encoded = _encoded(encoder, record, where)
        shown = {"sample": record.sample, "request": record.request, "response": record.response}
        credentials.refuse(shown, allow, where, searched)
        for digest, text in encoder.new_texts:
            yield line_of({"text": digest, "lines": text.split("\n")})
        encoder.new_texts.clear()
        yield line_of(encoded)


def _encoded(encoder: Encoder, record: Record, where: str) -> dict[str, Any]:
    request, response = record.request, record.response
    if record.kind != "function":
        response = {name: value for name, value in response.items() if name not in VOLATILE}
    try:
        check_unicode(record.sample or "", "sample")
        entry = {
            "kind": record.kind,
            "sample": record.sample,
            "request": encoder.request(request) if record.kind == "chat" else encoder.data(request, "request"),
            "response": encoder.data(response, "response"),
            "cost": encoder.data(record.cost, "cost"),
        }
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None
    except RecursionError:
        raise ValueError(f"{where}: its request or response is nested too deeply to be recorded") from None
    return {name: value for name, value in entry.items() if value is not None}


def write(
    path: str | os.PathLike[str],
    settings: Mapping[str, Data],
    records: Iterable[Record],
    *,
    allow: tuple[str, ...] = (),
) -> None:
    """Write a file whole or not at all, and the folders above it; see :func:`encode` for what it raises.

    A file that exists keeps its mode; a new one has what the umask leaves.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)
    mode = stat.S_IMODE(os.stat(target).st_mode) if os.path.exists(target) else None
    with draft(folder, name, 0o666 if mode is None else 0o600) as temporary:
        with open(temporary, "wb") as file:
            file.writelines(line.encode() for line in encode(settings, records, allow=allow))
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)


def read(path: str | os.PathLike[str], key_of: KeyOf) -> Lines:
    """Read a file; see :func:`decode`."""
    with open(path, "rb") as file:
        small = os.fstat(file.fileno()).st_size <= LINE_BYTES
        lines = file if small else iter(lambda: file.readline(LINE_BYTES + 1), b"")
        return decode(lines, os.fspath(path), key_of)


def decode(lines: Iterable[bytes], name: str, key_of: KeyOf) -> Lines:
    """Read the lines of a file; its records are resolved when they are asked for.

    :param lines: the lines as bytes.
    :param name: what errors call the file.
    :param key_of: gives the cache key of a kind, a request and a sample.
    :raises CacheCorruptError: for a damaged line, with its number; for a dangling reference, and for two answers to one
        key whose requests are written differently, only when they are resolved.
    :raises CacheError: for a file of a newer version.
    """
    return Lines(lines, name, key_of)
