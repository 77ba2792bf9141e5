"""The output of the commands; characters that the terminal or pipe lacks are escaped."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from shutil import get_terminal_size
from typing import Any

import click

from ..support.display import as_warning, coloured, has_colours, visible, visible_json, wrapped
from ..support.notices import logger

HANDLER = "llmcall.escape"


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Return JSON's escapes for characters that an encoding lacks; so JSON output stays valid."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(HANDLER, _escape)


@contextmanager
def escaping() -> Iterator[None]:
    """Escape the characters that standard output lacks, in a block; Python would raise an error, in the
    C locale, too, where its handler is ``surrogateescape``.
    """
    output = sys.stdout
    errors = getattr(output, "errors", None)
    if not isinstance(output, io.TextIOWrapper) or errors not in ("strict", "surrogateescape"):
        yield
        return
    output.reconfigure(errors=HANDLER)
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # a broken pipe, or a closed file
            output.reconfigure(errors=errors)


def discard_unwritten() -> None:
    """Discard output that cannot be written, such as on a full disk. Otherwise, Python would try again at its
    end and exit with 120.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_terminal(*, err: bool = False) -> bool:
    """Return whether standard output, or standard error, is open and a terminal."""
    stream = sys.stderr if err else sys.stdout
    return stream is not None and stream.isatty()


def fitted(text: str, *, err: bool = False) -> str:
    """Return a text wrapped at the width of the terminal, if the output is one."""
    return wrapped(text, get_terminal_size().columns) if is_terminal(err=err) else text


def shown_error(text: str) -> click.ClickException:
    """Return the error that click prints behind its ``Error: ``, wrapped and with colours on a terminal."""
    message = fitted(f"Error: {visible(text)}", err=True).removeprefix("Error: ")
    return click.ClickException(with_colours(message, err=True))


def with_colours(text: str, *, err: bool = False) -> str:
    """Return a text with colours, if the output shows them."""
    return coloured(text) if has_colours(is_terminal=is_terminal(err=err)) else text


@contextmanager
def coloured_warnings() -> Iterator[None]:
    """Print llmcall's warnings in their colour in a block, where standard error shows colours."""
    if not has_colours(is_terminal=is_terminal(err=True)) or logger().hasHandlers():
        yield
        return
    import logging  # loaded by the line above

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return as_warning(fitted(super().format(record), err=True))

    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(Formatter())
    logger().addHandler(handler)
    try:
        yield
    finally:
        logger().removeHandler(handler)


def echo(
    message: object = "", *, nl: bool = True, err: bool = False, color: bool | None = None
) -> None:
    """Print a text or bytes to standard output, or to standard error.

    Whole lines of text are wrapped on a terminal. The stream is passed explicitly, because ``click.echo`` alone writes
    UTF-8 to an ASCII output.
    """
    if nl and isinstance(message, str):
        message = fitted(message, err=err)
    click.echo(message, file=sys.stderr if err else sys.stdout, nl=nl, color=color)


def echo_json(data: object, default: Callable[[Any], object] | None = None) -> None:
    """Print plain data as JSON, in lines that are never wrapped; see :func:`.visible_json`."""
    click.echo(visible_json(data, default), file=sys.stdout)
