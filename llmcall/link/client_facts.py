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
from ..stores.cache.cache import shared_cache
from ..testing import answers_in_process
from ..traffic.sites import Site
from . import messages

PATH = "cache_path"
KEYS = ("api_key", "azure_ad_token", "azure_ad_token_provider", "_openai_key", "_azure_key")
FACTS_KEPT = 1_000
# By client, or by settings: what its last call resolved and, by models, the facts, pickled.
_known: weakref.WeakKeyDictionary[Any, tuple[object, dict[object, bytes]]] = (
    weakref.WeakKeyDictionary()
)


def facts_of(call: Call) -> bytes:
    """Return the facts of a call's client, pickled; of a call without a client, those of its settings."""
    client = call.account
    models: tuple[str, ...] = ()
    resolved = None
    if client is not None:
        resolved, models = call.at, (call.request.model, *call.fallbacks)
    owner = client or call.settings
    known, by_models = _known.get(owner, (None, {}))
    if known is not resolved:
        by_models = {}
    if models not in by_models:
        sites = {model: _site_data(call.site_of(model)) for model in models}
        in_process = None if client is None else answers_in_process(client)
        by_models[models] = messages.packed((layer_data(call.settings.layer), in_process, sites))
        _known[owner] = resolved, by_models
    return by_models[models]


def _site_data(site: Site) -> dict[str, Any]:
    """Return the fields of a site, without keys and settings."""
    return {
        "model": site.model,
        "endpoints": tuple(_keyless(endpoint) for endpoint in site.endpoints),
        "hosts": site.hosts,
        "capabilities": site.capabilities,
        "effort": site.effort,
        "api_type": site.api_type,
    }


# The paths of caches by what :func:`keyless` showed of them.
_cache_paths: dict[object, str] = {}


def keyless(name: str, value: Any) -> Any:
    """Return a setting's value without keys, passwords and functions, as an environment may have it. Of a cache's
    address, this process knows the password again where another one names it.
    """
    if name in KEYS or callable(value):
        return None
    if name == "endpoints":
        return tuple(_keyless(endpoint) for endpoint in value or ())
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


def resolved_in(data: bytes) -> tuple[Resolved, bool | None]:
    """Return what a call of the client with some facts resolves here, where an open cassette may have settings of its
    own; and whether the client answers without sending anything, or ``None`` without a client.

    :param data: what :func:`facts_of` returned.
    """
    return _resolved(data, config.settings())


@functools.lru_cache(FACTS_KEPT)
def _resolved(data: bytes, _: Settings) -> tuple[Resolved, bool | None]:
    layer, in_process, sites = messages.unpacked(data)
    settings = Settings(layer_in(layer))
    if in_process is not None:
        settings = config.settings_for(settings, {})
    of_models = {model: Site(**site, settings=settings) for model, site in sites.items()}
    return Resolved(settings, shared_cache(settings.cache_path), of_models, set()), in_process
