"""A package as one ZIP file: the same files give the same bytes, and unpacking writes nowhere else."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from pathlib import Path

from ...errors import LLMCallError
from . import scratch
from .manifest import NAME

FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # the earliest that a ZIP file can say
MODE = 0o644
LEVEL = 9


def write_zip(folder: Path, target: Path) -> None:
    """Write a package's files, sorted, into a ZIP file with one folder of the package's name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    partial = target.with_name(f".{target.name}{scratch.SUFFIX}")
    with zipfile.ZipFile(partial, "w") as archive:
        for path in paths:
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            entry = zipfile.ZipInfo(name, FIRST_DAY)
            entry.external_attr = (stat.S_IFREG | MODE) << 16
            entry.create_system = 3  # Unix, on every system
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.file_size = path.stat().st_size  # decides whether the entry needs ZIP64
            entry._compresslevel = LEVEL  # type: ignore[attr-defined]  # public from Python 3.13
            with open(path, "rb") as source, archive.open(entry, "w") as packed:
                shutil.copyfileobj(source, packed)
    os.replace(partial, target)


def unpack_zip(file: Path, folder: Path) -> Path:
    """Unpack a package below a folder; return the package's own folder there.

    :raises LLMCallError: if an entry is a link, is encrypted, stands twice, or has a path that leads
        out of the folder, or if there is no room for it; nothing is unpacked then. Also if the file
        is damaged or is not a package.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check(file, entries)
            _check_size(file, entries, folder)
            archive.extractall(folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise LLMCallError(f"{file} is not a readable ZIP file: {error}") from error
    manifests = sorted(folder.glob(NAME)) + sorted(folder.glob(f"*/{NAME}"))
    if len(manifests) != 1:
        raise LLMCallError(f"{file} contains {len(manifests)} {NAME} files; a package has one")
    return manifests[0].parent


def _check(file: Path, entries: list[zipfile.ZipInfo]) -> None:
    paths: set[str] = set()
    for entry in entries:
        name = entry.orig_filename
        parts = name.replace("\\", "/").split("/")
        path = "/".join(part for part in parts if part not in ("", ".")).lower()
        mode = entry.external_attr >> 16
        problem = ""
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            problem = "is a link or a device"
        elif ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name:
            problem = "points outside the folder"
        elif entry.flag_bits & 1:
            problem = "is encrypted"
        elif path in paths:
            problem = "occurs twice"
        if problem:
            raise LLMCallError(f"{file}: the entry {name!r} {problem}; nothing was unpacked")
        paths.add(path)


def _check_size(file: Path, entries: list[zipfile.ZipInfo], folder: Path) -> None:
    """Check that there is room for what is unpacked.

    :raises LLMCallError: if there is not.
    """
    size = sum(entry.file_size for entry in entries)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise LLMCallError(
            f"{file} has {size:,} bytes unpacked, and {folder} has room for {free:,}; nothing was unpacked"
        )
