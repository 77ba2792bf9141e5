"""The time in which a cassette is open: in blocks, in decorated functions, across the cells of a notebook."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from ...config import resolve as config
from ...errors import CacheError, CacheMissError, ScopeError
from ...support.listeners import CallListener, listeners
from ...support.notices import notice, warn_once
from ...support.system import at_exit, current_task, ipython_shell
from ..records.keyed_settings import layer_from_header, overridden_settings
from .current import open_cassettes, pop_cassette, push_cassette
from .tape import lock

if TYPE_CHECKING:
    from pathlib import Path

    from ...core.calls import Call
    from .cassette import Cassette


class Opening:
    """The blocks and cells in which a cassette is open. A block, or ``open()`` and ``close()`` across cells, starts and
    stops it, and makes it the innermost one in between. The first start reads the file, and puts its settings
    above those of environment and files; the last stop writes it.
    """

    def __init__(self, cassette: Cassette) -> None:
        self._cassette = cassette
        self._blocks: list[ExitStack] = []
        self._depth = 0
        self._error: BaseException | None = None  # what ended a block
        self._settings = ExitStack()  # those of the file, while they apply
        self._opener: tuple[int, object] = (0, None)  # the thread and the task that opened it last
        self._is_in_cells = False

    def enter(self) -> None:
        """Begin a block."""
        cassette = self._cassette
        # Locked as a whole, so that a second thread finds a cassette that is completely open.
        with lock, ExitStack() as block:
            if not self._depth:
                self._start()
            self._depth += 1
            block.push(lambda _, error, __: self._stop(error))
            self._warn_of_other_opener()
            push_cassette(cassette)
            block.callback(pop_cassette, cassette)
            if not self._blocks:  # the first block is popped last, whichever thread leaves first
                block.enter_context(cassette.around(cassette))
            self._blocks.append(block.pop_all())

    def leave(self, *error: Any) -> None:
        """End a block."""
        self._blocks.pop().__exit__(*error)

    def open_cells(self) -> None:
        """Open it until :meth:`close_cells`."""
        for other in self._others():
            if other.opening._is_in_cells:
                is_left = other.mode == "rewrite"
                other.opening._close_all(None if is_left else InterruptedError("opened again"))
        self.enter()
        self._is_in_cells = True
        at_exit(_close_cells)

    def close_cells(self) -> None:
        """Close what :meth:`open_cells` opened."""
        if self._depth:
            self.leave(None, None, None)
            _report_what_is_asked_after(self._cassette.path)

    def _close_all(self, error: BaseException | None) -> None:
        while self._depth:
            with suppress(CacheMissError, ScopeError):  # the process warns of refused calls
                self.leave(None, error, None)

    def _start(self) -> None:
        cassette = self._cassette
        for listener in listeners:
            listener.opens(cassette)
        for other in self._others():
            place = other.owner.place()
            if other.opening._is_in_cells:
                place = "by an earlier open(); call its close() first (tape.close())"
            raise CacheError(f"{cassette.path} is already open {place}")
        self._error, self._is_in_cells = None, False
        config.refresh()
        cassette.read_file()
        with ExitStack() as applied:
            if cassette.file.goes_on:
                before, path = config.settings(), str(cassette.path)
                header = cassette.file.records.header
                layer = layer_from_header(header.settings, f"cassette {path}")
                applied.callback(config.push_layer(layer))
                if overridden := overridden_settings(before, layer, path):
                    warn_once(overridden)
            cassette.tape.update_settings()
            self._settings = applied.pop_all()

    def _stop(self, error: BaseException | None) -> None:
        cassette = self._cassette
        with lock:
            if not (isinstance(error, SystemExit) and not error.code):
                self._error = self._error or error
            self._depth -= 1
            if self._depth:
                return
            cassette.tape.is_over = True
            self._settings.close()
            self._opener = 0, None  # keeps no task alive
            try:
                for listener in listeners:
                    listener.closed(cassette)
            finally:  # its answers were paid for
                if cassette.is_of_this_process():
                    cassette.finish(self._error)

    def _others(self) -> list[Cassette]:
        """Return this process's open cassettes for the same file."""
        file = os.path.realpath(self._cassette.path)
        return [
            other
            for other in tuple(open_cassettes)
            if os.path.realpath(other.path) == file and other.is_of_this_process()
        ]

    def _warn_of_other_opener(self) -> None:
        """Warn if another thread, or another task, has another cassette open."""
        cassette = self._cassette
        thread, task = self._opener = threading.get_ident(), current_task()
        for other in reversed(tuple(open_cassettes)):
            other_thread, other_task = other.opening._opener
            tasks_differ = None not in (task, other_task) and task is not other_task
            is_own = other is cassette or other.owner.is_settings or not other.is_of_this_process()
            if not is_own and (thread != other_thread or tasks_differ):
                caller = "thread" if thread != other_thread else "task"
                warn_once(
                    f"{cassette.path} is opened while another {caller} has {other.path} open: a process has one "
                    f"cassette at a time, so the calls of both {caller}s go to {cassette.path} now. Open one cassette "
                    f"around all {caller}s, or give each its own process",
                    about=Opening,
                )
                return


def _close_cells() -> None:
    """Close the cassettes that cells of a notebook left open, at the end of the process."""
    for cassette in tuple(open_cassettes):
        if cassette.opening._is_in_cells and cassette.is_of_this_process():
            if cassette.recorded:
                notice(
                    "%s was opened with open() but not closed: call close() at the end",
                    cassette.path,
                )
            cassette.opening._close_all(
                InterruptedError("the process ended") if cassette.may_record else None
            )


# Calls of a notebook that come after its cassette was closed: they are reported, once


class _AfterClose(CallListener):
    """Reports which file lacks the answer of the first call after the close.

    :ivar path: the cassette that was closed last; ``None`` once another one opens, or after the report.
    """

    path: Path | None = None

    def opens(self, cassette: Cassette) -> None:
        """Forget the one that was closed."""
        self.path = None

    def asks(self, call: Call) -> None:
        """Report that the answer is not recorded in it."""
        path, self.path = self.path, None
        if path is not None and call.cassette is None:
            notice("%s is closed, so this answer is not recorded in it; open it again", path)


_after_close = _AfterClose()


def _report_what_is_asked_after(path: Path) -> None:
    """Report in a notebook that the next call is not recorded in the file that was closed."""
    if ipython_shell() is None:
        return
    _after_close.path = path
    if _after_close not in listeners:
        listeners.append(_after_close)
