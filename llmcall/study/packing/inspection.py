"""What should not leave a machine unnoticed: credentials, home folders, e-mail addresses."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...secrets import find

HOME = re.compile(r"(?:/home/|/Users/|(?<![A-Za-z])[A-Za-z]:\\{1,2}Users\\{1,2})[^\s/\\\"'<>:]+")
# What files begin with whose bytes are compressed: gzip, ZIP (so spreadsheets, too), bzip2, xz,
# Zstandard and 7z.
COMPRESSED = (
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf\x27\x1c",
)
MAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")


def credentials(folder: Path, files: Iterable[str], allow: Sequence[str]) -> list[str]:
    """Return the places of what looks like a credential, without the credentials.

    :param files: their paths below the folder.
    :param allow: regular expressions; what one of them covers passes.
    """
    problems = []
    for file in files:
        text = _text((folder / file).read_bytes())
        match = find(text, allow)
        if match is not None:
            location = f"{file}:{_line_number(text, match.start)}"
            problems.append(
                f"{location} contains what looks like {match.kind} ({match.beginning}…)"
            )
    return problems


def review_lines(folder: Path, files: Iterable[str]) -> list[str]:
    """Return the absolute home paths and e-mail addresses in files, each once in a file, with its
    first place, and the files that are compressed.
    """
    return [line for file in files for line in _review_lines_of(file, (folder / file).read_bytes())]


def _review_lines_of(file: str, data: bytes) -> Iterator[str]:
    if data.startswith(COMPRESSED):
        yield f"{file}: it is compressed, so llmcall did not search it for credentials"
        return
    text = _text(data)
    reported: set[str] = set()
    for pattern in (HOME, MAIL):
        for match in pattern.finditer(text):
            if match[0] not in reported:
                reported.add(match[0])
                yield f"{file}:{_line_number(text, match.start())}: {match[0]}"


def _text(data: bytes) -> str:
    try:
        is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if is_utf_16 else "utf-8")
    except UnicodeDecodeError:
        # In most encodings, the characters of a credential are those of ASCII.
        return data.decode("latin-1")


def _line_number(text: str, start: int) -> int:
    return text.count("\n", 0, start) + 1
