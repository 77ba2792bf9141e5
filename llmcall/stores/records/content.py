"""The content of a file of records: in memory if it is small, else read where it stands."""

from __future__ import annotations

import hashlib
import os
import sys
import weakref
from collections.abc import Iterator
from io import BytesIO

from ...support.system import read_at
from .line import refuse_folder

# Bytes that are held. A process may have a thousand small files, and Windows replaces no file that is open.
MOST_HELD = sys.maxsize if sys.platform == "win32" else 2**25
PIECE = 2**20  # bytes that are read at once
LINES = 2**14  # bytes of some lines


class Content:
    """The bytes of a file. They stay the same when another file takes its place.

    :param data: the bytes.
    :ivar size: their number.
    """

    def __init__(self, data: bytes = b"") -> None:
        self._data = data
        self._file = -1
        self._last_piece = 0, b""
        self.size = len(data)

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Content:
        """Return the content of a file.

        :raises FileNotFoundError: if it does not exist.
        :raises CacheError: if it is a folder.
        """
        refuse_folder(path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= MOST_HELD:
                return cls(file.read())
            content = cls()
            content.size = size
            content._file = os.dup(file.fileno())
            weakref.finalize(content, os.close, content._file)
        return content

    def lines(self) -> Iterator[bytes]:
        """Yield the lines, each with its newline."""
        if self._file < 0:
            yield from BytesIO(self._data)
            return
        rest = b""
        for piece in self._pieces():
            *lines, rest = BytesIO(rest + piece)
            yield from lines
        yield rest

    def line(self, start: int) -> bytes:
        """Return the line that begins at a byte."""
        if self._file < 0:
            return self._data[start : self._data.find(b"\n", start) + 1 or None]
        piece_start, piece = self._last_piece  # most readers take one line after the other
        offset = start - piece_start
        if offset >= 0 and (end := piece.find(b"\n", offset) + 1):
            return piece[offset:end]
        length = LINES
        while True:
            piece = read_at(self._file, min(length, self.size - start), start)
            end = piece.find(b"\n") + 1
            if end or len(piece) < length:
                self._last_piece = start, piece
                return piece[: end or None]
            length *= 8

    def digest(self) -> bytes:
        """Return the SHA-256; empty for no content."""
        digest = hashlib.sha256(self._data)
        for piece in self._pieces():
            digest.update(piece)
        return digest.digest() if self.size else b""

    def _pieces(self) -> Iterator[bytes]:
        """Yield what is not held."""
        for start in range(0, self.size, PIECE) if self._file >= 0 else ():
            yield read_at(self._file, min(PIECE, self.size - start), start)


def content_of(path: str) -> Content:
    """Return the content of a file, empty without the file.

    :raises CacheError: if it is a folder.
    """
    try:
        return Content.of(path)
    except FileNotFoundError:
        return Content()
