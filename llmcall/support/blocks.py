"""Blocks that a program opens with ``with``, and a word to the one that forgot to."""

from __future__ import annotations

import sys

from .notices import warn_once


class Block:
    """A context manager that a program makes, and that does nothing until it is entered.

    :ivar written: the code that made it, until it is entered; empty if it may go unused.
    """

    written = ""

    def __del__(self) -> None:
        # As the interpreter ends, nothing can be logged.
        if self.written and not sys.is_finalizing():
            warn_once(
                f"{self.written} was never entered, so it did nothing. Write 'with {self.written}:' "
                "and indent the code that it applies to"
            )
