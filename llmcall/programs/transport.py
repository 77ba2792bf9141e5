"""The transport in front of a program's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..blocking import run
from .recorder import Recorder

if TYPE_CHECKING:
    from types import ModuleType


class FrontTransport:
    """Answers recorded requests, and sends all others by the transport below.

    :param http: the module ``httpx`` or ``httpx2``.
    :param recorder: answers the requests.
    :param below: the program's own transport.
    """

    bases = "BaseTransport", "AsyncBaseTransport"

    def __init__(self, http: ModuleType, recorder: Recorder, below: Any) -> None:
        self.below = below
        self._http = http
        self._recorder = recorder

    def handle_request(self, request: Any) -> Any:
        """Return the response to a request of the program."""
        return run(self._recorder.handle(self._http, self.below.handle_request, request))

    async def handle_async_request(self, request: Any) -> Any:
        """Return the response to a request of the program."""
        send = self.below.handle_async_request
        return await self._recorder.handle(self._http, send, request, is_async=True)
