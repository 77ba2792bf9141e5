"""llmcall's errors for a server's refusals, broken connections and the SDK's exceptions."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Any

from ..config.values import MASK, is_loopback
from ..display.formatting import shortened
from ..engine.quotas import LONGEST_WAIT, quotas_in
from ..errors import (
    APIError,
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServiceError,
)
from ..responses.body import read_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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

# How servers say that a prompt is too long; the tests hold a full text of each.
CONTEXT_TEXTS = re.compile(
    r"maximum context length"  # OpenAI, Azure, vLLM, SGLang, llama-cpp-python, OpenRouter, DeepSeek
    r"|tokens exceed the configured limit"  # OpenAI's gpt-5
    # OpenAI, llama.cpp, Ollama
    r"|exceeds? (?:the )?(?:available |maximum )?context (?:size|length|window)"
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
# Some name the sum of prompt and answer, and in many ways its parts: the prompt is what the answer
# leaves of it.
REQUESTED = re.compile(r"you requested (?:a total of |about )?(\d{1,18}) tokens", re.IGNORECASE)
ANSWER = re.compile(
    r"(?<!\d)(\d{1,18}) (?:tokens )?(?:in|for) the (?:completion|output)", re.IGNORECASE
)

SECRET_NAMES = (
    "auth",
    "key",
    "token",
    "secret",
    "cookie",
    "password",
    "credential",
    "signature",
    "sig",
)
SHORTEST_SECRET = 6  # characters; masking a shorter one would blot out ordinary words
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
    kind, extras = _classified(status_code, error, message)
    made = kind(
        f"{status_code}: {shortened(message, LONGEST_MESSAGE) or 'no message'}",
        status_code=status_code,
        request_id=request_id(headers),
        retry_after=seconds_to_wait(headers),
        **extras,
    )
    made.code, made.param = error.get("code"), error.get("param")
    if kind is RateLimitError and made.retry_after is None:
        made.quotas = quotas_in(headers)
    return made


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the server's identifier for a request: OpenAI's header, or that of Azure's gateway."""
    return headers.get("x-request-id") or headers.get("apim-request-id")


def read_answer(body: bytes | bytearray) -> dict[str, Any]:
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
    found = body.get("error", body) if isinstance(body, dict) else {}
    if isinstance(found, dict):
        return found
    return {"message": found} if isinstance(found, str) else {}


def _message(error: dict[str, Any]) -> str:
    """Return the server's message: ``message``, FastAPI's ``detail`` (a text or a list), or else the
    body.
    """
    found = error.get("message") or error.get("detail") or error
    return found if isinstance(found, str) else str(found) if found else ""


def _classified(
    status: int, error: dict[str, Any], message: str
) -> tuple[type[APIError], dict[str, Any]]:
    inner = error.get("innererror")
    codes = [
        error.get("code"),
        error.get("type"),
        inner.get("code") if isinstance(inner, dict) else None,
    ]
    words = {code.lower() for code in codes if isinstance(code, str)}
    # Some servers report a prompt that is too long as a failure of their own (500: vLLM behind
    # Xinference, Ollama).
    said = (
        status not in (401, 403, 429)
        and (status < 500 or status in (500, 503))
        and CONTEXT_TEXTS.search(message)
    )
    if words & CONTEXT_CODES or said:
        return ContextLengthError, _lengths(error, message)
    if status < 500 and words & FILTER_CODES:
        return ContentFilterError, {}
    if (words & QUOTA_CODES and status < 500) or status == 402:
        return QuotaExceededError, {}
    if status in (401, 403):
        return AuthenticationError, {}
    # Groq's flex tier without capacity
    if status == 429 or (status == 498 and "capacity_exceeded" in words):
        return RateLimitError, {}
    # Request Timeout, Conflict, Too Early: worth another attempt
    passing = status in (
        408,
        409,
        425,
    )
    return (InvalidRequestError if 400 <= status < 500 and not passing else ServiceError), {}


def _lengths(error: dict[str, Any], message: str) -> dict[str, Any]:
    prompt, window = error.get("n_prompt_tokens"), error.get("n_ctx")  # llama.cpp's
    return {
        "prompt_tokens": prompt if type(prompt) is int else _prompt_in(message),
        "context_window": window if type(window) is int else _first_number(WINDOW, message),
    }


def _prompt_in(message: str) -> int | None:
    stated, requested = _first_number(PROMPT, message), _first_number(REQUESTED, message)
    if stated is not None or requested is None:
        return stated
    return requested - (_first_number(ANSWER, message) or 0)


def _first_number(pattern: re.Pattern[str], message: str) -> int | None:
    found = pattern.search(message)
    return int(found[1]) if found else None


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait: ``retry-after-ms``, or ``Retry-After`` in
    seconds or as a date.

    Source: RFC 9110, section 10.2.3; ``retry-after-ms`` is OpenAI's and Azure's own. A date comes
    from the server's clock, which may differ from this machine's, so the response's own ``Date``
    (section 6.6.1) is subtracted from it.
    """
    milliseconds = _positive(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    stated = headers.get("retry-after")
    seconds = _positive(stated)
    if seconds is not None:
        return seconds
    until, sent_at = _date(stated), _date(headers.get("date"))
    if until is None:
        return None
    return min(max(0.0, until - (time.time() if sent_at is None else sent_at)), LONGEST_WAIT)


def _date(text: str | None) -> float | None:
    """Return an HTTP date in seconds since 1970, or ``None`` if it is not a possible date."""
    from datetime import timezone
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(text or "")
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return min(value, LONGEST_WAIT) if 0 <= value < float("inf") else None


ADDED = ("/chat/completions", "/completions", "/embeddings", "/models")  # to BASE_URL, by a call
VERSION = re.compile(r"/v\d")  # of an API, in nearly every address


def meant_address(url: str) -> str | None:
    """Return the address that ``BASE_URL`` should probably be, or ``None`` if it looks right.

    :param url: without a query.
    """
    given = url.rstrip("/")
    meant = given
    for ending in ADDED:
        meant = meant.removesuffix(ending)
    if not VERSION.search(meant):
        meant += "/v1"
    return None if meant == given else meant


def guess_address(error: APIError, url: str) -> None:
    """Add the address that was probably meant to a 404, unless the model is what does not exist."""
    meant = meant_address(url)
    if error.status_code != 404 or meant is None:
        return
    if meant.startswith(url.rstrip("/")) and "model" in f"{error.code} {error}".lower():
        return
    error.args = (f"{error} (BASE_URL is {url}; did you mean {meant}?)",)


def http_errors(name: str) -> tuple[type[BaseException], ...]:
    """Return the exception classes of the SDK's HTTP library: httpx for openai 2.x, httpx2 for 3.x,
    or that of a given client.
    """
    return tuple(
        getattr(sys.modules[library], name)
        for library in ("httpx", "httpx2")
        if library in sys.modules
    )


def http_library() -> Any:
    """Return the installed SDK's HTTP library: httpx for openai 2.x, httpx2 for 3.x."""
    import openai

    base = next(each for each in openai.DefaultHttpxClient.__mro__ if each.__name__ == "Client")
    return sys.modules[base.__module__.partition(".")[0]]


def mapped_error(error: BaseException, url: str) -> APIError:
    """Return llmcall's error for an exception of the SDK or its HTTP library, without secrets.

    :param url: the request's address, for the message.
    """
    import openai

    if isinstance(error, APIError):
        return error
    secrets: list[str] = []
    if isinstance(error, openai.APIError):
        secrets = secrets_of(error.request)
        mask(error, secrets)  # it is the cause of ours, and shown with it
    if isinstance(error, openai.APIStatusError):
        body = masked(error.response.text, secrets) if error.body is None else error.body
        if isinstance(body, dict) and "error" not in body:
            body = {"error": body}
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        return failure(error.status_code, body, headers=headers)
    cause = error.__cause__ or error
    words = masked(
        f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__, secrets
    )
    if isinstance(error, (openai.APITimeoutError, *http_errors("TimeoutException"))):
        return RequestTimeoutError(f"no answer from {url} within the timeout ({words})")
    return unreachable(cause, url, words.removesuffix("."))


def unreachable(error: BaseException, url: str, words: str) -> ServiceError:
    """Return the error for a server that cannot be reached, or whose connection broke.

    :param words: what happened.
    """
    made = ServiceError(
        f"the connection failed: {words.rstrip('.')}. Is the server at {url} running, and is that its address?"
    )
    made.is_refused_here = is_loopback(url) and isinstance(error, http_errors("ConnectError"))
    return made


def mask(error: BaseException, secrets: list[str]) -> None:
    """Remove secrets from an exception of the SDK or of llmcall."""
    error.args = tuple(masked([*error.args], secrets))
    for name in ("message", "body", "code", "param"):
        if hasattr(error, name):
            setattr(error, name, masked(getattr(error, name), secrets))


def secrets_of(request: Any) -> list[str]:
    """Return an HTTP request's credentials, both with and without the word before them ("Bearer
    …"), longest first.
    """
    fields: Iterable[tuple[str, str]] = [
        *request.headers.multi_items(),
        *request.url.params.multi_items(),
    ]
    values = [value for name, value in fields if any(word in name.lower() for word in SECRET_NAMES)]
    values += [request.url.password or "", *map(_password, values)]
    values += [
        part for value in values for part in value.split() if part not in ("Bearer", "Basic")
    ]
    return sorted(
        {value for value in values if value and len(value) >= SHORTEST_SECRET},
        key=len,
        reverse=True,
    )


def _password(header: str) -> str:
    """Return the password in a header with name and password, or ``""``."""
    from base64 import b64decode

    scheme, _, encoded = header.partition(" ")
    try:
        return b64decode(encoded).decode().partition(":")[2] if scheme == "Basic" else ""
    except ValueError:
        return ""


def masked(value: Any, secrets: list[str]) -> Any:
    """Return plain data without secrets, since a server may repeat them."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
    elif isinstance(value, dict):
        return {masked(name, secrets): masked(item, secrets) for name, item in value.items()}
    elif isinstance(value, list):
        return [masked(item, secrets) for item in value]
    return value
