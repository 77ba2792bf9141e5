"""The client as a call knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.endpoints import Endpoint
    from ..config.settings import Settings
    from ..keys.request import Data, Request
    from ..stores.cache.cache import ResponseCache
    from ..traffic.limits import Pool
    from ..traffic.usage import Meter
    from .calls import Call, Options
    from .prepare import PreparedArguments
    from .seams import Gate, Transport


class ResolvedSettings(NamedTuple):
    """The current settings, resolved for a client.

    :param current: the current settings: when they change, a client resolves them again.
    :param settings: the settings.
    :param cache: the disk cache that they name.
    :param pools: by model, the pool of its endpoints, made at the model's first call.
    :param checked_hosts: the models and hosts whose records were checked for their origin.
    :param defaults: the parameters that the settings give a default to.
    :param options: the options of a call that names none.
    :param prepared: arguments of calls, prepared; by the arguments.
    """

    current: Settings
    settings: Settings
    cache: ResponseCache
    pools: dict[str, Pool]
    checked_hosts: set[tuple[str, str]]
    defaults: dict[str, Any]
    options: Options
    prepared: dict[tuple[object, ...], PreparedArguments]


class Client(Protocol):
    """A client as the pipeline of a call knows it; :class:`llmcall.LLMClient` is one."""

    @property
    def meter(self) -> Meter:
        """Return what counts what its calls use."""
        ...

    @property
    def api_type(self) -> str:
        """The kind of client, as records name it."""
        ...

    @property
    def resolved(self) -> ResolvedSettings:
        """The current settings, resolved for it."""
        ...

    def model_named(self, model: str | None) -> str:
        """Return the name of a call's model, with aliases resolved."""
        ...

    def default_embedding_model(self) -> str:
        """Return the model of an embeddings call that names none."""
        ...

    def namespace(self, model: str) -> str:
        """Return the namespace that keeps a model's records apart from other servers'; ``""`` without one."""
        ...

    def in_window(
        self, options: Options, fields: dict[str, Data]
    ) -> tuple[Options, dict[str, Data]]:
        """Return the options and the fields of a chat call that is to be answered within a window."""
        ...

    def with_effort(self, model: str, fields: Mapping[str, Data]) -> dict[str, Data]:
        """Return the fields of a chat call, with the effort that a model is asked for by default."""
        ...

    def hosts(self, model: str) -> set[str]:
        """Return the hosts that serve a model, as records name them."""
        ...

    def host(self, endpoint: Endpoint) -> str:
        """Return an endpoint's host, as records name it."""
        ...

    def pool(self, model: str) -> Pool:
        """Return the endpoints that serve a model, with their limits and prices."""
        ...

    def shared_transport(self, endpoint: Endpoint) -> Transport:
        """Return the transport that speaks to an endpoint."""
        ...

    def gate(self, call: Call, request: Request) -> Gate:
        """Return the gate that a send of a call passes.

        :param request: the request, with the body that is sent.
        """
        ...

    def transport_for(self, call: Call, endpoint: Endpoint) -> Transport:
        """Return the transport that sends a call to an endpoint."""
        ...

    def request_to_send(self, call: Call) -> Request:
        """Return a call's request with the body to send, and the API (wire) that it goes to.

        :raises ValueError: if that API does not support something that matters.
        """
        ...
