"""What defaults, config.ini, ``.env`` and the environment say of the settings.

A line of config.ini is ``KEY = value``; `` #`` and `` ;`` begin a comment; an indented line goes on with the value
above it. Sections that are none of ours are not even parsed. TinyTroupe's keys in ``[OpenAI]`` are read as ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

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

# TinyTroupe's keys in [OpenAI] that are ours under another name, or that mean nothing here.
ANCESTOR_KEYS = {
    "CACHE_API_CALLS": "cache_mode",
    "CACHE_FILE_NAME": "cache_path",
    "MAX_ATTEMPTS": "retry_max_attempts",
    "WAITING_TIME": "retry_waiting_time",
    "EXPONENTIAL_BACKOFF_FACTOR": "retry_exponential_backoff_factor",
    "MAX_COMPLETION_TOKENS": "max_tokens",
    "FREQ_PENALTY": "frequency_penalty",
    "MAX_CONCURRENT_MODEL_CALLS": "limits_max_concurrent_calls",
    "AZURE_EMBEDDING_MODEL_API_VERSION": "",
    "MAX_CONTENT_DISPLAY_LENGTH": "",
    "NUM_CTX": "",
    "REASONING_MODEL": "",
}

TABLES = {"Prices": "prices", "Aliases": "aliases", "Fallbacks": "fallbacks"}  # their keys are names of the user's
NAMED = {"Endpoint": ENDPOINT_KEYS, "Model": MODEL_KEYS}  # sections [Endpoint NAME], [Model NAME]
KEYS: dict[str, dict[str, Setting]] = {}
for _row in [*SETTINGS.values(), *ENDPOINT_KEYS.values(), *MODEL_KEYS.values()]:
    KEYS.setdefault(_row.section, {})[_row.key] = _row
SECTIONS = {section.casefold(): section for section in KEYS}

Sections = dict[str, dict[str, str]]


class Sources(NamedTuple):
    """Hold what defaults, files and environment said when they were read.

    :param values: each setting's value and origin, all layers merged.
    :param files: the paths of the config.ini and the ``.env`` that were read.
    :param searched: where a config.ini was sought, in words.
    """

    values: Layer
    files: tuple[str, ...] = ()
    searched: str = ""


def read_sources() -> Sources:
    """Read environment, ``.env`` and config.ini, and put them above the defaults.

    Both files are sought upward to the project's root: the nearest folder with config.ini, .llmcall, pyproject.toml or
    .git, or the working directory where there is no project.

    :raises ConfigError: if a file is broken or a value is of the wrong type.
    """
    folder = os.getcwd()
    folders = [folder]
    while os.path.dirname(folders[-1]) != folders[-1]:
        folders.append(os.path.dirname(folders[-1]))
    above = next((number for number, each in enumerate(folders) if _is_root(each)), 0)
    root = folders[above]
    dotenv_file = _file_in(folders[: above + 1], ".env")
    environment = {name: value.strip() for name, value in os.environ.items() if value.strip()}
    dotenv = {} if dotenv_file is None else _read_dotenv(dotenv_file)
    named = _named_config(folder, environment, dotenv_file, dotenv)
    config = named or _file_in([root], "config.ini")
    layer = _defaults(root)
    if config is not None:
        layer.update(_file_layer(config, NAMED_FILE if named else FOUND_FILE, environment, dotenv))
    if dotenv_file is not None:
        layer.update(_variables_layer(dotenv, DOTENV, f".env ({dotenv_file}), ", os.path.dirname(dotenv_file)))
    layer.update(_variables_layer(environment, ENVIRONMENT, "environment variable ", folder))
    upward = f" or above it, up to the project's root {root}" if above else ""
    searched = f"{_where(config)} was read" if config else f"no config.ini in {folder}{upward}"
    return Sources(layer, tuple(filter(None, (config, dotenv_file))), searched)


def _is_root(folder: str) -> bool:
    return _file_in([folder], "config.ini") is not None or any(
        os.path.exists(os.path.join(folder, marker)) for marker in MARKERS
    )


def _file_in(folders: Iterable[str], name: str) -> str | None:
    paths = (os.path.join(folder, name) for folder in folders)
    return next((path for path in paths if os.path.isfile(path)), None)


def _defaults(root: str) -> Layer:
    layer: Layer = {}
    for name, row in {**SETTINGS, **SDK_KEYS}.items():
        value = os.path.join(root, *row.default.split("/")) if row.parse is values.path and row.default else row.default
        layer[name] = (value, Origin(DEFAULT, "default"))
    return layer


def _named_config(
    folder: str, environment: Mapping[str, str], dotenv_file: str | None, dotenv: Mapping[str, str]
) -> str | None:
    """Return the path of the file that LLMCALL_CONFIG names."""
    where = "environment variable LLMCALL_CONFIG"
    name = environment.get("LLMCALL_CONFIG")
    if name is None and "LLMCALL_CONFIG" in dotenv:
        name, folder = dotenv["LLMCALL_CONFIG"], os.path.dirname(dotenv_file or "")
        where = f".env ({dotenv_file}), LLMCALL_CONFIG"
    if name is None:
        return None
    path = values.path(name, where, folder)
    if not os.path.isfile(path):
        raise ConfigError(f"{where}: there is no file {path}")
    return path


# Variables, of the environment and of .env.


def _read_dotenv(path: str) -> dict[str, str]:
    """Return the variables of a ``.env`` file that have a value; the process's environment stays as it is."""
    import io

    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    text = ""
    for part in parse_stream(io.StringIO(_read(path, f".env ({path})"))):
        if part.error:  # the library would say so each time that the file is read
            warn_once(f".env ({path}), line {part.original.line}: not NAME=value")
        else:
            text += part.original.string
    found = dotenv_values(stream=io.StringIO(text))
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
        if variable.startswith("LLMCALL_") and variable not in OUR_VARIABLES:
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

    :raises ConfigError: if it cannot be read, is not UTF-8, or has a broken line, a section or a key twice; the line
        is named.
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
    except (configparser.DuplicateSectionError, configparser.DuplicateOptionError) as error:
        option = getattr(error, "option", "")
        what = f"[{error.section}] {option}" if option else f"the section [{error.section}]"
        raise ConfigError(f"{where}, line {error.lineno}: {what} is there twice") from None
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


def _file_layer(path: str, rank: int, environment: Mapping[str, str], dotenv: Mapping[str, str]) -> Layer:
    """Return what a config.ini says.

    :param environment: the variables that ``${NAME}`` refers to, before those of ``.env``.
    """
    where, folder = _where(path), os.path.dirname(path)
    layer: Layer = {}

    def put(name: str, value: Any, place: str) -> None:
        """Check a value and put it into the layer."""
        _put(layer, SETTINGS[name], value, Origin(rank, place), folder)

    def expanded(row: Setting, text: str, place: str) -> Any:
        """Return a value with its variables; a key's are looked up when it is used."""
        _warn_of_quotes(row, text, place)
        if row.parse is values.credential and "${" in text:
            return KeyReference(text, place, dotenv)
        return expand(text, place, lambda name: environment.get(name) or dotenv.get(name))

    sections = read_config(path)
    own = sections.get("OpenAI", {})
    for key in sorted(own.keys() & ANCESTOR_KEYS.keys()):  # first: our own keys go before them
        place, name = f"{where}, [OpenAI] {key}", ANCESTOR_KEYS[key]
        text = own.pop(key)
        if not name:
            inform_once(f"{place}: a key of TinyTroupe's that means nothing to llmcall")
            continue
        row = SETTINGS[name]
        put(name, _of_ancestor(key, expanded(row, text, place).strip(), place), place)
        inform_once(f"{place}: a key of TinyTroupe's, read as [{row.section}] {row.key}")
    named: dict[str, dict[str, dict[str, Any]]] = {}
    for section, pairs in sections.items():
        kind, _, name = section.partition(" ")
        if section in TABLES:
            row, place = SETTINGS[TABLES[section]], f"{where}, [{section}]"
            put(row.name, {key: expanded(row, text, f"{place} {key}") for key, text in pairs.items()}, place)
            continue
        rows = KEYS[kind]
        fields = named.setdefault(kind, {}).setdefault(name, {})
        for key, text in pairs.items():
            place = f"{where}, [{section}] {key}"
            if key not in rows:
                warn_once(f"{place}: there is no such key{nearest(key, rows)}")
            elif value := expanded(rows[key], text, place):
                fields[rows[key].name] = value
                if not name:
                    put(rows[key].name, value, place)
        if kind == "Endpoint" and "models" not in fields:
            warn_once(f"{where}, [{section}]: without MODELS this endpoint is never used")
    if "Model" in named:
        put("models", named["Model"], where)
    if "Endpoint" in named:
        put("endpoints", [{"name": name, **fields} for name, fields in named["Endpoint"].items()], where)
    return layer


def _of_ancestor(key: str, value: str, place: str) -> str:
    """Return the value of one of TinyTroupe's keys as ours has it."""
    if key == "CACHE_API_CALLS" and value:
        return "auto" if values.boolean(value, place) else "off"
    if key == "CACHE_FILE_NAME":
        return values.directory_named(value)
    return "none" if key == "MAX_CONCURRENT_MODEL_CALLS" and values.as_number(value) == 0 else value
