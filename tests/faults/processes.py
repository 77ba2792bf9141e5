"""Processes that can be killed at any instant: forked from one that has imported all they need,
within milliseconds.

What a process did is in its journal, a file to which each line is written in one go: what stands in
it happened before the kill. The nursery runs one thread, so that forking it is safe.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SEED = "LLMCALL_FAULT_SEED"
# Looked up before the first test takes all of llmcall's variables out of the environment.
GIVEN_SEED = os.environ.get(SEED)
SECONDS = 120.0  # that something may take on a slow machine before a test gives up
LONGEST = 600.0  # that a process may take which works for a minute
KILLED = -signal.SIGKILL
SOON = 0.001

# Forks a process for each line that it reads: the name of a function of the module workers, its
# journal, its arguments.
NURSERY = """
import json, os, sys, warnings
sys.path.insert(0, sys.argv[1])
import diskcache, workers
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        status = os.waitpid(order["wait"], 0)[1]
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
        continue
    child = os.fork()
    if not child:
        workers.run(order["name"], order["journal"], order["arguments"])
    print(json.dumps(child), flush=True)
"""


def seeded() -> random.Random:
    """Return random numbers from the seed in LLMCALL_FAULT_SEED ("new": any), or always the same;
    it is printed.
    """
    seed = int.from_bytes(os.urandom(4), "big") if GIVEN_SEED == "new" else int(GIVEN_SEED or 1)
    print(f"{SEED}={seed}")
    return random.Random(seed)


def pause(seconds: float) -> None:
    """Wait: random instants are what is tried here."""
    threading.Event().wait(seconds)


class Worker:
    """One of the nursery's children.

    :ivar journal: the file that it writes to.
    """

    def __init__(self, nursery: Nursery, pid: int, journal: Path) -> None:
        self._nursery = nursery
        self.pid = pid
        self.journal = journal
        self.status: int | None = None

    def lines(self) -> list[Any]:
        """Return what it has written so far, parsed."""
        data = self.journal.read_bytes() if self.journal.exists() else b""
        # a kill may have cut the last one
        return [json.loads(line) for line in data.split(b"\n")[:-1]]

    def wait_for_lines(self, count: int) -> None:
        """Wait until it has written so many lines."""
        waited = 0.0
        while not self.journal.exists() or self.journal.read_bytes().count(b"\n") < count:
            pause(SOON)
            waited += SOON
            assert waited < SECONDS, f"{self.journal.name} has {self.lines()[-3:]}"

    def kill(self) -> None:
        """Kill it by SIGKILL; it may have ended already."""
        if self.status is None:  # until it is waited for, its number is its own
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """Wait until it has ended; return its exit code, negative for a signal."""
        if self.status is None:
            self.status = self._nursery.order(wait=self.pid)
        assert self.status is not None
        return self.status

    def killed(self) -> int:
        """Kill it and wait for its end; what it came to before the kill must not have been an
        error.
        """
        self.kill()
        assert self.end() in (KILLED, 0), self.lines()[-1:]
        return self.end()

    def done(self) -> list[Any]:
        """Wait until it has ended well; return what it wrote."""
        assert self.end() == 0, self.lines()[-1:]
        return self.lines()


class Nursery:
    """Start processes quickly; a context manager, at whose end none is left.

    :param folder: where their journals lie.
    :param python: the interpreter; the running one, unless another is named.
    """

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder = folder
        self._workers: list[Worker] = []
        self._process = subprocess.Popen(
            [python, "-c", NURSERY, str(HERE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )

    def order(self, **order: Any) -> Any:
        """Send one line, and return the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], LONGEST)
        assert ready, f"{order} is not done after {LONGEST} seconds"
        answer = self._process.stdout.readline()
        assert answer, "the nursery has ended; what it said stands above"
        return json.loads(answer)

    def start(self, name: str, *arguments: Any) -> Worker:
        """Start a function of the module workers in a process of its own."""
        journal = self.folder / f"{name}-{len(self._workers)}-{os.urandom(4).hex()}.journal"
        given = [
            str(argument) if isinstance(argument, Path) else argument for argument in arguments
        ]
        pid = self.order(name=name, journal=str(journal), arguments=given)
        self._workers.append(Worker(self, pid, journal))
        return self._workers[-1]

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._process.kill()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(SECONDS)
        self._process.stdout.close()
