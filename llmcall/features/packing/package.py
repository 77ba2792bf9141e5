"""The manifest of a packed study (the command, the files, what was printed, the versions), and the archive it is in."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ...errors import LLMCallError
from ...keys.request import Data
from ...support.display import counted, money

NAME = "manifest.json"
DISTRIBUTION = "llmcall-sim"
VERSION = 3  # of the manifest's format
CODE, DATA, RECORDING, RESULT, ABOUT = "code", "data", "recording", "result", "about"
FOLDERS = {CODE: "code", DATA: "data", RECORDING: "recordings", RESULT: "results", ABOUT: ""}
# A path outside the package, or to compiled code that Python would run instead of the visible source
UNSAFE = re.compile(r"(^|/)(\.\.?|__pycache__)(/|$)|^/|^[A-Za-z]:|//|[\\\x00]|^$")


class PackedFile(NamedTuple):
    """A file of a package.

    :param path: its path in the project, with ``/`` between folders.
    :param role: ``code``, ``data``, ``recording``, ``result``, or ``about`` for a file that the
        program does not use.
    :param sha256: its digest in hexadecimal digits.
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


class Pruned(NamedTuple):
    """The records of a recording that no call of the program used, and that were left out.

    :param records: their number.
    :param of: the number of the recording's records.
    :param cost: their cost in US dollars; ``None`` if it is not recorded.
    """

    records: int
    of: int
    cost: float | None


@dataclass(frozen=True)
class Manifest:
    """The manifest of a package: its files, and its program's run when it was packed.

    :ivar command: the script and its arguments, or ``-m``, a module and its arguments.
    :ivar environment: the program's variables besides PATH, HOME and the temporary folder.
    :ivar folders: the folders that exist before the program runs, besides its files' folders.
    :ivar printed: the program's standard output.
    :ivar python: Python's version.
    :ivar packages: the versions of the distributions that the program imported, but for llmcall's, which is that
        of the wheel.
    :ivar unused: for each recording that is packed whole, the number of unused records.
    :ivar pruned: for each recording of which records were left out, how many.
    :ivar evidence: by the name of a result or the printed text: what became of it with exchanged answers.
    :ivar files: all files but the manifest.
    """

    command: list[str]
    environment: dict[str, str]
    folders: list[str]
    printed: str
    python: str
    packages: dict[str, str]
    unused: dict[str, int]
    pruned: dict[str, Pruned]
    evidence: dict[str, str] = field(default_factory=dict)
    files: list[PackedFile] = field(default_factory=list)

    def text(self) -> str:
        """Return it as JSON."""
        files = [{**file._asdict(), "file": file.file} for file in self.files]
        pruned = {path: numbers._asdict() for path, numbers in self.pruned.items()}
        data = {"llmcall_package": VERSION, **vars(self), "pruned": pruned, "files": files}
        return json.dumps(data, ensure_ascii=False, indent=1) + "\n"

    def files_with_role(self, *roles: str) -> list[PackedFile]:
        """Return the files of some roles."""
        return [file for file in self.files if file.role in roles]

    @property
    def pruned_words(self) -> tuple[str, ...]:
        """Return in words how many records of each recording were left out."""
        return tuple(
            f"{path}: {pruned.records:,} of {counted(pruned.of, 'recorded answer')} were left out (--prune), whose "
            f"cost {'was not recorded' if pruned.cost is None else f'was {money(pruned.cost)}'}"
            for path, pruned in self.pruned.items()
        )

    @property
    def recordings(self) -> list[str]:
        """Return the paths of the recordings in the project."""
        return [file.path for file in self.files_with_role(RECORDING)]


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
                f"{path} has version {version!r} of the format, but this llmcall reads version {VERSION}; "
                "install the version of llmcall that requirements.txt names"
            )
        files = [_packed_file(entry) for entry in data.pop("files")]
        _check_paths([file.path for file in files if file.role not in (ABOUT, RESULT)])
        _check_paths(data["folders"])
        pruned = {path: Pruned(**numbers) for path, numbers in data.pop("pruned").items()}
        manifest = Manifest(files=files, pruned=pruned, **data)
        texts = [*manifest.command, manifest.printed, *manifest.packages.values()]
        if not manifest.command or not all(isinstance(text, str) for text in texts):
            raise ValueError("the command, the printed text or a version is not a string")
        if DISTRIBUTION in [name.lower().replace("_", "-") for name in manifest.packages]:
            raise ValueError("it has a version of llmcall, which only the wheel has")
        for name, value in manifest.environment.items():
            if not name or "=" in name or b"\0" in os.fsencode(name + value):
                raise ValueError(f"the environment variable {name!r} has an invalid name or value")
        if not isinstance(manifest.unused, dict) or not isinstance(manifest.evidence, dict):
            raise ValueError("the unused records, or the evidence, are not a dict")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LLMCallError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return manifest


def _packed_file(entry: dict[str, Data]) -> PackedFile:
    packed = PackedFile(entry["path"], entry["role"], entry["sha256"], entry["bytes"])
    _check_paths([packed.file])
    return packed


def _check_paths(paths: Sequence[str]) -> None:
    """Check that paths stay inside the package, and that no two are equal on any system."""
    for path in paths:
        if UNSAFE.search(path):
            raise ValueError(f"the path {path!r} points outside the package")
    if len({path.lower() for path in paths}) < len(paths):
        raise ValueError("two files have the same path")


def file_digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # the earliest time in a ZIP file
MODE = 0o644


def write_zip(folder: Path, name: str, target: Path) -> None:
    """Write a package's files, sorted, into a ZIP file with one folder.

    :param name: the name of that folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zip_entry(f"{name}/{path.relative_to(folder).as_posix()}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.file_size = path.stat().st_size  # decides whether the entry needs ZIP64
            with open(path, "rb") as source, archive.open(entry, "w") as packed:
                shutil.copyfileobj(source, packed)


def zip_entry(path: str) -> zipfile.ZipInfo:
    """Return a file's entry, the same on every system and day."""
    entry = zipfile.ZipInfo(path, FIRST_DAY)
    entry.external_attr = (stat.S_IFREG | MODE) << 16
    entry.create_system = 3  # Unix
    return entry


def unpack_zip(file: Path, folder: Path) -> Path:
    """Unpack a package below a folder, and return the package's own folder.

    :raises LLMCallError: if an entry is a link or leads out of the folder, or if the disk has too
        little room (nothing is unpacked); if the file is damaged or is not a package.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            for entry in entries:
                _check_entry(file, entry)
            size, free = sum(entry.file_size for entry in entries), shutil.disk_usage(folder).free
            if size > free:
                raise LLMCallError(
                    f"{file} needs {size:,} bytes, but {folder} has room for {free:,}; nothing was unpacked"
                )
            archive.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise LLMCallError(f"{file} is not a readable ZIP file: {error}") from error
    manifests = sorted(folder.glob(NAME)) + sorted(folder.glob(f"*/{NAME}"))
    if len(manifests) != 1:
        raise LLMCallError(f"{file} contains {len(manifests)} {NAME} files; a package has one")
    return manifests[0].parent


def _check_entry(file: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    parts = name.replace("\\", "/").split("/")
    problem = ""
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "is a link or a device"
    elif ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name:
        problem = "points outside the folder"
    if problem:
        raise LLMCallError(f"{file}: the entry {name!r} {problem}; nothing was unpacked")
