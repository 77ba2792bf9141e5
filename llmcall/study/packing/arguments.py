"""What a study is packed from: the program, files and variables that the caller names, checked."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from ...secrets import names_credential
from .project_copy import is_left_out
from .replay import Program, files_below

PYTHON = re.compile(r"(python|pypy)[\d.]*w?(\.exe)?", re.IGNORECASE)
NO_KEY = "none"
# Names of variables that usually hold a credential: PGPASSWORD, MYSQL_PWD, DB_PASS, LAB_TOKEN.
CREDENTIAL_ENDING = re.compile(
    r"(?:_pwd|(?:^|_)(?:pass|token|secret|key|credentials?)|passwd|password|passphrase)$",
    re.IGNORECASE,
)


def check_new(target: Path, archive: Path | None) -> None:
    """Check that nothing is overwritten.

    :raises ValueError: if it would be.
    """
    for path in (target, *([] if archive is None else [archive])):
        if os.path.lexists(path):
            raise ValueError(f"{path} exists already; remove it, or choose another name")
    if archive is not None and archive.is_relative_to(target):
        raise ValueError(f"the ZIP file {archive} would be in the package itself; put it elsewhere")


def program_of(project: Path, command: Sequence[str]) -> Program:
    """Return the program that a command names.

    :raises ValueError: if it names none.
    """
    if not command:
        raise ValueError("no program is named: give a script, or -m and a module")
    if PYTHON.fullmatch(os.path.basename(command[0])) and not (project / command[0]).is_file():
        raise ValueError(
            f"give the script alone, without {command[0]!r}: llmcall pack … -- SCRIPT [ARG…]"
        )
    if list(command) == ["-m"]:
        raise ValueError("-m needs the name of a module: llmcall pack … -- -m MODULE [ARG…]")
    program = Program.from_command(command)
    if program.is_module:
        return program
    return program._replace(name=project_paths(project, [program.name], "the script")[0])


def project_paths(
    project: Path, paths: Iterable[str | os.PathLike[str]], argument: str
) -> list[str]:
    """Return paths within the project, relative to it.

    :param argument: what names them, for messages.
    :raises ValueError: if one does not exist or lies elsewhere.
    """
    relative_paths = []
    for each in paths:
        path = Path(os.path.abspath(each))
        if not path.exists():
            raise ValueError(f"{argument}: {os.fspath(each)} does not exist")
        for folder in (project, Path.cwd()):
            if path.is_relative_to(folder):
                relative_paths.append(path.relative_to(folder).as_posix())
                break
        else:
            raise ValueError(
                f"{argument}: {os.fspath(each)} is not below the project {project}; run pack in the "
                "folder that holds everything"
            )
    return list(dict.fromkeys(relative_paths))


def exclusions(project: Path, patterns: Iterable[str]) -> list[str]:
    """Return project paths, and patterns of them, as the program's files are named.

    :raises ValueError: if one lies elsewhere.
    """
    normalized = []
    for each in patterns:
        pattern = posixpath.normpath(each.replace("\\", "/"))
        if os.path.isabs(pattern):
            pattern = Path(os.path.relpath(pattern, project)).as_posix()
        if pattern.split("/")[0] in (".", ".."):
            raise ValueError(f"--exclude: {each} is not below the project {project}")
        normalized.append(pattern)
    return normalized


def files_of(project: Path, paths: Iterable[str]) -> Iterator[str]:
    """Yield the files at some project paths, and below them those that are for the program."""
    for path in paths:
        if not (project / path).is_dir():
            yield path
            continue
        folder = project / path
        for each in files_below(folder):
            file = PurePosixPath(each)
            inner_paths = [folder / part for part in (file, *file.parents[:-1])]
            holds_keys = file.name.startswith(".env")
            if not holds_keys and not any(map(is_left_out, inner_paths)):
                yield (PurePosixPath(path) / file).as_posix()


def variables(env: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the names and values of the variables that the program gets.

    :raises ValueError: if one is not set.
    """
    for each in env:
        name, equals_sign, value = each.partition("=")
        is_credential = names_credential(name)
        if not equals_sign:
            if name not in os.environ:
                raise ValueError(f"--env {name}: the variable is not set")
            value = os.environ[name]
            is_credential = is_credential or CREDENTIAL_ENDING.search(name) is not None
        yield name, NO_KEY if is_credential else value
