"""Draws: the next number of each request in each scope.

One object counts the draws of an outermost scope, by scope path and request, so a changed or added
call changes no other draw. Arms, and the cells of a table that varies, are branches: they continue from draws
before them, not from draws beside them. The draws of a map's item are taken back together if it ends early."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..support.notices import warn_once
from ..support.system import after_fork_in_child, current_task, lock, this_process
from .callers import Caller
from .draw_numbers import (
    Callers,
    Numbers,
    RecordedCallers,
    ScopedRequest,
    is_free_in_all,
    lowest_free,
)
from .position import Branches, held

if TYPE_CHECKING:
    from ..stores.record import Record


class Retracts(Protocol):
    """A draw, here or in the process that records this one."""

    def retract(self) -> None:
        """Free its number, even if its call has an answer: the same call will be made again."""
        ...


class MapIsOverError(KeyboardInterrupt):
    """Raised for a draw in a ``map`` that is over, so that no ``except Exception`` takes it for a
    failed call.
    """


class DrawList:
    """The draws of one item of a ``map``, which are retracted together if it ends early.

    :param parent: the list of the item in which the map runs, or ``None``.
    """

    __slots__ = ("_is_over", "_parent", "draws")

    def __init__(self, parent: DrawList | None = None) -> None:
        self.draws: list[Retracts] = []
        self._parent = parent
        self._is_over = False

    def add(self, draw: Retracts) -> None:
        """Add a draw.

        :raises MapIsOverError: if the draws were retracted.
        """
        if self._parent is not None:
            self._parent.add(draw)
        self.draws.append(draw)
        if self._is_over:
            draw.retract()
            raise MapIsOverError("the map that this call belongs to has ended")

    def drawn(self) -> list[Drawn]:
        """Return the draws whose numbers are still taken."""
        return [
            Drawn(draw.request, draw.branches, draw.number)
            for draw in self.draws
            if isinstance(draw, Draw) and draw.is_taken
        ]

    def retract(self) -> None:
        """Retract all draws, and refuse further ones."""
        self._is_over = True
        for draw in list(self.draws):
            draw.retract()


class Item(NamedTuple):
    """The item of a ``map`` in which code runs.

    :param name: its name, if the map has names for its items.
    :param draws: collects its draws, or ``None``.
    """

    name: str = ""
    draws: DrawList | None = None


NO_ITEM = Item()


ACTOR = "actor"  # the identity of the draws of an actor's scope, which processes share


class Drawn(NamedTuple):
    """A draw, as it is sent to other machines.

    :param branches: the branches in which the request was drawn.
    """

    request: ScopedRequest
    branches: Branches
    number: int


def _are_beside(one: Branches, other: Branches) -> bool:
    """Return whether two branches are of one family, such as two arms of a scope."""
    for branch, other_branch in zip(one, other, strict=False):
        if branch != other_branch:
            return branch.family == other_branch.family
    return False


# The order of these steps is a decision.
#
# A number is a part of the key, so a call takes it while it is prepared, before its record is looked up.
# It keeps the number once it has an answer, and releases it if it fails. The alternative is to number
# identical calls as their answers arrive. It was rejected: the speed of a server would decide who gets
# draw 0, and a replay, in which no server is slow, would decide differently. Keeping the number of a failed
# call was rejected, too: the repeated call would be the next draw, and every replay would miss the one that
# failed.
#
# The next number is therefore the lowest free one, not one above the last: the repeated call gets the
# number that the failed one released. It also lets arms share answers, since an arm does not count the
# draws of the arms beside it.
#
# Where callers have names, a caller takes the lowest free number that was recorded for it, else a new one
# where that may be requested, else the lowest that is left. The lowest free number in every case was rejected:
# timing would decide who takes it, and two callers would swap their answers. So was a new number in every
# case: a program whose tasks have other names than in the recording would replay nothing.
class Draws:
    """The counter of the draws of one outermost scope.

    A draw takes the lowest number not yet taken in its branch or in those around or inside it, so identical
    requests in two arms share an answer. A caller with a name gets its own numbers.

    :param drawn: earlier draws.
    :param since: when another process opened the scope, in seconds since the epoch: its draws are
        counted from 0 again here. ``None`` if this process opens it now.
    :param outermost_scope: the number of the outermost scope, or ``None`` for other draws.
    :param identity: unique in other processes, too; random by default.
    """

    def __init__(
        self,
        drawn: Iterable[Drawn] = (),
        since: float | None = None,
        outermost_scope: int | None = None,
        identity: str = "",
    ) -> None:
        self.outermost_scope = outermost_scope
        self._identity = identity
        self.since = time.time() if since is None else since
        self.process = this_process() if since is None else None  # that opened the scope
        # By the keys of requests
        self._numbers: dict[ScopedRequest, list[tuple[Branches, Numbers]]] = {}
        # by the cassette or cache that holds its records, and by the request's key
        self._callers: dict[object, dict[ScopedRequest, Callers]] = {}
        for draw in drawn:
            self.claim(*draw)

    @property
    def identity(self) -> str:
        """Return its identity, which is unique in other processes, too."""
        if not self._identity:
            self._identity = os.urandom(8).hex()
            _known[self._identity] = self
        return self._identity

    def take(
        self,
        request: ScopedRequest,
        branches: Branches,
        source: object,
        caller: Caller | None,
        read_callers: Callable[[], RecordedCallers],
        *,
        may_follow: bool = False,
    ) -> Draw:
        """Take the next number of a request.

        Warns if another thread or task makes the same request at the same time, unless their names tell them apart.

        :param branches: those in which it is made.
        :param source: the cassette or cache that holds records of the request.
        :param caller: the caller, if it counts.
        :param read_callers: reads the callers of the recorded draws.
        :param may_follow: ``True`` if the caller is the thread or process that opened the scope, which may be any that
            happened to run an actor. Then callers tell apart only identical requests in flight at the same time.
        """
        callers = None
        if caller is not None:
            of_source = self._callers.setdefault(source, {})
            callers = of_source.get(request)
            if callers is None:  # reads records, so without the lock
                callers = of_source.setdefault(request, Callers(read_callers()))
        name = None if caller is None else caller.name
        runner = threading.get_ident(), id(current_task()), name
        is_in_order = False
        with lock:
            numbers, counted = self._numbers_of(request, branches)
            other = numbers.under_way
            if caller is None or callers is None:
                number = lowest_free(counted)
            else:
                recorded = callers.recorded
                number = callers.number_for(caller.name, branches, counted)
                is_in_order = may_follow and not (recorded.callers or numbers.in_flight)
                callers.is_in_order = callers.is_in_order and is_in_order
                if recorded.replayed is not None:
                    recorded.replayed.note(request, branches, caller, number, callers)
            numbers.take(number)
            numbers.in_flight += 1
            numbers.under_way = runner
        # The same name: a task or thread that was made before callers had names counts as the main program.
        is_told_apart = other is None or other == runner or other[2] != name
        if other is not None and not (is_told_apart or (name and held().is_programs)):
            kind = "thread" if other[0] != runner[0] else "task"
            warn_once(
                f"two {kind}s in scope {request[0]!r} sent the same request at once, so a replay may swap their "
                "answers. Give each a scope"
            )
        draw = Draw(self, request, branches, number, numbers, caller, callers)
        draw.is_in_flight, draw.is_in_order = True, is_in_order
        return draw

    def _numbers_of(
        self, request: ScopedRequest, branches: Branches
    ) -> tuple[Numbers, Sequence[Numbers]]:
        """Return the numbers of a branch, and all that count in it: also those of branches around and inside it."""
        known = self._numbers.setdefault(request, [])
        numbers = next((numbers for other, numbers in known if other == branches), None)
        if numbers is None:
            numbers = Numbers()
            known.append((branches, numbers))
        return numbers, [other for at, other in known if not _are_beside(at, branches)]

    def claim(self, request: ScopedRequest, branches: Branches, number: int) -> Draw:
        """Take a given number, which was drawn on another machine."""
        with lock:
            numbers, _ = self._numbers_of(request, branches)
            numbers.take(number)
        return Draw(self, request, branches, number, numbers)

    def is_free(self, request: ScopedRequest, number: int) -> bool:
        """Return whether no branch has taken a number; the caller holds the lock."""
        return is_free_in_all(number, (numbers for _, numbers in self._numbers[request]))

    def drawn(self) -> list[Drawn]:
        """Return what was drawn, for another process to continue."""
        with lock:
            return [
                Drawn(request, branches, number)
                for request, known in self._numbers.items()
                for branches, numbers in known
                for number in sorted(numbers.taken)
            ]


class DrawsElsewhere(Draws):
    """Draws that the recording process counts: this process was started in their scope, or works in it.

    :param path: the path of that scope.
    :param branches: the branches that it is in.
    :param ticket: of the calls in it, whichever thread makes them; empty if the whole process is in it.
    """

    def __init__(self, path: str, branches: Branches, ticket: str) -> None:
        super().__init__()
        self.names = tuple(filter(None, path.split("/")))
        self.branches = branches
        self.ticket = ticket


# By identity, the draws of this process that other processes may know.
_known: weakref.WeakValueDictionary[str, Draws] = weakref.WeakValueDictionary()
after_fork_in_child(_known.clear)


def known_draws(identity: str) -> Draws | None:
    """Return the draws of this process that another process names, or ``None``."""
    return _known.get(identity)


class Draw:
    """One draw: its number, which its call keeps or releases.

    Any thread may call its methods, and more than once.

    :param numbers: the numbers of its branch.
    :param caller: the caller, or ``None`` if callers have no names.
    :param callers: the callers of identical requests.
    :ivar sample: the scope path and the number, ``"trial/lisa#0"``.
    :ivar is_taken: ``True`` if its number is still taken.
    :ivar is_in_flight: ``True`` until its call ends.
    :ivar is_in_order: ``True`` if the order of the calls, not the caller, tells it from identical ones: no recorded
        draw names its caller, and no identical call of its scope was in flight.
    """

    __slots__ = (
        "_callers",
        "_has_answer",
        "_numbers",
        "branches",
        "caller",
        "draws",
        "is_in_flight",
        "is_in_order",
        "is_taken",
        "number",
        "request",
        "sample",
    )

    def __init__(
        self,
        draws: Draws,
        request: ScopedRequest,
        branches: Branches,
        number: int,
        numbers: Numbers,
        caller: Caller | None = None,
        callers: Callers | None = None,
    ) -> None:
        self.draws = draws
        self.request = request
        self.branches = branches
        self.number = number
        self.sample = f"{request[0]}#{number}"
        self.caller = caller
        self.is_taken = True
        self.is_in_flight = False
        self.is_in_order = False
        self._numbers = numbers
        self._callers = callers
        self._has_answer = False

    def _end(self) -> None:
        """Note that its call has ended."""
        self._numbers.under_way = None
        if self.is_in_flight:
            self.is_in_flight = False
            self._numbers.in_flight -= 1

    def keep(self, answer: Record) -> None:
        """Keep the number: its call has an answer.

        Warns if two processes that count the scope's draws separately made this draw.

        :param answer: the record that counts. Its ``stored_at`` is set if the cache had it.
        """
        self._has_answer = True
        with lock:
            self._end()
        if (
            answer.stored_at is None
            or answer.stored_at < self.draws.since
            or self.draws.process == this_process()
        ):
            return
        warn_once(
            f"two processes made the same draw in the scope {self.request[0]!r} and share its answer. Run the function "
            "with llmcall.map(…, executor=…), which counts draws for all processes, or give each task its own scope"
        )

    def release(self) -> None:
        """Free its number, unless its call has an answer."""
        if not self._has_answer:
            self.retract()

    def retract(self) -> None:
        """Free its number, even if its call has an answer: the same call will be made again."""
        with lock:
            if not self.is_taken:
                return
            self.is_taken = False
            self._end()
            self._numbers.release(self.number)
            if self._callers is not None and self.caller is not None:
                is_free = self.draws.is_free(self.request, self.number)
                self._callers.release(
                    self.caller.name,
                    self.branches,
                    self.number,
                    is_free=is_free,
                    was_answered=self._has_answer,
                )
                if (replayed := self._callers.recorded.replayed) is not None:
                    replayed.take_back(self.request, self.caller.name, self.number)
