"""The commands of the programs that a recorded program starts."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256

from ..support import secrets
from ..support.data import without_surrogates
from ..support.normalizers import NORMALIZERS

Command = str | bytes | os.PathLike[str]
KILLED = 128  # and the signal's number: the exit code that a shell gives a killed program
WITH_VALUE = "cmWX"  # options of Python, of which the first two name what it runs
SHELL, SHELLS = "sh", ("sh", "bash", "dash", "zsh", "ksh")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
SUBSTITUTION = re.compile(r"[$`]")
# A program's path in a shell's command, without quotation or substitution
PROGRAM = re.compile(r"[\w./~+@:\\-]+")
TEMPORARY_PATH = re.compile(NORMALIZERS["temporary_paths"])
TEMPORARY = "temporary"  # takes the place of a temporary file's name
# The variables that number the processes of one job: MPICH's and Intel's, Open MPI's, and Slurm's.
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
DIGEST_DIGITS = 8
TELLS_OF_PYTHON = {"-V", "-VV", "--version", "-h", "-?", "--help"}  # without running code


def program_name(args: Command | Sequence[Command] | None) -> str:
    """Return the file name of the program that a command runs: for Python, the script or module. It is the
    same on every machine and has no word of the arguments.
    """
    words = words_of(args)
    if not words:
        return ""
    if not is_python(words):
        return _file_name(words[0]).removesuffix(".exe")
    return _file_name(_script(words[1:]))


def _file_name(path: str) -> str:
    if _counted_path(path) == TEMPORARY:
        return TEMPORARY
    return without_surrogates(os.path.basename(path))  # one that is not UTF-8 cannot be written


def _counted_path(path: str) -> str:
    """Return a word as it is in every run and on every machine: a path in the working directory, or without its folder;
    without temporary paths in it.
    """
    if not os.path.isabs(path):
        return TEMPORARY_PATH.sub(
            lambda match: _counted_path(match[0]) if os.path.isabs(match[0]) else TEMPORARY, path
        )
    is_temporary = TEMPORARY_PATH.match(path)
    with contextlib.suppress(OSError, ValueError):  # another drive of Windows
        relative = os.path.relpath(path)
        # In a folder such as /tmp itself, any name may be temporary.
        is_in_project = not is_temporary or TEMPORARY_PATH.match(os.getcwd())
        if is_in_project and not relative.startswith(os.pardir):
            return relative
    return TEMPORARY if is_temporary else os.path.basename(path)


def _script(arguments: Sequence[str]) -> str:
    """Return the script or module that a Python runs, or the name of Python itself."""
    rest = iter(arguments)
    for argument in rest:
        if argument == "-" or not argument.startswith("-"):
            return "python" if argument == "-" else argument
        if argument.startswith("--"):
            continue
        for index, option in enumerate(argument[1:], 2):
            if option in WITH_VALUE:
                value = argument[index:] or next(rest, "python")
                if option == "m":
                    return value
                if option == "c":
                    return "python"
                break
    return "python"


def caller_of(
    args: Command | Sequence[Command] | None, environment: Mapping[str, str] | None = None
) -> str:
    """Return what identifies a program that is started: its name, a digest of its arguments, and its rank.

    Assignments before the command and values that look like credentials are left out; temporary paths and the folders
    of absolute ones are not in the digest.

    :param environment: of the program, with the rank that MPI or Slurm gives it.
    """
    name = program_name(args)
    words = _counted(_without_assignments(words_of(args)))
    digest = sha256(os.fsencode("\0".join([name, *words]))).hexdigest()[:DIGEST_DIGITS]
    given = environment or {}
    rank = next((given[variable] for variable in RANKS if given.get(variable, "").isdigit()), None)
    return f"{name} {digest}" if rank is None else f"{name} {digest} rank {rank}"


def _without_assignments(words: Sequence[str]) -> list[str]:
    """Return the arguments of a command, without the assignments of a shell or of ``env`` in them."""
    program, arguments = os.path.basename(words[0]) if words else "", list(words[1:])
    if program == "env":
        return list(itertools.dropwhile(ASSIGNMENT.match, arguments))
    if program in SHELLS:
        for index, word in enumerate(arguments):
            if not word.startswith("-"):
                return [*arguments[:index], *_shell_words(word), *arguments[index + 1 :]]
    return arguments


def _counted(words: Iterable[str]) -> Iterator[str]:
    """Yield the arguments that count, without what differs between machines or may be secret."""
    is_secret = False
    for word in words:
        option, is_assigned, value = word.rpartition("=")
        names_secret = secrets.names_credential(
            (option if is_assigned else word).lstrip("-"), include_ambiguous=True
        )
        if word.startswith("-") and not is_assigned:
            is_secret = names_secret
            yield word
            continue
        if not (is_secret or (is_assigned and names_secret) or secrets.find(word)):
            yield option + is_assigned + _counted_path(value)
        is_secret = False


def words_of(args: Command | Sequence[Command] | None) -> list[str]:
    """Return the words of a command, for a shell's without leading assignments. If its program is unknown,
    the first word is the shell.
    """
    if not isinstance(args, (str, bytes, os.PathLike)):
        return [os.fsdecode(word) for word in args or ()]
    command = os.fsdecode(args)
    words = _shell_words(command)
    before = command[: command.find(words[0])] if words else ""
    is_known = bool(words) and PROGRAM.fullmatch(words[0]) and not SUBSTITUTION.search(before)
    return words if is_known else [SHELL, *words]


def _shell_words(command: str) -> list[str]:
    """Return the words and signs of a shell's command, without assignments where a command may stand."""
    lexer = shlex.shlex(command.replace("\n", ";"), posix=os.name != "nt", punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    is_first = True  # word of a command
    with contextlib.suppress(ValueError):  # an open quotation mark
        for word in lexer:
            if is_first and (word == "export" or ASSIGNMENT.match(word)):
                continue
            is_first = not word.strip(";&|()")
            if words or not is_first:
                words.append(word)
    return words


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
