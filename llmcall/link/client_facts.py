"""The facts of a client in another process: its settings without keys and functions, its endpoints and models.

The recording process makes of them what a call resolved: limits, prices and reports need nothing else.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any

from ..config import resolve as config
from ..config.endpoints import Endpoint
from ..config.setting import Layer, Rank, SettingValue
from ..config.settings import Settings
from ..config.values import without_password
from ..core.calls import Call, Resolved
from ..traffic.sites import Site
from ..traffic.usage import Meter
from . import messages

PATH = "cache_path"
KEYS = ("api_key", "azure_ad_token", "azure_ad_token_provider", "_openai_key", "_azure_key")
MADE_HERE = ("pool", "settings")  # fields of a site that each process has of its own
FACTS_KEPT = 1_000
# By client, or by settings: the settings of its last call and, by models, the facts, pickled.
_known: weakref.WeakKeyDictionary[Any, tuple[object, dict[object, bytes]]] = (
    weakref.WeakKeyDictionary()
)


def facts_of(call: Call) -> bytes:
    """Return the facts of a call's client, pickled; of a call without a client, those of its settings."""
    at, owner = call.at, call.client or call.settings
    models = (call.request.model, *call.fallbacks) if call.is_counted else ()
    known, by_models = _known.get(owner, (None, {}))
    if known is not at.settings:
        by_models = {}
    if models not in by_models:
        sites = {model: _site_data(call.site_of(model)) for model in models}
        facts = layer_data(at.settings.layer), call.is_counted, at.sends_nothing, sites
        by_models[models] = messages.packed(facts)
        _known[owner] = at.settings, by_models
    return by_models[models]


def _site_data(site: Site) -> dict[str, Any]:
    """Return the fields of a site, without keys and settings."""
    fields = {name: value for name, value in vars(site).items() if name not in MADE_HERE}
    return {**fields, "endpoints": tuple(map(_keyless, site.endpoints))}


# The paths of caches by what :func:`keyless` showed of them.
_cache_paths: dict[object, str] = {}


def keyless(name: str, value: Any) -> Any:
    """Return a setting's value without keys, passwords and functions, as an environment may have it. Of a cache's
    address, this process knows the password again where another one names it.
    """
    if name in KEYS or callable(value):
        return None
    if name == "endpoints":
        return tuple(map(_keyless, value or ()))
    if name not in ("base_url", "azure_endpoint", PATH):
        return value
    shown = without_password(value)
    if name == PATH and shown != value:
        _cache_paths[shown] = value
    return shown


def _keyless(endpoint: Endpoint) -> Endpoint:
    return endpoint.masked()._replace(api_key=None)


def layer_data(layer: Layer) -> dict[str, SettingValue]:
    """Return settings without keys and functions, for another process."""
    return {
        name: given._replace(value=given.value if name == PATH else keyless(name, given.value))
        for name, given in layer.items()
    }


def layer_in(data: Layer) -> dict[str, SettingValue]:
    """Return the settings in what :func:`layer_data` returned; the default cache is this process's own."""
    layer = dict(data)
    if (given := layer.get(PATH)) is not None:
        if given.rank == Rank.DEFAULT:  # not one below the other process's working directory
            path = config.settings().cache_path
        else:
            path = _cache_paths.get(given.value, given.value)
        layer[PATH] = given._replace(value=path)
    return layer


def resolved_in(data: bytes, meter: Meter) -> Resolved:
    """Return what a call of the client with some facts resolves here, where an open cassette may have settings of its
    own.

    :param data: what :func:`facts_of` returned.
    :param meter: counts the call, if it is counted.
    """
    resolved, is_counted = _resolved(data, config.settings())
    return resolved._replace(meter=meter) if is_counted else resolved


@functools.lru_cache(FACTS_KEPT)
def _resolved(data: bytes, _: Settings) -> tuple[Resolved, bool]:
    layer, is_counted, sends_nothing, sites = messages.unpacked(data)
    settings = Settings(layer_in(layer))
    if is_counted:
        settings = config.settings_for(settings, {})
    resolved = Resolved.of(settings, sends_nothing=sends_nothing)
    resolved.sites.update((model, Site(**site, settings=settings)) for model, site in sites.items())
    return resolved, is_counted
