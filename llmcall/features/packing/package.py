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
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...errors import ArgumentError, LLMCallError

NAME = "manifest.json"
DISTRIBUTION = "llmcall-sim"
VERSION = 4  # of the manifest's format
CODE, DATA, RECORDING, RESULT, ABOUT = "code", "data", "recording", "result", "about"
FOLDERS = {CODE: "code", DATA: "data", RECORDING: "recordings", RESULT: "results", ABOUT: ""}
# Not copied: version control, environments and caches, and .env, which holds keys
LEFT_OUT = re.compile(
    r"\.(?:env|git|hg|svn|llmcall|tox|nox|DS_Store|ipynb_checkpoints|(?:mypy|pytest|ruff)_cache)"
    r"|__pycache__|node_modules"
)
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


@dataclass(frozen=True)
class Manifest:
    """The manifest of a package: its files, and its program's run when it was packed.

    :ivar command: the script and its arguments, or ``-m``, a module and its arguments.
    :ivar environment: the program's variables besides PATH, HOME and the temporary folder.
    :ivar folders: the folders that exist before the program runs, besides its files' folders.
    :ivar printed: the program's standard output.
    :ivar python: Python's version.
    :ivar packages: the versions of the distributions that the program imported.
    :ivar unused: for each recording that is packed whole, the number of unused records.
    :ivar pruned: for each recording of which records were left out, how many, in words.
    :ivar files: all files but the manifest.
    """

    command: list[str]
    environment: dict[str, str]
    folders: list[str]
    printed: str
    python: str
    packages: dict[str, str]
    unused: dict[str, int]
    pruned: dict[str, str]
    files: list[PackedFile]

    def write(self, package: Path) -> None:
        """Write it to a package, as JSON."""
        files = [{**file._asdict(), "file": file.file} for file in self.files]
        data = {"llmcall_package": VERSION, **vars(self), "files": files}
        text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
        (package / NAME).write_text(text, encoding="utf-8", newline="\n")

    def files_with_role(self, *roles: str) -> list[PackedFile]:
        """Return the files of some roles."""
        return [file for file in self.files if file.role in roles]

    @property
    def recordings(self) -> list[str]:
        """Return the paths of the recordings in the project."""
        return [file.path for file in self.files_with_role(RECORDING)]


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a package.

    :raises LLMCallError: if it is damaged, of another version, or names a path outside the package.
    """
    manifest = folder / NAME
    try:
        data = json.loads(manifest.read_text(encoding="utf-8"))
        version = data.pop("llmcall_package")
        if version != VERSION:
            raise LLMCallError(
                f"{manifest} has version {version!r} of the format, but this llmcall reads version {VERSION}; "
                "install the version of llmcall that requirements.txt names"
            )
        names = PackedFile._fields
        files = [PackedFile(*map(entry.__getitem__, names)) for entry in data.pop("files")]
        for path in [
            *data["folders"],
            *(path for file in files for path in (file.path, file.file)),
        ]:
            if UNSAFE.search(path):
                raise ValueError(f"the path {path!r} points outside the package")
        return Manifest(files=files, **data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LLMCallError(f"{manifest} is damaged: {type(error).__name__}: {error}") from error


def lay_out(package: Path, manifest: Manifest, folder: Path) -> None:
    """Make the folder in which a package's program runs."""
    folder.mkdir()
    for file in manifest.files:
        source = package / file.file
        if file.role not in (ABOUT, RESULT) and source.is_file():
            copy_file(source, folder / file.path)
    for path in manifest.folders:
        (folder / path).mkdir(parents=True, exist_ok=True)


def new_path(named: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a file or folder to make.

    :raises ValueError: if there is one.
    """
    path = Path(os.path.abspath(os.path.expanduser(named)))
    if os.path.lexists(path):
        raise ArgumentError(f"{path} already exists; remove it, or choose another name")
    return path


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes; make the folders."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)


def file_digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def zip_entry(path: str) -> zipfile.ZipInfo:
    """Return a file's entry, the same on every system and day."""
    entry = zipfile.ZipInfo(path, FIRST_DAY)
    entry.external_attr = (stat.S_IFREG | MODE) << 16
    entry.create_system = 3  # Unix
    return entry


def unpack_zip(file: Path, folder: Path) -> Path:
    """Unpack a package below a folder, and return the package's own folder.

    :raises LLMCallError: if an entry is a link, leads out of the folder or stands there twice, or if the disk has
        too little room (nothing is unpacked); if the file is damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            for entry in entries:
                _check_entry(file, entry, is_twice=archive.getinfo(entry.filename) is not entry)
            size, free = sum(entry.file_size for entry in entries), shutil.disk_usage(folder).free
            if size > free:
                raise LLMCallError(
                    f"{file} needs {size:,} bytes, but {folder} has room for {free:,}; nothing was unpacked"
                )
            archive.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise LLMCallError(f"{file} is not a readable ZIP file: {error}") from error
    manifests = [*folder.glob(NAME), *sorted(folder.glob(f"*/{NAME}"))]
    return manifests[0].parent if manifests else folder


def _check_entry(file: Path, entry: zipfile.ZipInfo, *, is_twice: bool) -> None:
    name = entry.orig_filename
    parts = name.replace("\\", "/").split("/")
    problem = ""
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "is a link or a device"
    elif ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name:
        problem = "points outside the folder"
    elif is_twice:
        problem = "stands there twice"
    if problem:
        raise LLMCallError(f"{file}: the entry {name!r} {problem}; nothing was unpacked")


def is_left_out(path: Path) -> bool:
    """Return whether a file or folder is not copied."""
    return bool(LEFT_OUT.fullmatch(path.name)) or (path / "pyvenv.cfg").exists()
