"""The wheel of llmcall in a package, for readers whose package index does not have llmcall."""

from __future__ import annotations

import base64
import hashlib
import zipfile
import zlib
from importlib.metadata import Distribution, distributions
from pathlib import Path

from ...errors import LLMCallError
from .package import zip_entry
from .replay import PACKAGE, files_below

DISTRIBUTION = "llmcall-sim"
FILE_NAME = DISTRIBUTION.replace("-", "_")
# The metadata files that are packed; the others are about this installation.
METADATA = ("METADATA", "entry_points.txt", "top_level.txt", "LICENSE", "licenses/LICENSE")
FORMAT = "Wheel-Version: 1.0\nGenerator: llmcall\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(folder: Path) -> str:
    """Write a wheel of this llmcall, installed or a checkout, and return the file's name.

    :raises LLMCallError: if llmcall is not installed.
    """
    name, files = _contents(_distribution())
    # Not compressed, so that the bytes do not depend on the version of zlib.
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, data in files.items():
            archive.writestr(zip_entry(path), data)
    return name


def has_own_code(wheel: Path) -> bool:
    """Return whether a wheel holds the code of this llmcall, and nothing else."""
    _, own = _contents(_distribution())
    try:
        with zipfile.ZipFile(wheel) as archive:
            entries = {entry.filename: entry.file_size for entry in archive.infolist()}
            entries = {name: size for name, size in entries.items() if not _is_about(name)}
            own = {name: data for name, data in own.items() if not _is_about(name)}
            sizes = {name: len(data) for name, data in own.items()}
            return entries == sizes and all(archive.read(name) == own[name] for name in own)
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        return False


def _is_about(name: str) -> bool:
    """Return whether a file of a wheel is about an installation, which differs between two of the same code."""
    folder, _, file = name.rpartition("/")
    return folder.endswith(".dist-info") and file != "entry_points.txt"


def is_wheel(file: str) -> bool:
    """Return whether a file of a package, by its path there, is llmcall's wheel."""
    return file.startswith(f"{FILE_NAME}-")


def _distribution() -> Distribution:
    """Return llmcall's distribution, and not what a build left in a checkout (llmcall_sim.egg-info)."""
    for distribution in distributions(name=DISTRIBUTION):
        if distribution.read_text("METADATA"):
            return distribution
    raise LLMCallError(
        "llmcall is not installed, so no wheel of it can be packed; install it: "
        f"python -m pip install -e {PACKAGE.parent}"
    )


def _contents(distribution: Distribution) -> tuple[str, dict[str, bytes]]:
    """Return a wheel's name and files, by their paths in it."""
    project = f"{FILE_NAME}-{distribution.version}"
    metadata = {name: distribution.read_text(name) for name in METADATA} | {"WHEEL": FORMAT}
    files = {
        f"{PACKAGE.name}/{path}": (PACKAGE / path).read_bytes() for path in files_below(PACKAGE)
    }
    files |= {
        f"{project}.dist-info/{name}": text.encode() for name, text in metadata.items() if text
    }
    record = f"{project}.dist-info/RECORD"
    lines = [_record_line(path, data) for path, data in files.items()]
    files[record] = "".join([*lines, f"{record},,\n"]).encode()
    return f"{project}-py3-none-any.whl", files


def _record_line(path: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"{path},sha256={digest},{len(data)}\n"
