"""The ZIP file of a packed study: its writing, and its unpacking below a folder."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path

from ...errors import LLMCallError
from .package import NAME

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
