"""The commands of the programs that a recorded program starts."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Sequence

Command = str | bytes | os.PathLike[str]
KILLED = 128  # and the signal's number: the exit code that a shell gives a killed program
TELLS_OF_PYTHON = {"-V", "-VV", "--version", "-h", "-?", "--help"}  # without running code


def program_name(args: Command | Sequence[Command] | None) -> str:
    """Return the name of the program that a command runs; of Python, the name of its script or module. It
    is the same on every machine.
    """
    words = words_of(args)
    names = [os.path.basename(word) for word in words]
    if not names:
        return ""
    if not is_python(words):
        return names[0].removesuffix(".exe")
    arguments = itertools.takewhile(lambda name: name != "-c", names[1:])
    return next((name for name in arguments if not name.startswith("-")), "python")


def words_of(args: Command | Sequence[Command] | None) -> list[str]:
    """Return the words of a command, roughly if it is a shell's."""
    if isinstance(args, (str, bytes, os.PathLike)):
        return os.fsdecode(args).split()
    return [os.fsdecode(word) for word in args or ()]


def words_in(process: int) -> list[str]:
    """Return the words of the command that a process runs; none where the system does not tell."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as file:
        return list(map(os.fsdecode, file.read().split(b"\0")[:-1]))
    return []


def exit_code(returncode: int) -> int:
    """Return the exit code that a shell gives a process, by its ``returncode`` of ``subprocess``."""
    return KILLED - returncode if returncode < 0 else returncode


def tells_only(words: Sequence[str]) -> bool:
    """Return whether a Python's command runs no code."""
    return bool(TELLS_OF_PYTHON & {*words[1:2]})


def is_python(words: Sequence[str]) -> bool:
    """Return whether a command runs a Python."""
    return bool(words) and (
        os.path.basename(words[0]).lower().startswith("python") or words[0] == sys.executable
    )
