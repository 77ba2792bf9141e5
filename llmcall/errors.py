"""The errors of llmcall, as one tree, and the frames that they show::

    LLMCallError
    ├─ ConfigError                a setting: which file, section and key, and the allowed values
    ├─ APIError                   a call that was sent, or could not be, and has no answer
    │  ├─ InvalidRequestError     400, 404, 422
    │  │  └─ ContextLengthError   the prompt does not fit the model's context window
    │  ├─ AuthenticationError     401, 403
    │  ├─ RateLimitError          429
    │  │  └─ QuotaExceededError   429 with the code insufficient_quota
    │  ├─ ServiceError            408, 409, 5xx, no connection, a malformed or truncated answer
    │  │  └─ RequestTimeoutError  the attempt's timeout or the call's deadline passed
    │  ├─ ContentFilterError      the provider filtered the prompt or the answer
    │  └─ EmptyAnswerError        neither text nor a tool call
    ├─ CacheError
    │  ├─ CacheMissError          nothing recorded, and no call allowed
    │  └─ CacheCorruptError       stored data is damaged
    ├─ ScopeError                 a call from a thread that has no scope while one is open elsewhere
    ├─ BudgetExceededError
    ├─ TemplateError
    └─ OutputError                an answer that does not fit the output type

Only an ``APIError`` may become ``None`` at the public edge (``on_error="none"``); all others are
always raised. They leave llmcall with the frames of the program around it and of the functions it
was given, without its own.
"""

from __future__ import annotations

import functools
import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class LLMCallError(Exception):
    """Group all errors that llmcall raises, apart from those for a wrong argument."""

    asked: Any = None  # what a row of a table was answered before it failed


class ConfigError(LLMCallError):
    """Report a setting that is missing, misspelt or of the wrong type."""


class APIError(LLMCallError):
    """Report a model call that has no usable answer; the SDK's exception is its ``__cause__``.

    :param message: what happened, in the server's words where it had any.
    :param status_code: the HTTP status, or ``None`` where no response came.
    :param request_id: the server's identifier of the request, for its support desk.
    :param attempts: how many attempts were made.
    :param endpoint: the name of the endpoint that was asked.
    :param retry_after: the seconds that the server asked to wait, or ``None``.
    :cvar remedy: what to do about it, in a sentence without its full stop.
    """

    retryable = False
    remedy = "Run again later; 'llmcall doctor' checks the address"
    code: object = None  # the server's own code of the error, e.g. "unsupported_parameter"
    param: object = None  # the parameter that the server names
    quotas: Mapping[str, Any] = {}  # what the headers of a 429 without Retry-After say is left
    is_refused_here = False  # nobody listens at an address of this machine: waiting hardly helps

    def __init__(
        self,
        message: str = "",
        *,
        status_code: int | None = None,
        request_id: str | None = None,
        attempts: int = 1,
        endpoint: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.request_id = request_id
        self.attempts = attempts
        self.endpoint = endpoint
        self.retry_after = retry_after


class InvalidRequestError(APIError):
    """Report a request that the server refuses as it is (400, 404, 422)."""

    remedy = (
        "Check the model's name, the address and the parameters; 'llmcall doctor' lists the models"
    )


class ContextLengthError(InvalidRequestError):
    """Report a prompt that does not fit the model's context window.

    :param prompt_tokens: the prompt's length in tokens, where the server or the counter told it.
    :param context_window: the window's length in tokens, where known.
    :param details: the other arguments of :class:`APIError`.
    """

    remedy = "Shorten the prompt, or name models with a larger window in [Fallbacks]"

    def __init__(
        self,
        message: str = "",
        *,
        prompt_tokens: int | None = None,
        context_window: int | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        self.prompt_tokens = prompt_tokens
        self.context_window = context_window


class AuthenticationError(APIError):
    """Report a refused key or a forbidden resource (401, 403)."""

    remedy = "Check the key; 'llmcall doctor' says where it comes from"


class RateLimitError(APIError):
    """Report that the server asked to slow down (429) and the attempts are used up."""

    remedy = "Set [Limits] to what the server allows, or MAX_ATTEMPTS higher"
    retryable = True


class QuotaExceededError(RateLimitError):
    """Report that the account's quota is used up (``insufficient_quota``): waiting does not help."""

    remedy = "Add credit to the account, or use another key"
    retryable = False


class ServiceError(APIError):
    """Report a failing service: 408, 409, 5xx, no connection, a malformed or truncated answer."""

    retryable = True


class RequestTimeoutError(ServiceError):
    """Report that an attempt's timeout or the call's deadline passed."""


class ContentFilterError(APIError):
    """Report that the provider filtered the prompt or the answer."""

    remedy = "Change the prompt, or the provider's filter"


class EmptyAnswerError(APIError):
    """Report an answer with neither text nor a tool call."""

    remedy = "Set max_tokens higher"


class CacheError(LLMCallError):
    """Group the errors of stored answers."""


class CacheMissError(CacheError):
    """Report that nothing is recorded for a request and that the mode forbids a call.

    :param message: what is missing, in a line.
    :param explain: gives the :class:`llmcall.Miss` whose text is the message. It is called when the
        text is first read: finding the nearest record takes time, and a program that catches a
        thousand misses may read none.
    :ivar first: the first miss of the process, in a line, where this one is not the first.
    """

    def __init__(self, message: str = "", *, explain: Callable[[], Any] | None = None) -> None:
        super().__init__(message)
        self.first: str | None = None
        self._explain = explain
        self._miss: Any = None

    @property
    def miss(self) -> Any:
        """Return the nearest record and what differs, a :class:`llmcall.Miss`; ``None`` where
        nobody explained it.
        """
        if self._explain is not None:
            self._miss, self._explain = self._explain(), None
        return self._miss

    def __str__(self) -> str:
        text = super().__str__() if self.miss is None else str(self.miss)
        return (
            text
            if self.first is None
            else f"{text}\n\nThe first miss of this process was another: {self.first}"
        )

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {"first": self.first, "_miss": self.miss, "_explain": None}


class CacheCorruptError(CacheError):
    """Report damaged stored data, and the command that salvages the rest."""


class ScopeError(LLMCallError):
    """Report a call from a thread that has no scope while one is open elsewhere in the process."""


class BudgetExceededError(LLMCallError):
    """Report that the next call would go past a budget."""


class TemplateError(LLMCallError):
    """Report a missing template or variable, or a syntax error, with the template's name and line."""


class OutputError(LLMCallError):
    """Report an answer that does not fit the output type, or a refusal.

    :param message: why it cannot be read.
    :param text: the answer as the model gave it.
    :param expected: the output type in words.
    """

    def __init__(self, message: str = "", *, text: str = "", expected: str = "") -> None:
        super().__init__(message)
        self.text = text
        self.expected = expected


Function = TypeVar("Function", bound="Callable[..., Any]")

PACKAGE = os.path.dirname(__file__) + os.sep
# The libraries that llmcall calls, or that call its functions: what is below its frames in them
# tells users nothing.
LIBRARIES = (
    "anyio", "asyncio", "concurrent", "contextlib", "httpcore", "httpcore2", "httpx", "httpx2", "inspect", "jinja2",
    "logging", "openai", "pydantic", "runpy", "socket", "ssl", "tenacity", "tqdm",
)  # fmt: skip
COROUTINE = 0x80  # inspect.CO_COROUTINE: importing inspect takes longer than a replayed answer
# their messages say all; of others the place is kept
SAID = (
    LLMCallError,
    KeyboardInterrupt,
    TypeError,
    ValueError,
)


def short_traceback(function: Function) -> Function:
    """Let an error leave a public function, synchronous or not, with one frame of llmcall; see
    :func:`shorten`.
    """
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


def shorten(error: BaseException, *, of_program: bool = False) -> None:
    """Take the frames inside llmcall, and those inside the libraries that it calls, out of an error
    and its causes.

    With ``LLMCALL_TRACEBACK=full`` in the environment all stay. Of an error that may be llmcall's
    fault, the frame in which it was raised stays in any case.

    :param of_program: whether it cannot be llmcall's fault, since it left a program that llmcall ran.
    """
    if os.environ.get("LLMCALL_TRACEBACK") == "full":
        return
    keeps_last = not of_program and not isinstance(error, SAID)
    chain: list[BaseException | None] = [error]
    for each in chain:
        if each is not None:
            # not by assignment: a frozen dataclass lets nobody set its attributes
            each.with_traceback(
                _outside(each.__traceback__, keeps_last=keeps_last and each is error)
            )
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
