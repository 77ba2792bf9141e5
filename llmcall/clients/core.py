"""What a client stands on: its settings, its endpoints and what speaks to them, its cache and its meter."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ..cache.cache import shared_cache
from ..config import resolve as config
from ..engine.usage import Meter, count
from ..errors import ConfigError

if TYPE_CHECKING:
    from typing import ClassVar

    from typing_extensions import Self

    from ..cache.cache import ResponseCache
    from ..config.settings import Endpoint, Settings
    from ..engine.limits import Pool
    from ..engine.usage import Usage, UsageDelta
    from ..models.capabilities import Capabilities
    from ..types import Transport
    from .hits import ShortWay

__all__ = ["ClientCore"]


class ClientCore:
    """Hold a client's settings and transports; :class:`ClientRoad` adds how a call goes."""

    api_type: ClassVar[str] = "custom"
    transport: Any = None

    def __init__(
        self, settings: Settings | None = None, *, transport: Transport | None = None, **overrides: Any
    ) -> None:
        self._base = settings
        self._overrides = overrides
        self._meter = Meter()
        self._resolved: tuple[int, Settings] | None = None
        self._pools: dict[str, Pool] = {}
        self._transports: dict[Endpoint, Any] = {}
        self._hosts: dict[str, set[str]] = {}
        self._short_way: ShortWay | None = None
        if transport is not None:
            self.transport = transport
        _clients.add(self)
        config.refresh()
        _ = self.settings

    def __getstate__(self) -> dict[str, Any]:
        # In another process it has its own connections, and begins to count anew.
        nothing: dict[str, Any] = {"_pools": {}, "_transports": {}, "_hosts": {}, "_resolved": None, "_short_way": None}
        return {**self.__dict__, **nothing, "_meter": Meter()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _clients.add(self)

    @property
    def settings(self) -> Settings:
        """Return the settings that hold for this client now."""
        generation = config.generation()
        resolved = self._resolved
        if resolved is None or resolved[0] != generation:
            made = config.settings_for(self._base, self._overrides, caller=f"{type(self).__name__}()")
            self._resolved = resolved = (generation, made)
            self._pools, self._hosts = {}, {}
        return resolved[1]

    @property
    def cache(self) -> ResponseCache:
        """Return the cache that the client reads and stores in."""
        return shared_cache(self.settings.cache_path)

    @property
    def usage(self) -> Usage:
        """Return what the calls of this client used."""
        return self._meter.usage()

    def default_model(self) -> str:
        """Return the model of a call that names none."""
        return self.settings.model

    def default_embedding_model(self) -> str:
        """Return the model of an embeddings call that names none."""
        return self.settings.embedding_model

    def model_named(self, model: str | None) -> str:
        """Return the name, after aliases, of the model that a call means by a name, or by none.

        :raises TypeError: where it is no string.
        """
        settings = self.settings
        name = model or self.default_model()
        if not isinstance(name, str):
            raise TypeError(f"model is {name!r}; it must be a string")
        if not settings.aliases:
            return name
        from ..models.capabilities import resolve

        return resolve(name, settings.aliases)

    def capabilities(self, model: str) -> Capabilities:
        """Return what is known of a model."""
        from ..models.capabilities import capabilities

        return capabilities(model, self.settings.models)

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the endpoints that serve a model."""
        return [config.Endpoint(name=self.api_type, models=(model,), api_type=self.api_type)]

    def hosts(self, model: str) -> set[str]:
        """Return the hosts of the endpoints that serve a model, as they are recorded."""
        return {self.host(endpoint) for endpoint in self.endpoints(model)}

    @classmethod
    def _is_keyed_by_settings(cls) -> bool:
        """Return whether settings and arguments alone decide what model a call means."""
        return cls.model_named is ClientCore.model_named and cls.default_model is ClientCore.default_model

    def make_transport(self, endpoint: Endpoint) -> Any:
        """Return what speaks to an endpoint.

        :raises ConfigError: where neither a subclass nor ``transport=`` gives it.
        """
        given = self.transport
        if given is None:
            given = self
        elif not hasattr(given, "send") and callable(given):
            given = given()
        if not hasattr(given, "send"):
            raise ConfigError(
                f"{type(self).__name__} gives no transport: define send(request, timeout), or pass transport="
            )
        return given

    def host(self, endpoint: Endpoint) -> str:
        """Return the host of an endpoint, as it is recorded."""
        return self.api_type

    def namespace(self, model: str) -> str:
        """Return what keeps a model's records apart from those of other servers; empty where nothing does."""
        return self.settings.cache_namespace

    def _mode(self) -> str:
        return self.settings.cache_mode

    def _pool(self, model: str) -> Pool:
        """Return the endpoints that serve a model, as one takes its turn among them."""
        pool = self._pools.get(model)
        if pool is None:
            from ..engine.limits import Pool, process_room

            pool = self._pools.setdefault(model, Pool(self.endpoints(model), process_room))
        return pool

    def _transport(self, endpoint: Endpoint) -> Any:
        """Return what speaks to an endpoint, one for all calls."""
        found = self._transports.get(endpoint)
        if found is None:
            found = self._transports.setdefault(endpoint, self.make_transport(endpoint))
        return found

    def _count(self, model: str, scope: str, **amounts: float | None) -> None:
        count(self._meter, model, scope, amounts)

    def count_usage(self, model: str, scope: str, amounts: UsageDelta) -> None:
        """Count what calls of this client used in another process."""
        count(self._meter, model, scope, amounts)

    def close(self) -> None:
        """Close the connections; the next call opens them again."""
        transports, self._transports = self._transports, {}
        for transport in transports.values():
            if transport is not self and hasattr(transport, "close"):
                transport.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop too. ``asyncio.run`` does so by itself when it ends."""
        transports, self._transports = self._transports, {}
        for transport in transports.values():
            if hasattr(transport, "aclose"):
                await transport.aclose()
            elif transport is not self and hasattr(transport, "close"):
                transport.close()

    def __enter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.default_model()!r})"


_clients: WeakSet[ClientCore] = WeakSet()


def _leave_parent() -> None:
    """Leave, in a forked process, the connections to the parent, and the locks that its threads may have held."""
    for client in list(_clients):
        client._pools, client._transports = {}, {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_parent)
