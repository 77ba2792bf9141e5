"""The Python processes that recorded programs start: those that never said hello are not recorded.

Where a recorded program starts a Python, that is known. What a shell or make starts is seen while it runs, on Linux. A
process of another language has ended before it is seen, or never: the hello of a Python comes from its beginning.
"""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator

from ..support.system import is_running
from .commands import is_python, program_name, tells_only, words_in


class Pythons:
    """The Python processes that were started: each has a ticket, and may share it with others."""

    def __init__(self) -> None:
        # by ticket: a process that is one, or begins one as its first word says, and its program
        self._expected: dict[str, tuple[int, str]] = {}
        self._seen: dict[tuple[str, int], str] = {}  # the programs of others
        self._heard: set[tuple[str, int]] = set()  # those that said hello, or asked
        self._watched: dict[int, str] = {}  # what may start others, with its ticket

    def expect(self, ticket: str, process: int, program: str) -> None:
        """Expect that a process says hello.

        :param program: that it runs.
        """
        self._expected[ticket] = process, program

    def greet(self, ticket: str, process: int = 0) -> None:
        """Take a process's hello.

        :param process: its number; 0 if that is unknown, as of a request to the server: any process with the ticket.
        """
        self._heard.add((ticket, process))

    def watch(self, ticket: str, process: int) -> bool:
        """Watch what a process starts that is no Python yet; return whether no other one was watched."""
        was_idle = not self._watched
        self._watched[process] = ticket
        return was_idle

    def look(self) -> bool:
        """See which Pythons run; return whether any watched process does."""
        for process, ticket in list(self._watched.items()):
            if not is_running(process):
                del self._watched[process]
            else:
                for python, words in _pythons(process):
                    self._seen[ticket, python] = program_name(words)
        return bool(self._watched)

    def missed(self) -> list[tuple[int, str]]:
        """Return the processes that have not said hello, and their programs."""
        tickets = {ticket for ticket, _ in self._heard}
        unheard = [it for ticket, it in self._expected.items() if ticket not in tickets]
        seen = [
            (process, program)
            for (ticket, process), program in list(self._seen.items())
            if not self._heard & {(ticket, process), (ticket, 0)}
        ]
        return unheard + seen


def _pythons(process: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the Pythons that a process is or started, each with its command, and not what these started."""
    words = words_in(process)
    if is_python(words):
        if not tells_only(words):
            yield process, words
        return
    for path in glob.glob(f"/proc/{process}/task/*/children"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            for child in map(int, file.read().split()):
                yield from _pythons(child)
