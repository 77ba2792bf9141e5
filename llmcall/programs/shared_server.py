"""The one server that all recorders of this process share, from the first child process on."""

from __future__ import annotations

from contextvars import Context, copy_context
from typing import TYPE_CHECKING, NamedTuple

from .. import scopes
from ..support.system import ProcessLock, after_fork_in_child

if TYPE_CHECKING:
    from .recorder import Recorder
    from .server import Server

LONGEST_END = 30  # seconds in which the answers that are under way at the server's end may come


class Sender(NamedTuple):
    """A sender of requests: the code that started a process or that uses another library.

    :param recorder: answers the requests.
    :param context: the context of that code.
    :param is_process: whether another process sends them, which is in no scope of its own.
    """

    recorder: Recorder
    context: Context
    is_process: bool


def sender_here(recorder: Recorder, asker: scopes.Asker | None = None) -> Sender:
    """Return the current context as a sender.

    :param asker: the process that is started here; ``None`` if the code here sends itself.
    """
    context = copy_context()
    context.run(scopes.set_asker, asker or scopes.current_asker())
    return Sender(recorder, context, is_process=asker is not None)


_shared: Server | None = None  # the one of all recorders of this process
_lock = ProcessLock()


def shared_server() -> Server:
    """Return the server of this process, which starts when it is first needed."""
    global _shared
    with _lock:
        if _shared is None:
            from .server import Server  # not for a program without children

            _shared = Server()
        return _shared


def close_shared(seconds: int = LONGEST_END) -> None:
    """Close the server of this process, if it has one; it waits so long for the answers that are under way."""
    global _shared
    with _lock:
        server, _shared = _shared, None
    if server is not None:
        server.close(seconds)


@after_fork_in_child
def _leave_shared() -> None:
    global _shared
    _shared = None
