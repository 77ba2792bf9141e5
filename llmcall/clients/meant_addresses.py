"""The address that a user probably meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..errors import APIError

# What a request adds to BASE_URL.
CALL_PATHS = ("/chat/completions", "/completions", "/embeddings", "/models")
VERSION = re.compile(r"/v\d")  # of an API, in nearly every address


def meant_address(url: str) -> str | None:
    """Return the address that ``BASE_URL`` should probably be, or ``None`` if it looks right.

    :param url: without a query.
    """
    address = url.rstrip("/")
    suggestion = address
    for ending in CALL_PATHS:
        suggestion = suggestion.removesuffix(ending)
    if not VERSION.search(suggestion):
        suggestion += "/v1"
    return None if suggestion == address else suggestion


def guess_address(error: APIError, url: str) -> None:
    """Add the address that was probably meant to a 404, unless the model is what does not exist."""
    suggestion = meant_address(url)
    if error.status_code != 404 or suggestion is None:
        return
    if suggestion.startswith(url.rstrip("/")) and "model" in f"{error.code} {error}".lower():
        return
    error.args = (f"{error} (BASE_URL is {url}; did you mean {suggestion}?)",)
