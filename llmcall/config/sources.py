"""What defaults, environment and files say of the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import ConfigError
from .files import Places, find_places, read_config, read_dotenv
from .layers import DEFAULT, DOTENV, ENVIRONMENT, FOUND_FILE, NAMED_FILE, Layer, Origin, put_setting
from .names import HIDDEN, KNOWN_VARIABLES, SDK_VARIABLES, SETTINGS, VARIABLES, nearest

__all__ = ["Sources", "read_sources"]

_ATTRIBUTES = {**SDK_VARIABLES, **VARIABLES}  # LLMCALL_* comes later and so wins
_READ_VARIABLES = ("LLMCALL_CONFIG", *_ATTRIBUTES)


Stamp = tuple[int, int, int]
_FROM_DEFAULT = Origin(DEFAULT, "default")


class Sources:
    """Hold what defaults, files and environment said when they were read.

    :param values: each setting's value and origin, all layers merged.
    :param config: the path of the config.ini that was read, or ``None``.
    :param references: the variables that the file refers to.
    :param seen: what was looked at: places, files' stamps, variables.
    """

    __slots__ = ("config", "references", "seen", "values")

    def __init__(
        self, values: Layer, config: str | None, references: tuple[str, ...], seen: tuple[object, ...]
    ) -> None:
        self.values = values
        self.config = config
        self.references = references
        self.seen = seen

    def changed(self) -> bool:
        """Tell whether environment, working directory or files are no longer what they were."""
        places = find_places()
        return self.seen != (
            places,
            _stamp(places[3]),
            _stamp(self.config),
            *map(os.environ.get, _READ_VARIABLES),
            *map(os.environ.get, self.references),
        )


def read_sources() -> Sources:
    """Read environment, ``.env`` and config.ini, and put them above the defaults.

    :raises ConfigError: if a file is broken or a value is of the wrong type.
    """
    places = find_places()
    folder, root, _, dotenv_path = places
    snapshot = dict(os.environ)
    environment = {name: value.strip() for name, value in snapshot.items() if value.strip()}
    stamp = _stamp(dotenv_path)  # before the file is read: a change meanwhile is then seen by the next refresh
    dotenv = _dotenv(dotenv_path)
    config, rank = _config(places, environment, dotenv)
    config_stamp = _stamp(config)
    values = _defaults(root)
    references = _put_file(values, config, rank, environment, dotenv) if config else ()
    values.update(_variables_layer(dotenv, DOTENV, f".env ({dotenv_path}), ", os.path.dirname(dotenv_path or "")))
    values.update(_variables_layer(environment, ENVIRONMENT, "environment variable ", folder))
    variables = map(snapshot.get, _READ_VARIABLES + references)
    return Sources(values, config, references, (places, stamp, config_stamp, *variables))


def _stamp(path: str | None) -> Stamp | None:
    """Return what changes with a file's content: time of change (ns), size and inode; ``None`` if it is not there."""
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _dotenv(path: str | None) -> dict[str, str]:
    return {} if path is None else read_dotenv(path)


def _put_file(
    values: Layer, config: str, rank: int, environment: Mapping[str, str], dotenv: Mapping[str, str]
) -> tuple[str, ...]:
    """Put config.ini above the defaults; return the variables that it refers to."""
    from .sections import file_layer

    asked: dict[str, None] = {}

    def lookup(name: str) -> str | None:
        """Return a variable's value, and remember that it was asked for."""
        asked[name] = None
        return environment.get(name) or dotenv.get(name)

    values.update(file_layer(read_config(config), rank, lookup, dotenv))
    return tuple(asked)


def _defaults(root: str) -> Layer:
    layer: Layer = dict.fromkeys(HIDDEN, (None, _FROM_DEFAULT))
    for name, row in SETTINGS.items():
        value = os.path.join(root, *row.default.split("/")) if row.kind == "path" and row.default else row.default
        layer[name] = (value, _FROM_DEFAULT)
    return layer


def _config(places: Places, environment: Mapping[str, str], dotenv: Mapping[str, str]) -> tuple[str | None, int]:
    """Return the path of the file to read and its rank: that which LLMCALL_CONFIG names, else the one found."""
    if name := environment.get("LLMCALL_CONFIG"):
        folder, where = places[0], "environment variable LLMCALL_CONFIG"
    elif name := dotenv.get("LLMCALL_CONFIG"):
        folder, where = os.path.dirname(places[3] or ""), f".env ({places[3]}), LLMCALL_CONFIG"
    else:
        return places[2], FOUND_FILE
    path = os.path.normpath(os.path.join(folder, os.path.expanduser(name)))
    if not os.path.isfile(path):
        raise ConfigError(f"{where}: there is no file {path}")
    return path, NAMED_FILE


def _variables_layer(variables: Mapping[str, str], rank: int, prefix: str, folder: str) -> Layer:
    """Read ``LLMCALL_*`` and the SDK's variables.

    :param prefix: what stands before a variable's name to say where it is.
    :param folder: the directory that a relative path starts from.
    """
    layer: Layer = {}
    for variable, attribute in _ATTRIBUTES.items():
        if variable in variables:
            row = SETTINGS.get(attribute) or HIDDEN[attribute]
            put_setting(layer, row, variables[variable], Origin(rank, prefix + variable), folder)
    for variable in variables:
        if variable.startswith("LLMCALL_") and not _is_known(variable):
            _warn_of_variable(variable, prefix)
    return layer


def _is_known(variable: str) -> bool:
    return variable in KNOWN_VARIABLES or variable.startswith("LLMCALL_TEST_")


def _warn_of_variable(variable: str, prefix: str) -> None:
    from ..notices import warn_once

    warn_once(f"{prefix}{variable}: there is no such setting{nearest(variable, KNOWN_VARIABLES)}")
