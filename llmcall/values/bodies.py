"""The bytes of a response as JSON."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from ..errors import ServiceError
from ..notices import warn_once

# Bytes of an answer, after the decoding of gzip: 2,048 embeddings of 3,072 numbers, the most that
# OpenAI gives at once, have about half of it.
LARGEST = 256 * 2**20


SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def append(body: bytearray, data: bytes) -> None:
    """Append the next piece of a body.

    :raises ServiceError: if the body gets larger than ``LARGEST``; another attempt would not help.
    """
    body += data
    check_size(len(body))


def check_size(size: int) -> None:
    if size > LARGEST:
        error = ServiceError(
            f"the answer is larger than {LARGEST >> 20} MiB, so llmcall stopped reading it"
        )
        error.retryable = False
        raise error


def read_object(text: str | bytes | bytearray, name: str) -> dict[str, Any]:
    """Return the JSON object that a server sent.

    U+FFFD replaces each lone surrogate, which is not text. ``None`` replaces NaN and the infinities,
    which JSON does not have.

    :param name: its name in the error: ``"answer"``, ``"chunk in the stream"``.
    :raises ServiceError: if it is not a JSON object.
    """
    start = text[:200] if isinstance(text, str) else bytes(text[:200])
    try:
        text = text if isinstance(text, str) else text.decode()
        data = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        if SURROGATE_ESCAPE.search(text):
            data = without_halves(data)
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"a malformed {name}, not JSON: {start!r}") from error
    if not isinstance(data, dict):
        raise ServiceError(f"a malformed {name}, not a JSON object: {start!r}")
    return data


def without_halves(data: Any) -> Any:
    """Return a copy of plain data with U+FFFD for each lone surrogate."""
    encoded = json.dumps(data, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
    return json.loads(encoded.decode("utf-16-le", "replace"))


def finite(data: Any) -> Any:
    """Return a copy of plain data with ``None`` for NaN and the infinities."""
    if isinstance(data, dict):
        return {name: finite(item) for name, item in data.items()}
    if isinstance(data, list):
        return [finite(item) for item in data]
    is_number = not isinstance(data, float) or math.isfinite(data)
    return data if is_number else _no_number(str(data))


def _finite(text: str) -> Any:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _no_number(name: str) -> Any:
    """Return the value for NaN or an infinity, such as the log probability of an impossible token."""
    warn_once(
        f"a response has the number {name}, which JSON cannot represent: llmcall returns and records "
        "None instead of such numbers",
        about=_no_number,
    )
    return None


def check_no_error(event: dict[str, Any]) -> None:
    """Raise the error that an event of a stream reports; OpenRouter's also hold the text so far."""
    error = event.get("error")
    if error:
        details = error if isinstance(error, dict) else {"message": error}
        service_error = ServiceError(
            f"the server sent an error inside the stream: {details.get('message') or error}"
        )
        service_error.code = details.get("code")
        raise service_error
