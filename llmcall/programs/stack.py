"""The fronts of a process's HTTP clients, the innermost last: recorders, or a child's way to its run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ..errors import APIError
from ..support.sender import PASSED, llmcall_sends, sent_by
from ..support.system import after_fork_in_child

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import ModuleType

    import httpx

    # Sends a request by the program's own transport.
    SendRequest = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


class Front:
    """Stands before the HTTP clients of the process: answers the requests of a program to models.

    :ivar passes_requests: whether it lets all requests pass, and sees connections only.
    :ivar stays_in_forks: whether a forked process keeps it.
    """

    passes_requests = False
    stays_in_forks = False

    @property
    def sends_nothing(self) -> bool:
        """Return whether a request that is not recorded is refused."""
        return False

    def stand_in_front(self) -> None:
        """Begin to stand before the clients of the process, inside those that do already."""

    def leave_front(self) -> None:
        """End to stand there."""

    def known_models(self) -> set[tuple[str, int]]:
        """Return the addresses of models that it knows."""
        return set()

    async def response_to(
        self, library: ModuleType, http: httpx.Request, send: SendRequest
    ) -> httpx.Response | None:
        """Return the response to a request of the program, or ``None`` for one that passes.

        :param library: the request's module, ``httpx`` or ``httpx2``, whose classes have one form.
        :param http: the request.
        :param send: sends a request and returns its response, or a coroutine that does.
        """

    def note_connection(self, host: str) -> None:
        """Note a connection to a model that no recorded client makes."""

    def note_other_connection(self, address: str) -> None:
        """Note a connection of another client."""

    def note_refusal(self, error: Exception) -> None:
        """Note an error of llmcall's own that a call got."""


def passing() -> AbstractContextManager[None]:
    """Let what a block sends pass."""
    return nullcontext() if llmcall_sends() else sent_by(PASSED)


fronts: list[Front] = []  # the innermost last


def innermost() -> Front | None:
    """Return the front that was put before the clients last."""
    in_front = tuple(fronts)
    return in_front[-1] if in_front else None


def active_front() -> Front | None:
    """Return the front of a program's request that is sent now, or ``None`` if it passes."""
    front = innermost()
    if front is None or front.passes_requests:
        return None
    if llmcall_sends() and not front.sends_nothing:
        return None
    return front


@after_fork_in_child
def _record_nothing() -> None:
    """Leave a forked process the fronts that send nothing: its requests are not recorded."""
    fronts[:] = [front for front in fronts if front.stays_in_forks]


def note_refusal(error: Exception) -> None:
    """Count an error of llmcall's own, and keep the first, in all fronts around the call."""
    if not isinstance(error, APIError):
        for front in tuple(fronts):
            front.note_refusal(error)
