"""No call of a test reaches a model, unless it is recorded or the test is live."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from ..errors import CacheMissError
from ..replay.guards import guards

if TYPE_CHECKING:
    from ..cassettes.current import Tape

__all__ = ["OPTION", "Network"]

OPTION = "--llm-record"


class Network:
    """Stand between the calls of all clients and their models, from :meth:`close` to :meth:`open`.

    Clients that never leave the process may go on: the scripted one and the one of a local model.

    :param recording: whether calls may be recorded; then those that have a cassette reach the model.
    :ivar live: whether the test or fixture that runs now may reach the model.
    :ivar test: the node identifier of the test that runs now.
    """

    def __init__(self, *, recording: bool) -> None:
        self.live = False
        self.test = ""
        self._recording = recording

    def close(self) -> None:
        """Check every call that no record answers.

        The cassettes that code opens itself may record, so neither they nor a cache mode can say no to all calls.
        """
        guards.append(self._check)

    def open(self) -> None:
        """Check no more."""
        guards.remove(self._check)

    def _check(self, client: object, tape: Tape | None) -> None:
        __tracebackhide__ = True
        has_leave = self._recording and tape is not None
        if self.live or has_leave or _stays_inside(client):
            return
        raise CacheMissError(self._unmarked() if tape is None else self._unrecorded(tape.cassette.path))

    def _unmarked(self) -> str:
        return (
            "this test has no cassette, and without one its calls reach no model. Mark it with @pytest.mark.llm and "
            f"record it with {self.command('once')}; or let it reach the model with @pytest.mark.llm(live=True); or "
            "use llmcall.testing.ScriptedClient, whose answers are written in the test"
        )

    def _unrecorded(self, path: Any) -> str:
        return f"no answer is recorded in {path}, and nothing is recorded in this run; {self.command('once')} does"

    def command(self, mode: str) -> str:
        """Return the command that records the test that runs now."""
        return f"pytest {OPTION}={mode} {shlex.quote(self.test)}".rstrip()


def _stays_inside(client: object) -> bool:
    from ..clients.local import LocalClient
    from ..testing import ScriptedClient

    return isinstance(client, (LocalClient, ScriptedClient))
