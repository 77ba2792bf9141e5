"""One call of a model: its client, its price, and the hosts that may answer it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..cassettes.guards import check_may_send
from ..display.printable import printable
from ..notices import warn_once
from ..requests.keys import key_of
from .prepared_call import PreparedCall
from .usage import amounts_of_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..types import Record, TokenUsage
    from .client import Client
    from .usage import Meter


@dataclass(kw_only=True, eq=False)
class ModelCall(PreparedCall):
    """One call of a model.

    :param client: the client that makes it.
    :param parse: reads the answer as the type that ``response_format`` was, or ``None``.
    """

    client: Client
    parse: Callable[[str], Any] | None = None

    @property
    def callee(self) -> str:
        """Return the model's name."""
        return self.request.model

    @property
    def label(self) -> str:
        """Return how messages name it."""
        request = self.request
        return f"{request.kind} request {request.cache_key[:12]} to {printable(request.model)}"

    @property
    def meter(self) -> Meter:
        """Return the client's meter."""
        return self.client.meter

    def to_model(self, model: str) -> ModelCall:
        """Return the same call of another model."""
        request = self.request
        keyed = {**request.asked, "model": model}
        return replace(
            self,
            request=request._replace(
                model=model,
                asked=keyed,
                body={**request.body, "model": model},
                cache_key=key_of(request.kind, keyed, request.sample),
            ),
        )

    def check_origin(self, record: Record) -> None:
        """Warn once if a model's record comes from a host that does not serve the model now."""
        checked_hosts = self.client.resolved.checked_hosts
        host = record.host
        if host is None or (self.request.model, host) in checked_hosts:
            return
        checked_hosts.add((self.request.model, host))
        model = record.request.get("model", "")
        hosts = self.client.hosts(model)
        if host not in hosts:
            warn_once(
                f"answers of {model} recorded from {host} are used for "
                f"{', '.join(sorted(hosts))}; [Cache] NAMESPACE keeps the records of different "
                "servers apart"
            )

    def check_guards(self) -> None:
        """Raise an error if something forbids the call, such as a test that may reach no model."""
        check_may_send(self.client, self.cassette)

    def count_answer(
        self,
        tokens: TokenUsage,
        endpoint: str | None,
        *,
        served: object = None,
        service_tier: str | None = None,
        calls: int = 1,
    ) -> float | None:
        """Count the tokens of a response, and return its cost in USD, or ``None`` if unknown.

        :param endpoint: the name of the endpoint that answered.
        :param served: the model that answered, by the name that the server gave.
        :param service_tier: the tier that the response names.
        """
        pool = self.client.pool(self.request.model)
        price = pool.price(tokens.input_tokens or 0, endpoint, service_tier)
        amounts = amounts_of_answer(
            tokens,
            price,
            served=served,
            calls=calls,
        )
        if self.request.kind == "embedding":
            amounts["output_tokens"] = 0
        self.add_usage(**amounts)
        cost: float | None = amounts["cost"]
        return cost
