"""The manifest of a packed study: the command, the files, what was printed, and the versions."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ...errors import LLMCallError
from .replay import OWN_FOLDERS

NAME = "manifest.json"
VERSION = 1  # of the manifest's format
CODE, DATA, RECORDING, RESULT, ABOUT = "code", "data", "recording", "result", "about"
FOLDERS = {CODE: "code", DATA: "data", RECORDING: "recordings", RESULT: "results", ABOUT: ""}
LINE_DIGITS = 12  # of the digests of a recording's lines
# What no file's name may hold on Windows ("Naming Files, Paths, and Namespaces", its documentation).
NOT_ON_WINDOWS = re.compile(
    r'[<>:"|?*\x00-\x1f]|[. ](?:/|$)|(?:^|/)(?:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:\.[^/]*)?(?:/|$)',
    re.IGNORECASE,
)
UNSAFE = re.compile(r"(^|/)\.\.?(/|$)|^/|^[A-Za-z]:|//|[\x00]")


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
        folder = FOLDERS[self.role]
        return f"{folder}/{self.path}" if folder else self.path


class Recording(NamedTuple):
    """A recording of a package.

    :param path: in the project.
    :param records: how many it holds.
    :param around: whether it is opened around the program, as ``llmcall run`` recorded it.
    :param lines: the first digits of the SHA-256 of each line, by which a changed record is named.
    """

    path: str
    records: int
    around: bool
    lines: list[str]


@dataclass(frozen=True)
class Manifest:
    """What a package holds, and what its program did when it was packed.

    :ivar command: the script and its arguments, or ``-m``, a module and its arguments.
    :ivar environment: the variables that the program gets besides PATH, HOME and the temporary
        folder.
    :ivar files: all files but the manifest.
    :ivar folders: those that exist before the program runs, besides those of its files.
    :ivar recordings: those that the program is answered from.
    :ivar printed: the program's standard output.
    :ivar children: the names of the child processes that it started.
    :ivar served: for each model that answered, its days and fingerprints; ``None`` if unknown.
    :ivar asked: the models that the program asked for.
    :ivar answers: how many answers there are, and how many were cut, refused or asked again
        by an ``LLMCall``.
    :ivar cost: in USD, when the answers were made; ``None`` if no record says it.
    :ivar python: Python's version.
    :ivar packages: the versions of the distributions that the program imported.
    :ivar excluded: the project paths and patterns of results that differ every time.
    """

    command: list[str]
    environment: dict[str, str]
    files: list[PackedFile]
    folders: list[str]
    recordings: list[Recording]
    printed: str
    children: list[str]
    served: dict[str, Any]
    asked: list[str]
    answers: dict[str, int]
    cost: float | None
    python: str
    packages: dict[str, str] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return it as JSON."""
        data = {
            "llmcall_package": VERSION,
            **vars(self),
            "files": [{**each._asdict(), "file": each.file} for each in self.files],
            "recordings": [each._asdict() for each in self.recordings],
        }
        return json.dumps(data, ensure_ascii=False, indent=1) + "\n"

    def files_with_role(self, *roles: str) -> list[PackedFile]:
        """Return the files of some roles."""
        return [each for each in self.files if each.role in roles]


def is_excluded(path: str, excluded: Iterable[str]) -> bool:
    """Return whether a project path is left out.

    :param excluded: files and folders, or patterns such as ``*.log``.
    """
    return any(
        path == each or path.startswith(f"{each}/") or fnmatch.fnmatchcase(path, each)
        for each in excluded
    )


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a package.

    :raises LLMCallError: if it is damaged, of a newer version, or names a path outside the package.
    """
    path = folder / NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data.pop("llmcall_package")
        if version != VERSION:
            raise LLMCallError(
                f"{path} has version {version!r} of the format, and this version of llmcall reads "
                f"version {VERSION}; install the version of llmcall that requirements.txt names"
            )
        files = [_packed_file(each) for each in data.pop("files")]
        _check_paths(files)
        recordings = [
            Recording(_safe_path(each["path"]), each["records"], each["around"], each["lines"])
            for each in data.pop("recordings")
        ]
        folders = [_safe_path(each) for each in data.pop("folders")]
        manifest = Manifest(files=files, recordings=recordings, folders=folders, **data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LLMCallError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    _check_types(manifest, path)
    return manifest


def _check_paths(files: Sequence[PackedFile]) -> None:
    """Check that no two files have the same path when the program runs.

    :raises ValueError: if they do.
    """
    paths = [each.path.lower() for each in files if each.role not in (ABOUT, RESULT)]
    duplicates = sorted({path for path in paths if paths.count(path) > 1})
    if duplicates:
        raise ValueError(f"two files have the path {duplicates[0]!r}")


def _check_types(manifest: Manifest, path: Path) -> None:
    texts = [*manifest.command, *manifest.children, *manifest.excluded]
    texts += [manifest.printed, manifest.python]
    texts += [text for each in (manifest.environment, manifest.packages) for text in each.values()]
    if not manifest.command or not all(isinstance(text, str) for text in texts):
        raise LLMCallError(f"{path} is damaged: its command, printed text or versions are not text")


def _packed_file(entry: dict[str, Any]) -> PackedFile:
    path = _safe_path(entry["path"])
    if entry["role"] not in FOLDERS:
        raise ValueError(f"{entry['role']!r} is not a file's role")
    if OWN_FOLDERS & set(path.split("/")):
        raise ValueError(f"{path!r} lies where Python and llmcall write for themselves")
    return PackedFile(path, entry["role"], entry["sha256"], entry["bytes"])


def is_portable(path: str) -> bool:
    """Return whether a file's path is the same in a manifest and on every system."""
    try:
        path.encode()
        return _safe_path(path) == path and NOT_ON_WINDOWS.search(path) is None
    except ValueError:  # also half a character, of a name that is not UTF-8
        return False


def _safe_path(path: str) -> str:
    """Return a path below a folder, with ``/`` between its parts, as Windows may not write it.

    :raises ValueError: if it leads elsewhere.
    """
    posix_path = path.replace("\\", "/")
    if not posix_path or UNSAFE.search(posix_path):
        raise ValueError(f"the path {path!r} points outside the package")
    return str(PurePosixPath(posix_path))


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def line_digests(path: Path) -> list[str]:
    """Return the first digits of the SHA-256 of each line of a file."""
    with open(path, "rb") as file:
        return [hashlib.sha256(line.rstrip(b"\r\n")).hexdigest()[:LINE_DIGITS] for line in file]
