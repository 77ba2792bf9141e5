"""Searches for credentials, home folders and e-mail addresses before they leave a machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...support.secrets import find, find_setting

HOME = r"(?:/home/|/Users/)[^\s/\\\"'<>:]+"
MAIL = r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
# The endings of configuration files' names
CONFIGURATION = (".cfg", ".conf", ".env", ".ini", ".json", ".properties", ".toml", ".yaml", ".yml")


def credentials(folder: Path, files: Iterable[str], allow: Sequence[str]) -> Iterator[str]:
    """Yield the locations of apparent credentials, without the credentials.

    :param files: paths below the folder.
    :param allow: regular expressions; a match that one of them covers passes.
    """
    for file in files:
        text = read_text(folder / file)
        name = file.lower().rpartition("/")[2]
        is_configuration = name.startswith(".env") or name.endswith(CONFIGURATION)
        match = find(text, allow)
        setting = find_setting(text, allow) if is_configuration else None
        if match is not None:
            location = f"{file}:{_line_number(text, match.start)}"
            yield f"{location} contains what looks like {match.kind} ({match.beginning}…)"
        elif setting is not None:
            yield (
                f"{file}:{_line_number(text, setting.start)} contains {setting.kind}; replace it by a reference such "
                "as ${NAME}, and set that variable in the environment. If it is not a secret, set "
                "[Cassette] ALLOW to a regular expression that matches it"
            )


def personal_lines(name: str, text: str) -> Iterator[str]:
    """Yield the home folders and e-mail addresses in a text, each once, with its first location.

    :param name: the text's name.
    """
    own_home = re.escape(os.path.expanduser("~"))
    for words in dict.fromkeys(re.findall(rf"{own_home}\b|{HOME}|{MAIL}", text)):
        yield f"look at {name}:{_line_number(text, text.index(words))}: {words}"


def read_text(file: Path) -> str:
    """Return a file's text, as Latin-1 if it is not UTF-8: credentials are ASCII in most encodings."""
    data = file.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _line_number(text: str, start: int) -> int:
    return text.count("\n", 0, start) + 1
