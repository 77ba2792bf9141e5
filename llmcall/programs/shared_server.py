"""The one server that all recorders of this process share, from the first child process on."""

from __future__ import annotations

import os
from contextvars import copy_context
from typing import TYPE_CHECKING

from .. import scopes
from ..support.system import ProcessLock, after_fork_in_child
from .routes import LOOPBACK, NO_PROXY
from .server import LONGEST_END, Sender, Server

if TYPE_CHECKING:
    from .recorder import Recorder


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
            _shared = Server()
            for name in NO_PROXY:
                others = [os.environ[name]] if os.environ.get(name) else []
                os.environ[name] = ",".join([*others, LOOPBACK])
        return _shared


def close_shared(seconds: int = LONGEST_END) -> None:
    """Close the server of this process, if it has one; it waits for answers as :meth:`Server.close` does."""
    global _shared
    with _lock:
        server, _shared = _shared, None
    if server is not None:
        server.close(seconds)


@after_fork_in_child
def _leave_shared() -> None:
    global _shared
    _shared = None
