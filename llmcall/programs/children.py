"""The child processes of a recorded program: their requests go to the run, which knows the caller that started each.

Environment variables are set for children alone: with them, the SDKs in the run's own process would call the run in a
circle. Python children patch their HTTP clients, so that base URLs in their code are covered, too; other
children find the base URLs in their environment.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..config import resolve as config
from ..core.parents import linked, parents
from ..link import programs
from ..link.child import Parent
from ..link.client_facts import layer_in
from ..link.errand import standing_at
from ..scopes.callers import begin_naming
from ..scopes.position import hold_in_process
from ..stores.cassettes.current import forget_all
from ..support.notices import notice
from ..support.system import after_fork_in_child, last_in
from .linked import recording_linked
from .pool_work import pool_methods
from .replacing import Installation
from .routes import Route
from .start_methods import start_methods, starting
from .started import Routes, RoutesOfChild, RoutesOfRecording, making, missed_lines

if TYPE_CHECKING:
    from ..link.wire import Address
    from .recorder import Recorder


@contextlib.contextmanager
def recording_children(routes: Routes) -> Iterator[None]:
    """Record, for a block, the calls of the processes that this one starts, and of those that they start."""
    _patches.open()
    try:
        with last_in(making, routes):
            yield
    finally:
        if not making:
            _patches.close()


@contextlib.contextmanager
def recorded_children(recorder: Recorder) -> Iterator[None]:
    """Record the Python processes that a block starts, and those that they start, unless something around it does."""
    if making:
        yield
        return
    routes = RoutesOfRecording(recorder, is_run=False)
    try:
        with recording_children(routes):
            yield
    finally:
        for line in missed_lines(routes):
            notice("%s", line)
        routes.end(0)


def begin_started(route: str) -> None:
    """Begin recording in a Python process that a recorded program started.

    :param route: its route, as the environment has it.
    """
    begin(pickle.loads(bytes.fromhex(route)), is_function=False)


@after_fork_in_child
def _begin_forked() -> None:
    making.clear()
    parents.clear()
    forked, is_function = starting.forked, starting.is_function
    # what this process forks in its turn has a route of its own
    starting.route, starting.is_function, starting.forked = None, False, None
    if forked is not None:
        programs.interceptors.clear()
        begin(forked, is_function=is_function)


# How a process begins to be recorded

_recorded = contextlib.ExitStack()  # what holds while this process is recorded
_begun: tuple[int, Address] | None = None  # the process that began, and the link of its recorder


def begin(route: Route, *, is_function: bool = True) -> None:
    """Have the process that started this one record its calls, and those of what it starts.

    In the recording process, whose threads may run a pool's work, this does nothing.

    :param is_function: whether this process begins with a function, which needs ``bind`` to be in a scope.
    """
    global _begun, _recorded
    if _begun == (os.getpid(), route.link):
        return
    if any(isinstance(routes, RoutesOfRecording) and routes.made(route) for routes in making):
        return
    if _begun is not None and _begun[0] == os.getpid():
        _recorded.close()  # an earlier recording's
    if _begun is None:
        atexit.register(lambda: _recorded.close())
    _begun, _recorded = (os.getpid(), route.link), contextlib.ExitStack()
    options, layers = pickle.loads(route.told)
    outlives = route.outlives and not options.sends_nothing
    parent = Parent(route.link, route.ticket, outlives=outlives)
    with contextlib.ExitStack() as stack:
        # A cassette from its own settings would not see what the recording process answers.
        layer = config.layer_above_files({"cassette_path": None}, "the recording process")
        stack.callback(config.push_layer(layer))
        for pushed in layers:
            stack.callback(config.push_layer(layer_in(pushed)))
        forget_all()
        stack.callback(parent.close)
        stack.enter_context(linked(parent))
        stack.enter_context(recording_linked(options, parent))
        stack.enter_context(recording_children(RoutesOfChild(parent, route)))
        begin_naming(route.caller, route.ticket)
        if route.base.opened_by != "default" and not is_function:
            hold_in_process(active=standing_at(route.base._replace(ticket="")))
        _recorded = stack.pop_all()


_patches = Installation({**start_methods(begin), **pool_methods(begin)})
