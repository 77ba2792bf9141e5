"""Files of a project whose settings are read."""

from __future__ import annotations

import os
from pathlib import Path


def written(name: str, text: str) -> str:
    """Write a file into the working directory and return its path."""
    path = Path.cwd() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def written_anew(name: str, text: str) -> None:
    """Write a file again, so that its time differs however coarse the clock of the disk is."""
    path = written(name, text)
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
