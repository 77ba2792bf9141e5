"""Requests and responses of ASGI, the interface through which uvicorn hands them to the run's server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..support.request_origin import LLMCALL, sent_by
from .http_responses import error_body
from .transport import MESSAGE_HEADERS

if TYPE_CHECKING:
    import httpx

# The bytes of a body pass unchanged, and the SDK must know whether to retry.
KEPT_HEADERS = {b"content-encoding", b"content-length", b"x-should-retry"}
# A browser neither shows an answer in a page, nor gives it to one, nor takes it for a script.
GUARDS = {
    b"content-security-policy": b"sandbox; default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
DROPPED_HEADERS = MESSAGE_HEADERS - KEPT_HEADERS | GUARDS.keys()
SHARING = b"access-control-"  # begins the headers by which a server opens its answers to pages

Event = MutableMapping[str, Any]  # of ASGI: its values' types depend on its type
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


class BadRequest(Exception):
    """A request that the server refuses.

    :param status: the status of the response.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_content(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
    """Return the body of a request.

    :raises BadRequest: if it is compressed.
    """
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise BadRequest(415, "llmcall reads bodies without a content-encoding")
    pieces, has_more = [], True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest(400, "the client left before its request was whole")
        pieces.append(message.get("body", b""))
        has_more = message.get("more_body", False)
    return b"".join(pieces)


async def send_error(send: Send, status: int, error: Exception) -> None:
    """Send an error as JSON."""
    content = json.dumps(error_body(error)).encode()
    headers = [
        *GUARDS.items(),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def send_response(send: Send, receive: Receive, response: httpx.Response) -> None:
    """Send a response piece by piece, and close it, also where the client leaves before its end."""
    headers = [
        (name.lower(), value)
        for name, value in response.headers.raw
        if name.lower() not in DROPPED_HEADERS and not name.lower().startswith(SHARING)
    ]
    headers.extend(GUARDS.items())
    start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
    if response.is_stream_consumed:  # what is recorded, and a failure, are there as a whole
        await send(start)
        await send({"type": "http.response.body", "body": response.content})
        return
    task = asyncio.current_task()
    has_left = False

    async def cancel_if_left() -> None:
        nonlocal has_left
        while (await receive())["type"] != "http.disconnect":
            pass
        has_left = True
        if task is not None:
            task.cancel()

    with sent_by(LLMCALL):  # what the task sends is unrecorded
        watch = asyncio.create_task(cancel_if_left())
    try:
        await send(start)
        async for piece in response.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        watch.cancel()
        await send({"type": "http.response.body", "body": b""})
    except asyncio.CancelledError:
        if not has_left:
            raise
    finally:
        watch.cancel()
        await response.aclose()
