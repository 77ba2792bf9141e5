"""What should not leave a machine unnoticed: credentials, home folders, e-mail addresses, dates."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path

from ...secrets import find, find_setting

HOME = re.compile(r"(?:/home/|/Users/|(?<![A-Za-z])[A-Za-z]:\\{1,2}Users\\{1,2})[^\s/\\\"'<>:]+")
# What files begin with whose bytes are compressed, or may be: gzip, ZIP (so spreadsheets, too), bzip2,
# xz, Zstandard, 7z, PDF, Parquet, Arrow and HDF5.
COMPRESSED = (
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf\x27\x1c",
    b"%PDF-",
    b"PAR1",
    b"ARROW1",
    b"\x89HDF",
)
# How programs write a day; Stata's files, "23 Nov 2026".
DAYS = (
    "%Y-%m-%d",
    "%Y%m%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%B %d, %Y",
)
# What the names of configuration files end in.
CONFIGURATION = (".cfg", ".conf", ".env", ".ini", ".json", ".properties", ".toml", ".yaml", ".yml")
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
        setting = find_setting(text, allow) if _is_configuration(file) else None
        if setting is not None and match is None:
            problems.append(
                f"{file}:{_line_number(text, setting.start)} contains {setting.kind}; write a reference "
                "such as ${NAME} in its place, and set that variable in the environment. If it is not a "
                "secret, set [Cassette] ALLOW to a regular expression that matches it"
            )
    return problems


def day_in(data: bytes, day: date) -> str | None:
    """Return how a day stands in some bytes; ``None`` if it does not."""
    spellings = (day.strftime(each) for each in DAYS)
    return next((each for each in spellings if each.encode() in data), None)


def _is_configuration(file: str) -> bool:
    name = file.lower().rpartition("/")[2]
    return name.startswith(".env") or name.endswith(CONFIGURATION)


def review_lines(folder: Path, files: Iterable[str], printed: str, project: Path) -> list[str]:
    """Return the absolute home paths and e-mail addresses in files and in what the program printed,
    each once, with its first place, and the files that are compressed.

    :param printed: the program's standard output.
    :param project: the original folder, whose path is searched for, as that of the home folder is.
    """
    own_folders = [project, Path(os.path.expanduser("~"))]
    paths = "|".join(re.escape(str(each)) for each in own_folders if len(each.parts) > 1)
    patterns = (re.compile(rf"(?:{paths})(?![\w.-])"), HOME, MAIL)
    lines = []
    for file in files:
        data = (folder / file).read_bytes()
        if data.startswith(COMPRESSED):
            lines.append(f"{file}: it is compressed, so llmcall did not search it for credentials")
        else:
            lines += _personal_lines(file, _text(data), patterns)
    return lines + list(_personal_lines("printed text", printed, patterns))


def _personal_lines(name: str, text: str, patterns: Iterable[re.Pattern[str]]) -> Iterator[str]:
    reported: set[str] = set()
    for pattern in patterns:
        for match in pattern.finditer(text):
            if match[0] not in reported:
                reported.add(match[0])
                yield f"{name}:{_line_number(text, match.start())}: {match[0]}"


def _text(data: bytes) -> str:
    try:
        is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if is_utf_16 else "utf-8")
    except UnicodeDecodeError:
        # In most encodings, the characters of a credential are those of ASCII.
        return data.decode("latin-1")


def _line_number(text: str, start: int) -> int:
    return text.count("\n", 0, start) + 1
