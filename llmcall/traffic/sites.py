"""The site of a model: what a client resolved of it, which its calls keep."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config.endpoints import Endpoint
    from ..config.settings import Settings
    from ..core.calls import Call
    from ..core.seams import Gate
    from ..keys.request import Data, Request
    from ..models.catalog import Capabilities
    from .limits import Pool


class Site:
    """A model as a client resolved it by some settings.

    :param model: the model's name.
    :param endpoints: serve it; at least one.
    :param hosts: the host of each endpoint, as records name it.
    :param capabilities: the model's.
    :param effort: the fields that a chat gets if it names no effort.
    :param api_type: the client's.
    :param settings: have the limits and the prices.
    """

    # No dataclass: that module takes 10 ms to import, and a replay needs nothing else of it.
    def __init__(
        self,
        model: str,
        endpoints: tuple[Endpoint, ...],
        hosts: tuple[str, ...],
        capabilities: Capabilities,
        effort: Mapping[str, Data],
        api_type: str,
        settings: Settings,
    ) -> None:
        self.model = model
        self.endpoints = endpoints
        self.hosts = hosts
        self.capabilities = capabilities
        self.effort = effort
        self.api_type = api_type
        self.settings = settings

    @cached_property
    def pool(self) -> Pool:
        """The endpoints with their limits and prices."""
        from .limits import Pool  # not needed for a recorded answer

        return Pool(self.model, self.endpoints, self.capabilities, self.settings)

    def host(self, endpoint: Endpoint) -> str:
        """Return an endpoint's host, as records name it."""
        return self.hosts[self.endpoints.index(endpoint)]

    def gate(self, call: Call, request: Request) -> Gate:
        """Return the gate that a send of a call passes: the limits and the open budgets.

        :param request: the request, with the body that is sent.
        """
        from .gate import ClientGate

        return ClientGate(call, self.pool, request)
