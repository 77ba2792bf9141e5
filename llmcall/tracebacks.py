"""Errors leave llmcall with the frames of the program around it and of the functions it was given, without its own."""

from __future__ import annotations

import functools
import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import LLMCallError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["short_traceback", "shorten"]

Function = TypeVar("Function", bound="Callable[..., Any]")

PACKAGE = os.path.dirname(__file__) + os.sep
# The libraries that llmcall calls, or that call its functions: what is below its frames in them tells users nothing.
LIBRARIES = (
    "anyio", "asyncio", "concurrent", "contextlib", "httpcore", "httpcore2", "httpx", "httpx2", "inspect", "jinja2",
    "logging", "openai", "pydantic", "socket", "ssl", "tenacity", "tqdm",
)  # fmt: skip
COROUTINE = 0x80  # inspect.CO_COROUTINE: importing inspect takes longer than a replayed answer
SAID = (LLMCallError, KeyboardInterrupt, TypeError, ValueError)  # their messages say all; of others the place is kept


def short_traceback(function: Function) -> Function:
    """Let an error leave a public function, synchronous or not, with one frame of llmcall; see :func:`shorten`."""
    if function.__code__.co_flags & COROUTINE:

        @functools.wraps(function)
        async def arun(*args: Any, **kwargs: Any) -> Any:
            """Await the function."""
            __tracebackhide__ = True
            try:
                return await function(*args, **kwargs)
            except BaseException as error:
                shorten(error)
                raise error  # LLMCALL_TRACEBACK=full shows all frames

        return arun  # type: ignore[return-value]

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        __tracebackhide__ = True
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            shorten(error)
            raise error  # LLMCALL_TRACEBACK=full shows all frames

    return run  # type: ignore[return-value]


def shorten(error: BaseException) -> None:
    """Take the frames inside llmcall, and those inside the libraries that it calls, out of an error and its causes.

    With ``LLMCALL_TRACEBACK=full`` in the environment all stay. Of an error that may be llmcall's fault, the frame in
    which it was raised stays in any case.
    """
    if os.environ.get("LLMCALL_TRACEBACK") == "full":
        return
    keeps_last = not isinstance(error, SAID)
    chain: list[BaseException | None] = [error]
    for each in chain:
        if each is not None:
            # not by assignment: a frozen dataclass lets nobody set its attributes
            each.with_traceback(_outside(each.__traceback__, keeps_last=keeps_last and each is error))
            chain += [other for other in (each.__cause__, each.__context__) if other not in chain]


def _outside(trace: TracebackType | None, *, keeps_last: bool) -> TracebackType | None:
    kept = []
    is_inside = True
    while trace is not None:
        frame = trace.tb_frame
        is_ours = frame.f_code.co_filename.startswith(PACKAGE)
        library = str(frame.f_globals.get("__name__")).partition(".")[0]
        is_inside = is_ours or (is_inside and library in LIBRARIES)
        if not is_inside or (is_ours and keeps_last and trace.tb_next is None):
            kept.append(trace)
        trace = trace.tb_next
    result = None
    for each in reversed(kept):
        result = TracebackType(result, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return result
