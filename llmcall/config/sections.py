"""What config.ini says of the settings, TinyTroupe's keys included."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..notices import inform_once, warn_once
from .files import ConfigFile
from .layers import Layer, Origin, put_setting
from .names import (
    ANCESTOR_KEYS,
    CAPABILITIES,
    ENDPOINT_KEYS,
    IGNORED_ANCESTOR_KEYS,
    SETTINGS,
    Setting,
    in_section,
    nearest,
)
from .references import KeyReference, expand
from .values import directory_named, read_boolean, read_number

__all__ = ["file_layer"]

_TABLES = {"Prices": "prices", "Aliases": "aliases", "Fallbacks": "fallbacks"}


def file_layer(file: ConfigFile, rank: int, lookup: Callable[[str], str | None], dotenv: Mapping[str, str]) -> Layer:
    """Return the settings of one config.ini.

    :param file: its sections as text.
    :param rank: the layer's rank.
    :param lookup: gives a variable's value, or ``None`` if it is unset.
    :param dotenv: the variables of ``.env``, kept for keys that are looked up when they are used.
    :raises ConfigError: if a value is of the wrong type, or refers to a variable that is not set.
    """
    return _Reader(file, rank, lookup, dotenv).layer()


class _Reader:
    """Read the sections of one file into a layer."""

    def __init__(
        self, file: ConfigFile, rank: int, lookup: Callable[[str], str | None], dotenv: Mapping[str, str]
    ) -> None:
        self.file = file
        self.folder = os.path.dirname(file.path)
        self.rank = rank
        self.lookup = lookup
        self.dotenv = dotenv
        self.values: Layer = {}

    def layer(self) -> Layer:
        """Return what all sections say."""
        self.put_ancestors()
        for section in self.file.sections:
            if section in _TABLES:
                self.put_table(section)
            elif " " not in section:
                self.put_section(section)
        self.put_endpoints()
        self.put_models()
        return self.values

    def place(self, section: str, key: str = "") -> str:
        """Return how messages name a section or a key."""
        return f"{self.file.where}, [{section}] {key}".rstrip()

    def put(self, row: Setting, value: Any, place: str) -> None:
        """Check a value and put it into the layer."""
        put_setting(self.values, row, value, Origin(self.rank, place), self.folder)

    def value(self, row: Setting, text: str, place: str) -> str | KeyReference:
        """Return a value with its variables; a key's are looked up when it is used."""
        if row.kind == "secret" and "${" in text:
            return KeyReference(text, place, self.dotenv)
        return expand(text, place, self.lookup)

    def put_section(self, section: str) -> None:
        """Put what a section says, key by key."""
        rows = in_section(section)
        for key, text in self.file.sections[section].items():
            place = self.place(section, key)
            if key in rows:
                value = self.value(rows[key], text, place)
                if value:
                    self.put(rows[key], value, place)
            elif section != "OpenAI" or key not in (*ANCESTOR_KEYS, *IGNORED_ANCESTOR_KEYS):
                _warn_of_key(place, key, rows)

    def put_table(self, section: str) -> None:
        """Put a section whose keys are names of the user's."""
        place = self.place(section)
        texts = self.file.sections[section]
        values = {name: expand(text, f"{place} {name}", self.lookup) for name, text in texts.items()}
        self.put(SETTINGS[_TABLES[section]], values, place)

    def put_endpoints(self) -> None:
        """Put what the sections [Endpoint …] say."""
        endpoints = []
        for section, name in self.named("Endpoint"):
            fields = self.fields(ENDPOINT_KEYS, section)
            endpoints.append({"name": name, **fields})
            if "models" not in fields:
                warn_once(f"{self.place(section)}: without MODELS this endpoint is never used")
        if endpoints:
            self.put(SETTINGS["endpoints"], endpoints, self.file.where)

    def put_models(self) -> None:
        """Put what the sections [Model …] say."""
        models = {name: self.fields(CAPABILITIES, section) for section, name in self.named("Model")}
        if models:
            self.put(SETTINGS["models"], models, self.file.where)

    def named(self, kind: str) -> list[tuple[str, str]]:
        """Return the sections ``[KIND NAME]`` and their names."""
        parts = [(section, *section.partition(" ")) for section in self.file.sections]
        return [(section, name) for section, head, _, name in parts if head == kind and name]

    def fields(self, rows: Mapping[str, Setting], section: str) -> dict[str, Any]:
        """Return a named section's values by their names in code; unknown keys are warned of."""
        found = {}
        for key, text in self.file.sections[section].items():
            row = rows.get(key.lower())
            if row is None:
                _warn_of_key(self.place(section, key), key, [name.upper() for name in rows])
            elif text.strip():
                found[row.attribute] = self.value(row, text, self.place(section, key))
        return found

    def put_ancestors(self) -> None:
        """Read TinyTroupe's keys in [OpenAI] as ours; each is said once."""
        for key, text in self.file.sections.get("OpenAI", {}).items():
            place = self.place("OpenAI", key)
            if key in IGNORED_ANCESTOR_KEYS:
                inform_once(f"{place}: a key of TinyTroupe's that means nothing to llmcall")
            elif key in ANCESTOR_KEYS:
                row = SETTINGS[ANCESTOR_KEYS[key]]
                self.put(row, _ancestor_value(key, expand(text, place, self.lookup).strip(), place), place)
                inform_once(f"{place}: a key of TinyTroupe's, read as [{row.section}] {row.key}")


def _ancestor_value(key: str, text: str, place: str) -> str:
    """Return the text that our key would hold."""
    if key == "CACHE_API_CALLS" and text:
        return "auto" if read_boolean(text, place) else "off"
    if key == "CACHE_FILE_NAME":
        return directory_named(text)
    if key == "MAX_CONCURRENT_MODEL_CALLS" and read_number(text) == 0:
        return "none"
    return text


def _warn_of_key(place: str, key: str, known: Iterable[str]) -> None:
    warn_once(f"{place}: there is no such key{nearest(key, known)}")
