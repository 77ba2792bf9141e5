"""The output of the commands, escaped where the terminal or pipe has no character for it."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

HANDLER = "llmcall.escape"


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Return characters that an encoding lacks as JSON escapes them, which is right in JSON, too."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(HANDLER, _escape)


@contextmanager
def escaping() -> Iterator[None]:
    """Escape in a block, instead of failing, what standard output has no character for."""
    output = sys.stdout
    if not isinstance(output, io.TextIOWrapper) or output.errors != "strict":
        yield
        return
    output.reconfigure(errors=HANDLER)
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            output.reconfigure(errors="strict")


def discard_unwritten() -> None:
    """Discard what standard output cannot take, such as on a full disk: Python would try to write it
    again at its end, and exit with the code 120.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_terminal() -> bool:
    """Return whether standard output is a terminal; a closed one is none."""
    return sys.stdout is not None and sys.stdout.isatty()


def echo(
    message: Any = "", *, nl: bool = True, err: bool = False, color: bool | None = None
) -> None:
    """Print a text or bytes to standard output, or to standard error.

    ``click.echo`` does so, too, but writes UTF-8 where the output is said to be ASCII.
    """
    click.echo(message, file=sys.stderr if err else sys.stdout, nl=nl, color=color)
