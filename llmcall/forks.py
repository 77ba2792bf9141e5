"""What is called when a process is forked, and when it ends.

A forked process must renew locks that a thread which stayed behind may have held, handles, and who is at work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

__all__ = ["after_fork_in_child", "around_fork", "at_exit"]

_before: list[Callable[[], object]] = []
_after: list[Callable[[], object]] = []
_in_child: list[Callable[[], object]] = []


def after_fork_in_child(function: Callable[[], object]) -> Callable[[], object]:
    """Call a function in every process that is forked from this one, in the order of registration."""
    _in_child.append(function)
    return function


def around_fork(before: Callable[[], object], after: Callable[[], object]) -> None:
    """Call one function before the process is forked, and one after it, in the parent and in the child."""
    _before.append(before)
    _after.append(after)


def at_exit(function: Callable[[], object]) -> None:
    """Call a function when this process ends.

    One that multiprocessing started ends with its main function, before its other threads: there it is called then, and
    once more, unless it was forked, when they have ended.
    """
    import atexit

    atexit.register(function)
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, function, exitpriority=0)


def _call_before() -> None:
    for function in _before:
        function()


def _call_after() -> None:
    for function in _after:
        function()


def _call_in_child() -> None:
    _call_after()
    for function in _in_child:
        function()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_call_before, after_in_parent=_call_after, after_in_child=_call_in_child)
