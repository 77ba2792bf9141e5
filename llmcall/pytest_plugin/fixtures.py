"""Wider fixtures: each has a cassette of its own, which counts while it is set up and while it is torn down.

Between the two the tests' own cassettes count. So it does not matter which test asks for the fixture first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cassettes import tapes

if TYPE_CHECKING:
    from pathlib import Path

    from ..cassettes.cassette import Cassette
    from .network import Network
    from .runs import Recorder, Run

__all__ = ["LiveFixture", "ReplayedFixture"]


class ReplayedFixture:
    """Be one fixture whose calls are replayed."""

    def __init__(self, recorder: Recorder, path: Path) -> None:
        self._recorder = recorder
        self._path = path
        self._run: Run | None = None

    def begin(self) -> None:
        """Open its cassette, at set-up and again at tear-down."""
        self._run = self._recorder.open(self._path)
        self._run.begin()

    def end(self, passed: bool = True) -> None:
        """Close its cassette, if it is open."""
        run, self._run = self._run, None
        if run is not None:
            run.end()
            run.close(passed)


class LiveFixture:
    """Be one fixture whose calls reach the model."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._before: tuple[bool, Cassette | None] | None = None

    def begin(self) -> None:
        """Open the network, and let no test's cassette count."""
        around = tapes.innermost()
        self._before = self._network.live, around
        self._network.live = True
        if around is not None:
            tapes.end(around)

    def end(self, passed: bool = True) -> None:
        """Let hold what held before."""
        before, self._before = self._before, None
        if before is not None:
            self._network.live, around = before
            if around is not None:
                tapes.begin(around)
