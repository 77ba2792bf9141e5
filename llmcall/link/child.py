"""The recorded process's end of the link: the recording process answers its calls."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Sequence
from typing import NamedTuple

from ..core.answer import refuse_misfit
from ..core.calls import Call
from ..core.effects import Blocks
from ..errors import APIError, LLMCallError
from ..scopes.active import ActiveScope, ScopedRecord, here, next_order
from ..scopes.callers import Caller, current_caller
from ..scopes.draws import DrawList, DrawsElsewhere
from ..scopes.position import CallOrder, held
from ..stores.notes import Notes
from ..stores.record import Record
from ..support.request_origin import llmcall_sends
from ..support.system import ProcessLock, running_loop
from ..support.tracebacks import hide_own_frames
from . import messages
from .client_facts import facts_of
from .errand import Errand, count
from .plain_values import error_in, record_in
from .wire import Address, Connection, Line, LoopLine, connected, is_kept, is_open

DIGITS_OF_TASK = 16
_lock = ProcessLock()


class Parent:
    """The recording process, as a recorded process reaches it.

    :param address: the address of its link.
    :param ticket: the ticket of what this process was started for.
    :param over: the class of the error for a call that it can no longer answer.
    :param outlives: whether the recorded process goes on alone then.
    """

    def __init__(
        self,
        address: Address,
        ticket: str,
        over: type[BaseException] = LLMCallError,
        *,
        outlives: bool = False,
    ) -> None:
        self.address = address
        self.ticket = ticket
        self.outlives = outlives
        self._over = over
        self._connection: Connection | None = None  # made for the first call
        self._watched: socket.socket | None
        self._watch()

    def is_alive(self) -> bool:
        """Return whether the recording process can be reached."""
        if self._watched is not None and not is_kept(self._watched):
            self._watch()
        return self._watched is not None and is_open(self._watched)

    def _watch(self) -> None:
        self._watched = None
        with contextlib.suppress(OSError):
            self._watched = connected(self.address)

    def admit(self, caller: str) -> messages.Base:
        """Return a ticket for a process or task that is started here, and the scope in which it starts.

        :param caller: its name as a caller.
        """
        active = here()
        where = _where(active, next_order(active))._replace(caller=caller)
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

    def way(self, active: ActiveScope, order: CallOrder) -> Way | None:
        """Return the way of a call that is made here; ``None`` if this process goes on alone.

        :param active: its scope.
        """
        if self.outlives and not self.is_alive():
            return None
        return Way(self, self._ticket_in(active), _where(active, order), active.item.draws)

    def connection(self) -> Connection:
        """Return the connection of this process's threads.

        :raises OSError: if the recording process has ended.
        """
        with _lock:  # threads may make their first calls at the same moment
            connection = self._connection
            if connection is None or not connection.is_open:
                self._connection = connection = Connection(self.address)
        return Connection(self.address) if connection.is_read_here else connection

    def line(self, *, blocks: bool) -> Line | LoopLine:
        """Return a line for a call.

        :param blocks: whether it blocks the thread.
        """
        if not blocks and running_loop() is not None:
            return LoopLine(self.address)
        connection = self.connection()
        return Line(connection, next(connection.numbers), blocks=blocks)

    def note(self, note: messages.Note, *, is_awaited: bool = False) -> bool:
        """Tell the recording process something that needs no answer; return whether that could be sent.

        :param is_awaited: whether to wait until it has taken the note, which must come before what follows here.
        """
        try:
            connection = self.connection()
            connection.send(note)
            if is_awaited:
                connection.ask(messages.Flush())
        except OSError:
            return False
        return True

    def add_notes(self, key: str, notes: Notes) -> None:
        """Add notes about an answer to its record."""
        self.note(messages.Noted(key, notes), is_awaited=True)  # the cassette may close next

    def log(self, warning: str) -> bool:
        """Have the recording process log a warning, once; return whether that could be sent."""
        # Awaited, since its map may end.
        return self.is_alive() and self.note(messages.Warned(warning), is_awaited=True)

    def over(self) -> BaseException:
        """Return the error for a call that the recording process can no longer answer."""
        return self._over("the process that records this one has ended, so this call was not made")

    def close(self) -> None:
        """Close the connections: nothing more is asked."""
        for connection in (self._watched, self._connection):
            if connection is not None:
                connection.close()
        self._watched = self._connection = None


def _where(active: ActiveScope, order: CallOrder) -> messages.Where:
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
    )


def task_of_ray(caller: Caller) -> str:
    """Return the name of the task that Ray runs here, or an empty string. Ray names tasks as the program starts them,
    whichever worker runs them; in a task's own threads, the names are random.
    """
    ray = sys.modules.get("ray")
    if ray is None or caller.name != caller.main.name or not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return ""
    # its actor's digits follow, and are random
    return f"{messages.TASK_OF_RAY}{context.get_task_id()[:DIGITS_OF_TASK]}"


class Way:
    """The way of a call to the recording process.

    :param ticket: the ticket of the code that makes the call.
    :param where: the call's position.
    :param draws: gets the call's draw, or ``None``.
    """

    def __init__(
        self, parent: Parent, ticket: str, where: messages.Where, draws: DrawList | None
    ) -> None:
        self._parent = parent
        self._ticket = ticket
        self._where = where
        self._draws = draws
        self.is_taped = False

    async def answer(self, calls: Sequence[Call]) -> list[Record]:
        """Return the records that answer calls.

        :raises BaseException: what the recording process raises, or the recorded process while it sends.
        """
        blocks, parent = await Blocks(), self._parent
        calls[0].note_keys()
        try:
            with contextlib.closing(parent.line(blocks=blocks)) as line:
                errand = Errand(line, self, calls[0])
                told = await errand.run(self._question(calls))
        except OSError as error:
            raise parent.over() from error
        return self._records(calls, told, errand.errors)

    def _question(self, calls: Sequence[Call]) -> messages.Calls:
        call = calls[0]
        request, kind = call.request, call.kind
        return messages.Calls(
            self._ticket,
            self._where,
            request.kind,
            request.model,
            [(each.request.hashed, each.request.body) for each in calls],
            request.sample,
            call.options,
            kind.name,
            call.fallbacks,
            facts_of(call),
            not kind.has_own_transport,
            kind.calls_model,
            kind.prefers_calling,
            call.is_streamed,
            llmcall_sends(),
            call.position.notes,
            {**call.taken()},
        )

    def _records(
        self, calls: Sequence[Call], told: messages.End, errors: Sequence[BaseException]
    ) -> list[Record]:
        match told:
            case messages.Unanswered(failure, number, used):
                count(calls[0], used)
                error = error_in(failure, is_any=False)
                if number is not None:  # this process raised it, with its cause and its traceback
                    own = errors[number]
                    if isinstance(own, APIError):
                        vars(own).update(vars(error))
                    error = own
                hide_own_frames(error)
                raise error
            case messages.Answered(found, paths, is_taped, used, draw):
                count(calls[0], used)
                self.is_taped = is_taped
            case _:
                raise self._parent.over()
        records = []
        for call, data, path in zip(calls, found, paths, strict=True):
            record = record_in(data, call.request.hashed)
            if call.request.expected is not None and record.is_hit:
                refuse_misfit(call, record)
            if call.used_records is not None:
                call.used_records.append(ScopedRecord(path, record))
            records.append(record)
        if draw is not None and self._draws is not None:
            self._draws.add(_Retractable(self._parent, self._ticket, draw))
        return records


class _Retractable(NamedTuple):
    """A draw in the recording process that a map in the recorded process retracts if it ends early."""

    parent: Parent
    ticket: str
    number: int

    def retract(self) -> None:
        """Free its number, even though its call has an answer: the same call will be made again."""
        self.parent.note(messages.Retract(self.ticket, self.number), is_awaited=True)
