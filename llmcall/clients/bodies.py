"""The body of an answer as it comes, up to the size that an answer may have, and the start of a refusal's."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from ..responses.sizes import LARGEST, LARGEST_REFUSAL, too_large
from .redirects import OF_THE_SDK, hooked

__all__ = ["Body", "bounding", "is_cut"]


class Body:
    """Put the pieces of a body together.

    :ivar data: what has come.
    """

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, piece: bytes) -> None:
        """Take in the next piece.

        :raises ServiceError: where it makes the body too large.
        """
        self.data += piece
        if len(self.data) > LARGEST:
            raise too_large(LARGEST)


def bounding(sdk: Any, *, asynchronous: bool = False) -> Any:
    """Let an SDK client read of a refusal, or of a redirect, no more than its start, and return it.

    The SDK reads a refusal whole before anybody can look at it, and its HTTP library a redirect. What of it has been
    read then is all that they know of.
    """
    return hooked(sdk, "response", _aread_start if asynchronous else _read_start)


def _read_start(response: Any) -> None:
    if not _is_refusal(response):
        return
    start = bytearray()
    for piece in response.iter_bytes():
        start += piece
        if len(start) > LARGEST_REFUSAL:
            break
    response.close()
    _keep(response, start)


async def _aread_start(response: Any) -> None:
    if not _is_refusal(response):
        return
    start = bytearray()
    async with aclosing(response.aiter_bytes()) as pieces:
        async for piece in pieces:
            start += piece
            if len(start) > LARGEST_REFUSAL:
                break
    await response.aclose()
    _keep(response, start)


def _is_refusal(response: Any) -> bool:
    """Tell whether a response has no answer; a user's HTTP client may get others than those to the SDK's requests."""
    return not response.is_success and OF_THE_SDK in response.request.headers


def _keep(response: Any, start: bytearray) -> None:
    response._content = bytes(start[: LARGEST_REFUSAL + 1])  # as its read() does (httpx 0.28, httpx2 2.16)


def is_cut(response: Any) -> bool:
    """Tell whether of a refusal only the start was read."""
    content = getattr(response, "_content", None)  # a mock's is none
    return isinstance(content, bytes) and len(content) > LARGEST_REFUSAL
