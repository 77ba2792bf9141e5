"""Folders and files that pack and verify use while they work, and remove at the end."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".llmcall-scratch"  # a later pack leaves out what a killed one left in the project


@contextlib.contextmanager
def scratch_folder(target: Path | None = None) -> Iterator[Path]:
    """Make a folder for a block, and remove it afterwards; yield its real path.

    Programs run in the system's temporary folder, not in the project: some search the folders above
    them, for ``.env`` or ``.git``, and would find the author's.

    :param target: makes a hidden folder beside this path instead, for what will be moved there.
    """
    parent, prefix = (None, "") if target is None else (target.parent, f".{target.name}-")
    with tempfile.TemporaryDirectory(
        prefix=prefix, suffix=SUFFIX, dir=parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder).resolve()
