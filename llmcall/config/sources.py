"""The settings from defaults, config.ini, ``.env`` and the environment.

A line of config.ini is ``NAME = value``; `` #`` and `` ;`` begin a comment; an indented line continues
the value above it. Sections of other programs are ignored. Another program's settings in a section of
llmcall are translated, if a feature reads them.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..additions import additions, load
from ..errors import ConfigError
from ..support.arguments import nearest
from ..support.notices import is_new, logger, warn_once
from ..support.system import unwatched
from . import values
from .endpoints import ENDPOINT_KEYS, KeyReference, expand
from .setting import MODEL_KEYS, Layer, OtherKeys, Rank, Setting, SettingValue
from .settings import HIDDEN_SETTINGS, SETTINGS, Settings

if TYPE_CHECKING:
    import configparser

MARKERS = ("config.ini", ".llmcall", "pyproject.toml", ".git")

# The variables that openai 3.51 reads (openai/_client.py, openai/lib/azure.py), and AZURE_OPENAI_KEY, which
# TinyTroupe 0.6 reads. Later ones win over earlier ones, and LLMCALL_* over all.
OTHER_VARIABLES = {
    "AZURE_OPENAI_KEY": "_azure_key",
    "AZURE_OPENAI_API_KEY": "_azure_key",
    "OPENAI_API_KEY": "_openai_key",
    "OPENAI_BASE_URL": "base_url",
    "OPENAI_API_VERSION": "azure_api_version",
    "AZURE_OPENAI_ENDPOINT": "azure_endpoint",
    "AZURE_OPENAI_AD_TOKEN": "azure_ad_token",
    "OPENAI_ORG_ID": "organization",
    "LLMCALL_CONFIG": "_config",
}
# Sections and functions have no variable.
VARIABLES = {"LLMCALL_" + name.upper(): name for name, row in SETTINGS.items() if row.key}
OUR_VARIABLES = {*VARIABLES, "LLMCALL_CONFIG", "LLMCALL_SCOPE"}

TABLES = ("Prices", "Aliases", "Fallbacks")  # sections whose keys are names of the user's choice
NAMED_SECTIONS = {"Endpoint": ENDPOINT_KEYS, "Model": MODEL_KEYS}  # [Endpoint NAME], [Model NAME]
KEYS: dict[str, dict[str, Setting]] = {}  # by section and key; the key of a whole section is empty
for _row in [*SETTINGS.values(), *ENDPOINT_KEYS.values(), *MODEL_KEYS.values()]:
    KEYS.setdefault(_row.section, {})[_row.key] = _row
OUR_SECTIONS = {section.casefold(): section for section in KEYS}


Entry = tuple[Setting, Any, str]  # a setting, its value as written, and its location


class Sources(NamedTuple):
    """The result of reading defaults, files and environment.

    :param settings: the settings.
    :param file_summary: in words, which config.ini and ``.env`` were read, or where the search found no file.
    """

    settings: Settings
    file_summary: str = ""


@unwatched()
def read_sources() -> Sources:
    """Read the environment, ``.env`` and config.ini.

    The search for both files goes from the working directory up to the project's root, which is the
    nearest folder with config.ini, .llmcall, pyproject.toml or .git. Without a project, only the working
    directory counts.

    :raises ConfigError: if a file is broken or a value is of the wrong type.
    """
    folders = _project_folders()
    folder, root = folders[0], folders[-1]
    environment = {name: value.strip() for name, value in os.environ.items()}
    dotenv_file = _file_in(folders, ".env")
    dotenv = _read_text_dotenv(dotenv_file) if dotenv_file else {}
    environment = {name: value for name, value in environment.items() if value}
    dotenv = {name: value for name, value in dotenv.items() if value and name not in environment}
    variables = Settings(_defaults(root)).overlaid(
        _layer(
            _variable_entries(dotenv, f"{dotenv_file}, "),
            Rank.DOTENV,
            os.path.dirname(dotenv_file or ""),
        ),
        _layer(_variable_entries(environment, "environment variable "), Rank.ENVIRONMENT, folder),
    )
    named_file, _, origin = variables.layer["_config"]
    if named_file and not os.path.isfile(named_file):
        raise ConfigError(f"{origin}: there is no file {named_file}")
    config = named_file or _file_in([root], "config.ini")
    settings = variables
    if config:
        rank = Rank.NAMED_FILE if named_file else Rank.FOUND_FILE
        entries = _config_entries(config, environment, dotenv)
        settings = variables.overlaid(_layer(entries, rank, os.path.dirname(config)))
    search_range = f" or above it, up to the project's root {root}" if root != folder else ""
    files = {"config.ini": config, ".env": dotenv_file}
    absent = " or ".join(name for name, file in files.items() if not file)
    parts = [f"read: {file}" for file in [", ".join(filter(None, files.values()))] if file]
    parts += [f"no {absent} in {folder}{search_range}"] if absent else []
    return Sources(settings, "; ".join(parts))


def _project_folders() -> list[str]:
    """Return the working directory and, in a project, its parents up to the project's root."""
    folders = [os.getcwd()]
    while not any(os.path.exists(os.path.join(folders[-1], name)) for name in MARKERS):
        folders.append(os.path.dirname(folders[-1]))
        if folders[-1] == folders[-2]:
            return folders[:1]
    return folders


def _file_in(folders: Iterable[str], name: str) -> str | None:
    """Return the path of the nearest file or named pipe."""
    paths = (os.path.join(folder, name) for folder in folders)
    return next((path for path in paths if os.path.isfile(path) or _is_pipe(path)), None)


def _is_pipe(path: str) -> bool:
    return os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)


def _defaults(root: str) -> Layer:
    return {
        name: SettingValue(
            values.absolute(row.default, root)
            if row.parse is values.path and row.default
            else row.default,
            Rank.DEFAULT,
            "default",
        )
        for name, row in {**SETTINGS, **HIDDEN_SETTINGS}.items()
    }


def _layer(entries: Iterable[Entry], rank: Rank, folder: str) -> Layer:
    """Return the checked values of a source."""
    return {
        row.name: SettingValue(row.check(value, location, folder), rank, location)
        for row, value, location in entries
    }


# Variables of the environment and of .env.


def _read_text_dotenv(path: str) -> dict[str, str]:
    """Return the variables in a ``.env`` file; a named pipe, as password managers make one, is read once."""
    import io

    from ..support.libraries import dotenv

    read = _read_pipe if _is_pipe(path) else _read_text
    text = ""
    for binding in dotenv.parser.parse_stream(io.StringIO(read(path))):
        if binding.error:  # the library would warn again at each reading
            warn_once(f"{path}, line {binding.original.line}: not NAME=value")
        else:
            text += binding.original.string
    variables = dotenv.dotenv_values(stream=io.StringIO(text))
    return {name: (value or "").strip() for name, value in variables.items()}


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: not UTF-8; save the file in that encoding"
        ) from None


_read_pipe = functools.cache(_read_text)


def _variable_entries(variables: Mapping[str, str], prefix: str) -> Iterator[Entry]:
    """Yield the settings from ``LLMCALL_*`` and the SDK's variables."""
    for variable, name in {**OTHER_VARIABLES, **VARIABLES}.items():
        if variable in variables:
            row = SETTINGS.get(name) or HIDDEN_SETTINGS[name]
            yield row, variables[variable], prefix + variable
    for variable in variables:
        if variable.startswith("LLMCALL_") and variable not in OUR_VARIABLES:
            warn_once(
                f"unknown setting {variable} ({prefix.rstrip(', ')}){nearest(variable, OUR_VARIABLES)}"
            )


# config.ini.


def _parse_config(text: str, path: str) -> configparser.RawConfigParser:
    """Parse llmcall's sections in a config.ini, whose keys occur once; other programs' have rules of
    their own.
    """
    import configparser

    # Only "=" ends a key, and case matters, since models' names contain colons and capitals.
    parser = configparser.RawConfigParser(
        delimiters=("=",),
        inline_comment_prefixes=("#", ";"),
        default_section="\0",
        interpolation=None,
    )
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    lines = text.split("\n")
    section = "above the first section"
    for index, line in enumerate(lines):
        if line.startswith("["):
            header = line[1:].partition("]")[0]
            section, name = _section_name(header)
            lines[index] = f"[{section} {name}]"
            if not section:
                _warn_of_section(header, path)
        if not section:
            lines[index] = ""
    try:
        parser.read_string("\n".join(lines))
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(
            f"{path}, line {error.lineno}: this line is above the first [Section]; move it below its "
            "section, such as [OpenAI]"
        ) from None
    except configparser.DuplicateOptionError as error:
        raise ConfigError(f"{path}, line {error.lineno}: {error.option} occurs twice") from None
    except configparser.DuplicateSectionError as error:
        raise ConfigError(
            f"{path}, line {error.lineno}: [{str(error.section).rstrip()}] occurs twice"
        ) from None
    except configparser.ParsingError as error:
        # the number alone, since the line may hold a secret
        raise ConfigError(
            f"{path}, line {error.errors[0][0]}: neither [Section] nor NAME = value"
        ) from None
    return parser


def _section_name(header: str) -> tuple[str, str]:
    """Return the section and the name in a header: ``"endpoint  East 1"`` becomes ``"Endpoint"`` and
    ``"East 1"``. Another program's section is empty.
    """
    head, _, name = header.strip().partition(" ")
    section = OUR_SECTIONS.get(head.casefold(), "")
    return (section, name.strip()) if bool(name) == (section in NAMED_SECTIONS) else ("", "")


def _config_entries(
    path: str, environment: Mapping[str, str], dotenv: Mapping[str, str]
) -> list[Entry]:
    """Return the settings in a config.ini."""
    parser = _parse_config(_read_text(path), path)
    entries: list[Entry] = []
    whole: dict[str, dict[str, Any]] = {}  # by section, its values by names of the user's choice
    for header in parser.sections():
        section, name = _section_name(header)
        fields = whole.setdefault(section, {})
        if name:
            fields = fields.setdefault(name, {})
        for key, text in parser.items(header):
            key = key if section in TABLES else key.upper()
            location = f"{path}, [{f'{section} {name}'.rstrip()}] {key}"
            other = None if key in KEYS[section] else _of_another_program(section, key)
            row = _find_setting(section, key, location, other)
            value = None if row is None else _expand_value(row, text, location, environment, dotenv)
            if row is None or not value:
                continue
            if section in TABLES:
                fields[key] = value
            elif name:
                fields[row.name] = value
            elif other is None:
                entries.append((row, value, location))
            else:  # first, since llmcall's own keys override other programs' keys
                entries.insert(0, (row, other.keys.translated(key, value, location), location))
    for section, fields in whole.items():
        if section in TABLES or section in NAMED_SECTIONS:
            entries.append((KEYS[section][""], fields, path))
    return entries


def _warn_of_section(header: str, path: str) -> None:
    """Warn of a section that is probably one of llmcall's, misspelt or without its name. [Model] and [Models] may
    well be another program's.
    """
    hint = nearest(header.strip(), KEYS.keys() - NAMED_SECTIONS, cutoff=0.8)
    if header.strip().casefold() == "endpoint":
        hint = ". Give the endpoint a name: [Endpoint NAME]"
    if hint:
        warn_once(f"{path}, [{header}]: this section is ignored{hint}")


class _OtherKey(NamedTuple):
    """A key of another program.

    :param name: the llmcall setting that it means; empty if llmcall has none.
    """

    program: str
    keys: OtherKeys
    name: str


def _of_another_program(section: str, key: str) -> _OtherKey | None:
    """Return what a key of no setting means in another program whose keys a feature reads, or ``None``."""
    for program, place in additions("other_keys").items():
        keys: OtherKeys = load(place)
        if (name := keys.name_of(section, key)) is not None:
            return _OtherKey(program, keys, name)
    return None


def _find_setting(section: str, key: str, location: str, other: _OtherKey | None) -> Setting | None:
    """Return the setting that a key means, or ``None``; report unknown keys and those of other programs.

    :param other: the key of another program; ``None`` for a key of llmcall's or an unknown one.
    """
    rows = KEYS[section]
    if section in TABLES:
        return rows[""]
    if key in rows:
        return rows[key]
    if other is None:
        others = [place for place, keys in KEYS.items() if key in keys]
        hint = f". It belongs in [{others[0]}]" if others else nearest(key, rows)
        path, _, name = location.rpartition(", [")
        warn_once(f"unknown setting [{name} ({path}){hint}")
        return None
    row = SETTINGS.get(other.name)
    meaning = (
        f"read as [{row.section}] {row.key}"
        if row
        else "ignored, because llmcall has no such setting"
    )
    message = f"{location}: {other.program}'s setting, {meaning}"
    if is_new(message):
        logger().info("%s", message)
    return row


def _expand_value(
    row: Setting,
    text: str,
    location: str,
    environment: Mapping[str, str],
    dotenv: Mapping[str, str],
) -> Any:
    """Return a value with its variables replaced; an API key's variables are replaced at use."""
    if row.parse is values.credential and "${" in text:
        return KeyReference(
            text, location, tuple(pair for pair in dotenv.items() if pair[0] in text)
        )
    return expand(text, location, lambda name: environment.get(name) or dotenv.get(name))
