"""The settings that decide keys, as the header of a file of records holds them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...config import resolve as config
from ...config.setting import Layer, Rank
from ...config.settings import LOCAL_MODEL, SETTINGS, Settings
from ...errors import ConfigError
from ...keys.normalizers import replacement
from ...keys.parameters import CONFIGURED
from ...models.catalog import matching_section, resolve
from ...support.display import as_json

if TYPE_CHECKING:
    from ...keys.request import Data
    from ..record import Record


NAMESPACES = "namespaces"  # by model, the namespaces from [Endpoint …] sections
SECTIONS = "models"  # the [Model …] sections of the models that were used
DEFAULT_MODELS = {"chat": "model", "embedding": "embedding_model"}  # by the kind of a record
MODELS = tuple(DEFAULT_MODELS.values())
MODEL_FILE = ".gguf"
# The settings that decide keys, besides the arguments in code. A header holds these, and while its
# cassette is open they override environment and files.
KEYED = (*MODELS, *CONFIGURED, "cache_namespace", "cache_normalize", "aliases")


def keyed_settings() -> dict[str, Data]:
    """Return the settings from environment, files and defaults that decide keys, as JSON data.

    A model's file is named without its folder. All ``[Model …]`` sections are included; writing a file
    keeps only the sections of the models that were used.
    """
    values = vars(config.without_code())
    header = _as_json(
        {name: values[name] for name in KEYED if values[name] not in (None, "", (), {})}
    )
    for name in MODELS:
        model = header.get(name)
        if file_name := _file_name(model):
            header[name] = file_name
        elif values["api_type"] == "local" and model == SETTINGS[name].default:
            header[name] = LOCAL_MODEL  # with its records' name, it replays with any API_TYPE
    sections = values[SECTIONS]
    if header["model"] == LOCAL_MODEL:
        sections = {LOCAL_MODEL: {"structured_output": True}, **sections}
    if sections:
        header[SECTIONS] = {name: _as_json(sections[name]) for name in sorted(sections)}
    recorded = values["_namespaces"]
    namespaces = _namespaces() if recorded is None else dict(recorded)
    return {**header, NAMESPACES: namespaces} if namespaces else header


def _as_json(settings: Mapping[str, Data]) -> dict[str, Data]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in sorted(settings.items())
    }


def with_used_models(header: Mapping[str, Data], records: Iterable[Record]) -> dict[str, Data]:
    """Return a header whose ``[Model …]`` sections are those of some records' models, by full name."""
    sections = header.get(SECTIONS, {})
    models = {model for record in records if isinstance(model := record.request.get("model"), str)}
    sections_by_model = {
        model: _as_json(matching_section(model, sections)) for model in sorted(models)
    }
    used_sections = {model: section for model, section in sections_by_model.items() if section}
    settings = {name: value for name, value in header.items() if name != SECTIONS}
    return {**settings, SECTIONS: used_sections} if used_sections else settings


def with_used_settings(
    header: Mapping[str, Data], records: Iterable[Record], names: Collection[str]
) -> dict[str, Data]:
    """Return a header's settings without those, and the entries of sections and lists, that no record's request
    shows.

    The local model is the default model only if it answered: other clients of a process with
    ``API_TYPE = local`` have the default of ``MODEL``.

    :param names: the settings that may be left out.
    """
    names = header.keys() & names
    normalizers = header["cache_normalize"] if "cache_normalize" in names else ()
    aliases = header.get("aliases", {})
    shown: dict[str, list[Data]] = defaultdict(list)
    for record in records if names else ():
        text = as_json(record.request) if normalizers else ""
        replaced = [
            ("cache_normalize", normalizer)
            for normalizer in normalizers
            if replacement(normalizer) in text
        ]
        for name, value in (*_shown(record), *replaced):
            if value not in shown[name]:
                shown[name].append(value)
    used: dict[str, Data] = {}
    for name, value in header.items():
        if name not in names:
            entries = value
        elif name == "aliases":
            entries = {key: value[key] for key in value if resolve(key, value) in shown[name]}
        elif name in MODELS:
            models = (value, SETTINGS[name].default) if value == LOCAL_MODEL else (value,)
            matching = (model for model in models if _requested_name(model, aliases) in shown[name])
            entries = next(matching, None)
        elif name == NAMESPACES:
            entries = {key: value[key] for key in value if (key, value[key]) in shown[name]}
        elif isinstance(value, list):
            entries = [element for element in value if element in shown[name]]
        else:
            entries = value if value in shown[name] else None
        if entries not in (None, [], {}):
            used[name] = entries
    return used


def _requested_name(model: str, aliases: Mapping[str, str]) -> str:
    """Return the model's name in requests."""
    return model[: -len(MODEL_FILE)] if _file_name(model) else resolve(model, aliases)


def _shown(record: Record) -> Iterator[tuple[str, Data]]:
    """Yield the settings that may have decided a record's request, each with its value."""
    request = record.request
    model, namespace = request.get("model"), request.get("namespace")
    if record.kind in DEFAULT_MODELS:
        yield DEFAULT_MODELS[record.kind], model
    if record.kind == "chat":
        yield from ((name, request[name]) for name in CONFIGURED if name in request)
    yield from (
        ("cache_namespace", namespace),
        ("aliases", model),
        (NAMESPACES, (model, namespace)),
    )


def _file_name(model: object) -> str | None:
    """Return the name of a model's file, without its folder; ``None`` if the model is not a file."""
    path = str(model)
    return re.split(r"[/\\]", path)[-1] if path.lower().endswith(MODEL_FILE) else None


def _namespaces() -> dict[str, str]:
    settings = config.settings()
    if settings.setting_value("endpoints").rank >= Rank.CONFIGURED:
        return {}
    return {
        model: endpoint.namespace
        for endpoint in settings.endpoints
        if endpoint.namespace
        for model in endpoint.models
    }


def layer_from_header(header: Mapping[str, Data], origin: str, *, is_imported: bool) -> Layer:
    """Return a header as a layer above environment and files. A setting without a value in the recording has
    none now.

    A model's file keeps its path on this machine.

    :param header: its settings.
    :param origin: the recording, for ``Settings.origin``.
    :param is_imported: whether llmcall did not record it, so an empty header says nothing.
    :raises ConfigError: if the header names a setting that is unknown or does not decide keys.
    """
    recorded = {name: value for name, value in header.items() if name not in (NAMESPACES, SECTIONS)}
    unknown = sorted(recorded.keys() - set(KEYED))
    if unknown:
        raise ConfigError(
            f"the header has unknown settings: {', '.join(unknown)}; upgrade llmcall, or record again"
        )
    decides = bool(recorded) or not is_imported
    names = [name for name in KEYED if name in recorded or (decides and name not in MODELS)]
    layer = {name: recorded.get(name, SETTINGS[name].default) for name in names}
    settings = config.settings()
    for name in MODELS:
        local_model = getattr(settings, name)
        if name in layer and layer[name] == _file_name(local_model):
            layer[name] = local_model
    if SECTIONS in header:
        layer[SECTIONS] = {**config.without_code().models, **header[SECTIONS]}
    if decides:
        layer["_namespaces"] = header.get(NAMESPACES, {})
    return config.layer_above_files(layer, origin)


def overridden_settings(before: Settings, layer: Layer, path: str) -> str:
    """Return a warning about the settings of environment and files that a recording overrides, or an
    empty text.

    :param before: the settings without the recording's.
    :param layer: the recording's settings.
    :param path: its file.
    """
    here, recorded = [], []
    for name, entry in layer.items():
        earlier = before.setting_value(name)
        if Rank.DEFAULT < earlier.rank < Rank.PUSHED and earlier.value != entry.value:
            is_variable = earlier.rank is Rank.ENVIRONMENT
            file = os.path.basename(earlier.origin).partition(", ")[0]
            source = "the environment" if is_variable else file
            if words := _setting_text(earlier.value, entry.value):
                here.append(f"{_config_prefix(name)}{words} of {source}")
                recorded.append((name, _setting_text(entry.value, earlier.value)))
    if not here:
        return ""
    is_one = len(here) == 1
    values = [
        f"{'' if is_one else _config_prefix(name)}{words}"
        if words
        else f"no {_config_prefix(name).rstrip(' =')}"
        for name, words in recorded
    ]
    return (
        f"{' and '.join(here)} {'has' if is_one else 'have'} no effect: {path} was recorded with "
        f"{' and '.join(values)}. To use what is set here, record everything again in the mode 'rewrite', "
        "or set it in code"
    )


def _config_prefix(name: str) -> str:
    """Return a setting's key or section, as config.ini writes it before the value."""
    row = SETTINGS[name]
    return f"{row.key} = " if row.key else f"[{row.section}] "


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

    A model that only one of them names is not a difference, because each header names the models of its own
    records.
    """
    names = settings.keys() | other.keys()
    names -= {name for name in MODELS if name not in settings or name not in other}
    different = {name for name in names if settings.get(name) != other.get(name)}
    if SECTIONS in different:
        sections, other_sections = settings.get(SECTIONS, {}), other.get(SECTIONS, {})
        models = sections.keys() & other_sections.keys()
        if all(sections[model] == other_sections[model] for model in models):
            different.remove(SECTIONS)
    return ", ".join(
        f"{name} ({settings.get(name)!r} and {other.get(name)!r})" for name in sorted(different)
    )


def joined_settings(settings: Mapping[str, Data], other: Mapping[str, Data]) -> dict[str, Data]:
    """Return a header's settings with the models and ``[Model …]`` sections that only the other header has."""
    models = {name: other[name] for name in MODELS if name in other}
    sections = {**other.get(SECTIONS, {}), **settings.get(SECTIONS, {})}
    joined = {**models, **settings}
    return {**joined, SECTIONS: sections} if sections else joined
