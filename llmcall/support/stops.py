"""The interruption of a ``map``. It is alone here because its base takes 5 ms to import: a replay avoids them."""

from __future__ import annotations

from concurrent.futures import Future
from threading import get_ident


class Stop(Future[None]):
    """A future that is done once its ``map`` is interrupted: then no call begins, waits or is tried again.

    A call that waits for its server continues, and its answer is stored if it comes.

    :ivar thread: the identifier of the thread that runs the map and gets its results.
    """

    def __init__(self) -> None:
        super().__init__()
        self.thread = get_ident()
