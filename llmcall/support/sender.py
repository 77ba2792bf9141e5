"""The sender of what is sent: the program, llmcall, or nobody, for whom a request passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from ..errors import LLMCallError

Sender = Literal["program", "llmcall", "nobody"]
PROGRAM: Sender = "program"  # is recorded
# Code that llmcall calls, and the network: nobody's record.
LLMCALL: Sender = "llmcall"
# A request that passes, whose connection is not another client's. The program's own server may answer it in
# this process, and ask models for it: these requests are recorded.
NOBODY: Sender = "nobody"

sender: ContextVar[Sender] = ContextVar("llmcall sender", default=PROGRAM)


@contextmanager
def sent_by(who: Sender) -> Iterator[None]:
    """Set who sends in a block, and in the tasks that it makes."""
    token = sender.set(who)
    try:
        yield
    finally:
        sender.reset(token)


@contextmanager
def callback_errors(
    failure: str,
    error_class: type[LLMCallError] = LLMCallError,
    passed: type[Exception] | tuple[type[Exception], ...] = LLMCallError,
) -> Iterator[None]:
    """Run a user's code on llmcall's behalf in a block, so that its errors name it.

    :param failure: the method and what it did, for the message: ``"the listener Counter.asks raised"``.
    :param error_class: the error that another exception becomes.
    :param passed: the exceptions that stay as they are.
    """
    try:
        with sent_by(LLMCALL):
            yield
    except passed:
        raise
    except Exception as error:
        raise error_class(f"{failure} {type(error).__name__}: {error}") from error


def llmcall_sends() -> bool:
    """Return whether what is sent here is sent on llmcall's behalf."""
    return sender.get() == LLMCALL
