"""The link to the processes that this one records: their tickets, what they note, and when it begins to answer."""

from __future__ import annotations

import itertools
import os
import threading
import time
from contextlib import suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING

from ..core.parents import add_notes
from ..scopes.position import CallOrder
from ..support.notices import warn_once
from ..support.request_origin import LLMCALL, sent_by
from ..support.secrets import note_used
from ..support.system import this_process
from ..traffic.usage import Meter
from . import messages, programs
from .pythons import Pythons
from .tickets import Ticket
from .wire import beginning, new_address, remove

if TYPE_CHECKING:
    from .link_server import LinkServer

BETWEEN_LOOKS = 0.01  # seconds between two looks whether a process rings
LOOKS = 5  # of these, until Pythons are looked for: less than one needs to begin and ask a model


class Link:
    """The recording process's end of the link.

    It has sockets and an event loop once a process calls: many children, such as git, never do.

    :ivar address: goes to these processes.
    :ivar other: the ticket for requests whose own ticket has ended; ``None`` refuses them.
    """

    def __init__(self) -> None:
        self.address = new_address()
        self._process = this_process()
        self.other: Ticket | None = None
        self.tickets: dict[str, Ticket] = {}
        self.pythons = Pythons(self.address.folder)
        self._numbers = itertools.count()
        self._watcher: threading.Thread | None = None
        self._server: LinkServer | None = None
        self.is_closing = False

    def admit(
        self,
        context: Context | None = None,
        order: CallOrder | None = None,
        meter: Meter | None = None,
    ) -> messages.Base:
        """Make a ticket for what a context starts, and return what goes to that.

        :param context: by default the current one.
        :param order: as of a :class:`.Ticket`.
        :param meter: likewise.
        """
        name, context = str(next(self._numbers)), context or copy_context()
        self.tickets[name] = ticket = Ticket(name, self.pythons, context, order, meter)
        return ticket.base()

    def admit_inside(self, name: str, where: messages.Where) -> messages.Base:
        """Make a ticket for what a process starts, and return what goes to that.

        :param name: of the process's ticket.
        :param where: the process starts it.
        """
        ticket = self.ticket(name)
        if ticket is None:
            return messages.Base(name)
        context = ticket.context.copy()
        context.run(ticket.enter, where, is_inner=False)
        base = self.admit(context, (*ticket.order, *where.order))
        self.tickets[base.ticket].suffix = ticket.suffix_in(where)
        return base

    def take(self, note: messages.Message) -> None:
        """Take a note."""
        match note:
            case messages.Started(name, started, None):
                self.pythons.watch(name, started)
            case messages.Started(name, started, str(program)):
                self.pythons.expect(name, started, program)
            case messages.Dismiss(name):  # further calls by it are refused
                self.tickets.pop(name, None)
            case messages.Retract(name, number):
                ticket = self.ticket(name)
                if ticket is not None and number in ticket.draws:
                    ticket.draws.pop(number).retract()
            case messages.Noted(key, notes):
                add_notes(key, notes)
            case messages.Credential(secret):
                note_used([secret])
            case messages.Warned(text):
                warn_once(text)
            case messages.Refused() | messages.Saw():
                if (recording := programs.innermost_recorder()) is not None:
                    recording.hear(note)

    def ticket(self, name: str) -> Ticket | None:
        """Return the ticket with a name or, if its call has ended, that of the code around it."""
        while name and name not in self.tickets:
            name = name.rpartition("/")[0]
        return self.tickets.get(name, self.other)

    def start(self) -> None:
        """Answer as soon as a process rings. Python warns if a process forks while threads run, so this comes after
        the first process was started.
        """
        with beginning, sent_by(LLMCALL):
            if self._watcher is None:
                self._watcher = threading.Thread(
                    target=Context().run, args=(self._watch,), name="llmcall children", daemon=True
                )
                self._watcher.start()

    def _watch(self) -> None:
        for number in itertools.count():
            with beginning:
                if self.is_closing:
                    return
                if number % LOOKS == 0:
                    self.pythons.look()
                if os.path.exists(self.address.bell):
                    self.begin()
            time.sleep(BETWEEN_LOOKS)

    def begin(self) -> None:
        """Begin to answer, unless that has been done.

        :raises OSError: if it cannot listen; then processes hear that it has ended.
        """
        with beginning:
            if self._server is None and not self.is_closing:
                from .link_server import LinkServer

                try:
                    self._server = LinkServer(self)
                finally:
                    if self._server is None:
                        remove(self.address)
                    with suppress(FileNotFoundError):
                        os.unlink(self.address.bell)

    def close(self, seconds: float) -> None:
        """Accept no more connections, and end once no call is under way.

        :param seconds: how long to wait for that before cancelling what is under way; 0 lets it go on.
        """
        if self._process != this_process():  # but forked
            return
        with beginning:
            self.is_closing = True
            remove(self.address)
        if self._server is not None:
            self._server.close(seconds)
