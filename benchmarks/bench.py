"""The run of one benchmark: contestants in turn, one at a time, round after round."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from .contestants import Entry
from .environments import EnvironmentMissingError, Environments
from .figures import Figures, Group
from .processes import ContestantFailedError, Process


class Sizes(NamedTuple):
    """The amount of measuring.

    :param rounds: how often each contestant has its turn.
    :param hits: recorded answers that are asked for again in a round.
    :param calls: calls of a round against the instant server.
    :param threaded: calls of 50 ms by 32 workers.
    :param concurrent: asynchronous calls of 50 ms at once.
    :param limited: calls of 200 ms to a server that takes 40 at once.
    :param identical: identical requests at once.
    :param records: records of the large store.
    :param lines: records of the cassette.
    :param replayed: calls of a round on one route, or from threads of a user's own.
    """

    rounds: int = 7
    hits: int = 300
    calls: int = 100
    threaded: int = 400
    concurrent: int = 500
    limited: int = 2_000
    identical: int = 32
    records: int = 100_000
    lines: int = 10_000
    replayed: int = 2_000


SMALL = Sizes(
    rounds=2,
    hits=10,
    calls=5,
    threaded=40,
    concurrent=20,
    limited=60,
    identical=4,
    records=2_000,
    lines=200,
    replayed=50,
)


class Contender(NamedTuple):
    """One case: a title, and the measuring under it.

    :param title: as the table shows it.
    :param environment: the name of what it runs in.
    :param order: the order to the worker.
    """

    title: str
    environment: str
    order: Mapping[str, Any]


class Bench:
    """Run cases.

    :param environments: where contestants are installed.
    :param entries: the contestants that take part.
    :param address: the stub server's.
    :param sizes: how much is measured.
    :param say: gets the lines that report progress.
    :param package: where the contestants' modules are.
    """

    def __init__(
        self,
        environments: Environments,
        entries: Sequence[Entry],
        address: str,
        sizes: Sizes,
        say: Callable[[str], None],
        package: str = "contestants",
    ) -> None:
        self.environments = environments
        self.entries = entries
        self.address = address
        self.sizes = sizes
        self.say = say
        self.package = package

    def of(self, entries: Iterable[Entry], package: str = "contestants") -> Bench:
        """Return the same run with these contestants, whose modules are in this package."""
        return Bench(self.environments, list(entries), self.address, self.sizes, self.say, package)

    def contenders(
        self, case: str, measure: str, folder: str, **parameters: Any
    ) -> list[Contender]:
        """Return a contender for each contestant, each with a folder of its own in the given one."""
        return [
            Contender(
                entry.title,
                entry.environment,
                {
                    "module": f"{self.package}.{entry.module}",
                    "case": case,
                    "measure": measure,
                    "parameters": {
                        "folder": f"{folder}/{entry.module}",
                        "address": self.address,
                        **parameters,
                    },
                },
            )
            for entry in self.entries
        ]

    def measure(
        self,
        case: str,
        measure: str,
        *,
        title: str,
        unit: str,
        reference: str,
        before: str = "",
        rounds: int | None = None,
        **parameters: Any,
    ) -> Group:
        """Measure every contestant in turn.

        :param case: the module among the cases.
        :param measure: the function in it that the workers run.
        :param title: of the table; ``unit`` and ``reference`` as of :class:`Group`.
        :param before: a function that a process of its own runs first; each round then has a new
            process.
        :param parameters: what the functions get.
        """
        with tempfile.TemporaryDirectory() as folder:
            preparing = self.contenders(case, before, folder, **parameters) if before else []
            contenders = self.contenders(case, measure, folder, **parameters)
            return self.compare(
                contenders,
                title=title,
                unit=unit,
                reference=reference,
                preparing=preparing,
                rounds=rounds,
            )

    def compare(
        self,
        contenders: Sequence[Contender],
        *,
        title: str,
        unit: str,
        reference: str = "",
        preparing: Sequence[Contender] = (),
        fresh: bool = False,
        rounds: int | None = None,
    ) -> Group:
        """Measure contenders in turn, round after round.

        :param preparing: what runs once before; each round then has a new process.
        :param fresh: whether each round has a new process.
        """
        self.say(title)
        turns = _Turns(self.environments, self.say, fresh=fresh or bool(preparing))
        with turns:
            turns.once(preparing)
            turns.begin(contenders)
            for _ in range(rounds or self.sizes.rounds):
                turns.round()
        return Group(
            title,
            unit,
            turns.figures(),
            reference,
            tuple(turns.skipped.items()),
        )

    def prepare(self, contender: Contender) -> None:
        """Run what comes before a measurement.

        :raises ContestantFailedError: where it fails.
        :raises EnvironmentMissingError: where its environment cannot be made.
        """
        with Process(self.environments.python(contender.environment), contender.order) as process:
            process.start()
            process.round()


class _Turns:
    """The turns of the contenders. Who cannot take a turn is left out, with the reason."""

    def __init__(
        self, environments: Environments, say: Callable[[str], None], *, fresh: bool
    ) -> None:
        self._environments = environments
        self._say = say
        self._fresh = fresh
        self._stack = ExitStack()
        self._running: dict[str, Process] = {}
        self._contenders: dict[str, Contender] = {}
        self.values: dict[str, list[list[float]]] = {}
        self.skipped: dict[str, str] = {}

    def once(self, contenders: Sequence[Contender]) -> None:
        """Run each one's preparation in a process that ends."""
        for contender in contenders:
            self._guarded(contender.title, partial(self._in_new_process, contender))

    def begin(self, contenders: Sequence[Contender]) -> None:
        """Start the processes, each up to its first round."""
        for contender in contenders:
            self._contenders[contender.title] = contender
            self.values[contender.title] = []
            if not self._fresh:
                self._guarded(contender.title, partial(self._start, contender))

    def round(self) -> None:
        """Run one round: a turn of each contender."""
        for title, contender in self._contenders.items():
            turn = (
                partial(self._in_new_process, contender)
                if self._fresh
                else partial(self._in_process, title)
            )
            value = self._guarded(title, turn)
            if value is not None:
                self.values[title].append(value)

    def figures(self) -> tuple[Figures, ...]:
        """Return what was measured so far."""
        columns = {
            title: list(zip(*values, strict=True))
            for title, values in self.values.items()
            if values
        }
        return tuple(Figures(title, *values) for title, values in columns.items())

    def _guarded(self, title: str, turn: Callable[[], list[float] | None]) -> list[float] | None:
        if title in self.skipped:
            return None
        try:
            return turn()
        except (ContestantFailedError, EnvironmentMissingError) as error:
            self.skipped[title] = str(error)
            self._say(f"  {title}: skipped, {error}")
            return None

    def _start(self, contender: Contender) -> None:
        python = self._environments.python(contender.environment)
        process = self._stack.enter_context(Process(python, contender.order))
        process.start()
        self._running[contender.title] = process

    def _in_process(self, title: str) -> list[float]:
        return self._running[title].round()

    def _in_new_process(self, contender: Contender) -> list[float]:
        with Process(self._environments.python(contender.environment), contender.order) as process:
            process.start()
            return process.round()

    def __enter__(self) -> _Turns:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
