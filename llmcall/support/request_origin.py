"""The sender of a request: the program, llmcall, or the program by a request that is passed through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


class sent_by:
    """A block, with the tasks that it makes, in which somebody sends. A class for speed: each call enters some."""

    __slots__ = ("_token", "_who")

    def __init__(self, who: Sender) -> None:
        self._who = who

    def __enter__(self) -> None:
        self._token = sender.set(self._who)

    def __exit__(self, *_: object) -> None:
        # A coroutine that is closed in another context leaves that as it is.
        with suppress(ValueError):
            sender.reset(self._token)


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
