"""The replay of identical requests, compared with the recording: who asks what, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .position import Branches

if TYPE_CHECKING:
    from .callers import Caller
    from .draw_numbers import Callers, ScopedRequest


class Moved(NamedTuple):
    """A call that a caller made otherwise than in the recording.

    :param request: its scope path, and the digest of its request.
    :param number: of its draw.
    :param caller: made it now.
    :param recorded: the caller that made it in the recording; ``None`` if the recording names none; ``caller`` itself,
        if it did so in another order.
    """

    request: ScopedRequest
    number: int
    caller: str
    recorded: str | None


# What counts as the same is a decision.
#
# Callers that share identical requests of a scope are compared by these requests alone: the file names the callers of
# no others. A caller that asks less than in the recording got its own answers, and says nothing about the others'; if
# another one took its work, that one asks more. So a call differs if another caller made it in the recording, or if
# its caller made it there before one that it has repeated by now. To compare all that a caller asked was rejected:
# a replay of a part of the program, and one in which a caller ends early, would be called inexact.
#
# A request that the recording knows of one caller alone has no names in the file. Two callers of it now are a
# difference, unless both are threads or processes that opened the scope themselves, and followed one another: then
# the order of the calls tells them apart, now and in the recording.
class ReplayedCallers:
    """The callers of a replay, compared call by call with those of its recording.

    The methods are called with the lock of the draws.

    :ivar moved: the calls that callers made otherwise, in the order of the replay.
    """

    def __init__(self) -> None:
        self.moved: list[Moved] = []
        self._concerned: dict[ScopedRequest, Callers] = {}
        # By scope path, branches, caller and the arm that recorded: the last place of a call in the recording
        # that the caller came to, and its request.
        self._last: dict[tuple[str, Branches, str, str], tuple[int, ScopedRequest, Callers]] = {}

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
        recorded = callers.recorded.callers.get(number)
        if recorded is None:
            if not callers.recorded.callers and callers.are_told_apart:
                self._note_moved(Moved(request, number, caller.name, None), callers)
            return
        if recorded != caller.name and not callers.are_same(recorded, caller.name):
            self._note_moved(Moved(request, number, caller.name, recorded), callers)
            return
        if caller.is_concurrent:
            return
        place, arm = callers.recorded.places[number]
        step = request[0], branches, caller.name, arm
        last = self._last.get(step)
        if last is None or last[0] <= place:
            self._last[step] = place, request, callers
            return
        self._concerned.setdefault(last[1], last[2])
        self._note_moved(Moved(request, number, caller.name, caller.name), callers)

    def _note_moved(self, moved: Moved, callers: Callers) -> None:
        self.moved.append(moved)
        self._concerned.setdefault(moved.request, callers)
