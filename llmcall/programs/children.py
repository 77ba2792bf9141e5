"""The watch over child processes, whose calls are not recorded."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

from ..support.sender import is_llmcalls
from .replacing import replace

EVENTS = frozenset(
    {"os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"}
)
MULTIPROCESSING = "multiprocessing"


def watch_children(undo: contextlib.ExitStack, note: Callable[[str], object]) -> None:
    """Note the child processes that this process starts, until it ends.

    Python never removes an audit hook, so only ``llmcall run``, whose process is the program's, uses this.

    :param undo: gets the callback that ends what can be ended.
    :param note: gets the name of the program that a child process runs, or of what started it.
    """
    from multiprocessing.process import BaseProcess

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event in EVENTS and not is_llmcalls():
            # Only the program is named: a command line may hold a key. Windows may not know its name.
            program = args[0] if event in ("subprocess.Popen", "os.posix_spawn") else None
            note(os.path.basename(os.fsdecode(program or event)))

    def start(start_process: Callable[..., Any], process: Any) -> None:
        if not is_llmcalls():
            note(MULTIPROCESSING)
        start_process(process)

    sys.addaudithook(audit)
    replace(undo, BaseProcess, "start", start)  # there is no audit event of a spawned one
