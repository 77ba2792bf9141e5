"""The facts of a client in another process: its settings without keys and functions, its endpoints and models.

The recording process makes a client of them, which stands in for the original in the pipeline of its calls: limits,
prices and reports need nothing else.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, cast

from ..clients.configured import ConfiguredClient
from ..config import resolve as config
from ..config.endpoints import Endpoint
from ..config.setting import Layer, Rank, SettingValue
from ..config.settings import Settings
from ..config.values import without_password
from ..core.calls import Call
from ..core.seams import Transport
from ..keys.parameters import EFFORT
from ..keys.request import Data
from ..models.catalog import Capabilities
from ..testing import answers_in_process
from ..traffic.usage import Meter
from .remote import RemoteTransport
from .wire import packed, unpacked

KEYS = ("api_key", "azure_ad_token", "azure_ad_token_provider", "_openai_key", "_azure_key")
FACTS_KEPT = 1_000


class ModelFacts(NamedTuple):
    """The facts of a model as a client knows it.

    :param endpoints: as tuples without keys.
    :param hosts: the host of each.
    :param capabilities: as a tuple.
    :param effort: the parameters that a call gets that names no effort.
    """

    endpoints: list[tuple[Any, ...]]
    hosts: list[str]
    capabilities: tuple[Any, ...]
    effort: dict[str, Data]


# By client, or by settings: the client's resolved settings, and by models the facts, pickled.
_known: weakref.WeakKeyDictionary[Any, tuple[object, dict[object, bytes]]] = (
    weakref.WeakKeyDictionary()
)


def facts_of(call: Call) -> bytes:
    """Return the facts of a call's client, pickled; of a call without a client, those of its settings."""
    client = call.counted_by
    resolved, models = None, cast("tuple[str, ...]", ())
    if client is not None:
        resolved = call.client.resolved
        models = call.request.model, *call.fallbacks, *map(client.model_named, call.fallbacks)
    owner = client or call.settings
    known, by_models = _known.get(owner, (None, {}))
    if known is not resolved:
        by_models = {}
    if models not in by_models:
        client_data = None if client is None else _client(client, models)
        by_models[models] = packed((layer_data(call.settings.layer), client_data))
        _known[owner] = resolved, by_models
    return by_models[models]


def _client(client: ConfiguredClient, models: tuple[str, ...]) -> Data:
    facts = {}
    for model in dict.fromkeys(models):
        endpoints = [tuple(_keyless(endpoint)) for endpoint in client.endpoints(model)]
        hosts = [client.host(endpoint) for endpoint in client.endpoints(model)]
        capabilities = tuple(client.capabilities(model))
        facts[model] = ModelFacts(endpoints, hosts, capabilities, client.with_effort(model, {}))
    return client.api_type, answers_in_process(client), facts


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
def facts_in(data: bytes) -> tuple[Settings, RemoteClient | None]:
    """Return the settings and the client in what :func:`facts_of` returned."""
    layer, client = unpacked(data)
    settings = Settings(layer_in(layer))
    return settings, None if client is None else RemoteClient(settings, *client)


class RemoteClient(ConfiguredClient):
    """A substitute for a client of another process in the pipeline of its calls.

    :param settings: the client's, without keys.
    :param api_type: the client's.
    :param in_process: whether it answers without sending anything.
    :param models: the facts of the models that it may call, by name.
    """

    api_type: ClassVar[str] = "remote"
    sender: RemoteTransport  # of one call

    def __init__(
        self,
        settings: Settings,
        api_type: str,
        in_process: bool,
        models: Mapping[str, tuple[Any, ...]],
    ) -> None:
        super().__init__(settings)
        vars(self)["api_type"] = api_type
        self.sends_nothing = in_process
        self._models = {name: ModelFacts(*facts) for name, facts in models.items()}
        self._endpoints = {
            name: [Endpoint(*fields) for fields in facts.endpoints]
            for name, facts in self._models.items()
        }

    def of_call(self, meter: Meter, sender: RemoteTransport | None) -> RemoteClient:
        """Return it as the client of one call, with its pools.

        :param meter: counts what the call uses.
        :param sender: sends the call.
        """
        other = object.__new__(RemoteClient)
        _ = self.resolved
        vars(other).update(vars(self), meter=meter, sender=sender)
        return other

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the endpoints that serve a model, in its process's order."""
        return self._endpoints[model]

    def host(self, endpoint: Endpoint) -> str:
        """Return an endpoint's host, as records name it."""
        for name, endpoints in self._endpoints.items():
            if endpoint in endpoints:
                return self._models[name].hosts[endpoints.index(endpoint)]
        return endpoint.name

    def hosts(self, model: str) -> set[str]:
        """Return the hosts that serve a model; of one that only a record names, none is known."""
        return set(self._models[model].hosts) if model in self._models else set()

    def capabilities(self, model: str) -> Capabilities:
        """Return what its process knows about a model."""
        return Capabilities(*self._models[model].capabilities)

    def with_effort(self, model: str, fields: Mapping[str, Data]) -> dict[str, Data]:
        """Return the fields of a chat call, with its process's default effort."""
        if EFFORT in fields or EFFORT in fields.get("extra_body", ()):
            return {**fields}
        return {**self._models[model].effort, **fields}

    def check_window(self, call: Call) -> None:
        """Leave the check to the process that sends the call."""

    def transport_for(self, call: Call, endpoint: Endpoint) -> Transport:
        """Return what has the call's process send it."""
        self.sender.endpoint = self.endpoints(call.request.model).index(endpoint)
        return self.sender

    def shared_transport(self, endpoint: Endpoint) -> Transport:
        """Return what has the call's process send it."""
        return self.sender
