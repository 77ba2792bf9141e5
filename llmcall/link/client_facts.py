"""The facts of a client in another process: its settings without keys and functions, its endpoints and models.

The recording process makes of them what a call resolved: limits, prices and reports need nothing else.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from typing import Any

from ..config import resolve as config
from ..config.endpoints import Endpoint
from ..config.setting import Layer, Rank, SettingValue
from ..config.settings import Settings
from ..config.values import without_password
from ..core.calls import Call, Resolved
from ..keys.request import Data
from ..models.catalog import Capabilities
from ..stores.cache.cache import shared_cache
from ..testing import answers_in_process
from ..traffic.sites import Site
from .wire import packed, unpacked

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
        sites = [_site_data(call.site_of(model)) for model in models]
        in_process = None if client is None else answers_in_process(client)
        by_models[models] = packed((layer_data(call.settings.layer), in_process, sites))
        _known[owner] = resolved, by_models
    return by_models[models]


def _site_data(site: Site) -> Data:
    """Return a site as plain data, without keys and settings."""
    endpoints = [tuple(_keyless(endpoint)) for endpoint in site.endpoints]
    capabilities = tuple(site.capabilities)
    return site.model, endpoints, site.hosts, capabilities, {**site.effort}, site.api_type


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
    if name not in ("base_url", "azure_endpoint", "cache_path"):
        return value
    shown = without_password(value)
    if name == "cache_path" and shown != value:
        _cache_paths[shown] = value
    return shown


def _keyless(endpoint: Endpoint) -> Endpoint:
    return endpoint.masked()._replace(api_key=None)


def layer_data(layer: Layer) -> Data:
    """Return settings as plain data, without keys and functions."""
    data = {}
    for name, (value, rank, origin) in layer.items():
        sent = value if name == "cache_path" else keyless(name, value)
        if name == "endpoints":
            sent = [tuple(endpoint) for endpoint in sent]
        data[name] = sent, int(rank), origin
    return data


def layer_in(data: Data) -> dict[str, SettingValue]:
    """Return the settings in what :func:`layer_data` returned; the default cache is this process's own."""
    layer = {}
    for name, (value, rank, origin) in data.items():
        if name == "endpoints":
            value = tuple(Endpoint(*fields) for fields in value)
        elif name == "cache_path" and rank == Rank.DEFAULT:
            # not one below the other process's working directory
            value = config.settings().cache_path
        elif name == "cache_path":
            value = _cache_paths.get(value, value)
        layer[name] = SettingValue(value, Rank(rank), origin)
    return layer


@functools.lru_cache(FACTS_KEPT)
def facts_in(data: bytes) -> Facts:
    """Return the facts that :func:`facts_of` returned."""
    layer, in_process, sites = unpacked(data)
    return Facts(Settings(layer_in(layer)), in_process, sites)


class Facts:
    """The facts of a client in another process.

    :param settings: the client's, without keys.
    :param in_process: whether it answers without sending anything; ``None`` without a client.
    :param sites: of the models that it may call, as plain data.
    """

    def __init__(
        self, settings: Settings, in_process: bool | None, sites: Sequence[tuple[Any, ...]]
    ) -> None:
        self.in_process = in_process
        self._settings = settings
        self._sites = sites
        self._resolved: tuple[object, Resolved] | None = None

    @property
    def resolved(self) -> Resolved:
        """Return what a call of the client resolves here, where an open cassette may have settings of its own."""
        current = config.settings()
        if self._resolved is None or self._resolved[0] is not current:
            settings = self._settings
            if self.in_process is not None:
                settings = config.settings_for(settings, {})
            sites = {
                model: Site(
                    model,
                    tuple(Endpoint(*fields) for fields in endpoints),
                    hosts,
                    Capabilities(*capabilities),
                    effort,
                    api_type,
                    settings,
                )
                for model, endpoints, hosts, capabilities, effort, api_type in self._sites
            }
            at = Resolved(settings, shared_cache(settings.cache_path), sites, set())
            self._resolved = current, at
        return self._resolved[1]
