"""The file that a cassette is written to."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..config import resolve as config
from ..errors import CacheError
from ..records.header import with_used_models
from ..records.writer import write
from ..system import folder_lock

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..types import Record


def content_of(path: str) -> bytes:
    """Return the bytes of a file; none if there is no file."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read()
    return b""


class OutputFile:
    """A cassette's file while it is recorded; it notices if another process writes it.

    :param path: as messages name it.
    :param file: its real path.
    :param content: the bytes that it holds now.
    """

    def __init__(self, path: str | os.PathLike[str], file: str, content: bytes) -> None:
        self._path = path
        self._file = file
        self._hash = hashlib.sha256(content)

    def write(
        self,
        header: dict[str, Any],
        records: Collection[Record],
        *,
        run: dict[str, Any] | None,
        complete: bool,
    ) -> None:
        """Write the file, whole or not at all.

        :param run: the options of ``llmcall run``, or ``None``.
        :param complete: whether the recording is complete.
        :raises CacheError: if another process wrote the file, or a text looks like a credential.
        """
        folder = os.path.dirname(self._file)
        os.makedirs(folder, exist_ok=True)
        with folder_lock(folder):
            if hashlib.sha256(content_of(self._file)).digest() != self._hash.digest():
                raise CacheError(
                    f"{self._path} was written by another process while it was being recorded here, so it is not "
                    "overwritten. The answers are in the disk cache: record again, one process at a time"
                )
            header = with_used_models(header, records)
            allow = config.settings().cassette_allow
            write(self._file, header, records, run=run, allow=allow, complete=complete)
            self._hash = hashlib.sha256(content_of(self._file))
