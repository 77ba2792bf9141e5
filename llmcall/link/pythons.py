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
    """The Python processes that were started, by the tickets that they have."""

    def __init__(self) -> None:
        # by ticket: the process that has it, and its program
        self._expected: dict[str, tuple[int, str]] = {}
        self._greeted: set[str] = set()  # tickets of processes that said hello, or asked
        # tickets of processes without llmcall, which asked the server
        self._asked: set[str] = set()
        self._said_hello: set[int] = set()
        self._watched: dict[int, str] = {}  # others that run, with their tickets
        # Pythons below these: their tickets and programs
        self._seen: dict[int, tuple[str, str]] = {}

    def expect(self, ticket: str, process: int, program: str) -> None:
        """Expect that a process says hello.

        :param program: that it runs.
        """
        self._expected[ticket] = process, program

    def dismiss(self, ticket: str) -> None:
        """Expect nothing more."""
        self._expected.pop(ticket, None)

    def greet(self, ticket: str, process: int = 0) -> None:
        """Take a process's hello.

        :param process: its number; 0 for a request to the server, which any process with the ticket may send.
        """
        self._greeted.add(ticket)
        if process:
            self._said_hello.add(process)
        else:
            self._asked.add(ticket)

    def watch(self, ticket: str, process: int) -> None:
        """Watch what a process starts that is no Python yet."""
        self._watched[process] = ticket

    def look(self) -> bool:
        """See which Pythons run; return whether any watched process does."""
        for process, ticket in list(self._watched.items()):
            if not is_running(process):
                del self._watched[process]
            else:
                for python, words in _pythons(process):
                    self._seen[python] = ticket, program_name(words)
        return bool(self._watched)

    def missed(self) -> list[tuple[int, str]]:
        """Return the processes that have not said hello, and their programs."""
        unheard = [it for ticket, it in self._expected.items() if ticket not in self._greeted]
        seen = [
            (process, name)
            for process, (ticket, name) in list(self._seen.items())
            if process not in self._said_hello and ticket not in self._asked
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
