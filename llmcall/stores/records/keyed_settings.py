"""The settings that decide keys, as the header of a file of records holds them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...additions import additions
from ...config import resolve as config
from ...config.setting import Layer, Rank
from ...config.settings import SETTINGS, Settings
from ...errors import ConfigError
from ...keys.parameters import CONFIGURED, EFFORT
from ...keys.request import Data
from ...models.catalog import matching_section, resolve
from ...support.display import as_json
from ...support.normalizers import replacement

if TYPE_CHECKING:
    from ..record import Record

NAMESPACES = "namespaces"  # by model, the namespaces from [Endpoint …] sections
SECTIONS = "models"  # the [Model …] sections of the models that were used
DEFAULT_MODELS = {"chat": "model", "embedding": "embedding_model"}  # by the kind of a record
MODELS = tuple(DEFAULT_MODELS.values())
SECTION_NAMES = ("aliases", NAMESPACES, SECTIONS)
MODEL_FILE = ".gguf"
# The settings that decide keys, besides the arguments in code. A header holds these, and while its
# cassette is open they override environment and files.
KEYED = (*MODELS, *CONFIGURED, "cache_namespace", "cache_normalize", "aliases")


def settings_taken(settings: Settings, kind: str, model: str) -> dict[str, Data]:
    """Return the settings on which the keys of a model's calls may depend, as a header holds them.

    :param settings: those of environment and files, without code's.
    :param kind: of the calls.
    :param model: the requested model.
    """
    taken: dict[str, Data] = {"cache_normalize": list(settings.cache_normalize)}
    if namespace := namespaces_of(settings).get(model):
        taken[NAMESPACES] = {model: namespace}
    else:
        taken["cache_namespace"] = settings.cache_namespace
    if name := DEFAULT_MODELS.get(kind):
        default = taken[name] = _default_model(settings, name, model)
        aliases = settings.aliases
        taken["aliases"] = {
            alias: aliases[alias] for alias in aliases if resolve(alias, aliases) == model
        }
        sections = settings.models
        if default and default in (known := additions("capabilities")):
            sections = {default: known[default], **sections}
        section = _as_json(matching_section(model, sections))
        taken[SECTIONS] = {model: section} if section else {}
    if kind == "chat":
        taken |= {parameter: getattr(settings, parameter) for parameter in CONFIGURED}
    return {name: value for name, value in taken.items() if value not in (None, "", [], {})}


def _default_model(settings: Settings, name: str, model: str) -> str | None:
    """Return a default model as a header holds it; ``None`` if a client has another one.

    :param name: the setting.
    :param model: the requested model.
    """
    value = getattr(settings, name)
    # The one that its client asks while the setting has its default, if it is another.
    packaged = additions("default_models").get(settings.api_type)
    forms = (_file_name(value), packaged if value == SETTINGS[name].default else None, value)
    for form in forms:
        if form is not None and _requested_name(form, settings.aliases) == model:
            return str(form)
    return None


def _as_json(settings: Mapping[str, Data]) -> dict[str, Data]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in sorted(settings.items())
    }


def settings_shown(header: Mapping[str, Data], records: Iterable[Record]) -> dict[str, Data]:
    """Return a header's settings without the parameters, and the namespace, that no record's request has."""
    fields = {"cache_namespace": "namespace", **{name: name for name in CONFIGURED}}
    unseen = header.keys() & fields.keys()
    for record in records if unseen else ():
        request = record.request
        unseen = {name for name in unseen if request.get(fields[name]) != header[name]}
        if not unseen:
            break
    return {name: value for name, value in header.items() if name not in unseen}


def current_settings_of(records: Sequence[Record]) -> dict[str, Data]:
    """Return the settings from environment and files that the requests of some records show, as a header holds them."""
    settings = config.without_code()
    found: dict[str, Data] = {}
    for kind, model in {(record.kind, str(record.request.get("model"))) for record in records}:
        found = joined_settings(found, settings_taken(settings, kind, model))
    if normalizers := settings.cache_normalize:
        texts = [as_json(record.request) for record in records]
        found["cache_normalize"] = [
            name for name in normalizers if any(replacement(name) in text for text in texts)
        ]
        if not found["cache_normalize"]:
            del found["cache_normalize"]
    return settings_shown(found, records)


def with_used_models(
    header: Mapping[str, Data], models: Iterable[tuple[str, Data]]
) -> dict[str, Data]:
    """Return a header's settings without the models, and the ``[Model …]`` sections, of which no record is.

    :param models: the kinds of the records and the models in their requests.
    """
    if header.keys().isdisjoint((*MODELS, SECTIONS)):
        return {**header}
    asked = {(DEFAULT_MODELS.get(kind), model) for kind, model in models}
    aliases, sections = header.get("aliases", {}), header.get(SECTIONS, {})
    used = {
        model: _as_json(section)
        for model in sorted(str(model) for name, model in asked if name)
        if (section := matching_section(model, sections))
    }
    return {
        name: used if name == SECTIONS else value
        for name, value in header.items()
        if (name not in MODELS or (name, _requested_name(value, aliases)) in asked)
        and (name != SECTIONS or used)
    }


def _requested_name(model: str, aliases: Mapping[str, str]) -> str:
    """Return the model's name in requests."""
    return model[: -len(MODEL_FILE)] if _file_name(model) else resolve(model, aliases)


def _file_name(model: object) -> str | None:
    """Return the name of a model's file, without its folder; ``None`` if the model is not a file."""
    path = str(model)
    return re.split(r"[/\\]", path)[-1] if path.lower().endswith(MODEL_FILE) else None


def namespaces_of(settings: Settings) -> dict[str, str]:
    """Return the namespaces from ``[Endpoint …]`` sections by model, or those of an open cassette's header."""
    recorded = settings.setting_value("_namespaces").value
    if recorded is not None:
        return dict(recorded)
    if settings.setting_value("endpoints").rank >= Rank.CONFIGURED:
        return {}
    return {
        model: endpoint.namespace
        for endpoint in settings.endpoints
        if endpoint.namespace
        for model in endpoint.models
    }


def layer_from_header(
    header: Mapping[str, Data], origin: str, records: Iterable[Record], *, is_recorded: bool
) -> Layer:
    """Return a header as a layer above environment and files. A setting without a value in the recording has
    none now, except for models and for parameters that each of its records names.

    A model's file keeps its path on this machine.

    :param header: its settings.
    :param origin: the recording, for ``Settings.origin``.
    :param records: those of the file; they are read only if parameters or aliases are set here.
    :param is_recorded: ``True`` if llmcall recorded it; otherwise an empty header says nothing.
    :raises ConfigError: if the header names a setting that is unknown or does not decide keys.
    """
    recorded = {name: value for name, value in header.items() if name not in (NAMESPACES, SECTIONS)}
    unknown = sorted(recorded.keys() - set(KEYED))
    if unknown:
        raise ConfigError(
            f"the header has unknown settings: {', '.join(unknown)}; upgrade llmcall, or record again"
        )
    decides = bool(recorded) or is_recorded
    current, left = config.without_code(), {*MODELS}
    # A default effort is in requests without a setting.
    parameters = {*CONFIGURED} - {*recorded, EFFORT}
    if any(getattr(current, name) != SETTINGS[name].default for name in parameters):
        chats = (record.request for record in records if record.kind == "chat")
        left |= parameters.intersection(*chats)
    names = [name for name in KEYED if name in recorded or (decides and name not in left)]
    layer = {name: recorded.get(name, SETTINGS[name].default) for name in names}
    settings = config.settings()
    if "aliases" in layer and current.aliases:
        asked = {
            record.request.get("model") for record in records
        }  # no record's model is a name here
        others = {name: to for name, to in current.aliases.items() if name not in asked}
        layer["aliases"] = {**others, **layer["aliases"]}
    for name in MODELS:
        local_model = getattr(settings, name)
        if name in layer and layer[name] == _file_name(local_model):
            layer[name] = local_model
    if SECTIONS in header:
        layer[SECTIONS] = {**current.models, **header[SECTIONS]}
    if decides:
        layer["_namespaces"] = header.get(NAMESPACES, {})
    return config.layer_above_files(layer, origin)


def overridden_words(before: Settings, layer: Layer, path: str) -> str:
    """Return a warning about the settings of environment and files that a recording overrides; empty without any.

    :param before: the settings without the recording's.
    :param layer: the recording's settings.
    :param path: its file.
    """
    overridden: list[str] = []
    for name, entry in layer.items():
        earlier = before.setting_value(name)
        if not Rank.DEFAULT < earlier.rank < Rank.PUSHED or earlier.value == entry.value:
            continue
        if name == "cache_normalize" and {*earlier.value} <= {*entry.value}:
            continue  # all of them are in effect
        if name in CONFIGURED and entry.value is None and "model" not in layer:
            continue  # no recorded call took llmcall's defaults
        if here := _setting_text(earlier.value, entry.value):
            is_variable = earlier.rank is Rank.ENVIRONMENT
            file = os.path.basename(earlier.origin).partition(", ")[0]
            source, row = "the environment" if is_variable else file, SETTINGS[name]
            prefix = f"{row.key} = " if row.key else f"[{row.section}] "  # as in config.ini
            recorded = _setting_text(entry.value, earlier.value) or f"no {prefix.rstrip(' =')}"
            overridden.append(
                f"{prefix}{here} of {source} has no effect: {path} was recorded with {recorded}"
            )
    if not overridden:
        return ""
    remedy = "To use what is set here, record everything again in mode 'rewrite', or set it in code"
    return f"{'; '.join(overridden)}. {remedy}"


def _setting_text(value: object, other: Any) -> str:
    """Return a value as config.ini writes it, of a section the entries that another lacks; empty without one."""
    if isinstance(value, Mapping):
        entries = {name: entry for name, entry in value.items() if other.get(name) != entry}
        return ", ".join(f"{name} = {_setting_text(entry, {})}" for name, entry in entries.items())
    return (
        ", ".join(map(str, value))
        if isinstance(value, tuple)
        else str("" if value is None else value)
    )


def settings_differences(settings: Mapping[str, Data], other: Mapping[str, Data]) -> str:
    """Return the differences between the settings of two headers in words; empty if they agree.

    A model, or an entry of a section, that only one of them names is not a difference, because each header has
    those of its own records.
    """
    names = settings.keys() | other.keys()
    names -= {name for name in MODELS if name not in settings or name not in other}
    different = {name for name in names if settings.get(name) != other.get(name)}
    for name in different.intersection(SECTION_NAMES):
        entries, other_entries = settings.get(name, {}), other.get(name, {})
        shared = entries.keys() & other_entries.keys()
        if all(entries[key] == other_entries[key] for key in shared):
            different.remove(name)
    return ", ".join(
        f"{name} ({settings.get(name)!r} and {other.get(name)!r})" for name in sorted(different)
    )


def joined_settings(settings: Mapping[str, Data], other: Mapping[str, Data]) -> dict[str, Data]:
    """Return a header's settings with those, and the entries of sections, that only the other header has."""
    sections = {
        name: {**other[name], **settings[name]}
        for name in SECTION_NAMES
        if name in settings and name in other
    }
    return {**other, **settings, **sections}
