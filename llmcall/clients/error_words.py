"""What the words of an API's error say: a context's length, and how long to wait."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from ..keys.request import Data

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


def says_too_long(message: str) -> bool:
    """Return whether a server's message says that a prompt is too long."""
    return CONTEXT_TEXTS.search(message) is not None


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
