"""The table of features and of the parts above the core, and what these add.

The core names none of them. ``FEATURE`` in the ``__init__.py`` of each folder says what it adds, and imports nothing
else of it. Whoever lists additions of one kind, such as notes or commands, reads them here; ``python
docs/_ext/names.py`` writes the public names into ``__init__.py`` and ``types.py``. Deleting a feature's folder and its
line here leaves nothing of it: ``make deletable`` does so.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

# The parts, folders of the package, which stay.
PARTS = ("typed",)
# The features, folders of llmcall/features that can be deleted, in the order of the alphabet.
FEATURES = (
    "adaptive_limits",
    "arms",
    "check",
    "closed_questions",
    "dbgpt",
    "effects",
    "executors",
    "http_libraries",
    "importing",
    "local_model",
    "overrides",
    "packing",
    "plans",
    "pytest_plugin",
    "redis",
    "report",
    "resend",
    "serve",
    "tinytroupe",
    "windows",
    "xagent",
)


NONE: Mapping[str, Any] = MappingProxyType({})


class Feature(NamedTuple):
    """The additions of a part or a feature: texts, so that nothing is imported before it is used. A place is
    ``"MODULE:NAME"``, with the module's name below ``llmcall``.

    :param needs: the names of the features without which it cannot be; deleting one of them deletes it, too.
    :param names: the public names of ``llmcall``, with blanks between, by module.
    :param types: those of ``llmcall.types``.
    :param aio: those of ``llmcall.aio``.
    :param commands: the places of the commands, by name.
    :param run_options: the places of the options of ``llmcall run`` (``cli/options.py``), by the name of their value.
    :param ask_options: the places of the options of ``llmcall ask`` (``cli/options.py``), by the name of their value.
    :param cache_parts: the places of what is kept beside the records of a cache (``cli/options.py``), by the name of
        the option of ``llmcall cache clear`` that clears it.
    :param map_options: the places of what answers the options of ``map`` (``many/map_options.py``), by their names.
    :param settings: the places of the settings (``config/setting.py``), by name.
    :param other_keys: the places of another program's keys in config.ini (``config/setting.py``), by its name.
    :param options: the places of the options of a call (``core/options.py``), by name. A setting of
        the same name has its default.
    :param listeners: the places of the listeners (``support/listeners.py``) that hear of all calls of a process, by
        any name.
    :param clients: the places of the clients, by api_type.
    :param default_models: the models that clients ask while ``MODEL`` has its default, by api_type.
    :param capabilities: what such a model can do, as in a section [Model] of config.ini, by its name.
    :param slots: the places of the types of slots that find an endpoint's number of calls at a time
        (``traffic/limits.py``), by the word of ``MAX_CONCURRENT_CALLS`` that asks for it.
    :param tiers: the shares of the standard price that are paid, by the name of a tier.
    :param notes: the places of the notes of a record (``stores/notes.py``), by name.
    :param given: the words for answers that no model gave, such as ``"overridden"``, by the name of their note.
    :param header_notes: the places of the notes of a file's header, by name.
    :param storages: the places of functions that return the storage of a cache at an address, by the scheme.
    :param formats: the places of functions that return the records of another program's file, by its path, or
        ``None`` for any other file; by the file's name in words.
    :param patches: the places of the replacements in an HTTP library (``programs/patches.py``), by the module's name.
    :param remedies: what to do about a trouble, for messages of the core, by the trouble's name there.
    """

    needs: tuple[str, ...] = ()
    names: Mapping[str, str] = NONE
    types: Mapping[str, str] = NONE
    aio: Mapping[str, str] = NONE
    commands: Mapping[str, str] = NONE
    run_options: Mapping[str, str] = NONE
    ask_options: Mapping[str, str] = NONE
    cache_parts: Mapping[str, str] = NONE
    map_options: Mapping[str, str] = NONE
    settings: Mapping[str, str] = NONE
    other_keys: Mapping[str, str] = NONE
    options: Mapping[str, str] = NONE
    listeners: Mapping[str, str] = NONE
    clients: Mapping[str, str] = NONE
    default_models: Mapping[str, str] = NONE
    capabilities: Mapping[str, Mapping[str, bool]] = NONE
    slots: Mapping[str, str] = NONE
    tiers: Mapping[str, float] = NONE
    notes: Mapping[str, str] = NONE
    given: Mapping[str, str] = NONE
    header_notes: Mapping[str, str] = NONE
    storages: Mapping[str, str] = NONE
    formats: Mapping[str, str] = NONE
    patches: Mapping[str, str] = NONE
    remedies: Mapping[str, str] = NONE


def feature(name: str) -> Feature:
    """Return what a part or a feature adds."""
    within = "llmcall.features" if name in FEATURES else "llmcall"
    found: Feature = import_module(f"{within}.{name}").FEATURE
    return found


@cache
def features() -> tuple[Feature, ...]:
    """Return what all parts and features add, in the order of the table."""
    return tuple(map(feature, (*PARTS, *FEATURES)))


@cache
def additions(kind: str) -> Mapping[str, Any]:
    """Return what all parts and features add of one kind.

    :param kind: a field of :class:`Feature` that is a mapping, such as ``"commands"``.
    """
    return {key: value for each in features() for key, value in getattr(each, kind).items()}


def load(place: str) -> Any:
    """Import what stands at a place."""
    module, _, name = place.partition(":")
    return getattr(import_module(f"llmcall.{module}"), name)
