"""A copy of a project, in which its program runs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from . import scratch

# What the program does not get: version control, environments and caches; and .env, which holds keys.
LEFT_OUT = frozenset({".env", ".git", ".hg", ".llmcall", ".svn", "__pycache__", "node_modules"})
CACHES = re.compile(r"\.(mypy|pytest|ruff)_cache|\.ipynb_checkpoints|\.tox|\.nox")


def is_left_out(path: Path) -> bool:
    """Return whether a file or folder is not for the program."""
    is_environment = (path / "pyvenv.cfg").exists()
    is_cache = CACHES.fullmatch(path.name) is not None
    is_scratch = path.name.endswith(scratch.SUFFIX)
    return path.name in LEFT_OUT or is_environment or is_cache or is_scratch


class ProjectCopy:
    """Copies a project without what its program does not need.

    :param project: the original folder.
    :param added: project paths that are copied in any case.
    """

    def __init__(self, project: Path, added: Collection[str]) -> None:
        self._project = project
        self._added = {
            path.as_posix()
            for each in added
            for path in (PurePosixPath(each), *PurePosixPath(each).parents)
        }

    def make(self, folder: Path) -> None:
        """Copy the project into a new folder."""
        folder.mkdir()
        for root, folders, names in os.walk(self._project, followlinks=True):
            parent = Path(root)
            links = [parent / name for name in folders if self._is_outside(parent / name)]
            folders[:] = [name for name in folders if self._is_followed(parent / name)]
            for name in names:
                path = parent / name
                if self._is_outside(path):
                    links.append(path)
                elif self._is_copied(path) and path.is_file():
                    target = folder / path.relative_to(self._project)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, target)
            for link in links:  # what the program opens there is seen, and stops it
                target = folder / link.relative_to(self._project)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(link.resolve())
            for name in folders:
                (folder / parent.relative_to(self._project) / name).mkdir(
                    parents=True, exist_ok=True
                )

    def _is_outside(self, path: Path) -> bool:
        """Return whether a path leads out of the project, and the author did not name it."""
        is_inside = path.resolve().is_relative_to(self._project)
        return self._is_copied(path) and not is_inside and not self._is_added(path)

    def _is_followed(self, path: Path) -> bool:
        """Return whether a folder is copied: a link is not if it leaves the project or leads back."""
        if not self._is_copied(path):
            return False
        real = path.resolve()
        leads_back = path.is_symlink() and any(real == each.resolve() for each in path.parents)
        return not self._is_outside(path) and not leads_back

    def _is_added(self, path: Path) -> bool:
        return path.relative_to(self._project).as_posix() in self._added

    def _is_copied(self, path: Path) -> bool:
        if self._is_added(path):
            return True
        return not is_left_out(path)
