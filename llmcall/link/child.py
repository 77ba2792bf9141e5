"""The recorded process's end of the link: the recording process answers its calls."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import Any

from ..errors import LLMCallError
from ..scopes.active import ActiveScope, here, next_order
from ..scopes.callers import Caller, current_caller
from ..scopes.draws import DrawsElsewhere
from ..scopes.position import CallOrder, held
from ..stores.notes import Notes
from ..support.system import ProcessLock, running_loop
from . import messages
from .errand import Errand
from .wire import Address, Connection, LoopConnection

DIGITS_OF_TASK = 16
_lock = ProcessLock()


class Parent:
    """The recording process, as a recorded process reaches it.

    :param address: the address of its link.
    :param ticket: the ticket of what this process was started for.
    :param over: the class of the error for a call that it can no longer answer.
    :param outlives: ``True`` if the recorded process goes on alone then.
    :param process: the number of its hello, or ``None``.
    """

    def __init__(
        self,
        address: Address,
        ticket: str,
        over: type[BaseException] = LLMCallError,
        *,
        outlives: bool = False,
        process: int | None = None,
    ) -> None:
        self.address = address
        self.ticket = ticket
        self.outlives = outlives
        self._over = over
        self._process = process
        self._connection: Connection | None = None
        self._of_loops: dict[Any, LoopConnection] = {}  # while they have calls
        self.told: set[str] = set()  # the credentials that it knows

    def is_alive(self) -> bool:
        """Return whether the recording process can be reached."""
        with contextlib.suppress(OSError):
            return self.connection().is_alive()
        return False

    def admit(self, caller: str) -> messages.Base:
        """Return a ticket for a process or task that is started here, and the scope in which it starts.

        :param caller: its name as a caller.
        """
        active = here()
        where = self._where(active, next_order(active))._replace(caller=caller)
        try:
            # In this thread, even if an event loop has to wait: the answer comes at once.
            base: messages.Base = self.connection().ask(
                messages.Admit(self._ticket_in(active), where)
            )
        except OSError:
            return messages.Base(self.ticket)  # no process will answer to it
        return base

    def _ticket_in(self, active: ActiveScope) -> str:
        caller, draws = current_caller(), active.draws
        of_scope = draws.ticket if isinstance(draws, DrawsElsewhere) else ""
        origin = "" if caller is None else caller.origin
        return held().ticket or of_scope or origin or self.ticket

    def errand(self, active: ActiveScope, order: CallOrder) -> Errand | None:
        """Return the errand of a call that is made here; ``None`` if this process goes on alone.

        :param active: its scope.
        """
        if self.outlives and not self.is_alive():
            return None
        where = self._where(active, order)
        return Errand(self, self._ticket_in(active), where, active.item.draws)

    def connection(self) -> Connection:
        """Return the connection of this process's threads.

        :raises OSError: if the recording process has ended.
        """
        with _lock:  # threads may make their first calls at the same moment
            connection = self._connection
            if connection is None or not connection.is_open:
                self._connection = connection = Connection(self.address)
        return Connection(self.address) if connection.is_read_here else connection

    def connection_here(self, *, blocks: bool) -> Connection:
        """Return the connection for a call that is made here: an event loop of asyncio has its own.

        :param blocks: ``True`` if it blocks the thread.
        :raises OSError: if the recording process has ended.
        """
        loop: Any = None if blocks else running_loop()
        if loop is None:
            return self.connection()
        connection = self._of_loops.get(loop)
        if connection is None or not connection.is_open:
            try:
                connection = self._of_loops[loop] = LoopConnection(self.address, loop)
            except NotImplementedError:  # the loop reads no sockets, as on Windows
                return self.connection()
        connection.calls += 1
        return connection

    def leave(self, connection: Connection) -> None:
        """Note that a call on a connection has ended. An event loop's is closed with its last call, since the program
        may leave the loop, which must not be held here.
        """
        if isinstance(connection, LoopConnection):
            connection.calls -= 1
            if not connection.calls:
                if self._of_loops.get(connection.loop) is connection:
                    del self._of_loops[connection.loop]
                connection.close()

    def tell(self, secrets: Iterable[str]) -> None:
        """Tell of credentials that a call may use, before what holds them is recorded."""
        for secret in secrets:
            if secret not in self.told and self.note(messages.Credential(secret), is_awaited=True):
                self.told.add(secret)

    def note(self, note: messages.Message, *, is_awaited: bool = False) -> bool:
        """Tell the recording process something that needs no answer; return whether that could be sent.

        :param is_awaited: ``True`` to wait until it has taken the note, which must come before what follows here.
        """
        try:
            connection = self.connection()
            connection.ask(note) if is_awaited else connection.send(note)
        except OSError:
            return False
        return True

    def add_notes(self, key: str, notes: Notes) -> None:
        """Add notes about an answer to its record."""
        self.note(messages.Noted(key, notes), is_awaited=True)  # the cassette may close next

    def log(self, warning: str) -> bool:
        """Have the recording process log a warning, once; return whether that could be sent."""
        # Awaited, since its map may end.
        return self.note(messages.Warned(warning), is_awaited=True)

    def over(self) -> BaseException:
        """Return the error for a call that the recording process can no longer answer."""
        return self._over("the process that records this one has ended, so this call was not made")

    def close(self) -> None:
        """Close the connection: nothing more is asked."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _where(self, active: ActiveScope, order: CallOrder) -> messages.Where:
        """Return the position of a call, as seen from where this process was started."""
        caller, position = current_caller(), active.position
        draws, names = active.draws, tuple(filter(None, position.path.split("/")))
        outermost, is_apart, branches = "", False, position.branches
        if isinstance(draws, DrawsElsewhere):
            names = names[len(draws.names) :]
            branches = branches[len(draws.branches) :]
        elif names:
            outermost = draws.identity
        else:
            is_apart = active.opened_by == "program"
        return messages.Where(
            names,
            outermost,
            is_apart,
            branches,
            order,
            None if caller is None else task_of_ray(caller) or caller.name,
            held().is_programs,
            active.item.draws is not None,
            active.opened_in,
            self._process,
        )


def task_of_ray(caller: Caller) -> str:
    """Return the name of Ray's task here; empty without one. Ray names tasks as the program starts them, on
    any worker; names in a task's own threads are random.
    """
    ray = sys.modules.get("ray")
    if ray is None or caller.name != caller.main.name or not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return ""
    # its actor's digits follow, and are random
    return f"{messages.TASK_OF_RAY}{context.get_task_id()[:DIGITS_OF_TASK]}"
