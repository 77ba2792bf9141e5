"""What a server's refusal means: one error of the tree for a status and a body."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ..engine.rate_headers import LONGEST_WAIT, date_in, sent_at, told_by
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
from ..requests.plain_data import DEPTH, is_deep
from ..responses.surrogates import may_have_surrogates, without_surrogates

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["answered", "failure", "request_id", "seconds_to_wait"]

CONTEXT_CODES = frozenset(
    {
        "context_length_exceeded",  # OpenAI, Azure
        "exceed_context_size_error",  # llama.cpp (as the type; its code is the number 400)
        "model_max_prompt_tokens_exceeded",  # Azure's model inference API
    }
)
QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded"})
FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation"})

# How servers say that a prompt is too long; the tests hold a full text of each.
CONTEXT_TEXTS = re.compile(
    r"maximum context length"  # OpenAI, Azure, vLLM, SGLang, llama-cpp-python, OpenRouter, DeepSeek
    r"|tokens exceed the configured limit"  # OpenAI's gpt-5
    r"|exceeds? (?:the )?(?:available |maximum )?context (?:size|length|window)"  # OpenAI, llama.cpp, Ollama
    r"|longer than the (?:model's context length|maximum model length)"  # SGLang, vLLM
    r"|input length \(\d+ tokens\) exceeds the maximum allowed length"  # SGLang
    r"|input (?:\(\d+ tokens\) )?is too large to process"  # llama.cpp's embeddings
    r"|prompt is too long: \d+ tokens"  # Anthropic
    r"|input token count (?:\(\d+\) )?exceeds the maximum"  # Gemini
    r"|maximum prompt length is \d+ but"  # xAI
    r"|`inputs` tokens \+ `max_new_tokens` must be",  # TGI
    re.IGNORECASE,
)
WINDOW = re.compile(
    r"(?:maximum (?:context|model|prompt|allowed) length (?:is |of |\()|context (?:size|length|window) (?:is |of |\()"
    r"|configured limit of |tokens allowed \(|tokens > |must be <= |current batch size: )(\d{1,18})",
    re.IGNORECASE,
)
PROMPT = re.compile(
    r"(?:resulted in |prompt contains (?:at least )?|request (?:has|contains) |request \(|input \(|input length \(|"
    r"prompt \(length |prompt length of |requested tokens \(|token count \(|prompt is too long: |given: )(\d{1,18})",
    re.IGNORECASE,
)
# Some name the sum of prompt and answer, and in many ways its parts: the prompt is what the answer leaves of it.
REQUESTED = re.compile(r"you requested (?:a total of |about )?(\d{1,18}) tokens", re.IGNORECASE)
ANSWER = re.compile(r"(?<!\d)(\d{1,18}) (?:tokens )?(?:in|for) the (?:completion|output)", re.IGNORECASE)


def failure(
    status_code: int,
    body: object,
    *,
    headers: Mapping[str, str] | None = None,
    endpoint: str | None = None,
) -> APIError:
    """Return the error that a status and a body mean.

    :param body: the parsed body, usually ``{"error": {"message", "type", "code", "param"}}``, or its text.
    :param headers: the response's headers, names in lower case.
    :param endpoint: the endpoint's name.
    """
    headers = headers or {}
    error = _error_object(body)
    message = _message(error) or (body.strip() if isinstance(body, str) else "")
    kind, extras = _classified(status_code, error, message)
    made = kind(
        f"{status_code}: {_brief(message) or 'no message'}",
        status_code=status_code,
        request_id=request_id(headers),
        endpoint=endpoint,
        retry_after=seconds_to_wait(headers),
        **extras,
    )
    made.code, made.param = error.get("code"), error.get("param")
    if kind is RateLimitError and made.retry_after is None:
        made.quotas = told_by(headers)
    return made


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the server's identifier of a request: OpenAI's header, or that of Azure's gateway."""
    return headers.get("x-request-id") or headers.get("apim-request-id")


def answered(text: str | bytes | bytearray, what: str) -> dict[str, Any]:
    """Return the JSON object that a server sent with the status 200.

    :param what: what it is: ``"answer"``, or ``"chunk in the stream"``.
    :raises ServiceError: where it is none.
    :raises APIError: where it reports an error instead of giving choices or embeddings.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"a malformed {what}, not JSON: {_start(text)}") from error
    if not isinstance(found, dict):
        raise ServiceError(f"a malformed {what}, no JSON object: {_start(text)}")
    if _brackets(text) > DEPTH and is_deep(found):
        raise ServiceError(f"a malformed {what}, nested more than {DEPTH} levels deep: {_start(text)}")
    mended: dict[str, Any] = without_surrogates(found) if may_have_surrogates(text) else found
    reported = mended.get("error") or mended.get("object") == "error"  # the latter is vLLM's and SGLang's
    if reported and not (mended.get("choices") or mended.get("data")):
        raise _failure_in(mended)
    return mended


def _start(text: str | bytes | bytearray) -> str:
    start = text[:200]
    return repr(start if isinstance(start, str) else bytes(start))


def _brackets(text: str | bytes | bytearray) -> int:
    if isinstance(text, str):
        return text.count("{") + text.count("[")
    return text.count(b"{") + text.count(b"[")


def _failure_in(body: dict[str, Any]) -> APIError:
    """Return the error that a body with the status 200, or an event of a stream, reports; its code may be a status."""
    error = _error_object(body)
    code = error.get("code")
    if isinstance(code, str) and code.isdigit():
        code = int(code)
    return failure(code if isinstance(code, int) and 400 <= code < 600 else 500, body)


def _error_object(body: object) -> dict[str, Any]:
    if isinstance(body, list) and body:
        body = body[0]  # Gemini wraps its errors in a list
    found = body.get("error", body) if isinstance(body, dict) else {}
    if isinstance(found, dict):
        return found
    return {"message": found} if isinstance(found, str) else {}


def _message(error: dict[str, Any]) -> str:
    """Return the server's words: ``message``, FastAPI's ``detail`` (a text or a list), or what else there is."""
    found = error.get("message") or error.get("detail") or error
    return found if isinstance(found, str) else str(found) if found else ""


def _brief(text: str, limit: int = 1000) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def _classified(status: int, error: dict[str, Any], message: str) -> tuple[type[APIError], dict[str, Any]]:
    words = _code_words(error)
    # Some servers report a prompt that is too long as a failure of their own (500: vLLM behind Xinference, Ollama).
    said = status not in (401, 403, 429) and (status < 500 or status in (500, 503)) and CONTEXT_TEXTS.search(message)
    if words & CONTEXT_CODES or said:
        return ContextLengthError, _lengths(error, message)
    if status < 500 and words & FILTER_CODES:
        return ContentFilterError, {}
    return _by_status(status, bool(words & QUOTA_CODES)), {}


def _code_words(error: dict[str, Any]) -> set[str]:
    inner = error.get("innererror")
    found = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    return {word.lower() for word in found if isinstance(word, str)}


def _by_status(status: int, quota: bool) -> type[APIError]:
    if (quota and status < 500) or status == 402:
        return QuotaExceededError
    if status in (401, 403):
        return AuthenticationError
    if status == 429:
        return RateLimitError
    passing = status in (408, 409, 425)  # Request Timeout, Conflict, Too Early: worth another attempt
    return InvalidRequestError if 400 <= status < 500 and not passing else ServiceError


def _lengths(error: dict[str, Any], message: str) -> dict[str, Any]:
    return {
        "prompt_tokens": _number(error.get("n_prompt_tokens"), _prompt_in(message)),
        "context_window": _number(error.get("n_ctx"), _first_number(WINDOW, message)),
    }


def _number(stated: object, read: int | None) -> int | None:
    return stated if isinstance(stated, int) and not isinstance(stated, bool) else read


def _prompt_in(message: str) -> int | None:
    stated, requested = _first_number(PROMPT, message), _first_number(REQUESTED, message)
    if stated is not None or requested is None:
        return stated
    return requested - (_first_number(ANSWER, message) or 0)


def _first_number(pattern: re.Pattern[str], message: str) -> int | None:
    found = pattern.search(message)
    return int(found[1]) if found else None


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait: ``retry-after-ms``, or ``Retry-After`` in seconds or as a date.

    Source: RFC 9110, section 10.2.3; ``retry-after-ms`` is OpenAI's and Azure's own. A date is one of the server's
    clock, which this machine's need not agree with: what counts is how long it is after the response's own ``Date``.
    """
    milliseconds = _positive(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    stated = headers.get("retry-after")
    seconds = _positive(stated)
    if seconds is not None:
        return seconds
    date = date_in(stated)
    return None if date is None else min(max(0.0, date - sent_at(headers)), LONGEST_WAIT)


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return min(value, LONGEST_WAIT) if 0 <= value < float("inf") else None
