"""llmcall's errors for what servers answer instead of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..display.formatting import shortened
from ..errors import (
    APIError,
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
    ServiceError,
)
from ..values import read_object
from .context_lengths import lengths_in, says_too_long
from .retry_after import seconds_to_wait

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTEXT_CODES = frozenset(
    {
        "context_length_exceeded",  # OpenAI, Azure
        "exceed_context_size_error",  # llama.cpp (as the type; its code is the number 400)
        "model_max_prompt_tokens_exceeded",  # Azure's model inference API
    }
)
QUOTA_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded"}
)
FILTER_CODES = frozenset(
    {"content_filter", "content_policy_violation", "responsibleaipolicyviolation"}
)

RETRYABLE_STATUSES = (408, 409, 425)  # Request Timeout, Conflict, Too Early: worth another attempt
LONGEST_MESSAGE = 1000  # characters


def failure(
    status_code: int, body: object, *, headers: Mapping[str, str] | None = None
) -> APIError:
    """Return the error for a status and a body.

    :param body: the parsed body, usually ``{"error": {"message", "type", "code", "param"}}``, or
        its text.
    :param headers: the response's headers, names in lower case.
    """
    headers = headers or {}
    error = _error_object(body)
    message = _message(error) or (body.strip() if isinstance(body, str) else "")
    error_class, extras = _classified(status_code, error, message)
    api_error = error_class(
        f"{status_code}: {shortened(message, LONGEST_MESSAGE) or 'no message'}",
        status_code=status_code,
        request_id=request_id(headers),
        retry_after=seconds_to_wait(headers),
        **extras,
    )
    api_error.code = error.get("code")
    api_error.param = error.get("param")
    return api_error


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the server's identifier for a request: OpenAI's header, or that of Azure's gateway."""
    return headers.get("x-request-id") or headers.get("apim-request-id")


def parsed_response(body: bytes | bytearray) -> dict[str, Any]:
    """Return the JSON object that a server sent with the status 200.

    :raises ServiceError: if it is not a JSON object.
    :raises APIError: if it reports an error and has no choices or embeddings.
    """
    return refuse_reported(read_object(body, "answer"))


def refuse_reported(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body with the status 200, or an event of a stream, unless it reports an error.

    :raises APIError: the error that it reports; its code may be a status.
    """
    # the latter is vLLM's and SGLang's
    reported = body.get("error") or body.get("object") == "error"
    if not reported or body.get("choices") or body.get("data"):
        return body
    code = _error_object(body).get("code")
    if isinstance(code, str) and code.isdigit():
        code = int(code)
    raise failure(code if isinstance(code, int) and 400 <= code < 600 else 500, body)


def _error_object(body: object) -> dict[str, Any]:
    if isinstance(body, list) and body:
        body = body[0]  # Gemini wraps its errors in a list
    details = body.get("error", body) if isinstance(body, dict) else {}
    if isinstance(details, dict):
        return details
    return {"message": details} if isinstance(details, str) else {}


def _message(error: dict[str, Any]) -> str:
    """Return the server's message: ``message``, FastAPI's ``detail`` (a text or a list), or else the
    body.
    """
    text = error.get("message") or error.get("detail") or error
    return str(text) if text else ""


def _classified(
    status: int, error: dict[str, Any], message: str
) -> tuple[type[APIError], dict[str, Any]]:
    """Return the class of an error, and its further arguments."""
    codes = _codes_of(error)
    if codes & CONTEXT_CODES or (_may_mean_too_long(status) and says_too_long(message)):
        return ContextLengthError, lengths_in(error, message)
    if status < 500 and codes & FILTER_CODES:
        return ContentFilterError, {}
    if (codes & QUOTA_CODES and status < 500) or status == 402:
        return QuotaExceededError, {}
    if status in (401, 403):
        return AuthenticationError, {}
    if status == 429:
        return RateLimitError, {}
    if 400 <= status < 500 and status not in RETRYABLE_STATUSES:
        return InvalidRequestError, {}
    return ServiceError, {}


def _codes_of(error: dict[str, Any]) -> set[str]:
    """Return the codes of an error, in lower case."""
    inner = error.get("innererror")
    codes = [error.get("code"), error.get("type")]
    if isinstance(inner, dict):
        codes.append(inner.get("code"))
    return {code.lower() for code in codes if isinstance(code, str)}


def _may_mean_too_long(status: int) -> bool:
    """Return whether a status may mean that a prompt is too long.

    Some servers report that as a failure of their own (500: vLLM behind Xinference, Ollama).
    """
    if status in (401, 403, 429):
        return False
    return status < 500 or status in (500, 503)
