"""A test as the owner of a cassette."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from ...stores.cassettes.replay_log import SortKey
from ...stores.cassettes.reports import Owner

CURRENT_TEST = "PYTEST_CURRENT_TEST"


class TestOwner(Owner):
    """A test of the pytest plugin, which reports the use itself, since other tests may use the file, too.

    :param bypasses_cache: ``True`` if this run requests everything anew.
    :param earlier_calls: the first calls of the tests that have passed.
    """

    writes = False
    raises_refusals = False  # a failed test reports its own error
    knows_use = False

    def __init__(self, bypasses_cache: bool, earlier_calls: Mapping[str, SortKey]) -> None:
        self.bypasses_cache = bypasses_cache
        self.earlier_calls = earlier_calls

    def note_passed(self) -> None:
        """Let the file be written, since the test passed."""
        self.writes = self.raises_refusals = True

    def place(self) -> str:
        return "for this test by the pytest plugin; remove one of the two"

    def how_to_record(self, path: Path, mode: str) -> str:
        return recording_command(mode)


def recording_command(mode: str) -> str:
    """Return the command that records the running test."""
    test = os.environ.get(CURRENT_TEST, "").rpartition(" (")[0]
    one_process = "-n 0 " if "PYTEST_XDIST_WORKER" in os.environ else ""
    return f"pytest {one_process}--llm-record={mode} {shlex.quote(test) if test else ''}".rstrip()
