"""Recorders in other processes: their requests are answered by the process that records these, over the link."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..core.parents import parents
from ..errors import CacheMissError
from ..link import messages
from ..link.plain_values import error_data
from ..support.notices import warn_once
from ..support.tracebacks import ends_shown_by, show
from .patches import patched_by
from .recorder import Recorder, RecordingOptions

if TYPE_CHECKING:
    from types import ModuleType

    from ..link.child import Parent
    from .interceptors import Sight

RECORDING_HAS_ENDED = "the recording of the process that started this one has ended"


class LinkedRecorder(Recorder):
    """A recorder of another process, which tells the recording one what it sees.

    :param parent: the recording process, if that may end before this one.
    """

    binds_cassettes = True

    def __init__(self, options: RecordingOptions, parent: Parent | None) -> None:
        super().__init__(**options.arguments, function="patched()", is_linked=True)
        self.models.update(options.models)
        self._parent = parent

    @property
    def _is_followed(self) -> bool:
        """Return whether a map without a recording runs here: its pool is older than it, and was recorded before."""
        return self._parent is not None and bool(parents) and parents[-1] is not self._parent

    @property
    def sends_nothing(self) -> bool:
        """Return whether a request that is not recorded is refused."""
        return super().sends_nothing and not self._is_followed

    def is_left(self, library: ModuleType, host: str) -> bool:
        """Return whether the recording has ended, and this process goes on without it.

        :raises library.ConnectError: if it may not.
        """
        parent = self._parent
        if parent is None or parent.is_alive():
            return False
        if not (parent.outlives or self._is_followed):
            raise library.ConnectError(
                f"llmcall refuses the request to {host}: {RECORDING_HAS_ENDED}"
            )
        warn_once(
            f"{RECORDING_HAS_ENDED}, so this process's requests to models are no longer recorded"
        )
        return True

    def note_refusal(self, error: Exception) -> None:
        """Report an llmcall error that the program got."""
        self.first_error = self.first_error or error
        _tell(messages.Refused(error_data(error)))

    def show(self, error: BaseException) -> None:
        """Show the exception that ends the program or a thread, the run's first miss in one line: the recording process
        printed it.
        """
        first = self.first_error or error  # that of llmcall's own call comes over the link
        is_printed = isinstance(first, CacheMissError) and first.first is None
        show(error, first if is_printed else None)

    def note(self, sight: Sight, address: str) -> None:
        """Report something that is not recorded, and refuse it as in the recording process."""
        _tell(messages.Saw(sight, address))
        super().note(sight, address)


def _tell(note: messages.Refused | messages.Saw) -> None:
    for parent in parents[-1:]:
        parent.note(note)


@contextlib.contextmanager
def recording_linked(options: RecordingOptions, parent: Parent | None = None) -> Iterator[None]:
    """Record the clients of this process for a block, for the process that answers its calls."""
    recorder = LinkedRecorder(options, parent)
    shown = ends_shown_by(recorder.show) if options.prints_first else contextlib.nullcontext()
    with shown, patched_by(recorder):
        yield
