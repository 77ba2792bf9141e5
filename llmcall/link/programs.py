"""What the folder of programs gives to the link while it records this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..support.system import after_fork_in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ..programs.recorder import Recorder


# Records the clients of another process for a block, by the options of a recording; it can be pickled.
record_linked: Callable[[Any], AbstractContextManager[object]]
recordings: list[Recorder] = []  # those that are open, the innermost last


@after_fork_in_child
def _keep_refusing() -> None:
    """Leave only the recordings that send nothing to a forked process."""
    recordings[:] = [recording for recording in recordings if recording.stays_in_forks]


def innermost() -> Recorder | None:
    """Return the recording that was opened last, or ``None``."""
    opened = recordings[-1:]  # a copy, since other threads may close it
    return opened[0] if opened else None
