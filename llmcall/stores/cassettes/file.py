"""The file of a cassette: its mode, what it held when the cassette opened, and its writing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...errors import CacheError
from ..records.reader import RecordFile, header_in
from ..records.writer import check_writable, content_digest, read_if_present, write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ...keys.request import Data
    from ..record import Record


class CassetteFile:
    """The file of a cassette for one time of being open.

    :param mode: one of ``CASSETTE_MODES``.
    :ivar real_path: its real path, once it was read; empty before.
    :ivar records: those that the mode reads.
    :ivar goes_on: whether the cassette goes on with what the file holds.
    :ivar is_written: whether it was written.
    """

    def __init__(self, path: Path, mode: str) -> None:
        self.path = path
        self.mode = mode
        self.real_path = ""
        self.records = RecordFile(b"", "")
        self.goes_on = False
        self.is_written = False
        self._digest = b""  # of its content when it was read; empty without a file
        self._process = os.getpid()

    def read(self) -> None:
        """Read it, as far as the mode does.

        :raises CacheCorruptError: if it is damaged, or no cassette, which no mode overwrites.
        :raises CacheError: if a newer version wrote it, or there is none and none can be written.
        """
        real_path = os.path.realpath(self.path)
        content = read_if_present(real_path)
        self._digest = content_digest(content)
        self.goes_on = bool(content) and self.mode != "rewrite"
        if self.goes_on:
            self.records = RecordFile(content, real_path)
        else:
            header_in(real_path)
            if self.may_record:
                check_writable(real_path)
        self.real_path = real_path

    @property
    def may_record(self) -> bool:
        """Return whether a call may ask for a missing answer and record it."""
        if self.mode == "once":
            return not self._digest or not self.records.header.is_complete
        return self.mode != "none"

    def is_of_this_process(self) -> bool:
        """Return whether this process opened it. A forked process leaves it to its parent."""
        return self._process == os.getpid()

    def check_can_gain(self) -> None:
        """Check that what a call would record is not lost.

        :raises CacheError: in a forked process, or if it cannot be written.
        """
        if not self.is_of_this_process():
            raise CacheError(
                f"{self.path} is recorded by the parent of this forked process, which does not see calls made here. "
                "Run the function with llmcall.map(…, executor=…), or open another cassette in this process"
            )
        check_writable(self.real_path)

    def write(
        self,
        settings: Mapping[str, Data],
        run: Mapping[str, Data] | None,
        records: list[Record],
        *,
        is_complete: bool,
        unanswered: int,
    ) -> None:
        """Write it, whole or not at all.

        :param settings: with ``run``, of its header.
        :param unanswered: the number of calls that failed.
        :raises CacheError: if another process wrote it, or a text looks like a credential.
        """
        header = self.records.header._replace(
            settings=settings, run=run, is_complete=is_complete, unanswered=unanswered
        )
        header = header.with_answers(record.cache_key for record in records)
        write(self.real_path, header, records, replaces=self._digest)
        self.is_written = True
