"""What a recording starts, or a process that it records: each process and each work of a pool gets a route, which leads
to the recording process and names the caller that started it.
"""

from __future__ import annotations

import os
import pickle
import sys
import weakref
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, NoReturn

from ..config import resolve as config
from ..link import messages, programs
from ..link.client_facts import layer_data
from ..link.commands import Command, is_python, program_name, tells_only, words_of
from ..scopes.callers import Caller, current_caller
from ..scopes.position import hold
from ..support.request_origin import llmcall_sends
from ..support.secrets import note_environment
from ..support.system import ProcessLock
from .routes import Route

if TYPE_CHECKING:
    from ..link.child import Parent
    from ..link.link import Link
    from .http_server import Server
    from .recorder import Recorder

LONGEST_END = 30  # seconds to wait at the end for answers that are under way
_lock = ProcessLock()


class _Routes:
    """A maker of routes for what a process starts, of which the recording process hears."""

    def note(self, note: messages.Message) -> None:
        """Note something about what was started."""
        raise NotImplementedError

    def expect(self, route: Route, args: Command | Sequence[Command] | None, process: int) -> None:
        """Expect a process that was started to say hello if its program is Python; otherwise, expect that of every
        Python that it starts.
        """
        words = words_of(args)
        if not is_python(words):
            self.note(messages.Started(route.ticket, process, None))
        elif not tells_only(words):
            self.note(messages.Started(route.ticket, process, program_name(words)))


class RoutesOfRecording(_Routes):
    """The maker of routes for what a recording process starts.

    :param recorder: the recorder of the process.
    :param is_run: ``True`` if it records a whole run: then processes in other languages are recorded, too, and none may
        outlive the recording.
    :ivar server: the server for those, or ``None``.
    :ivar names: the names of what it started.
    :ivar end_program: ends the program with the exit code of what it became.
    """

    def __init__(
        self, recorder: Recorder, *, is_run: bool, end_program: Callable[[int], NoReturn] = sys.exit
    ) -> None:
        self._recorder = recorder
        self._is_run = is_run
        self._context = copy_context()
        self._link: Link | None = None
        self.server: Server | None = None
        self.names: dict[str, None] = {}
        self.end_program = end_program
        note_environment(os.environ)

    def new(self, caller: Caller, program: str = "") -> Route:
        """Return the route of a process, or of a pool's work, that the current context starts.

        :param program: its name in messages, instead of the caller's.
        """
        if caller.is_thread:  # a pool's work may run in threads of this process
            self.names.setdefault(program or caller.name)
        recording = programs.innermost_recorder() or self._recorder
        with _lock:  # of the imports, a program without children needs none
            if (link := self._link) is None:
                from ..link.link import Link

                link = self._link = Link()
                link.other = link.ticket(link.admit(self._context).ticket)
            if self._is_run and self.server is None:
                from .http_server import Server

                self.server = Server(self._recorder, self.context_of)
        context = copy_context()
        context.run(hold, caller=caller)
        base = link.admit(context)
        address = "" if self.server is None else self.server.address
        layers = [layer_data(layer) for layer in config.layers.pushed]
        told = pickle.dumps((recording.options(), layers))
        return Route(
            address,
            link.address,
            base,
            caller.name,
            told,
            recording.sends_nothing,
            not self._is_run,
        )

    def context_of(self, name: str) -> Context | None:
        """Return the context of what a ticket was made for, or ``None``."""
        if self._link is None or (ticket := self._link.ticket(name)) is None:
            return None
        self._link.pythons.greet(name)
        return ticket.context

    def started(self) -> None:
        """Start answering the processes that were started, unless that has begun already."""
        if self._link is not None:
            self._link.start()
        with _lock:  # a thread of the program may start something at the same moment
            if self.server is not None:
                self.server.start()

    def made(self, route: Route) -> bool:
        """Return whether a route leads here."""
        return self._link is not None and route.link == self._link.address

    def note(self, note: messages.Message) -> None:
        """Note something about what was started."""
        if self._link is not None:
            self._link.take(note)

    def missed_lines(self) -> list[str]:
        """Return a line about the Python children that were not recorded, if there are any."""
        programs = [] if self._link is None else self._link.pythons.missed()
        number = len(programs)
        were = "1 Python child was" if number == 1 else f"{number:,} Python children were"
        return [f"{were} not recorded: {', '.join(programs)}"] if programs else []

    def end(self, seconds: int) -> None:
        """Stop answering.

        :param seconds: how long to wait for calls that are under way.
        """
        for server in (self.server, self._link):
            if server is not None:
                server.close(seconds)


class RoutesOfChild(_Routes):
    """The maker of routes for what a recorded process starts: they lead to the process that records it."""

    def __init__(self, parent: Parent, route: Route) -> None:
        self._parent = parent
        self._route = route
        self.note = parent.note  # type: ignore[assignment]

    def new(self, caller: Caller, program: str = "") -> Route:
        """Return the route of what the current context starts."""
        return self._route._replace(base=self._parent.admit(caller.name), caller=caller.name)

    def started(self) -> None:
        """Do nothing: the recording process answers."""

    def made(self, route: Route) -> bool:
        """Return whether a route leads to the process that records this one."""
        return route.link == self._route.link


Routes = RoutesOfRecording | RoutesOfChild
making: list[Routes] = []  # while the calls of this process are recorded; the innermost last


def new_route(kind: str, label: str, program: str = "") -> Route | None:
    """Return a route for a process or work that the current context starts, or ``None`` if its calls are
    not recorded.

    :param program: the name of the process's program in messages, instead of the caller's.
    """
    maker = current_caller()
    if not making or maker is None or llmcall_sends():
        return None
    return making[-1].new(maker.child(kind, label), program)


def innermost() -> Routes | None:
    """Return the maker of routes for new children, or ``None`` if children are not recorded."""
    innermost = making[-1:]  # a copy, since other threads may leave it
    return innermost[0] if innermost else None


def start_servers() -> None:
    """Answer what this process started."""
    if (routes := innermost()) is not None:
        routes.started()


def forgetting(route: Route) -> Callable[..., None]:
    """Return a function that forgets a new route, unless its recording has ended; a forked copy does nothing."""
    makers = making[-1:]

    def forget(*_: object) -> None:
        for maker in makers:
            if maker in making:
                maker.note(messages.Dismiss(route.ticket))

    return forget


def forget_after(kept: object, route: Route) -> None:
    """Forget a route once the object that uses it is garbage-collected."""
    weakref.finalize(kept, forgetting(route)).atexit = False
