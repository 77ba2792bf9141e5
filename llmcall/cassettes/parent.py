"""Whether the process that started this one had a cassette open, which knows nothing of calls here.

A forked process sees the cassette itself. A process that ``multiprocessing`` starts in another way is
told at its start, with the authentication key, as it is told about scopes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import CacheError
from ..system import multiprocessing_config
from .stack import innermost

CONFIG_NAME = "llmcall cassette"  # in what multiprocessing passes to the processes it starts

# The file of the cassette that was open when another process started this one; empty if none was,
# ``None`` until this process looks.
_parent_file: str | None = None


class _OpenFile:
    """The file of the open cassette, at the moment it is pickled for a new process; empty if none is."""

    def __reduce__(self) -> tuple[Any, ...]:
        cassette = innermost()
        # The command that opened it watches child processes by itself.
        is_passed_on = cassette is not None and not cassette.command
        return str, (os.path.realpath(cassette.path) if is_passed_on else "",)


def tell_processes() -> None:
    """Tell the processes that this one will start which cassette is open."""
    opened_in_parent()
    multiprocessing_config()[CONFIG_NAME] = _OpenFile()


def opened_in_parent() -> str:
    """Return the file of the cassette that was open when another process started this one; empty if
    none was.
    """
    global _parent_file
    if _parent_file is None:
        file = multiprocessing_config().get(CONFIG_NAME)
        _parent_file = file if isinstance(file, str) else ""
    return _parent_file


@contextmanager
def with_state_of_parent() -> Iterator[None]:
    """Forget for a block what this process was told at its start: it has the state of its parent."""
    global _parent_file
    file = opened_in_parent()
    _parent_file = ""
    try:
        yield
    finally:
        _parent_file = file


def check_parent() -> None:
    """Check that no call here is lost for a cassette of the process that started this one.

    :raises CacheError: if it would be.
    """
    file = opened_in_parent()
    if file:
        raise CacheError(
            f"the process that started this one has the cassette {file} open, which would neither answer "
            "nor record a call made here. Run the function with llmcall.map(…, executor=…), which does "
            "both, or open another cassette in this process"
        )
