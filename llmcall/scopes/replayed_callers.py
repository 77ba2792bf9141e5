"""The replay of identical requests, compared with the recording: who asks what, and after what."""

from __future__ import annotations

from threading import current_thread, get_ident
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

if TYPE_CHECKING:
    from .callers import Caller
    from .draw_numbers import Callers, ScopedRequest
    from .position import Branches

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


def is_unknown_thread() -> bool:
    """Return whether this thread was not started by ``threading``, but by ``_thread`` or a C library.

    This is a trick: the stand-in that ``threading`` has for it is told by its name.
    """
    return current_thread().name.startswith("Dummy-")


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
        # of the callers that threads share which ``threading`` did not start: these threads, by request and name
        self._threads: dict[tuple[ScopedRequest, str], set[int]] = {}

    @property
    def calls(self) -> int:
        """Return the number of calls whose answers may have gone to another caller: all calls of the requests that a
        caller made otherwise.
        """
        return sum(callers.number_of_calls for callers in self._concerned.values())

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
        threads = self._threads.setdefault((request, caller.name), set())
        threads.add(get_ident())
        if len(threads) > 1 and is_unknown_thread():
            self._note_moved(Moved(request, number, caller.name, None), callers)
        elif recorded is None:
            if not callers.recorded.callers and callers.are_told_apart:
                self._note_moved(Moved(request, number, caller.name, None), callers)
        elif recorded != caller.name and not callers.are_same(recorded, caller.name):
            self._note_moved(Moved(request, number, caller.name, recorded), callers)
        # In an arm, a caller makes calls that another arm recorded; and some make several at the same time.
        elif not (branches or caller.is_concurrent) and callers.recorded.histories.get(
            number, ""
        ) not in (history_text(history), UNKNOWN):
            self._note_moved(Moved(request, number, caller.name, caller.name), callers)

    def take_back(self, request: ScopedRequest, caller: str, number: int) -> None:
        """Forget a draw whose number was released: its call failed, or will be made again."""
        path, digest = request
        last = self._last.get((path, caller))
        if last is not None and (last.request, last.number) == (digest, number):
            self._last[path, caller] = _Step(0, last.before, "", -1)

    def _note_moved(self, moved: Moved, callers: Callers) -> None:
        self.moved.append(moved)
        self._concerned.setdefault(moved.request, callers)
