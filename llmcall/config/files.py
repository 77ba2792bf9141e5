"""Finding and reading config.ini and ``.env``.

A line of config.ini is ``KEY = value`` or ``KEY: value``; `` #`` and `` ;`` begin a comment; an indented line goes on
with the value above it. Sections that are none of ours are not even parsed.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .names import SECTIONS, nearest, own_section

if TYPE_CHECKING:
    import configparser

__all__ = ["ConfigFile", "Places", "find_places", "read_config", "read_dotenv"]

LARGEST = 2**20  # bytes of a file, and characters of what its references make of a value: far more than any needs
REFERENCES = 1000  # in a .env; each that does not end is sought through the rest of the file
REFERENCE = re.compile(r"\$\{([^}:]*)(?::-([^}]*))?\}")  # as python-dotenv 1.0 reads it (dotenv.variables)
MARKERS = ("config.ini", ".llmcall", "pyproject.toml", ".git")


# The working directory, the project's root, and the paths of config.ini and .env, or None.
Places = tuple[str, str, str | None, str | None]


class ConfigFile:
    """Hold the sections of ours in one config.ini, as text.

    :param path: the file.
    :param sections: by the sections' names as they are written here, the values by their keys.
    """

    __slots__ = ("path", "sections")

    def __init__(self, path: str, sections: dict[str, dict[str, str]]) -> None:
        self.path = path
        self.sections = sections

    @property
    def where(self) -> str:
        """Return the file's name and path for messages."""
        return f"{os.path.basename(self.path)} ({self.path})"


def find_places() -> Places:
    """Find the project's root and its files, from the working directory upward.

    The root is the nearest folder with config.ini, .llmcall, pyproject.toml or .git; ``.env`` is the nearest one up to
    it.

    :returns: the working directory; the root, or the working directory where there is no project; the paths of
        config.ini and ``.env``, or ``None``.
    :raises ConfigError: if the working directory no longer exists.
    """
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the working directory no longer exists: change to another one") from None
    root = _root_above(folder) or folder
    config = os.path.join(root, "config.ini")
    return folder, root, config if os.path.isfile(config) else None, _dotenv_between(folder, root)


def _root_above(folder: str) -> str | None:
    """Return the nearest folder that marks a project."""
    while True:
        if os.path.isfile(os.path.join(folder, "config.ini")):
            return folder
        if any(os.path.exists(os.path.join(folder, marker)) for marker in MARKERS[1:]):
            return folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def _dotenv_between(folder: str, root: str) -> str | None:
    while True:
        path = os.path.join(folder, ".env")
        if os.path.isfile(path):
            return path
        if folder == root:
            return None
        folder = os.path.dirname(folder)


def read_dotenv(path: str) -> dict[str, str]:
    """Return the variables of a ``.env`` file that have a value; the process's environment stays as it is.

    :raises ConfigError: if it cannot be read or is not UTF-8.
    """
    import io

    from dotenv import dotenv_values

    try:
        text = _read(path, f".env ({path})").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f".env ({path}) is not UTF-8: byte {error.start}") from None
    _check_growth(text, path)
    values = dotenv_values(stream=io.StringIO(text))
    return {name: value.strip() for name, value in values.items() if value and value.strip()}


def _check_growth(text: str, path: str) -> None:
    """Refuse values that refer to one another so often that a few lines would fill the memory."""
    import io

    from dotenv.parser import parse_stream

    if text.count("${") > REFERENCES:
        raise ConfigError(f".env ({path}) holds more than {REFERENCES} references: it can hardly be meant")
    sizes: dict[str, int] = {}
    for binding in parse_stream(io.StringIO(text)):
        name, value = binding.key or "", binding.value or ""
        known = (sizes.get(other, len(os.environ.get(other, ""))) for other, _ in REFERENCE.findall(value))
        sizes[name] = len(value) + sum(known)
        if sizes[name] > LARGEST:
            raise ConfigError(f".env ({path}): {name} becomes longer than {LARGEST} characters by its references")


def _read(path: str, where: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from error
    if len(data) > LARGEST:
        raise ConfigError(f"{where} is larger than {LARGEST} bytes: it can hardly be meant")
    return data


def read_config(path: str) -> ConfigFile:
    """Read the sections of ours in a config.ini.

    :raises ConfigError: if it cannot be read, is not UTF-8, or has a broken line, a section or a key twice; the line is
        named.
    """
    where = f"{os.path.basename(path)} ({path})"
    text = _own_lines(_read_text(path, where), where)
    parser = _parsed(text, where)
    return ConfigFile(path, {name: _section(parser, name, where) for name in parser.sections()})


def _read_text(path: str, where: str) -> str:
    data = _read(path, where)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{where}, line {line}: not UTF-8; save the file in that encoding") from None


def _own_lines(text: str, where: str) -> str:
    """Return the text with foreign sections blanked, so that lines keep their numbers and theirs are never judged."""
    ours, lines = True, []
    for line in text.replace("\r\n", "\n").split("\n"):
        header = re.match(r"\[([^\]]+)\]", line)
        if header:
            name = own_section(header[1])
            ours = name is not None
            line = f"[{name}]"
            if name is None:
                _warn_of_similar(header[1], where)
        lines.append(line if ours else "")
    return "\n".join(lines)


def _warn_of_similar(section: str, where: str) -> None:
    guess = nearest(section, SECTIONS, cutoff=0.7)
    if guess and section != "Model":  # a usual section of machine learning projects
        name = " (it needs a name: [Endpoint NAME])" if section.strip().casefold() == "endpoint" else guess
        from ..notices import warn_once

        warn_once(f"{where}: the section [{section}] is ignored{name}")


def _parsed(text: str, where: str) -> configparser.RawConfigParser:
    """Parse the text; messages never repeat a line, which may hold a key."""
    import configparser

    try:
        parser = _parser()
        parser.read_string(text)
    except configparser.DuplicateSectionError as error:
        raise ConfigError(f"{where}, line {error.lineno}: the section [{error.section}] is there twice") from None
    except configparser.DuplicateOptionError as error:
        place = f"{where}, line {error.lineno}"
        raise ConfigError(f"{place}: [{error.section}] {error.option} is there twice") from None
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(f"{where}, line {error.lineno}: a line above the first [Section]") from None
    except configparser.ParsingError as error:
        line = error.errors[0][0]
        raise ConfigError(f"{where}, line {line}: neither [Section] nor KEY = value") from None
    return parser


def _parser() -> configparser.RawConfigParser:
    import configparser

    class Parser(configparser.RawConfigParser):
        """Read keys that are names of models, with their colons and capitals."""

        # A colon ends a key only before a space or where no "=" follows: names of models hold colons (gemma3:1b).
        # Whether one follows is found out once, so that no line takes long.
        OPTCRE = re.compile(
            r"(?:(?=[^=]*(?P<equals>=)))?(?P<option>(?(equals)(?:[^=:]|:(?!\s))*|[^:]*))(?P<vi>[=:])\s*(?P<value>.*)$"
        )

        def optionxform(self, optionstr: str) -> str:
            """Return a key as it is."""
            return optionstr  # names of models keep their case

    return Parser(inline_comment_prefixes=("#", ";"), default_section="\0", interpolation=None)


def _section(parser: configparser.RawConfigParser, name: str, where: str) -> dict[str, str]:
    """Return a section's values; its keys in capitals, unless they are names of models."""
    pairs = parser.items(name)
    if name in ("Prices", "Aliases", "Fallbacks"):
        return dict(pairs)
    values: dict[str, str] = {}
    for key, value in pairs:
        if key.upper() in values:
            raise ConfigError(f"{where}: [{name}] {key.upper()} is there twice")
        values[key.upper()] = value
    return values
