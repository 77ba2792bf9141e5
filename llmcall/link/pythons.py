"""The Python processes that recorded programs start: those that never said hello are not recorded.

A Python says hello at its beginning, by a file in the folder of the recording: ``TICKET.NUMBER.hello``, with the lowest
number that is free. So the system tells the order of those that have one ticket, such as all that a shell starts.

Where a recorded program starts a Python, that is known. What a shell or make starts is seen while it runs, on Linux. A
process of another language has ended before it is seen, or never: the hello of a Python comes from its beginning.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
import time
from collections.abc import Collection, Iterator
from typing import NamedTuple

from ..scopes.callers import child_segment
from ..support import clock
from ..support.system import is_running, unwatched
from .commands import caller_of, is_python, program_name, tells_only, words_in

LONGEST_START = 2  # seconds that a Python takes to say hello
BETWEEN_LOOKS = 0.01  # seconds between two looks whether it does


class Hello(NamedTuple):
    """The hello of a Python process.

    :param command: what identifies its command.
    :param running: the numbers of the earlier processes with its ticket that were running, on Linux.
    """

    process: int
    command: str
    running: Collection[int] = ()


def _hello(path: str) -> Hello:
    """Return a hello from its file, which its process may be writing."""
    ends_at = clock.monotonic() + LONGEST_START
    while clock.monotonic() < ends_at:
        with contextlib.suppress(ValueError), open(path, encoding="ascii") as file:
            process, words, environment, running = json.load(file)
            return Hello(process, caller_of(words, environment), running)
        time.sleep(BETWEEN_LOOKS)
    return Hello(0, "")  # it was killed meanwhile


class Pythons:
    """The Python processes that were started: each has a ticket, and may share it with others.

    :param folder: of the recording.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        # by ticket: a process that is one, or begins one as its first word says, and its program
        self._expected: dict[str, tuple[int, str]] = {}
        self._seen: dict[tuple[str, int], str] = {}  # the programs of others
        self._heard: set[str] = set()  # the tickets of those that asked the server
        self._watched: dict[int, str] = {}  # what may start others, with its ticket

    def hellos(self, ticket: str) -> Iterator[Hello]:
        """Yield the hellos of the processes with a ticket, in their order."""
        for number in itertools.count():
            path = os.path.join(self._folder, f"{ticket}.{number}.hello")
            if not os.path.exists(path):
                return
            yield _hello(path)

    def expect(self, ticket: str, process: int, program: str) -> None:
        """Expect that a process says hello.

        :param program: that it runs.
        """
        self._expected[ticket] = process, program

    def greet(self, ticket: str) -> None:
        """Note that a process with a ticket asks the server."""
        self._heard.add(ticket)

    def watch(self, ticket: str, process: int) -> None:
        """Watch what a process starts that is no Python yet."""
        self._watched[process] = ticket

    def look(self) -> None:
        """See which Pythons run."""
        for process, ticket in list(self._watched.items()):
            if not is_running(process):
                del self._watched[process]
            else:
                for python, words in _pythons(process):
                    self._seen[ticket, python] = program_name(words)

    def missed(self) -> list[str]:
        """Return the programs whose processes never said hello; those that have just been started get time for it."""
        ends_at = clock.monotonic() + LONGEST_START
        while missed := self._missed():
            if clock.monotonic() > ends_at or not any(is_running(process) for process, _ in missed):
                break
            time.sleep(BETWEEN_LOOKS)
        return [program for _, program in missed]

    def _missed(self) -> list[tuple[int, str]]:
        tickets = {*self._expected, *(ticket for ticket, _ in self._seen)} - self._heard
        heard = {ticket: {hello.process for hello in self.hellos(ticket)} for ticket in tickets}
        unheard = [it for ticket, it in self._expected.items() if heard.get(ticket) == set()]
        return unheard + [
            (process, program)
            for (ticket, process), program in list(self._seen.items())
            if process not in heard.get(ticket, {process})
        ]


class Siblings:
    """The processes with one ticket, such as all that a shell starts. Their commands tell them apart, or else
    the order of their hellos.

    :param maker: the caller's name that the ticket has; it may identify a process already.
    """

    def __init__(self, pythons: Pythons, ticket: str, maker: str) -> None:
        self._pythons, self._ticket, self._maker = pythons, ticket, maker
        self._segments: dict[int, tuple[str, bool]] = {}

    @unwatched()
    def segment(self, number: int) -> tuple[str, bool]:
        """Return what ends the names of the callers in a process, and whether another process with its command was
        running when it began, so that only their arrival tells them apart.

        :param number: of its hello.
        """
        if number not in self._segments:
            *earlier, own = itertools.islice(self._pythons.hellos(self._ticket), number + 1)
            same = [each for each, hello in enumerate(earlier) if hello.command == own.command]
            is_named = self._maker.rpartition(" ")[0].endswith(f" {own.command}")
            segment = "" if is_named else child_segment(own.command, len(same))
            self._segments[number] = segment, not is_named and not {*own.running}.isdisjoint(same)
        return self._segments[number]


def _pythons(process: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the Pythons that a process is or started, each with its command, and not what these started."""
    words = words_in(process)
    if is_python(words):
        if not tells_only(words):
            yield process, words
        return
    # an ending process has no command any more, but still has children
    for path in glob.glob(f"/proc/{process}/task/*/children") if words else ():
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            for child in map(int, file.read().split()):
                yield from _pythons(child)
