"""What watches the requests and connections of a process: recorders, and a guard of connections."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias, cast

from ..errors import APIError
from ..link.programs import interceptors
from ..support.request_origin import PASSED, llmcall_sends, sent_by

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from .recorder import Recorder

# Sends a request by the program's own transport.
SendRequest: TypeAlias = "Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]"


class Sight(str, Enum):
    """Something that is seen of a program and not recorded."""

    MODEL_CONNECTION = "a connection to a model, by a client that is not recorded"
    OTHER_CONNECTION = "another connection by such a client"
    MODEL_REQUEST = "a request to a model, such as for speech, a file or a list"
    OTHER_REQUEST = "a request that passes to another host"


class Interceptor:
    """An object that watches a program's requests and connections while the HTTP clients of its process are patched; a
    :class:`.Recorder` also answers requests to models.

    :ivar passes_requests: ``True`` if it passes all requests through, and sees connections only.
    :ivar stays_in_forks: ``True`` if a forked process keeps it.
    """

    passes_requests = False
    stays_in_forks = False

    @property
    def sends_nothing(self) -> bool:
        """Return whether a request that is not recorded is refused."""
        return False

    def attach(self) -> None:
        """Prepare for receiving requests, as the innermost attached interceptor."""

    def known_models(self) -> set[tuple[str, int]]:
        """Return the addresses of models that it knows."""
        return set()

    def note(self, sight: Sight, address: str) -> None:
        """Note something that is not recorded.

        :param address: the host, or of a request its method, host and path.
        """

    def note_refusal(self, error: Exception) -> None:
        """Note an llmcall error that a call got."""


def passing() -> AbstractContextManager[None]:
    """Pass through what a block sends."""
    return nullcontext() if llmcall_sends() else sent_by(PASSED)


def innermost_interceptor() -> Interceptor | None:
    """Return the interceptor that was attached last."""
    attached = tuple(interceptors)
    return attached[-1] if attached else None


def active_recorder() -> Recorder | None:
    """Return the recorder of a program's request that is sent now, or ``None`` if it passes."""
    interceptor = innermost_interceptor()
    if interceptor is None or interceptor.passes_requests:
        return None
    if llmcall_sends() and not interceptor.sends_nothing:
        return None
    return cast("Recorder", interceptor)


def note_refusal(error: Exception) -> None:
    """Count an llmcall error, and keep the first, in all interceptors around the call."""
    if not isinstance(error, APIError):
        for interceptor in tuple(interceptors):
            interceptor.note_refusal(error)
