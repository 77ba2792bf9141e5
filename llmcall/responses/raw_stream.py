"""Chat completions from any address, streamed as text: two functions that DB-GPT's users know."""

from __future__ import annotations

from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Any

from .sizes import LARGEST, LARGEST_REFUSAL, too_large

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    import httpx

__all__ = ["SECRET_NAMES", "chat_completion", "chat_completion_stream"]

SECRET_NAMES = ("auth", "key", "token", "secret", "cookie", "password", "credential", "signature", "sig")
SHORTEST_SECRET = 6  # characters; masking shorter values would blot out ordinary words


async def chat_completion_stream(
    url: str,
    chat_data: Mapping[str, Any],
    client: httpx.AsyncClient | None = None,
    headers: Mapping[str, Any] = {},
    timeout: float | None = 60,
    caller: Callable[[str], Awaitable[None] | None] | None = None,
) -> AsyncGenerator[str, None]:
    """Post a chat request and yield the text of its answer piece by piece, as the server-sent events bring it.

    Nothing is cached, retried or counted here. Closing the generator (``aclose()``) closes the connection.

    :param url: the full address, or a path below the ``base_url`` of ``client``.
    :param chat_data: the JSON body, with ``"stream": True`` for an answer in pieces.
    :param client: the client that posts, left open; by default one of its own, closed at the end.
    :param headers: HTTP headers.
    :param timeout: seconds for connecting, and for each read.
    :param caller: awaited with each piece before it is yielded; a plain function is called.
    :raises httpx.RequestError: where the status is not 200 (its body is in the log, the first MiB of it), or the
        connection fails.
    :raises ServiceError: where an event is malformed, or reports an error, or the answer has more than 256 MiB.
    """
    import httpx

    from .event_stream import EventReader

    async with (
        _opened(client) as opened,
        opened.stream("POST", url, headers=dict(headers), json=chat_data, timeout=timeout) as response,
    ):
        if response.status_code != 200:
            _log_refusal(response, await _start_of(response))
            raise httpx.RequestError(f"Request failed with status {response.status_code}", request=response.request)
        async with aclosing(_pieces(EventReader(), response)) as pieces:
            async for piece in pieces:
                await _tell(caller, piece)
                yield piece


async def chat_completion(
    url: str,
    chat_data: Mapping[str, Any],
    client: httpx.AsyncClient | None = None,
    headers: Mapping[str, Any] = {},
    timeout: float | None = 60,
    caller: Callable[[str], Awaitable[None] | None] | None = None,
) -> str:
    """Post a chat request and return the whole text of its answer.

    The arguments, and what is raised, are those of :func:`chat_completion_stream`.
    """
    async with aclosing(chat_completion_stream(url, chat_data, client, headers, timeout, caller)) as pieces:
        return "".join([piece async for piece in pieces])


def _opened(client: httpx.AsyncClient | None) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    import httpx

    return httpx.AsyncClient() if client is None else nullcontext(client)


async def _pieces(reader: Any, response: httpx.Response) -> AsyncGenerator[str, None]:
    size = 0
    async with aclosing(response.aiter_bytes()) as received:  # type: ignore[type-var]
        async for data in received:
            size += len(data)
            if size > LARGEST:
                raise too_large(LARGEST)
            for piece in reader.feed(data):
                yield piece
            if reader.done:
                return
    for piece in reader.close():
        yield piece


async def _start_of(response: httpx.Response) -> bytes:
    """Return the body of a refusal, as much of it as it may have."""
    start = bytearray()
    async with aclosing(response.aiter_bytes()) as received:  # type: ignore[type-var]
        async for data in received:
            start += data
            if len(start) > LARGEST_REFUSAL:
                break
    return bytes(start[:LARGEST_REFUSAL])


async def _tell(caller: Callable[[str], Awaitable[None] | None] | None, piece: str) -> None:
    told = caller(piece) if caller is not None else None
    if told is not None:
        await told


def _log_refusal(response: httpx.Response, body: bytes) -> None:
    import logging

    text = body.decode("utf-8", "replace")
    for secret in sorted(_secrets(response.request), key=len, reverse=True):
        text = text.replace(secret, "…")
    logging.getLogger("llmcall").error("Request failed with status %d. Error: %s", response.status_code, text)


def _secrets(request: httpx.Request) -> Iterator[str]:
    """Yield what a server must not get into the log by repeating it: the request's credentials, and their words."""
    fields: Iterable[tuple[str, str]] = [*request.headers.multi_items(), *request.url.params.multi_items()]
    values = [value for name, value in fields if any(word in name.lower() for word in SECRET_NAMES)]
    for value in [*values, request.url.password]:
        yield from (part for part in (value, *value.split()) if len(part) >= SHORTEST_SECRET and part != "Bearer")
