"""What defaults, config.ini, ``.env`` and the environment say of the settings.

A line of config.ini is ``KEY = value``; `` #`` and `` ;`` begin a comment; an indented line goes on with the value
above it. Sections that are none of ours are not even parsed. TinyTroupe's keys in ``[OpenAI]`` are read as ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConfigError
from ..notices import inform_once, warn_once
from . import values
from .settings import (
    DEFAULT,
    DOTENV,
    ENDPOINT_KEYS,
    ENVIRONMENT,
    FOUND_FILE,
    MODEL_KEYS,
    NAMED_FILE,
    SDK_KEYS,
    SETTINGS,
    VARIABLES,
    Layer,
    Origin,
    Setting,
    check_setting,
)
from .values import UNSET, KeyReference, expand, nearest

if TYPE_CHECKING:
    pass

__all__ = ["Sources", "read_sources"]

MARKERS = (".llmcall", "pyproject.toml", ".git")

# Read by openai 3.51 (openai/_client.py, openai/lib/azure.py), save AZURE_OPENAI_KEY, which TinyTroupe 0.6 reads. Later
# ones win, and LLMCALL_* above them.
SDK_VARIABLES = {
    "AZURE_OPENAI_KEY": "_azure_key",
    "AZURE_OPENAI_API_KEY": "_azure_key",
    "OPENAI_API_KEY": "_openai_key",
    "OPENAI_BASE_URL": "base_url",
    "OPENAI_API_VERSION": "azure_api_version",
    "AZURE_OPENAI_ENDPOINT": "azure_endpoint",
    "AZURE_OPENAI_AD_TOKEN": "azure_ad_token",
    "OPENAI_ORG_ID": "organization",
}
OUR_VARIABLES = {*VARIABLES, "LLMCALL_CONFIG", "LLMCALL_SCOPE", "LLMCALL_TRACEBACK"}

# TinyTroupe's keys in [OpenAI] that are ours under another name, and those that mean nothing here.
ANCESTOR_KEYS = {
    "CACHE_API_CALLS": "cache_mode",
    "CACHE_FILE_NAME": "cache_path",
    "MAX_ATTEMPTS": "retry_max_attempts",
    "WAITING_TIME": "retry_waiting_time",
    "EXPONENTIAL_BACKOFF_FACTOR": "retry_exponential_backoff_factor",
    "MAX_COMPLETION_TOKENS": "max_tokens",
    "FREQ_PENALTY": "frequency_penalty",
    "MAX_CONCURRENT_MODEL_CALLS": "limits_max_concurrent_calls",
}
IGNORED_ANCESTOR_KEYS = {
    "AZURE_EMBEDDING_MODEL_API_VERSION",
    "MAX_CONTENT_DISPLAY_LENGTH",
    "NUM_CTX",
    "REASONING_MODEL",
}

TABLES = {"Prices": "prices", "Aliases": "aliases", "Fallbacks": "fallbacks"}  # their keys are names of the user's
NAMED = {"Endpoint": ENDPOINT_KEYS, "Model": MODEL_KEYS}  # sections [Endpoint NAME], [Model NAME]
SECTIONS = {row.section.casefold(): row.section for row in SETTINGS.values()}

Sections = dict[str, dict[str, str]]


class Places:
    """Hold the working directory, the project's root, and where config.ini and ``.env`` are, or ``None``.

    The root is the nearest folder upward with config.ini, .llmcall, pyproject.toml or .git, or the working directory
    where there is no project; ``.env`` is the nearest one up to it.
    """

    def __init__(self) -> None:
        self.folder = os.getcwd()
        folders = [self.folder]
        while os.path.dirname(folders[-1]) != folders[-1]:
            folders.append(os.path.dirname(folders[-1]))
        marked = next((number for number, folder in enumerate(folders) if _is_root(folder)), 0)
        self.root = folders[marked]
        self.config = _file_in([self.root], "config.ini")
        self.dotenv = _file_in(folders[: marked + 1], ".env")


def _is_root(folder: str) -> bool:
    return _file_in([folder], "config.ini") is not None or any(
        os.path.exists(os.path.join(folder, marker)) for marker in MARKERS
    )


def _file_in(folders: Iterable[str], name: str) -> str | None:
    paths = (os.path.join(folder, name) for folder in folders)
    return next((path for path in paths if os.path.isfile(path)), None)


class Sources(NamedTuple):
    """Hold what defaults, files and environment said when they were read.

    :param values: each setting's value and origin, all layers merged.
    :param files: the paths of the config.ini and the ``.env`` that were read.
    :param searched: where a config.ini was sought, in words.
    :param seen: what was looked at: folders, files' stamps, variables.
    """

    values: Layer
    files: tuple[str, ...] = ()
    searched: str = ""
    seen: object = None

    def changed(self) -> bool:
        """Tell whether environment, working directory or files are no longer what they were."""
        return self.seen is not None and self.seen != _look(Places(), self.files, os.environ)


def _look(places: Places, files: tuple[str, ...], environment: Mapping[str, str]) -> tuple[object, ...]:
    return vars(places), [_stamp(path) for path in files], dict(environment)


def _stamp(path: str) -> tuple[int, int, int] | None:
    """Return what changes with a file's content: time of change (ns), size and inode; ``None`` if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_sources() -> Sources:
    """Read environment, ``.env`` and config.ini, and put them above the defaults.

    :raises ConfigError: if a file is broken or a value is of the wrong type.
    """
    places, snapshot = Places(), dict(os.environ)
    environment = {name: value.strip() for name, value in snapshot.items() if value.strip()}
    dotenv = {} if places.dotenv is None else _read_dotenv(places.dotenv)
    config, rank = _named_config(places, environment, dotenv) or (places.config, FOUND_FILE)
    files = tuple(path for path in (config, places.dotenv) if path is not None)
    seen = _look(places, files, snapshot)  # before config.ini is read: a change meanwhile is seen the next time
    layer = _defaults(places.root)
    if config is not None:
        layer.update(_FileReader(config, rank, environment, dotenv).layer)
    if places.dotenv is not None:
        prefix = f".env ({places.dotenv}), "
        layer.update(_variables_layer(dotenv, DOTENV, prefix, os.path.dirname(places.dotenv)))
    layer.update(_variables_layer(environment, ENVIRONMENT, "environment variable ", places.folder))
    above = "" if places.folder == places.root else f" or above it, up to the project's root {places.root}"
    searched = f"{_where(config)} was read" if config else f"no config.ini in {places.folder}{above}"
    return Sources(layer, files, searched, seen)


def _defaults(root: str) -> Layer:
    layer: Layer = {}
    for name, row in {**SETTINGS, **SDK_KEYS}.items():
        value = os.path.join(root, *row.default.split("/")) if row.parse is values.path and row.default else row.default
        layer[name] = (value, Origin(DEFAULT, "default"))
    return layer


def _named_config(places: Places, environment: Mapping[str, str], dotenv: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the path of the file that LLMCALL_CONFIG names, and its rank."""
    if name := environment.get("LLMCALL_CONFIG"):
        folder, where = places.folder, "environment variable LLMCALL_CONFIG"
    elif name := dotenv.get("LLMCALL_CONFIG"):
        folder, where = os.path.dirname(places.dotenv or ""), f".env ({places.dotenv}), LLMCALL_CONFIG"
    else:
        return None
    path = os.path.normpath(os.path.join(folder, os.path.expanduser(name)))
    if not os.path.isfile(path):
        raise ConfigError(f"{where}: there is no file {path}")
    return path, NAMED_FILE


# Variables, of the environment and of .env.


def _read_dotenv(path: str) -> dict[str, str]:
    """Return the variables of a ``.env`` file that have a value; the process's environment stays as it is."""
    import io

    from dotenv import dotenv_values

    found = dotenv_values(stream=io.StringIO(_read(path, f".env ({path})")))
    return {name: value.strip() for name, value in found.items() if value and value.strip()}


def _read(path: str, where: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{where}, line {line}: not UTF-8; save the file in that encoding") from None


def _variables_layer(variables: Mapping[str, str], rank: int, prefix: str, folder: str) -> Layer:
    """Read ``LLMCALL_*`` and the SDK's variables.

    :param prefix: what stands before a variable's name to say where it is.
    :param folder: the directory that a relative path starts from.
    """
    layer: Layer = {}
    for variable, name in {**SDK_VARIABLES, **VARIABLES}.items():
        if variable in variables:
            row = SETTINGS.get(name) or SDK_KEYS[name]
            _warn_of_quotes(row, variables[variable], prefix + variable)
            _put(layer, row, variables[variable], Origin(rank, prefix + variable), folder)
    for variable in variables:
        known = variable in OUR_VARIABLES or variable.startswith("LLMCALL_TEST_")
        if variable.startswith("LLMCALL_") and not known:
            warn_once(f"{prefix}{variable}: there is no such setting{nearest(variable, OUR_VARIABLES)}")
    return layer


def _put(layer: Layer, row: Setting, value: Any, origin: Origin, folder: str) -> None:
    """Check a value and put it into a layer, unless it is empty text."""
    checked = check_setting(row, value, origin.text, folder)
    if checked is not UNSET:
        layer[row.name] = (checked, origin)


def _warn_of_quotes(row: Setting, value: str, where: str) -> None:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    if quoted and row.parse not in (values.patterns, values.normalizers):
        warn_once(f"{where}: the quotes around the value are taken as part of it; values are written without")


# config.ini.


def _where(path: str) -> str:
    return f"{os.path.basename(path)} ({path})"


def read_config(path: str) -> Sections:
    """Return the sections of ours in a config.ini, as text; keys in capitals, unless they are names of models.

    :raises ConfigError: if it cannot be read, is not UTF-8, or has a broken line, a section or a key twice; the line is
        named.
    """
    import configparser

    where = _where(path)
    # Only "=" ends a key: names of models hold colons and capitals.
    parser = configparser.RawConfigParser(
        delimiters=("=",), inline_comment_prefixes=("#", ";"), default_section="\0", interpolation=None
    )
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    try:
        parser.read_string(_own_lines(_read(path, where), where))
    # The messages never repeat a line, which may hold a key.
    except configparser.DuplicateSectionError as error:
        raise ConfigError(f"{where}, line {error.lineno}: the section [{error.section}] is there twice") from None
    except configparser.DuplicateOptionError as error:
        place = f"{where}, line {error.lineno}"
        raise ConfigError(f"{place}: [{error.section}] {error.option} is there twice") from None
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(f"{where}, line {error.lineno}: a line above the first [Section]") from None
    except configparser.ParsingError as error:
        raise ConfigError(f"{where}, line {error.errors[0][0]}: neither [Section] nor KEY = value") from None
    sections: Sections = {}
    for name in parser.sections():
        section = sections[name] = {}
        for key, value in parser.items(name):
            written = key if name in TABLES else key.upper()
            if written in section:
                raise ConfigError(f"{where}: [{name}] {written} is there twice")
            section[written] = value
    return sections


def _own_lines(text: str, where: str) -> str:
    """Return the text with foreign sections blanked, so that lines keep their numbers and theirs are never judged."""
    ours, lines = True, []
    for line in text.replace("\r\n", "\n").split("\n"):
        header = re.match(r"\[([^\]]+)\]", line)
        if header:
            name = _own_section(header[1])
            ours = name is not None
            line = f"[{name}]"
            if name is None:
                _warn_of_similar(header[1], where)
        lines.append(line if ours else "")
    return "\n".join(lines)


def _own_section(header: str) -> str | None:
    """Return a section's name as it is written here; ``"endpoint  east"`` gives ``"Endpoint east"``."""
    head, _, name = header.strip().partition(" ")
    found = SECTIONS.get(head.casefold())
    if found in NAMED:
        return f"{found} {name.strip()}" if name.strip() else None
    return None if name else found


def _warn_of_similar(section: str, where: str) -> None:
    guess = nearest(section, SECTIONS.values(), cutoff=0.7)
    if guess and section != "Model":  # a usual section of machine learning projects
        name = " (it needs a name: [Endpoint NAME])" if section.strip().casefold() == "endpoint" else guess
        warn_once(f"{where}: the section [{section}] is ignored{name}")


class _FileReader:
    """Read the settings of one config.ini into ``layer``.

    :param path: the file.
    :param rank: the layer's rank.
    :param environment: the variables that ``${NAME}`` refers to, before those of ``.env``.
    """

    def __init__(self, path: str, rank: int, environment: Mapping[str, str], dotenv: Mapping[str, str]) -> None:
        self.where = _where(path)
        self.folder = os.path.dirname(path)
        self.rank = rank
        self.environment = environment
        self.dotenv = dotenv
        self.layer: Layer = {}
        sections = read_config(path)
        for key, text in sections.get("OpenAI", {}).items():
            self.put_ancestor(key, text)  # first: our own keys go before them
        named: dict[str, dict[str, Any]] = {}
        for section, pairs in sections.items():
            kind, _, name = section.partition(" ")
            if kind in NAMED:
                named.setdefault(kind, {})[name] = self.fields(kind, name, pairs)
            elif section in TABLES:
                place, row = f"{self.where}, [{section}]", SETTINGS[TABLES[section]]
                self.put(
                    row, {name: self.expanded(row, text, f"{place} {name}") for name, text in pairs.items()}, place
                )
            else:
                self.put_section(section, pairs)
        if "Model" in named:
            self.put(SETTINGS["models"], named["Model"], self.where)
        if "Endpoint" in named:
            endpoints = [{"name": name, **fields} for name, fields in named["Endpoint"].items()]
            self.put(SETTINGS["endpoints"], endpoints, self.where)

    def put(self, row: Setting, value: Any, place: str) -> None:
        """Check a value and put it into the layer."""
        _put(self.layer, row, value, Origin(self.rank, place), self.folder)

    def expanded(self, row: Setting, text: str, place: str) -> Any:
        """Return a value with its variables; a key's are looked up when it is used."""
        _warn_of_quotes(row, text, place)
        if row.parse is values.credential and "${" in text:
            return KeyReference(text, place, self.dotenv)
        return expand(text, place, lambda name: self.environment.get(name) or self.dotenv.get(name))

    def put_section(self, section: str, pairs: Mapping[str, str]) -> None:
        """Put what a section says, key by key."""
        rows = {row.key: row for row in SETTINGS.values() if row.section == section and row.key}
        for key, text in pairs.items():
            place = f"{self.where}, [{section}] {key}"
            if key in rows:
                value = self.expanded(rows[key], text, place)
                if value:
                    self.put(rows[key], value, place)
            elif section != "OpenAI" or key not in {*ANCESTOR_KEYS, *IGNORED_ANCESTOR_KEYS}:
                warn_once(f"{place}: there is no such key{nearest(key, rows)}")

    def fields(self, kind: str, name: str, pairs: Mapping[str, str]) -> dict[str, Any]:
        """Return a named section's values by their names in code."""
        found = {}
        for key, text in pairs.items():
            place, row = f"{self.where}, [{kind} {name}] {key}", NAMED[kind].get(key.lower())
            if row is None:
                warn_once(f"{place}: there is no such key{nearest(key, map(str.upper, NAMED[kind]))}")
            elif text.strip():
                found[row.name] = self.expanded(row, text, place)
        if kind == "Endpoint" and "models" not in found:
            warn_once(f"{self.where}, [Endpoint {name}]: without MODELS this endpoint is never used")
        return found

    def put_ancestor(self, key: str, text: str) -> None:
        """Read one of TinyTroupe's keys as ours, and say so once."""
        place = f"{self.where}, [OpenAI] {key}"
        if key in IGNORED_ANCESTOR_KEYS:
            inform_once(f"{place}: a key of TinyTroupe's that means nothing to llmcall")
        if key not in ANCESTOR_KEYS:
            return
        row = SETTINGS[ANCESTOR_KEYS[key]]
        value = self.expanded(row, text, place).strip()
        if key == "CACHE_API_CALLS" and value:
            value = "auto" if values.boolean(value, place) else "off"
        elif key == "CACHE_FILE_NAME":
            value = values.directory_named(value)
        elif key == "MAX_CONCURRENT_MODEL_CALLS" and values.as_number(value) == 0:
            value = "none"
        self.put(row, value, place)
        inform_once(f"{place}: a key of TinyTroupe's, read as [{row.section}] {row.key}")
