"""The table of features and of the parts above the core, and what these add.

The core names none of them. ``FEATURE`` in the ``__init__.py`` of each folder says what it adds, and imports nothing
else of it. Whoever lists additions of one kind, such as notes or commands, reads them here; ``python
docs/_ext/names.py`` writes the public names into ``__init__.py`` and ``types.py``. Deleting a feature's folder and its
line here leaves nothing of it: ``make deletable`` does so.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

# The parts, folders of the package, which stay; each with the kinds of what it adds, fields of Feature. Only those
# folders are read that add what is asked for: a first answer asks for few kinds.
PARTS = {"typed": "notes"}
# The features, folders of llmcall/features that can be deleted, likewise, in the order of the alphabet.
FEATURES = {
    "adaptive_limits": "slots",
    "arms": "names types",
    "check": "run_options",
    "closed_questions": "names types",
    "dbgpt": "aio",
    "effects": "names types remedies",
    "executors": "map_options",
    "http_libraries": "patches",
    "importing": "names types commands header_notes remedies",
    "local_model": "names ask_options settings clients program_senders default_models capabilities remedies",
    "overrides": "names run_options notes given",
    "packing": "names commands",
    "plans": "types map_options",
    "pytest_plugin": "",
    "redis": "storages remedies",
    "report": "commands",
    "resend": "names commands",
    "serve": "commands remedies",
    "tinytroupe": "other_keys formats",
    "xagent": "names aio",
}


Texts = Mapping[str, str]
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
    :param map_options: the places of what answers the options of ``map`` (``many/map_options.py``), by their names.
    :param settings: the places of the settings (``config/setting.py``), by name.
    :param other_keys: the places of another program's keys in config.ini (``config/setting.py``), by its name.
    :param clients: the places of the clients, by api_type.
    :param program_senders: the places of functions that return what takes the place of the transport of a program's
        request (``programs/answering.py``), by api_type.
    :param default_models: the models that clients ask while ``MODEL`` has its default, by api_type.
    :param capabilities: what such a model can do, as in a section [Model] of config.ini, by its name.
    :param slots: the places of the types of slots that find an endpoint's number of calls at a time
        (``traffic/limits.py``), by the word of ``MAX_CONCURRENT_CALLS`` that asks for it.
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
    names: Texts = NONE
    types: Texts = NONE
    aio: Texts = NONE
    commands: Texts = NONE
    run_options: Texts = NONE
    ask_options: Texts = NONE
    map_options: Texts = NONE
    settings: Texts = NONE
    other_keys: Texts = NONE
    clients: Texts = NONE
    program_senders: Texts = NONE
    default_models: Texts = NONE
    capabilities: Mapping[str, Mapping[str, bool]] = NONE
    slots: Texts = NONE
    notes: Texts = NONE
    given: Texts = NONE
    header_notes: Texts = NONE
    storages: Texts = NONE
    formats: Texts = NONE
    patches: Texts = NONE
    remedies: Texts = NONE


def feature(name: str) -> Feature:
    """Return what a part or a feature adds."""
    within = "llmcall.features" if name in FEATURES else "llmcall"
    found: Feature = import_module(f"{within}.{name}").FEATURE
    return found


@cache
def additions(kind: str) -> Mapping[str, Any]:
    """Return what all parts and features add of one kind.

    :param kind: a field of :class:`Feature` that is a mapping, such as ``"commands"``.
    """
    names = [name for name, kinds in {**PARTS, **FEATURES}.items() if kind in kinds.split()]
    return {key: value for name in names for key, value in getattr(feature(name), kind).items()}


def load(place: str) -> Any:
    """Import the object that a place names."""
    module, _, name = place.partition(":")
    return getattr(import_module(f"llmcall.{module}"), name)
