"""The settings that decide keys, as the header of a file of records holds them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ...additions import additions
from ...config import resolve as config
from ...config.setting import Layer, Rank
from ...config.settings import DEFAULT_MODEL, SETTINGS, Settings
from ...errors import ConfigError
from ...keys.parameters import CONFIGURED, EFFORT
from ...keys.request import Data, Request
from ...models.catalog import matching_section, resolve
from ...support.display import as_json
from ...support.normalizers import replacement

if TYPE_CHECKING:
    from ..record import Record

    SettingsTaken = Callable[[], Mapping[str, Data]]

NAMESPACES = "namespaces"  # by model, the namespaces from [Endpoint …] sections
SECTIONS = "models"  # the [Model …] sections of the models that were used
DEFAULT_MODELS = {"chat": "model", "embedding": "embedding_model"}  # by the kind of a record
MODELS = tuple(DEFAULT_MODELS.values())
SECTION_NAMES = ("aliases", NAMESPACES, SECTIONS)
MODEL_FILE = ".gguf"
# The settings that decide keys, besides the arguments in code. A header holds these, and while its
# cassette is open they override environment and files.
KEYED = (*MODELS, *CONFIGURED, "cache_namespace", "cache_normalize", "aliases")
TAKEN_BY_ALL = dict.fromkeys(("cache_namespace", "cache_normalize", "aliases", SECTIONS))


def settings_taken(
    settings: Settings,
    request: Request,
    named_model: str | None = None,
    given: Collection[str] | None = None,
) -> dict[str, Data]:
    """Return the settings that a call's key depends on, as a header holds them; ``None`` for one without a value.
    What code gives is not among them.

    :param settings: the call's.
    :param request: its request.
    :param named_model: the model that the call names, before aliases; ``None`` without one.
    :param given: the parameters that the call names; ``None`` if it takes none from the settings.
    """
    below_code = {
        name: getattr(settings, name)
        for name in (*KEYED, SECTIONS, "endpoints", "api_type")
        if settings.setting_value(name).rank < Rank.CONFIGURED
    }
    taken: dict[str, Data] = {}
    kind, model = request.kind, request.model
    if name := DEFAULT_MODELS.get(kind):
        if named_model is None and name in below_code:
            packaged = additions("default_models").get(str(below_code.get("api_type")))
            taken[name] = _default_model(settings, name, model, packaged)
        taken["aliases"] = _used_aliases(
            named_model or getattr(settings, name), below_code.get("aliases", {})
        )
        sections = below_code.get(SECTIONS, {})
        default = taken.get("model")
        if isinstance(default, str) and default in (known := additions("capabilities")):
            sections = {default: known[default], **sections}
        section = _as_json(matching_section(model, sections))
        taken[SECTIONS] = {model: section} if section else {}
    if given is not None and kind == "chat":
        taken |= {
            name: below_code[name] for name in CONFIGURED if name in below_code.keys() - given
        }
    namespace = request.hashed.get("namespace", "")
    if "endpoints" in below_code and namespaces_of(settings).get(model) == namespace:
        taken[NAMESPACES] = {model: namespace}
    elif below_code.get("cache_namespace") == namespace:
        taken["cache_namespace"] = namespace
    taken["cache_normalize"] = list(below_code.get("cache_normalize", ()))
    return {name: None if value in ("", [], {}) else value for name, value in taken.items()}


def _default_model(settings: Settings, name: str, model: str, packaged: str | None) -> str | None:
    """Return a default model as a header holds it; ``None`` if a client has another one.

    :param name: the setting.
    :param model: the requested model.
    :param packaged: the one that its client asks while the setting has its default, if it is another.
    """
    value = getattr(settings, name)
    forms = (_file_name(value), packaged if value == SETTINGS[name].default else None, value)
    for form in forms:
        if form is not None and _requested_name(form, settings.aliases) == model:
            return str(form)
    return None


def _used_aliases(name: str, aliases: Mapping[str, str]) -> dict[str, str]:
    """Return the aliases that lead from a name to its model."""
    used: dict[str, str] = {}
    while name in aliases:
        used[str.__str__(name)] = name = aliases[name]
    return used


def _as_json(settings: Mapping[str, Data]) -> dict[str, Data]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in sorted(settings.items())
    }


def settings_shown(records: Iterable[Record]) -> dict[str, Data]:
    """Return the settings from environment and files that the requests of some records show, as a header holds them."""
    settings = config.without_code()
    normalizers, aliases = settings.cache_normalize, settings.aliases
    shown: dict[str, Data] = {}
    replaced: set[str] = set()
    for record in records:
        model, hashed = record.request.get("model"), record.request
        request = Request(record.kind, str(model), hashed, {}, {}, None, "")
        others = {name for name in CONFIGURED if hashed.get(name) != getattr(settings, name)}
        taken = settings_taken(settings, request, given=others)
        taken["aliases"] = {
            name: aliases[name] for name in aliases if resolve(name, aliases) == model
        }
        text = as_json(hashed) if normalizers else ""
        replaced.update(name for name in normalizers if replacement(name) in text)
        shown = joined_settings(shown, _without_empty(taken))
    shown["cache_normalize"] = [name for name in normalizers if name in replaced]
    return _without_empty(shown)


def _without_empty(settings: Mapping[str, Data]) -> dict[str, Data]:
    return {name: value for name, value in settings.items() if value not in (None, {}, [])}


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


class Undecided:
    """The settings that no record of a file depends on, whatever their value.

    :ivar parameters: those that every chat names.
    """

    def __init__(self) -> None:
        self.parameters = {*CONFIGURED}
        self._models: set[str] = set()

    def add(self, kind: str, request: Mapping[str, Data]) -> None:
        """Add a record of the file."""
        if kind not in DEFAULT_MODELS:
            return
        if isinstance(model := request.get("model"), str):
            self._models.add(model)
        if kind == "chat" and self.parameters:
            lacking = self.parameters - request.keys()
            if model == DEFAULT_MODEL and request.get(EFFORT) == "none":
                lacking.add(EFFORT)  # which it gets without a setting
            self.parameters -= lacking

    def aliases(self, aliases: Mapping[str, str]) -> dict[str, str]:
        """Return those that no record's model has as its name."""
        return {name: model for name, model in aliases.items() if name not in self._models}


class HasUndecided(Protocol):
    """A file of records."""

    @property
    def undecided(self) -> Undecided:
        """Return the settings that its records do not depend on."""


def layer_from_header(
    header: Mapping[str, Data], origin: str, file: HasUndecided, *, is_recorded: bool
) -> Layer:
    """Return a header as a layer above environment and files. A setting without a value in the recording has
    none now, unless no record depends on it.

    A model's file keeps its path on this machine.

    :param header: its settings.
    :param origin: the recording, for ``Settings.origin``.
    :param file: knows the settings that its records do not depend on: it reads them all for it.
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
    if any(
        getattr(current, name) != SETTINGS[name].default for name in {*CONFIGURED} - {*recorded}
    ):
        left |= file.undecided.parameters
    names = [name for name in KEYED if name in recorded or (decides and name not in left)]
    layer = {name: recorded.get(name, SETTINGS[name].default) for name in names}
    settings = config.settings()
    if "aliases" in layer and current.aliases:
        layer["aliases"] = {**file.undecided.aliases(current.aliases), **layer["aliases"]}
    for name in MODELS:
        local_model = getattr(settings, name)
        if name in layer and layer[name] == _file_name(local_model):
            layer[name] = local_model
    if SECTIONS in header:
        layer[SECTIONS] = {**current.models, **header[SECTIONS]}
    if decides:
        layer["_namespaces"] = header.get(NAMESPACES, {})
    return config.layer_above_files(layer, origin)


class Overridden(NamedTuple):
    """The settings of environment and files that a recording overrides, and a warning about them."""

    names: frozenset[str]
    words: str


def overridden_settings(before: Settings, layer: Layer, path: str) -> Overridden | None:
    """Return the settings of environment and files that a recording overrides, or ``None``.

    :param before: the settings without the recording's.
    :param layer: the recording's settings.
    :param path: its file.
    """
    overridden: dict[str, str] = {}
    for name, entry in layer.items():
        earlier = before.setting_value(name)
        if not Rank.DEFAULT < earlier.rank < Rank.PUSHED or earlier.value == entry.value:
            continue
        if name == "cache_normalize" and {*earlier.value} <= {*entry.value}:
            continue  # all of them are in effect
        if here := _setting_text(earlier.value, entry.value):
            is_variable = earlier.rank is Rank.ENVIRONMENT
            file = os.path.basename(earlier.origin).partition(", ")[0]
            source, prefix = "the environment" if is_variable else file, _config_prefix(name)
            recorded = _setting_text(entry.value, earlier.value) or f"no {prefix.rstrip(' =')}"
            overridden[name] = (
                f"{prefix}{here} of {source} has no effect: {path} was recorded with {recorded}"
            )
    if not overridden:
        return None
    remedy = (
        "To use what is set here, record everything again in the mode 'rewrite', or set it in code"
    )
    return Overridden(frozenset(overridden), f"{'; '.join(overridden.values())}. {remedy}")


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
