"""The numbers of identical requests in one scope: which are taken, and the caller of each; and their replay, compared
with the recording: who asks what, and after what.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from threading import current_thread, get_ident
from typing import NamedTuple
from zlib import crc32

from .callers import Caller, process_in
from .position import Branches

# The scope path, and the digest of a request without a sample.
ScopedRequest = tuple[str, str]


class RecordedCallers(NamedTuple):
    """The callers of identical requests in one scope, as a cassette or cache has them.

    :param callers: the callers' names by draw number, in the order of the calls as far as that is known.
    :param is_recording: ``True`` if it is still recording: then no caller gets another one's draw.
    :param is_of_cache: ``True`` if a cache has them, and not a run's recording. Then a caller that asks more often than
        before gets a new draw where that may be requested.
    :param histories: by draw number, where there is any: a digest of what its caller had asked before in the scope.
    :param replayed: compares a replay with the recording; ``None`` where more may be recorded.
    :param again: the numbers that a recording which goes on took when it opened the scope before.
    """

    callers: Mapping[int, str] = {}
    is_recording: bool = False
    is_of_cache: bool = False
    histories: Mapping[int, str] = {}
    replayed: ReplayedCallers | None = None
    again: Collection[int] = ()


class Numbers:
    """The numbers of one request that one branch has taken.

    :ivar lowest: the lowest free number.
    :ivar in_flight: how many of their calls have not ended.
    :ivar under_way: the thread and task that took the last one, and its caller's name, until its call ends.
    """

    __slots__ = ("in_flight", "lowest", "taken", "under_way")

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.lowest = 0
        self.in_flight = 0
        self.under_way: tuple[int, int, str | None] | None = None

    def take(self, number: int) -> None:
        """Take a number."""
        self.taken.add(number)
        while self.lowest in self.taken:
            self.lowest += 1

    def release(self, number: int) -> None:
        """Free a number."""
        self.taken.discard(number)
        self.lowest = min(self.lowest, number)


def is_free_in_all(number: int, counted: Iterable[Numbers]) -> bool:
    """Return whether a number is free in all branches that count."""
    return all(number not in numbers.taken for numbers in counted)


def lowest_free(counted: Sequence[Numbers], start: int = 0) -> int:
    """Return the lowest number from one on that is free in all branches that count."""
    number = max(start, *(numbers.lowest for numbers in counted))
    while not is_free_in_all(number, counted):
        number += 1
    return number


class Taken:
    """What a caller has taken in its branches.

    :ivar numbers: the numbers, the last one last.
    :ivar seen: how many of the caller's own numbers, from the first one on, are not free.
    """

    __slots__ = ("numbers", "seen")

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.seen = 0


class Callers:
    """The callers of the identical requests of one scope, and their numbers.

    :param recorded: what the cassette or cache with their records says about them.
    :ivar owners: by number: the caller that took it in the recording or, first, in this run.
    :ivar taken: by branches and caller.
    :ivar is_in_order: ``True`` if the order of the calls has told all of them apart so far.
    """

    # A run has 100,000 of these, nearly all with one caller and one number.
    __slots__ = (
        "_again",
        "_by_process",
        "_dense",
        "_own",
        "is_in_order",
        "owners",
        "recorded",
        "taken",
    )

    def __init__(self, recorded: RecordedCallers) -> None:
        self.recorded = recorded
        self.is_in_order = True
        self.owners: dict[int, str] = {}
        self.taken: dict[tuple[Branches, str], Taken] = {}
        # by caller: its numbers in the order in which it took them first, and some that it released
        self._own: dict[str, list[int]] = {}
        self._by_process: dict[str, list[str]] | None = None
        self._dense = 0  # all numbers below have owners
        self._again = recorded.again  # those that whoever asks gets
        for number, caller in recorded.callers.items():
            self._note_owner(number, caller)

    def number_for(self, caller: str, branches: Branches, counted: Sequence[Numbers]) -> int:
        """Return the next number of a caller, and note that it took it.

        A caller gets the first free number that was recorded for it, or that it took in another arm, in the order in
        which these were taken. Without one, it gets the lowest that was recorded for an identical process, which
        another caller may have started. In an arm, it gets the lowest if one caller alone made the request in others.
        Otherwise it gets the lowest new number, which is recorded; but first the lowest that is left of a complete
        recording: only what no record answers is requested. Where a recording that
        goes on opens a scope again, the numbers of before come first, whoever asks, as in a run that nothing
        interrupted.
        """
        recorded = self.recorded
        taken = self.taken.setdefault((branches, caller), Taken())
        number = lowest_free(counted) if self._again else None
        if number not in self._again:
            number, taken.seen = self._first_of(caller, counted, taken.seen)
        if number is None and recorded.callers and not recorded.is_recording:
            same = self._in_process_of(caller)
            found = (self._first_of(name, counted)[0] for name in same)
            number = min((it for it in found if it is not None), default=None)
            is_further = recorded.is_of_cache and caller in recorded.callers.values()
            if number is None and not (self._has_gap or is_further):
                number = lowest_free(counted)
        if number is None and branches and len(self._own) == 1:
            number = lowest_free(counted)
        if number is None:
            number = lowest_free(counted, taken.numbers[-1] + 1 if taken.numbers else 0)
            while number in self.owners:
                number = lowest_free(counted, number + 1)
        self._note_owner(number, caller)
        taken.numbers.append(number)
        return number

    @property
    def are_told_apart(self) -> bool:
        """Return whether one arm (or no arm) has several callers that differ in more than the order of calls."""
        return not self.is_in_order and len(self.taken) > len({arm for arm, _ in self.taken})

    def _first_of(
        self, caller: str, counted: Sequence[Numbers], start: int = 0
    ) -> tuple[int | None, int]:
        """Return a caller's first free number, or ``None``, and the place after it.

        :param start: the place among its numbers from which on they are searched.
        """
        own = self._own.get(caller, ())
        for place in range(start, len(own)):  # no slice: a caller may have 100,000
            number = own[place]
            if self.owners.get(number) == caller and is_free_in_all(number, counted):
                return number, place + 1
        return None, len(own)

    def _in_process_of(self, caller: str) -> Sequence[str]:
        """Return the recorded callers that differ from one only in who started their process, and in its number."""
        if self._by_process is None:
            self._by_process = {}
            for name in sorted({*self.recorded.callers.values()}):
                self._by_process.setdefault(process_in(name), []).append(name)
        process = process_in(caller)
        return self._by_process.get(process, ()) if process else ()

    @property
    def _has_gap(self) -> bool:
        """Return whether a record is missing among the others: it was deleted, perhaps this caller's."""
        while self._dense in self.owners:
            self._dense += 1
        return self._dense < len(self.owners)

    def are_same(self, recorded: str, caller: str) -> bool:
        """Return whether a recorded caller can only be another one: it is in the one process with its command."""
        return self._in_process_of(caller) == [recorded]

    def _note_owner(self, number: int, caller: str) -> None:
        if number not in self.owners:
            self.owners[number] = caller
            self._own.setdefault(caller, []).append(number)

    def release(
        self, caller: str, branches: Branches, number: int, *, is_free: bool, was_answered: bool
    ) -> None:
        """Note that a caller released a number; a recorded number stays its owner's.

        :param is_free: ``True`` if no branch has it.
        :param was_answered: ``True`` if it has an answer: its map ended early, and in a recording that goes on whoever
            asks next gets it.
        """
        taken = self.taken.get((branches, caller), Taken())
        if number in taken.numbers:
            taken.numbers.remove(number)
            taken.seen = 0
        if not is_free or number not in self.owners:
            return
        if number in self.recorded.callers:
            if was_answered and self.recorded.is_recording:
                self._again = {*self._again, number}
        else:
            del self.owners[number]
            self._dense = min(self._dense, number)


HISTORY_DIGITS = 4
UNKNOWN = "?"  # a history in an export of a cache


def history_after(history: int, request_digest: str) -> int:
    """Return the digest of a caller's requests in a scope, up to and including a request.

    :param history: the digest of the requests before it; 0 if there are none.
    :param request_digest: the digest of the request, without its sample.
    """
    return crc32(request_digest.encode(), history)


def history_text(history: int) -> str:
    """Return a history as a file writes it; empty for an empty one. One of 65,536 other histories has the same text."""
    return f"{history & 0xFFFF:0{HISTORY_DIGITS}x}" if history else ""


class Moved(NamedTuple):
    """A call that a caller made otherwise than in the recording.

    :param request: its scope path, and the digest of its request.
    :param number: the number of its draw.
    :param caller: the caller that made it now.
    :param recorded: the caller that made it in the recording; ``None`` if the recording names none; ``caller`` itself,
        if it did so after other calls.
    """

    request: ScopedRequest
    number: int
    caller: str
    recorded: str | None


class _Step(NamedTuple):
    """The last call of a caller in a scope.

    :param before: the history before it.
    :param after: the history with it.
    """

    before: int
    after: int
    request: str
    number: int


_FIRST = _Step(0, 0, "", -1)


# What counts as the same is a decision.
#
# A file names the callers of the identical requests that several made in a scope, and for each of these calls a digest
# of what its caller had asked there before. So a call is the same if the same caller made it after the same calls. To
# compare only the identical requests was rejected: of two workers that exchange two identical jobs among many others,
# each makes such a request once, then and now. A name beside each record of such callers, from which all this would
# follow, takes seven times as many bytes, and in every scope where two tasks ask one thing.
#
# A caller that asks less than in the recording says nothing, as long as it asks the same before: if another one took
# its work, that one asks more. So a replay of a part of a program is exact.
#
# A request that the recording knows of one caller alone has no names in the file. Two callers of it now are a
# difference, unless both are threads or processes that opened the scope themselves, and followed one another: then
# the order of the calls tells them apart, now and in the recording.
class ReplayedCallers:
    """The callers of a replay, compared call by call with those of its recording.

    The methods are called with the lock of the draws.

    :param has_named: ``True`` if the recording names any caller.
    :ivar moved: the calls that callers made otherwise, in the order of the replay.
    """

    def __init__(self, *, has_named: bool = False) -> None:
        self.moved: list[Moved] = []
        self._has_named = has_named
        self._concerned: dict[ScopedRequest, Callers] = {}
        self._last: dict[tuple[str, str], _Step] = {}  # by scope path and caller
        # By request and name: the threads, or processes, that share it. ``None`` is among them if only their arrival
        # tells them apart: ``threading`` did not start them, or they ran at the same time.
        self._sharing: dict[tuple[ScopedRequest, str], set[int | str | None]] = {}

    @property
    def calls(self) -> int:
        """Return the number of calls whose answers may have gone to another caller: all calls of the requests that a
        caller made otherwise.
        """
        concerned = self._concerned.values()
        return sum(len(taken.numbers) for callers in concerned for taken in callers.taken.values())

    def note(
        self,
        request: ScopedRequest,
        branches: Branches,
        caller: Caller,
        number: int,
        callers: Callers,
    ) -> None:
        """Compare a draw that a caller has taken.

        :param callers: those of the request, with what the recording has of them.
        """
        history, path = 0, request[0]
        if self._has_named:
            last = self._last.get((path, caller.name), _FIRST)
            history, after = last.after, history_after(last.after, request[1])
            self._last[path, caller.name] = _Step(history, after, request[1], number)
        recorded = callers.recorded.callers.get(number)
        process = process_in(caller.name)
        sharing = self._sharing.setdefault((request, process or caller.name), set())
        sharing.add(caller.name if process else get_ident())
        # A trick: of a thread that ``_thread`` or a C library started, ``threading`` has a stand-in with this name.
        if caller.is_by_arrival or current_thread().name.startswith("Dummy-"):
            sharing.add(None)
        if None in sharing and len(sharing) > 2:
            recorded = None
        elif recorded is None:
            if callers.recorded.callers or not callers.are_told_apart:
                return
        elif recorded == caller.name or callers.are_same(recorded, caller.name):
            asked_before = callers.recorded.histories.get(number, "")
            is_after_same = asked_before in (history_text(history), UNKNOWN)
            # In an arm, a caller makes calls that another arm recorded; and some make several at the same time.
            if is_after_same or branches or caller.is_concurrent:
                return
            recorded = caller.name
        self.moved.append(Moved(request, number, caller.name, recorded))
        self._concerned.setdefault(request, callers)

    def take_back(self, request: ScopedRequest, caller: str, number: int) -> None:
        """Forget a draw whose number was released: its call failed, or will be made again."""
        path, digest = request
        last = self._last.get((path, caller))
        if last is not None and (last.request, last.number) == (digest, number):
            self._last[path, caller] = _Step(0, last.before, "", -1)
