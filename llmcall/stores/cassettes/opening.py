"""The time in which a cassette is open: in blocks, in decorated functions, across the cells of a notebook."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from ...config import resolve as config
from ...errors import CacheError, CacheMissError, ScopeError
from ...support.listeners import notify
from ...support.notices import notice, warn_once
from ...support.system import at_exit, last_in
from ..records.keyed_settings import (
    TAKEN_BY_ALL,
    Overridden,
    layer_from_header,
    overridden_settings,
)
from .current import open_cassettes
from .tape import lock

if TYPE_CHECKING:
    from ..records.keyed_settings import SettingsTaken
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
        self._is_in_cells = False
        self._overridden: Overridden | None = None

    def enter(self) -> None:
        """Begin a block."""
        cassette = self._cassette
        # Locked as a whole, so that a second thread finds a cassette that is completely open.
        with lock, ExitStack() as block:
            if not self._depth:
                self._start()
            self._depth += 1
            block.push(lambda _, error, __: self._stop(error))
            block.enter_context(last_in(open_cassettes, cassette))
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
        if self._is_in_cells:
            self._is_in_cells = False
            self.leave(None, None, None)

    def _close_all(self, error: BaseException | None) -> None:
        self._is_in_cells = False
        while self._depth:
            with suppress(CacheMissError, ScopeError):  # the process warns of refused calls
                self.leave(None, error, None)

    def _start(self) -> None:
        cassette = self._cassette
        notify("opened", cassette)
        for other in self._others():
            place = other.owner.place()
            if other.opening._is_in_cells:
                place = "by an earlier open(); call its close() first (tape.close())"
            raise CacheError(f"{cassette.path} is already open {place}")
        self._error, self._overridden = None, None
        config.refresh()
        cassette.read_file()
        with ExitStack() as applied:
            if cassette.file.goes_on:
                before, path = config.settings(), str(cassette.path)
                header = cassette.file.records.header
                layer = layer_from_header(
                    header.settings,
                    f"cassette {path}",
                    cassette.file.records.undecided,
                    is_recorded=not header.notes,
                )
                applied.callback(config.push_layer(layer))
                self._overridden = overridden_settings(before, layer, path)
                self.tell_overridden(lambda: TAKEN_BY_ALL)
            self._settings = applied.pop_all()

    def tell_overridden(self, taken: SettingsTaken) -> None:
        """Warn once of the settings of environment and files that the file overrides, if a call depends on one.

        :param taken: returns the settings that the call depends on.
        """
        if self._overridden is not None and self._overridden.names & taken().keys():
            warn_once(self._overridden.words)
            self._overridden = None

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
            try:
                notify("closed", cassette)
            finally:  # its answers were paid for
                if cassette.file.is_of_this_process():
                    try:
                        cassette.finish(self._error)
                    finally:
                        cassette.leave_journal()

    def _others(self) -> list[Cassette]:
        """Return this process's open cassettes for the same file."""
        file = os.path.realpath(self._cassette.path)
        return [
            other
            for other in tuple(open_cassettes)
            if os.path.realpath(other.path) == file and other.file.is_of_this_process()
        ]


def _close_cells() -> None:
    """Close the cassettes that cells of a notebook left open, at the end of the process."""
    for cassette in tuple(open_cassettes):
        if cassette.opening._is_in_cells and cassette.file.is_of_this_process():
            if cassette.recorded:
                notice(
                    "%s was opened with open() but not closed: call close() at the end",
                    cassette.path,
                )
            cassette.opening._close_all(
                InterruptedError("the process ended") if cassette.may_record else None
            )
