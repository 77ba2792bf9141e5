"""The settings in a cassette's header: those that entered its keys, so that it replays anywhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..config import resolve as config
from ..config.settings import CONFIGURED
from . import tapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.settings import Settings

__all__ = ["NAMESPACES", "differences", "header_of", "layer_of"]

NAMESPACES = "namespaces"  # of the models that an [Endpoint …] section gives one
MODEL_FILE = ".gguf"


def header_of(base: Settings | None = None) -> dict[str, Any]:
    """Return the settings that decide keys, as JSON data: as environment, files and defaults say them, not code.

    A model's file is known by its name, wherever it lies.

    :param base: the settings that a client was given, or ``None`` for the process's.
    """
    found = config.keyed_settings(base)
    for name in ("model", "embedding_model"):
        if str(found.get(name, "")).lower().endswith(MODEL_FILE):
            found[name] = _file_name(found[name])
    spaces = _namespaces(base)
    return {**found, NAMESPACES: spaces} if spaces else found


def _file_name(path: str) -> str:
    return re.split(r"[/\\]", path)[-1]


def _namespaces(base: Settings | None) -> dict[str, str]:
    held = tapes.namespaces()
    if held is not None:
        return held
    settings = base or config.settings()
    if settings.origin_of("endpoints").rank >= CONFIGURED:
        return {}
    return {model: each.namespace for each in settings.endpoints if each.namespace for model in each.models}


def layer_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a header says as a layer of settings; a model's file that lies here stays where it is.

    :raises ConfigError: where a name is none of a setting that decides keys.
    """
    layer = config.layer_of({name: value for name, value in header.items() if name != NAMESPACES})
    settings = config.settings()
    for name in ("model", "embedding_model"):
        here = getattr(settings, name)
        if name in layer and str(here).lower().endswith(MODEL_FILE) and _file_name(here) == layer[name]:
            layer[name] = here
    return layer


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return in words what two headers say differently; empty where they agree."""
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return ", ".join(f"{name} ({one.get(name)!r} and {other.get(name)!r})" for name in names)
