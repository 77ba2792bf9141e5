"""A client's settings, and the models, endpoints, limits and transports that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from ..config import resolve as config
from ..config.endpoints import Endpoint
from ..config.settings import DEFAULT_MODEL, Settings, checked_layer
from ..core.calls import Resolved
from ..core.seams import Sends, Transport
from ..keys.parameters import EFFORT
from ..keys.request import Data
from ..models import catalog
from ..models.catalog import Capabilities
from ..stores.cache.cache import ResponseCache
from ..support.system import ProcessLock, after_fork_in_child
from ..traffic import call_listeners as call_listeners  # its listeners join
from ..traffic.sites import Site
from ..traffic.usage import Meter, Usage

if TYPE_CHECKING:
    from typing_extensions import Self


class ConfiguredClient:
    """A client without the calls that users make; :class:`llmcall.LLMClient` adds these.

    :param settings: settings to use instead of the process's.
    :param transport: sends requests to the model.
    :param overrides: settings by name, which override the process's.
    """

    api_type: ClassVar[str] = "custom"
    sends_nothing = False  # whether it answers in this process
    takes_defaults = True  # whether its calls get the parameters that environment and files set
    transport: Sends | None = None

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        transport: Sends | None = None,
        **overrides: object,
    ) -> None:
        if not (settings is None or isinstance(settings, Settings)):
            raise TypeError(
                f"the settings are {settings!r:.60}; they must be Settings. Name each value, as in "
                f"{type(self).__name__}(model=…)"
            )
        self._base_settings = settings
        self._overrides = checked_layer(overrides, f"{type(self).__name__}()")
        self.meter = Meter()
        self._resolved: Resolved | None = None
        self._transports: dict[object, Transport] = {}  # by endpoint, and by what signs in there
        if transport is not None:
            self.transport = transport
        _clients.add(self)
        config.refresh()
        _ = self.resolved  # a wrong setting raises here, not at the first call

    def __getstate__(self) -> dict[str, Any]:
        # In another process it has connections and a meter of its own.
        return {**self.__dict__, "_transports": {}, "_resolved": None, "meter": Meter()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _clients.add(self)

    @property
    def resolved(self) -> Resolved:
        """Return the current settings as they apply to this client."""
        resolved = self._resolved
        if resolved is None or resolved.current is not config.settings():
            resolved = self._resolved = self._resolve()
        return resolved

    def _resolve(self) -> Resolved:
        # Read before the settings: if they change meanwhile, the result is out of date at once.
        current = config.settings()
        settings = config.settings_for(self._base_settings, self._overrides)
        return Resolved.of(settings, current, self.meter, sends_nothing=self.sends_nothing)

    def effort(self, model: str) -> dict[str, Data]:
        """Return the fields that a chat gets if it names no effort: of the packaged default model, the effort ``none``.

        Without reasoning, its answers are quick and cheap, and fit into a small ``max_tokens``.
        """
        return {EFFORT: "none"} if model == DEFAULT_MODEL else {}

    @property
    def settings(self) -> Settings:
        """Return the client's current settings."""
        return self.resolved.settings

    @property
    def cache(self) -> ResponseCache:
        """Return the disk cache that the client reads and writes."""
        return self.resolved.cache

    @property
    def usage(self) -> Usage:
        """Return what this client's calls used."""
        return self.meter.usage()

    def default_embedding_model(self) -> str:
        """Return the model of an embeddings call that names none."""
        return self.settings.embedding_model

    def model_named(self, model: str | None) -> str:
        """Return the name of a call's model, with aliases resolved.

        :param model: the name that the call gives; ``None`` means the default model.
        :raises TypeError: if it is not a string.
        """
        settings = self.resolved.settings
        name = model or settings.model
        if not isinstance(name, str):
            raise TypeError(f"model is {name!r}; it must be a string")
        name = str.__str__(name)  # a member of an enum becomes its value: records hold plain texts
        if not settings.aliases:
            return name
        return catalog.resolve(name, settings.aliases)

    def capabilities(self, model: str) -> Capabilities:
        """Return a model's capabilities."""
        return catalog.capabilities(model, self.settings.models)

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the endpoints that serve a model."""
        return [Endpoint(name=self.api_type, models=(model,), api_type=self.api_type)]

    def make_transport(self, endpoint: Endpoint) -> Self | Sends:
        """Return the transport for an endpoint; used without ``transport=``.

        :returns: also the client itself, if its class defines ``send``, or another object that does.
        """
        return self

    def host(self, endpoint: Endpoint) -> str:
        """Return an endpoint's host, as records name it."""
        return self.api_type

    def namespace(self, model: str) -> str:
        """Return the namespace that keeps a model's records apart from other servers'; ``""`` without one."""
        return self.resolved.settings.cache_namespace

    def site(self, model: str) -> Site:
        """Return what the current settings say of a model."""
        at = self.resolved
        site = at.sites.get(model)
        if site is None:
            endpoints = (*self.endpoints(model),)
            hosts = (*map(self.host, endpoints),)
            capabilities, effort = self.capabilities(model), self.effort(model)
            new = Site(model, endpoints, hosts, capabilities, effort, self.api_type, at.settings)
            site = at.sites.setdefault(model, new)
        return site

    def shared_transport(self, endpoint: Endpoint) -> Transport:
        """Return the transport for an endpoint; all calls share it.

        :raises ConfigError: if neither a subclass nor ``transport=`` provides one, or what it provides
            has no ``send``.
        """
        settings = self.settings
        # What signs in there may have changed: a key, the variable that it names, or a token.
        tokens = settings.azure_ad_token_provider, settings.azure_ad_token
        signed_in = endpoint, endpoint.key(), tokens
        transport = self._transports.get(signed_in)
        if transport is None:
            with _lock:
                transport = self._transports.get(signed_in)
                if transport is None:
                    own: ConfiguredClient | Sends | None = self.transport
                    if own is None:
                        from ..core.callbacks import call_callback

                        own = call_callback(self.make_transport, endpoint)
                    from .user_transports import as_transport

                    transport = self._transports[signed_in] = as_transport(own, self)
        return transport

    def wire(self, body: Mapping[str, Data], site: Site) -> str:
        """Return the API format of a body; custom clients use Chat Completions.

        :param site: the model's.
        """
        return "chat"

    def close(self) -> None:
        """Close the connections, and store the answers that could not be stored before.

        Close a client only while it has no call under way. The next call opens new connections.
        """
        from ..core.callbacks import close

        for transport in self._take_transports():
            close(transport)

    async def aclose(self) -> None:
        """Close the connections, including the running event loop's.

        ``asyncio.run`` does this by itself when it ends.
        """
        from ..core.callbacks import aclose

        for transport in self._take_transports():
            await aclose(transport)

    def _take_transports(self) -> list[Transport]:
        """Return and forget the transports, once unstored answers are stored."""
        if self._resolved is not None:
            self._resolved.cache.store_unstored()
        transports, self._transports = self._transports, {}
        return [*transports.values()]

    def __enter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model_named(None)!r})"


_lock = ProcessLock()
_clients: WeakSet[ConfiguredClient] = WeakSet()
# Connections of the parent process. A forked child keeps them open: closing them could wait forever
# for a lock that another of the parent's threads held at the fork.
_connections_of_parent: list[object] = []


@after_fork_in_child
def _leave_connections_of_parent() -> None:
    """Give the clients of a forked process connections and locks of their own."""
    for client in list(_clients):
        _connections_of_parent.append(client._transports)
        client._resolved = None
        client._transports = {}
