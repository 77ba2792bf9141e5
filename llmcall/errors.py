"""llmcall's errors, as one tree::

    LLMCallError
    ├─ ConfigError                a setting: names file, section, key and the allowed values
    ├─ APIError                   a call, sent or not, that got no answer
    │  ├─ InvalidRequestError     400, 404, 422
    │  │  └─ ContextLengthError   the prompt does not fit the model's context window
    │  ├─ AuthenticationError     401, 403
    │  ├─ RateLimitError          429
    │  │  └─ QuotaExceededError   429 with the code insufficient_quota
    │  ├─ ServiceError            408, 409, 5xx, no connection, a malformed or truncated answer
    │  │  └─ RequestTimeoutError  the attempt's timeout or the call's deadline passed
    │  ├─ ContentFilterError      the provider filtered the prompt or the answer
    │  └─ EmptyAnswerError        no text, tool call, image or audio
    ├─ CacheError
    │  ├─ CacheMissError          nothing is recorded, and no call is allowed
    │  └─ CacheCorruptError       stored data is damaged
    ├─ ScopeError                 a call without a scope in a thread while another has one open
    ├─ BudgetExceededError
    ├─ TemplateError
    └─ OutputError                an answer that does not fit the output type

Only an ``APIError`` may become ``None`` in public functions (``on_error="none"``); all others are
always raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .additions import additions

if TYPE_CHECKING:
    from collections.abc import Callable

    from .stores.misses.report import Miss
    from .support.data import Data


class LLMCallError(Exception):
    """Base class of all errors that llmcall raises, except those for a wrong argument."""

    conversation: Any = None  # the conversation of a failed row of a table


class ConfigError(LLMCallError):
    """Raised when a setting is missing, misspelt or of the wrong type."""


class ArgumentError(ValueError):
    """Raised for a wrong argument of a function that a command calls, to distinguish the user's mistake
    from a bug of llmcall, which may raise any other ``ValueError``.
    """


class Failure(NamedTuple):
    """The facts that a call's pipeline notes about a failed send, beside what its error tells the user.

    :param is_late: ``True`` if the call's own deadline allows no further wait or attempt.
    :param is_unreachable: ``True`` if no connection was made, so nothing was sent.
    :param is_read: ``True`` if the reader of a stream has read some of the answer: another one would begin again.
    :param is_retried_by_program: ``True`` for a failure after which the program's SDK tries again, not llmcall.
    :param response: of a program's request, the HTTP response that reports the error; the program gets it as it came.
    :param event: the event of a stream that reports the error, likewise.
    """

    is_late: bool = False
    is_unreachable: bool = False
    is_read: bool = False
    is_retried_by_program: bool = False
    response: Any = None
    event: dict[str, Data] | None = None


class APIError(LLMCallError):
    """Raised when a model call gets no usable answer; the SDK's exception is its ``__cause__``.

    :param message: a description of the failure, in the server's words where it sent any.
    :param status_code: the HTTP status, or ``None`` if no response came.
    :param request_id: the server's identifier of the request, for its support.
    :param attempts: how many attempts were made.
    :param endpoint: the name of the endpoint.
    :param retry_after: the wait in seconds that the server named, or ``None``.
    :cvar remedy: what to do about it, a sentence without a full stop.
    """

    retryable = False
    remedy = "Try again later; 'llmcall doctor' checks the configured address"
    code: object = None  # the server's own code of the error, e.g. "unsupported_parameter"
    param: object = None  # the parameter that the server names
    body: object = None  # the server's own error with all its fields, as parsed JSON
    failure = Failure()  # for llmcall itself
    # also of a user's subclass whose constructor calls no other
    status_code: int | None = None
    request_id: str | None = None
    attempts: int = 1
    endpoint: str | None = None
    retry_after: float | None = None

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

    def note(self, **facts: Any) -> None:
        """Note facts of the failed send, by the names of :class:`Failure`."""
        self.failure = self.failure._replace(**facts)


class InvalidRequestError(APIError):
    """Raised when the server rejects a request as invalid (400, 404, 422)."""

    remedy = (
        "Check the model's name, the address and the parameters; 'llmcall doctor' asks the configured "
        "address for the configured model"
    )


class ContextLengthError(InvalidRequestError):
    """Raised when a prompt does not fit the model's context window.

    :param prompt_tokens: the prompt's length in tokens, if known from the server or by counting.
    :param context_window: the window's length in tokens, if known.
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
    """Raised when a key is refused or a resource forbidden (401, 403).

    :ivar refuses_key: ``True`` if the key was refused, and not a country or a network.
    """

    refuses_key = True
    remedy = "Check the API key; 'llmcall doctor' shows where the configured one comes from"


class RateLimitError(APIError):
    """Raised when the server limits the rate (429) and no attempt is left."""

    remedy = ", or ".join(
        (
            "Set [Limits] to what the server allows",
            *(f"MAX_CONCURRENT_CALLS = {word}" for word in additions("slots")),
            "raise MAX_ATTEMPTS",
        )
    )
    retryable = True


class QuotaExceededError(RateLimitError):
    """Raised when the account's quota is used up (``insufficient_quota``): waiting does not help."""

    remedy = "Add credit to the account, or use another key"
    retryable = False


class ServiceError(APIError):
    """Raised when a service fails: 408, 409, 5xx, no connection, a malformed or truncated answer.

    An unknown finish reason, such as ``abort`` (vLLM, SGLang), also counts as truncated.
    """

    retryable = True


class RequestTimeoutError(ServiceError):
    """Raised when an attempt's timeout or the call's deadline passes."""

    remedy = "Raise timeout= (or TIMEOUT in [OpenAI]), and deadline= if there is one"


class ContentFilterError(APIError):
    """Raised when the provider filters the prompt or the answer."""

    remedy = "Change the prompt, or the provider's filter"


class EmptyAnswerError(APIError):
    """Raised when an answer has no text, tool call, image or audio."""

    remedy = "Raise max_tokens"


class CacheError(LLMCallError):
    """Base class of the errors about recorded answers."""


class CacheMissError(CacheError):
    """Raised when nothing is recorded for a request and the mode forbids a call.

    :param message: the request that is not recorded, in one line.
    :param explain: returns the :class:`llmcall.types.Miss` whose text is the message. It is called at first
        read, because finding the nearest record takes time, and a program may catch a thousand misses
        and read none.
    :ivar first: the first miss of the process, in one line, unless this is the first.
    """

    def __init__(self, message: str = "", *, explain: Callable[[], Miss] | None = None) -> None:
        super().__init__(message)
        self.first: str | None = None
        self._explain = explain
        self._miss: Miss | None = None

    @property
    def miss(self) -> Miss | None:
        """Return the explanation, or ``None`` without one."""
        if self._explain is not None:
            self._miss, self._explain = self._explain(), None
        return self._miss

    @property
    def report(self) -> str:
        """Return the explanation, or the message without one."""
        return super().__str__() if self.miss is None else str(self.miss)

    def __str__(self) -> str:
        if self.first is None:
            return self.report
        return f"{self.report}\n\nThe first miss of this process was: {self.first}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {"first": self.first, "_miss": self.miss, "_explain": None}


class CacheCorruptError(CacheError):
    """Raised when stored data is damaged; names the command that salvages the rest."""


class ScopeError(LLMCallError):
    """Raised when a call has no scope while another thread or process has one open."""


class BudgetExceededError(LLMCallError):
    """Raised before a call that could exceed a budget."""


class TemplateError(LLMCallError):
    """Raised for a missing template or variable, or a syntax error; names template and line."""


class OutputError(LLMCallError):
    """Raised when an answer does not fit the output type, or is a refusal.

    :param message: why the answer cannot be read.
    :param text: the answer as the model gave it.
    :param expected: the output type in words.
    """

    def __init__(self, message: str = "", *, text: str = "", expected: str = "") -> None:
        super().__init__(message)
        self.text = text
        self.expected = expected
