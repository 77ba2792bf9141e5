"""A line on the terminal that shows what is under way while the program prints nothing."""

from __future__ import annotations

import _thread
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

SILENCE = 2  # seconds without output, before the line is shown
PERIOD = 1  # second, after which it is drawn again
ERASE = b"\r\x1b[K"  # to the beginning of the line, which is cleared (ECMA-48, CR and EL)
NEWLINE = b"\n"


# The program's writes have to erase the line before they reach the terminal. Python's own streams write by their raw
# file, whose `write` is replaced: the streams stay the objects that they are, and text, bytes and unbuffered output
# all pass there. Rejected: streams of llmcall's in their place, which a program may tell apart; a pipe in place of the
# terminal, which is none; and a region of the screen that does not scroll, which stays after a kill.
#
# What does not pass there is output of C code and of child processes. So nothing is shown while there are children,
# while a prompt waits for an answer, or in a terminal that shows more than lines (curses).
#
# No lock: a fork could leave it taken in the child. The thread looks after each drawing whether a write came between.
class StatusLine:
    """A line on standard error, which the next write of the program or of llmcall erases.

    :param words: returns its text; empty shows none.
    :param file: the descriptor of the terminal.
    """

    def __init__(self, words: Callable[[], str], file: int) -> None:
        self._words = words
        self._file = file
        self._is_shown = False
        self._is_over = False
        self._is_prompting = False
        self._written_at = time.monotonic()
        self._ends: dict[str, bytes] = {}  # by stream, the last byte that it wrote
        for stream in ("__stdout__", "__stderr__"):
            self._watch(stream)
        sys.addaudithook(self._note_prompt)
        # Not by threading: a program may wait until no other thread is left.
        _thread.start_new_thread(self._run, ())

    def erase(self) -> None:
        """Erase the line, if it is shown."""
        if self._is_shown:
            self._is_shown = False
            self._write(ERASE)

    def end(self) -> None:
        """Erase the line, and stop showing it."""
        self._is_over = True
        self.erase()

    def _watch(self, name: str) -> None:
        """Note what a stream writes to a terminal."""
        stream = getattr(sys, name)
        with contextlib.suppress(AttributeError, OSError, ValueError):
            if os.isatty(stream.fileno()):
                raw: Any = getattr(stream.buffer, "raw", stream.buffer)
                write = raw.write

                def noted(data: Any) -> Any:
                    self.erase()
                    self._written_at = time.monotonic()
                    self._ends[name] = bytes(data[-1:]) or self._ends.get(name, NEWLINE)
                    return write(data)

                raw.write = noted

    def _note_prompt(self, event: str, details: tuple[object, ...]) -> None:
        """Note when ``input`` starts and stops waiting for a line."""
        if event == "builtins.input":
            self._is_prompting = True
            self.erase()
        elif event == "builtins.input/result":
            self._is_prompting = False

    def _run(self) -> None:
        while not self._is_over:
            time.sleep(PERIOD)
            with contextlib.suppress(OSError):
                if self._may_show():
                    self._draw(self._words())

    def _may_show(self) -> bool:
        is_silent = time.monotonic() - self._written_at >= SILENCE
        is_at_begin = all(end == NEWLINE for end in self._ends.values())
        if self._is_over or self._is_prompting or not (is_silent and is_at_begin):
            return False
        return shows_lines(self._file) and not _has_children()

    def _draw(self, words: str) -> None:
        if not words:
            return
        columns = shutil.get_terminal_size().columns
        self._is_shown = True
        self._write(ERASE + words[: columns - 1].encode("ascii", "replace"))
        if not self._is_shown or self._is_over:  # a write came between
            self._write(ERASE)

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._file, data)


def shows_lines(file: int) -> bool:
    """Return whether a file is a terminal that shows lines to a process in the foreground."""
    try:
        import termios
    except ImportError:  # Windows
        return False
    if not os.isatty(file) or os.environ.get("TERM") in (None, "dumb"):
        return False
    try:
        modes = termios.tcgetattr(file)[3]
        is_in_foreground = os.tcgetpgrp(file) == os.getpgrp()
    except (OSError, termios.error):  # it is not the terminal that controls the process
        return False
    return is_in_foreground and bool(modes & termios.ECHO and modes & termios.ICANON)


def _has_children() -> bool:
    """Return whether the process has child processes, which may write to its terminal."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
