"""The sender of a request: the program, llmcall, or the program by a request that is passed through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from ..errors import LLMCallError

Sender = Literal["program", "llmcall", "passed"]
PROGRAM: Sender = "program"  # is recorded
# Code that llmcall calls, and the network: unrecorded.
LLMCALL: Sender = "llmcall"
# A request that is passed through; its connection is the program's own client's. The program's server may answer it
# in this process and send requests to models for it: these are recorded.
PASSED: Sender = "passed"

sender: ContextVar[Sender] = ContextVar("llmcall sender", default=PROGRAM)


@contextmanager
def sent_by(who: Sender) -> Iterator[None]:
    """Set the sender in a block, and in the tasks that it makes."""
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
