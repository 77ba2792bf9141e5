"""llmcall's errors for the error responses of servers, and for the SDK's exceptions."""

from __future__ import annotations

import functools
import re
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from typing import Any

from ..apis.masking import mask, secrets_of, without_secrets
from ..config.values import host_of, is_loopback, without_password
from ..errors import (
    APIError,
    AuthenticationError,
    BudgetExceededError,
    CacheError,
    CacheMissError,
    ConfigError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ScopeError,
    ServiceError,
)
from ..keys.request import Data
from ..support.display import shortened, visible

# Codes and types, in lower case. Of a prompt that is too long: OpenAI's and Azure's, llama.cpp's, Azure's model
# inference API's.
TOO_LONG = re.compile(
    "context_length_exceeded|exceed_context_size_error|model_max_prompt_tokens_exceeded"
)
NO_QUOTA = re.compile(
    "insufficient_quota|billing_hard_limit_reached|billing_not_active|quota_exceeded"
)
# OpenAI's and Azure's, the last of OpenAI for models that reason; DashScope's.
FILTER_CODE = re.compile(
    "content_filter|content_policy|responsibleaipolicy|(?:bio|misalignment)_policy|invalid_prompt|data_?inspection"
)
# What Anthropic, DeepSeek, xAI and OpenRouter write, without a code of its own.
FILTERED = re.compile(
    r"content filtering policy|content exists risk|content violates usage guidelines|input was flagged",
    re.IGNORECASE,
)
# A refusal that is about where the request comes from, not about the key.
PLACE = re.compile(
    r"\b(?:country|countries|region|territory|location|network|firewall|vpn|ip address)\b"
    r"|unsupported_country|ip_not_authorized",
    re.IGNORECASE,
)
PLACE_REMEDY = "Call from a country and a network that the server allows; it did not reject the key"
# The codes of failures that come with the status 200 and are the request's (openai 3.57, ResponseError).
REQUESTS_FAULT = re.compile("image|data_residency_mismatch")

OWN_ERRORS = {
    error.__name__: error
    for error in (BudgetExceededError, CacheError, CacheMissError, ConfigError, ScopeError)
}
UNSUPPORTED = "input is not supported"  # llama.cpp's 500 for an image or a sound
RETRYABLE_STATUSES = (408, 409, 425)  # Request Timeout, Conflict, Too Early: worth another attempt
LONGEST_MESSAGE = 1000  # characters
# A request that is larger than the limit of a whole minute, in OpenAI's words and Groq's.
TOO_LARGE = re.compile(r"request too large|limit:? (\d+), requested:? (\d+)", re.IGNORECASE)
TOO_LARGE_REMEDY = "Waiting does not help: shorten the prompt, lower max_tokens, or ask for a higher limit per minute"
# The paths that requests add to BASE_URL.
CALL_PATHS = ("/chat/completions", "/completions", "/embeddings", "/models")
VERSION = re.compile(r"/v\d")  # of an API, in nearly every address


def failure(status_code: int, body: object, *, headers: Mapping[str, str] = {}) -> APIError:
    """Return the error for a status and a body.

    :param body: the parsed body, usually ``{"error": {"message", "type", "code", "param"}}``, or
        its text.
    :param headers: the response's headers, names in lower case.
    """
    error = _error_object(body)
    # FastAPI's ``detail`` is a text or a list
    message = error.get("message") or error.get("detail") or error
    message = str(message) if message else body.strip() if isinstance(body, str) else ""
    own_error = OWN_ERRORS.get(str(error.get("code")))
    if own_error is not None and error.get("type") == "llmcall":
        raise own_error(message)  # of the run that started this process, and answers it
    error_class, extras = _classified(status_code, error, message)
    api_error = error_class(
        f"{status_code}: {shortened(visible(message), LONGEST_MESSAGE) or 'no message'}",
        status_code=status_code,
        request_id=request_id(headers),
        retry_after=requested_wait(headers, error, is_limit=status_code == 429),
        **extras,
    )
    api_error.code = error.get("code")
    api_error.param = error.get("param")
    api_error.body = error or None
    if error_class is RateLimitError and _can_never_pass(message):
        api_error.retryable, api_error.remedy = False, TOO_LARGE_REMEDY
    if isinstance(api_error, AuthenticationError) and PLACE.search(f"{api_error.code} {message}"):
        api_error.refuses_key, api_error.remedy = False, PLACE_REMEDY
    return api_error


def _can_never_pass(message: str) -> bool:
    """Return whether a refusal says that the request is larger than the limit by itself."""
    found = TOO_LARGE.search(message)
    return found is not None and (found[1] is None or int(found[2]) > int(found[1]))


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the server's identifier for a request: OpenAI's header, or the one of Azure's gateway."""
    return headers.get("x-request-id") or headers.get("apim-request-id")


def raise_reported(body: dict[str, Data]) -> dict[str, Data]:
    """Return a body with the status 200, or an event of a stream, unless it reports an error.

    :raises APIError: the reported error, unless the body also holds an answer.
    """
    if reports_error(body) and not (body.get("choices") or body.get("data")):
        raise reported_failure(body)
    return body


def reports_error(body: Mapping[str, Data]) -> bool:
    """Return whether a body with the status 200, or an event of a stream, has an error in it."""
    # the second form is vLLM's and SGLang's
    return bool(body.get("error")) or body.get("object") == "error"


def reported_failure(body: Mapping[str, Data]) -> APIError:
    """Return the error that a body with the status 200, or an event of a stream, reports.

    Its status is the body's ``code`` or, in Groq's, ``status_code``, or follows from a code in words.
    """
    error = _error_object(body)
    for status in (error.get("code"), error.get("status_code")):
        if str(status).isdigit() and 400 <= int(str(status)) < 600:
            return failure(int(str(status)), body)
    code = str(error.get("code")).lower()
    if NO_QUOTA.search(code) or code == "rate_limit_exceeded":
        return failure(429, body)
    return failure(400 if FILTER_CODE.search(code) or REQUESTS_FAULT.search(code) else 500, body)


def _error_object(body: object) -> dict[str, Data]:
    if isinstance(body, list) and body:
        body = body[0]  # Gemini wraps its errors in a list
    details = body.get("error", body) if isinstance(body, dict) else {}
    if isinstance(details, dict):
        return details
    return {"message": details} if isinstance(details, str) else {}


def _classified(
    status: int, error: dict[str, Data], message: str
) -> tuple[type[APIError], dict[str, Data]]:
    """Return the class of an error, and its further arguments."""
    inner = error.get("innererror")
    inner_code = inner.get("code") if isinstance(inner, dict) else ""
    codes = f"{error.get('code')} {error.get('type')} {inner_code}".lower()
    # Some servers report a long prompt as a failure of their own (500: vLLM behind Xinference, Ollama).
    may_be_too_long = status not in (401, 403, 429) and (status < 500 or status in (500, 503))
    if TOO_LONG.search(codes) or (may_be_too_long and CONTEXT_TEXTS.search(message)):
        return ContextLengthError, lengths_in(error, message)
    if FILTER_CODE.search(codes) or FILTERED.search(message):
        return ContentFilterError, {}
    if (NO_QUOTA.search(codes) and status < 500) or status == 402:
        return QuotaExceededError, {}
    if status in (401, 403):
        return AuthenticationError, {}
    if status == 429:
        return RateLimitError, {}
    if (400 <= status < 500 and status not in RETRYABLE_STATUSES) or UNSUPPORTED in message:
        return InvalidRequestError, {}
    return ServiceError, {}


@functools.cache
def http_library() -> Any:
    """Return the installed SDK's HTTP library: httpx for openai 1.x and 2.x, httpx2 for 3.x."""
    from ..support.libraries import openai

    base_class = next(
        base for base in openai.DefaultHttpxClient.__mro__ if base.__name__ == "Client"
    )
    return sys.modules[base_class.__module__.partition(".")[0]]


def mapped_error(error: BaseException, url: str) -> APIError:
    """Return llmcall's error for an exception of the SDK or its HTTP library, without secrets.

    :param url: the request's address, for the message.
    """
    from ..support.libraries import openai

    if isinstance(error, APIError):
        return error
    secrets: list[str] = []
    if isinstance(error, openai.APIError):
        if isinstance(error.request, http_library().Request):  # a test's error may have a mock
            secrets = secrets_of(error.request)
        mask(error, secrets)  # it is the cause of ours, and shown with it
    if isinstance(error, openai.APIStatusError):
        body = without_secrets(error.response.text, secrets) if error.body is None else error.body
        return failure(error.status_code, body, headers=dict(error.response.headers.items()))
    cause = error.__cause__ or error
    description = without_secrets(f"{type(cause).__name__}: {cause}".removesuffix(": "), secrets)
    if isinstance(error, (openai.APITimeoutError, http_library().TimeoutException)):
        late = RequestTimeoutError(f"no answer from {url} within the timeout ({description})")
        late.note(is_unreachable=type(cause).__name__ in ("ConnectTimeout", "PoolTimeout"))
        return late
    return connection_error(cause, url, description)


def connection_error(error: BaseException, url: str, description: str) -> ServiceError:
    """Return the error for a server that cannot be reached, or whose connection broke.

    :param description: what happened.
    """
    what = description.rstrip(".")
    message = f"the connection failed: {what}. Is a server running at {url}?"
    if _has_cause(error, ssl.SSLCertVerificationError):
        trust = "If you trust this server, set SSL_CERT_FILE to the file of the certificate that signs for it"
        message = f"the connection failed: {what}. {trust}"
    elif _has_cause(error, socket.gaierror) and not proxy_hint(url):  # else it may be the proxy's
        message = f"Cannot resolve {host_of(url)}. Is this machine online? Is BASE_URL right?"
    service_error = ServiceError(message)
    # of httpx, or of httpx2
    service_error.note(is_unreachable=type(error).__name__ == "ConnectError")
    return service_error


def _has_cause(error: BaseException, kind: type[BaseException]) -> bool:
    """Return whether an error or one of its causes is of a kind."""
    cause: BaseException | None = error
    seen: set[int] = set()  # an error that was raised again may be among its own causes
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, kind):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


def proxy_hint(url: str) -> str:
    """Return a sentence about the proxy that the environment sets for an address; empty without one."""
    import urllib.request  # takes 60 ms

    scheme, host = url.partition("://")[0], host_of(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(host):
        return ""
    return (
        f" The environment sends requests to {host} through the proxy {without_password(proxy)}: "
        f"set NO_PROXY={host} to bypass it."
    )


def add_proxy(error: APIError, url: str) -> None:
    """Name the proxy in front of an unreachable address; for this machine, any error may be the proxy's."""
    if error.status_code is None or is_loopback(url):
        error.args = (f"{error}{proxy_hint(url)}",)


def add_likely_address(error: APIError, url: str) -> None:
    """Add the address that ``BASE_URL`` should probably be to a 404, unless the error is about the model.

    :param url: without a query.
    """
    address = suggestion = url.rstrip("/")
    for ending in CALL_PATHS:
        suggestion = suggestion.removesuffix(ending)
    if not VERSION.search(suggestion):
        suggestion += "/v1"
    if error.status_code != 404 or suggestion == address:
        return
    if suggestion.startswith(address) and "model" in f"{error.code} {error}".lower():
        return
    error.args = (f"{error} (BASE_URL is {url}; did you mean {suggestion}?)",)


# What the words of an error say: how long a context is, and how long to wait.

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
# Some servers name the sum of prompt and answer: the prompt is the sum without the answer, which they
# name in several ways.
REQUESTED = re.compile(r"you requested (?:a total of |about )?(\d{1,18}) tokens", re.IGNORECASE)
ANSWER = re.compile(
    r"(?<!\d)(\d{1,18}) (?:tokens )?(?:in|for) the (?:completion|output)", re.IGNORECASE
)


def lengths_in(error: dict[str, Data], message: str) -> dict[str, Data]:
    """Return the arguments of a :class:`~llmcall.ContextLengthError` that the server names.

    :param error: the error in the response's body.
    :param message: its message.
    """
    # llama.cpp's fields
    prompt = error.get("n_prompt_tokens")
    window = error.get("n_ctx")
    return {
        "prompt_tokens": prompt if type(prompt) is int else _prompt_in(message),
        "context_window": window if type(window) is int else _first_number(WINDOW, message),
    }


def _prompt_in(message: str) -> int | None:
    prompt = _first_number(PROMPT, message)
    requested = _first_number(REQUESTED, message)
    if prompt is not None or requested is None:
        return prompt
    return requested - (_first_number(ANSWER, message) or 0)


def _first_number(pattern: re.Pattern[str], message: str) -> int | None:
    match = pattern.search(message)
    return int(match[1]) if match else None


UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|[smhd])")
RETRY_INFO = "google.rpc.RetryInfo"
# A number from here on is a time in seconds since 1970, and one from the second on in milliseconds.
FIRST_TIME, FIRST_TIME_MS = 1e9, 1e11


def requested_wait(
    headers: Mapping[str, str], error: Mapping[str, Data] = {}, *, is_limit: bool = False
) -> float | None:
    """Return the seconds to wait that a server names, or ``None``.

    Sources: RFC 9110, section 10.2.3, for ``Retry-After``; ``retry-after-ms`` and
    ``x-ratelimit-reset-requests`` and ``-tokens`` are OpenAI's, Azure's and Groq's;
    ``X-RateLimit-Reset`` OpenRouter's, which also repeats headers in the error's ``metadata``; ``RetryInfo``
    Google's.

    :param headers: the response's headers, names in lower case.
    :param error: the error of the body.
    :param is_limit: ``True`` if a limit of the rate was reached: other responses tell when limits are
        reset, too, and name no wait.
    """
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        return seconds / 1000
    seconds = _number(headers.get("retry-after"))
    if seconds is not None:
        return seconds
    until = _date(headers.get("retry-after"))
    # The times are those of the server's clock, which may differ from this machine's, so the response's own
    # Date (section 6.6.1) is subtracted.
    sent_at = _date(headers.get("date"))
    now = time.time() if sent_at is None else sent_at
    if until is not None:
        return max(0.0, until - now)
    seconds = _google_wait(error)
    if seconds is not None or not is_limit:
        return seconds
    metadata = error.get("metadata")
    repeated = metadata.get("headers") if isinstance(metadata, dict) else None
    if isinstance(repeated, dict):
        headers = {**{str(name).lower(): str(text) for name, text in repeated.items()}, **headers}
    return _until_reset(headers, now)


def _until_reset(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds until the limits are reset, without that of requests if some are left."""
    requests, tokens = (
        _duration(headers.get(f"x-ratelimit-reset-{name}")) for name in ("requests", "tokens")
    )
    if tokens is not None and _number(headers.get("x-ratelimit-remaining-requests")):
        requests = None
    named = [seconds for seconds in (requests, tokens) if seconds is not None]
    reset = _number(headers.get("x-ratelimit-reset"))
    if named or reset is None:
        return max(named, default=None)
    if reset < FIRST_TIME:
        return reset
    return max(0.0, (reset / 1000 if reset >= FIRST_TIME_MS else reset) - now)


def _google_wait(error: Mapping[str, Data]) -> float | None:
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and str(detail.get("@type")).endswith(RETRY_INFO):
            return _duration(detail.get("retryDelay"))
    return None


def _duration(text: object) -> float | None:
    """Return the seconds of a text such as ``6m0s``, ``1.2s``, ``250ms`` or ``3``."""
    if not isinstance(text, str) or not re.fullmatch(f"(?:{PART.pattern})+", text.strip()):
        return _number(text)
    return sum(float(number) * UNITS[unit] for number, unit in PART.findall(text))


def _number(text: object) -> float | None:
    try:
        number = float(text) if isinstance(text, str) else -1.0
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _date(text: str | None) -> float | None:
    """Return an HTTP date in seconds since 1970, or ``None`` if it is not a possible date."""
    from datetime import timezone
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(text or "")
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
