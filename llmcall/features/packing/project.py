"""The project that is packed: its copy, the paths and variables that its author names, and the wheel beside it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from ...errors import ArgumentError, LLMCallError
from ...support.secrets import names_credential
from .observed_run import PACKAGE, files_below
from .package import DISTRIBUTION, zip_entry

# Not copied: version control, environments and caches, and .env, which holds keys
LEFT_OUT = re.compile(
    r"\.(?:env|git|hg|svn|llmcall|tox|nox|DS_Store|ipynb_checkpoints|(?:mypy|pytest|ruff)_cache)"
    r"|__pycache__|node_modules"
)
# Names of variables that usually hold a credential: PGPASSWORD, MYSQL_PWD, DB_PASS, LAB_TOKEN
CREDENTIAL_ENDING = re.compile(
    r"(?:_pwd|(?:^|_)(?:pass|token|secret|key|credentials?)|passwd|password|passphrase)$",
    re.IGNORECASE,
)


def is_left_out(path: Path) -> bool:
    """Return whether a file or folder is not copied."""
    return bool(LEFT_OUT.fullmatch(path.name)) or (path / "pyvenv.cfg").exists()


def copy_project(source: Path, target: Path, project: Path) -> None:
    """Copy a folder of a project without the files that are left out.

    :param project: the whole project. The targets of links are copied, except outside the project:
        there the link stays, so that its use is seen and stops the packing.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        real = path.resolve()
        if is_left_out(path):
            continue
        if not real.is_relative_to(project):
            (target / path.name).symlink_to(real)
        elif path.is_dir() and not (path.is_symlink() and path.is_relative_to(real)):
            copy_project(path, target / path.name, project)
        elif path.is_file():
            shutil.copy2(path, target / path.name)


def project_paths(
    project: Path, paths: Iterable[str | os.PathLike[str]], argument: str
) -> list[str]:
    """Return paths within the project, relative to it, each once.

    :param argument: the argument that names them, for messages.
    :raises ValueError: if one does not exist or is outside the project.
    """
    relative_paths = []
    for named_path in paths:
        path = Path(os.path.abspath(os.path.expanduser(named_path)))
        if not path.exists():
            raise ArgumentError(f"{argument}: {os.fspath(named_path)} does not exist")
        if not path.is_relative_to(project):
            raise ArgumentError(
                f"{argument}: {os.fspath(named_path)} is not in the project {project}; run pack in the folder that "
                "contains everything"
            )
        relative_paths.append(path.relative_to(project).as_posix())
    return list(dict.fromkeys(relative_paths))


def checked_command(project: Path, command: Iterable[str]) -> list[str]:
    """Return a program's command, the script by its path in the project.

    :raises ValueError: if it names no program.
    """
    words = list(command)
    if not words or words == ["-m"]:
        raise ArgumentError(
            "the program is missing: give a script, or -m and a module, and its arguments"
        )
    if words[0] == "-m":
        return words
    return [*project_paths(project, words[:1], "the script"), *words[1:]]


def files_at(project: Path, paths: Iterable[str]) -> Iterator[str]:
    """Yield the files at some project paths and in the folders there, without those left out."""
    for path in paths:
        if not (project / path).is_dir():
            yield path
            continue
        for entry in sorted((project / path).iterdir()):
            if not is_left_out(entry) and not entry.name.startswith(".env"):
                yield from files_at(project, [entry.relative_to(project).as_posix()])


def environment_variables(env: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the names and values of the program's variables.

    :param env: ``NAME``, for its current value, or ``NAME=VALUE``.
    :raises ValueError: if a variable is not set.
    """
    for entry in env:
        name, equals_sign, value = entry.partition("=")
        is_credential = names_credential(name)
        if not equals_sign:
            if name not in os.environ:
                raise ArgumentError(f"--env {name}: the variable is not set")
            value = os.environ[name]
            is_credential = is_credential or CREDENTIAL_ENDING.search(name) is not None
        yield name, "none" if is_credential else value


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


def is_wheel(file: str) -> bool:
    """Return whether a file of a package, by its path there, is llmcall's wheel."""
    return file.startswith(f"{FILE_NAME}-")


def _distribution() -> Distribution:
    """Return llmcall's distribution, not a build's leftover in a checkout (llmcall_sim.egg-info)."""
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
