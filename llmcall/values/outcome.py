"""How the call at hand received its answer; and from where a cassette got a record."""

from __future__ import annotations

from typing import NamedTuple


class Received(NamedTuple):
    """How a call received its answer.

    :param latency: seconds from sending to the end of the answer.
    :param request_id: the server's identifier of the request, or ``None``.
    :param cost: USD, or ``None`` if unknown.
    """

    endpoint: str
    host: str
    latency: float
    request_id: str | None
    cost: float | None = None


# Where a cassette got a record: from a server, from the disk cache, or from a recorded function. A
# pointer is no answer: it leads to the record of a fallback.
FROM_SERVER, FROM_CACHE, FROM_FUNCTION, POINTER = "server", "cache", "function", "pointer"
