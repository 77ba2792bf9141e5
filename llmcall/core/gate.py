"""The gate: what lets a send in, gives it an endpoint, and settles with what it used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..apis.usage import TokenUsage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.endpoints import Endpoint


class Used(NamedTuple):
    """The usage of an answer, as far as it is known.

    :param cost: USD.
    :param priced_by: the source of the price.
    :param served: the model that answered, by the server's name for it.
    """

    tokens: TokenUsage = TokenUsage()
    cost: float | None = None
    priced_by: str | None = None
    served: Any = None


class Gate(Protocol):
    """An asynchronous context around one send: the limits and budgets of a client are one.

    Its end gives back what the send held, however it ended.
    """

    async def acquire(self) -> Endpoint:
        """Wait until the send may begin, and return the endpoint to ask.

        :raises BudgetExceededError: if it could go past a budget.
        :raises RateLimitError, RequestTimeoutError: if the wait would pass the deadline.
        """
        ...

    def used_by(self, answer: Mapping[str, Any], endpoint: Endpoint, *, is_part: bool) -> Used:
        """Return what an answer used; raise nothing but faults of llmcall or of its libraries.

        :param answer: in the shape of a chat; it names its tier and its model.
        :param endpoint: the one that gave it.
        :param is_part: whether it is as much of a stream as came.
        """
        ...

    def use(self, tokens: TokenUsage, cost: float | None, calls: int) -> None:
        """Count what the send used, in place of what was reserved for it.

        :param cost: USD, or ``None`` if it is unknown.
        :param calls: how many were answered.
        """
        ...

    def end(self) -> None:
        """Give back what is held in memory, before the block ends; a second time changes nothing."""
        ...

    async def __aenter__(self) -> Gate: ...

    async def __aexit__(self, error_type: type[BaseException] | None, *error: object) -> None: ...
