"""What the folder of programs gives to the link while it records this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..support.system import after_fork_in_child

if TYPE_CHECKING:
    from ..programs.interceptors import Interceptor
    from ..programs.recorder import Recorder


interceptors: list[Interceptor] = []  # that are attached, the innermost last


@after_fork_in_child
def _keep_refusing() -> None:
    """Leave only the interceptors that send nothing to a forked process: its requests are not recorded."""
    interceptors[:] = [interceptor for interceptor in interceptors if interceptor.stays_in_forks]


def recordings() -> list[Recorder]:
    """Return the attached interceptors that record, the innermost last."""
    attached = tuple(interceptors)  # other threads may detach one
    return [cast("Recorder", it) for it in attached if not it.passes_requests]


def innermost_recorder() -> Recorder | None:
    """Return the recording that was opened last, or ``None``."""
    opened = recordings()
    return opened[-1] if opened else None
