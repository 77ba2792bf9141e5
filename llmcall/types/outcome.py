"""What a call came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .record import Record


class Received(NamedTuple):
    """A response that a call received, and the endpoint that sent it.

    :param latency: seconds from sending to the end of the answer.
    """

    response: Any
    endpoint: str
    host: str
    latency: float


# Where a cassette got a record: from a server, from the disk cache, or from a recorded function. A
# pointer is no answer: it leads to the record of a fallback.
FROM_SERVER, FROM_CACHE, FROM_FUNCTION, POINTER = "server", "cache", "function", "pointer"


class Outcome(NamedTuple):
    """A record, and the response that this call received for it.

    :param received: ``None`` if another call, or none, received the response.
    :param is_recorded: false for a call that is made while its own stream is open.
    """

    record: Record
    received: Received | None = None
    is_recorded: bool = True

    @property
    def source(self) -> str:
        """Return where a cassette that gains the record got it from."""
        return FROM_CACHE if self.received is None else FROM_SERVER
