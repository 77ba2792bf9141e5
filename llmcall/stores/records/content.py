"""The content of a file of records."""

from __future__ import annotations

import os
from contextlib import suppress

from .line import refuse_folder


def content_of(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file, empty without the file.

    :raises CacheError: if it is a folder.
    """
    refuse_folder(path)
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read()
    return b""
