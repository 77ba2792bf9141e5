"""The draws of a worker, and their askers: the process of the map counts them, so that all workers know them."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from ..scopes import Asker, Askers, Draw, Draws, MapIsOverError, Numbers, RecordedAskers
from ..stores.cache.cache import ResponseCache
from ..stores.cassettes.cassette import Cassette
from .home import name_of
from .server import AskersName, WorkerConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..scopes import Forks, ScopedRequest
    from .home import MapHome


class _AskersAtHome(Askers):
    """The askers of a request in the map's process, where those of other workers' forks are known, too."""

    def __init__(self, home: MapHome, name: AskersName, recorded: RecordedAskers) -> None:
        super().__init__(RecordedAskers())
        self.turn = threading.Lock()  # not the lock of all scopes, since the answer takes its time
        self._home = home
        self._name = name
        self._recorded: RecordedAskers | None = recorded  # until they are known there

    def number_for(self, asker: str, forks: Forks, counted: Sequence[Numbers]) -> int:
        taken = {number for numbers in counted for number in numbers.taken}
        arguments = self._name, self._recorded, asker, forks, taken
        number = self._home.ask("connection", WorkerConnection.number_for, *arguments)
        self._recorded = None
        return number

    def release(self, asker: str, forks: Forks, number: int, *, is_free: bool) -> None:
        with suppress(MapIsOverError):  # its draws were retracted there
            self._home.ask(
                "connection", WorkerConnection.release_number, self._name, asker, forks, number
            )


class HomeAskers:
    """Makes the askers of requests in a worker.

    :param draws: the name of the map's draws in its process.
    """

    def __init__(self, home: MapHome, draws: str) -> None:
        self.draws = draws
        self._home = home

    def __call__(self, request: ScopedRequest, source: object, recorded: RecordedAskers) -> Askers:
        """Return the askers of a request."""
        assert isinstance(source, (Cassette, ResponseCache))
        return _AskersAtHome(self._home, AskersName(self.draws, request, name_of(source)), recorded)


class DrawsAtHome(Draws):
    """The draws of a program's calls outside any scope, which the map's process counts for itself and all workers.

    :param file: the real path of the open cassette's file.
    """

    def __init__(self, home: MapHome, file: str) -> None:
        super().__init__()
        self._home = home
        self._file = file

    def take(
        self,
        request: ScopedRequest,
        forks: Forks,
        source: object,
        asker: Asker | None,
        read_askers: Callable[[], RecordedAskers],
    ) -> Draw:
        assert asker is not None  # what records the program names them
        arguments = self._file, request, forks, asker.name, read_askers()
        number = self._home.ask("connection", WorkerConnection.draw, *arguments)
        return Draw(
            self,
            request,
            forks,
            number,
            Numbers(),
            asker,
            _ReleasedAtHome(self._home, self._file, request),
        )

    def is_free(self, request: ScopedRequest, number: int) -> bool:
        return False  # known there


class _ReleasedAtHome(Askers):
    """Releases the draws of a request in the map's process."""

    def __init__(self, home: MapHome, file: str, request: ScopedRequest) -> None:
        super().__init__(RecordedAskers())
        self.turn = threading.Lock()  # not the lock of all scopes, since the answer takes its time
        self._home = home
        self._drawn = file, request

    def release(self, asker: str, forks: Forks, number: int, *, is_free: bool) -> None:
        with suppress(MapIsOverError):  # its draws were retracted there
            self._home.ask(
                "connection", WorkerConnection.undraw, *self._drawn, forks, asker, number
            )
