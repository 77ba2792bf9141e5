"""The manifest of a packed study: the command, the files, what was printed, and the versions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import LLMCallError

NAME = "manifest.json"
VERSION = 2  # of the manifest's format
CODE, DATA, RECORDING, RESULT, ABOUT = "code", "data", "recording", "result", "about"
FOLDERS = {CODE: "code", DATA: "data", RECORDING: "recordings", RESULT: "results", ABOUT: ""}
# A path that leads elsewhere, or to compiled code that Python would run in place of what is shown.
UNSAFE = re.compile(r"(^|/)(\.\.?|__pycache__)(/|$)|^/|^[A-Za-z]:|//|[\\\x00]|^$")


class PackedFile(NamedTuple):
    """A file of a package.

    :param path: in the project, with ``/`` between folders.
    :param role: ``code``, ``data``, ``recording``, ``result``, or ``about`` for a file that the
        program does not use.
    :param sha256: of its bytes, in hexadecimal digits.
    :param bytes: its size.
    """

    path: str
    role: str
    sha256: str
    bytes: int

    @property
    def file(self) -> str:
        """Return its path in the package."""
        return f"{FOLDERS[self.role]}/{self.path}".lstrip("/")


@dataclass(frozen=True)
class Manifest:
    """What a package holds, and what its program did when it was packed.

    :ivar command: the script and its arguments, or ``-m``, a module and its arguments.
    :ivar environment: the variables that the program gets besides PATH, HOME and the temporary
        folder.
    :ivar folders: those that exist before the program runs, besides those of its files.
    :ivar printed: the program's standard output.
    :ivar python: Python's version.
    :ivar packages: the versions of the distributions that the program imported.
    :ivar files: all files but the manifest.
    """

    command: list[str]
    environment: dict[str, str]
    folders: list[str]
    printed: str
    python: str
    packages: dict[str, str]
    files: list[PackedFile] = field(default_factory=list)

    def text(self) -> str:
        """Return it as JSON."""
        files = [{**each._asdict(), "file": each.file} for each in self.files]
        data = {"llmcall_package": VERSION, **vars(self), "files": files}
        return json.dumps(data, ensure_ascii=False, indent=1) + "\n"

    def files_with_role(self, *roles: str) -> list[PackedFile]:
        """Return the files of some roles."""
        return [each for each in self.files if each.role in roles]

    @property
    def recordings(self) -> list[str]:
        """Return the paths of the recordings in the project."""
        return [each.path for each in self.files_with_role(RECORDING)]


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a package.

    :raises LLMCallError: if it is damaged, of another version, or names a path outside the package.
    """
    path = folder / NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data.pop("llmcall_package")
        if version != VERSION:
            raise LLMCallError(
                f"{path} has version {version!r} of the format, and this version of llmcall reads version "
                f"{VERSION}; install the version of llmcall that requirements.txt names"
            )
        files = [_packed_file(each) for each in data.pop("files")]
        _check_paths([each.path for each in files if each.role not in (ABOUT, RESULT)])
        _check_paths(data["folders"])
        manifest = Manifest(files=files, **data)
        texts = [*manifest.command, manifest.printed, *manifest.packages.values()]
        if not manifest.command or not all(isinstance(text, str) for text in texts):
            raise ValueError("the command, the printed text or a version is no text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LLMCallError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return manifest


def _packed_file(entry: dict[str, Any]) -> PackedFile:
    packed = PackedFile(entry["path"], entry["role"], entry["sha256"], entry["bytes"])
    _check_paths([packed.file])
    return packed


def _check_paths(paths: Sequence[str]) -> None:
    """Check that some paths lie below a folder, each in a place of its own.

    :raises ValueError: if one does not.
    """
    for path in paths:
        if UNSAFE.search(path):
            raise ValueError(f"the path {path!r} points outside the package")
    if len({path.lower() for path in paths}) < len(paths):
        raise ValueError("two files have the same path")


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
