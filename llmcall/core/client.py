"""The client as a call sees it.

Clients import this package, so it cannot import them: it owns this protocol, which they fulfil.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.endpoints import Endpoint
    from ..config.settings import Settings
    from ..keys.request import Request
    from ..models.catalog import Capabilities
    from ..stores.cache.cache import ResponseCache
    from ..traffic.limits import Pool
    from ..traffic.usage import Meter
    from .gate import Gate
    from .options import Options


class ResolvedSettings(NamedTuple):
    """The current settings, resolved for a client.

    :param current: the current settings: when they change, a client resolves them again.
    :param settings: the settings.
    :param cache: the disk cache that they name.
    :param pools: by model, the pool of its endpoints, made at the model's first call.
    :param checked_hosts: the models and hosts whose records were checked for their origin.
    :param defaults: the parameters that the settings give a default to.
    :param options: those of a call that names none.
    """

    current: Settings
    settings: Settings
    cache: ResponseCache
    pools: dict[str, Pool]
    checked_hosts: set[tuple[str, str]]
    defaults: dict[str, Any]
    options: Options


class Client(Protocol):
    """A client as a call knows it; :class:`llmcall.LLMClient` is one."""

    meter: Meter
    """Counts what its calls use."""

    @property
    def api_type(self) -> str:
        """The kind of client, as records name it."""
        ...

    @property
    def resolved(self) -> ResolvedSettings:
        """The current settings, resolved for it."""
        ...

    def model_named(self, model: str | None) -> str:
        """Return the model that a call means by a name, or by none."""
        ...

    def with_effort(self, model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a chat call, with the effort that a model is asked for by default."""
        ...

    def default_embedding_model(self) -> str:
        """Return the model of an embeddings call that names none."""
        ...

    def namespace(self, model: str) -> str:
        """Return what keeps a model's records apart from those of other servers, or ``""``."""
        ...

    def hosts(self, model: str) -> set[str]:
        """Return the hosts that serve a model, as records name them."""
        ...

    def host(self, endpoint: Endpoint) -> str:
        """Return an endpoint's host, as records name it."""
        ...

    def endpoints(self, model: str) -> list[Endpoint]:
        """Return the endpoints that serve a model."""
        ...

    def pool(self, model: str) -> Pool:
        """Return the endpoints that serve a model, with their limits and prices."""
        ...

    def transport_of(self, endpoint: Endpoint) -> Any:
        """Return the :class:`llmcall.types.Transport` that speaks to an endpoint."""
        ...

    def gate(self, call: Any, request: Request) -> Gate:
        """Return what lets a send of a call in.

        :param request: what is asked; its body is what is sent.
        """
        ...

    def transport_for(self, call: Any, endpoint: Endpoint) -> Any:
        """Return the transport that sends a call to an endpoint."""
        ...

    def in_window(self, options: Options, fields: dict[str, Any]) -> tuple[Options, dict[str, Any]]:
        """Return the options and the fields of a chat call that is to be answered within a window."""
        ...

    def sent(self, call: Any, capabilities: Capabilities, stream: bool) -> Request:
        """Return a call's request with the body that is sent and the API that it is sent by.

        :param capabilities: what is known of the model.
        :raises ValueError: if that API has no place for something that matters.
        """
        ...
