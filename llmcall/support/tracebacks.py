"""Tracebacks that show the user's own frames."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar, cast

from ..errors import LLMCallError

Function = TypeVar("Function", bound=Callable[..., Any])

# llmcall, and what it calls: an error's message names the failure and its place.
HIDDEN = frozenset(
    [
        *("llmcall", "tenacity", "concurrent", "threading", "asyncio", "contextlib", "anyio"),
        *("openai", "httpx", "httpx2", "httpcore", "httpcore2"),
    ]
)

CO_COROUTINE = 0x80  # inspect's, whose import takes milliseconds


def show(error: BaseException, reported: BaseException | None) -> None:
    """Show the exception that ends a program as Python does; of an error already printed, show only the first
    line.
    """
    hide_own_frames(error)
    text = report = ""
    if reported is not None:
        import traceback  # takes 2 ms, and a replay needs none

        text, report = "".join(traceback.format_exception(error)), str(reported)
    if report and report in text and sys.stderr is not None:
        sys.stderr.write(text.replace(report, report.partition("\n")[0]))
    else:
        sys.__excepthook__(type(error), error, error.__traceback__)


@contextmanager
def ends_shown_by(show: Callable[[BaseException], object]) -> Iterator[None]:
    """Show the exceptions that end the program or a thread in a block by a function; a program's own hooks stay."""

    def show_end(_: object, error: BaseException, __: object) -> None:
        show(error)

    def show_thread_end(raised: threading.ExceptHookArgs) -> None:
        error = raised.exc_value
        if error is None or isinstance(error, SystemExit) or sys.stderr is None:
            return
        sys.stderr.write(f"Exception in thread {raised.thread and raised.thread.name}:\n")
        show(error)

    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = show_end
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = show_thread_end
    try:
        yield
    finally:
        if sys.excepthook is show_end:
            sys.excepthook = sys.__excepthook__
        if threading.excepthook is show_thread_end:
            threading.excepthook = threading.__excepthook__


def mistake(message: str) -> TypeError:
    """Return the error of a wrong argument, which is shown as llmcall's own errors are."""
    error: Any = TypeError(message)
    error._render_traceback_ = functools.partial(_shown_in_ipython, error)
    return cast("TypeError", error)


def is_own(error: BaseException) -> bool:
    """Return whether an error is one of llmcall's, or of a wrong argument."""
    return hasattr(error, "_render_traceback_")


def hide_own_frames(error: BaseException, *, is_refusal: bool = False) -> None:
    """Leave llmcall's frames out of the traceback of one of its errors, and out of its causes'.

    Any other exception keeps its frames: they may show a fault of llmcall's.

    :param is_refusal: ``True`` if it is an SDK's error by which a program got one of llmcall's.
    """
    if isinstance(error, KeyboardInterrupt):
        error.__traceback__ = _users_frames(error.__traceback__)
    cause: BaseException | None = error if is_own(error) or is_refusal else None
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        cause.__traceback__ = _users_frames(cause.__traceback__)
        cause = cause.__cause__


def door(function: Function) -> Function:
    """Leave llmcall's frames below a public function out of its errors; it may be asynchronous."""
    if function.__code__.co_flags & CO_COROUTINE:

        @functools.wraps(function)
        async def enter(*args: object, **kwargs: object) -> object:
            try:
                return await function(*args, **kwargs)
            except (LLMCallError, TypeError) as error:
                hide_own_frames(error)
                raise error

    else:

        @functools.wraps(function)
        def enter(*args: object, **kwargs: object) -> object:
            try:
                return function(*args, **kwargs)
            except (LLMCallError, TypeError) as error:
                hide_own_frames(error)
                raise error

    return cast("Function", enter)


def _shown_in_ipython(error: BaseException) -> list[str]:
    """Return the traceback of an error as IPython shows it, with the user's frames alone, and a miss's colours."""
    from importlib import import_module

    from .display import coloured, has_colours

    error.__traceback__ = _users_frames(error.__traceback__)
    shell = import_module("IPython").get_ipython()
    shown = shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
    text, message = "\n".join(shown), str(error)
    is_coloured = has_colours(is_terminal=True) and shell.colors.lower() != "nocolor"
    return [text.replace(message, coloured(message)) if is_coloured else text]


# IPython asks an exception that has such a method how to show it (InteractiveShell.showtraceback).
LLMCallError._render_traceback_ = _shown_in_ipython  # type: ignore[attr-defined]


def _users_frames(frames: TracebackType | None) -> TracebackType | None:
    shown = []
    while frames is not None:
        module = str(frames.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in HIDDEN:
            shown.append(frames)
        frames = frames.tb_next
    kept = None
    for frame in reversed(shown):
        kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return kept
