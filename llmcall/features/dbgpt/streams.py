"""DB-GPT's asynchronous functions, which post a chat request and do not record it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Any

from ...apis.bodies import EventStream, check_no_error, events_in
from ...apis.masking import secrets_of, without_secrets
from ...errors import ServiceError
from ...support.notices import logger

if TYPE_CHECKING:
    import httpx


async def chat_completion_stream(
    url: str,
    chat_data: Mapping[str, object],
    client: httpx.AsyncClient | None = None,
    headers: Mapping[str, Any] = {},
    timeout: float | None = 60,
    caller: Callable[[str], Awaitable[None] | None] | None = None,
) -> AsyncGenerator[str, None]:
    r"""Post a chat request and yield its answer piece by piece, as the server sends it.

    Nothing is cached, retried or counted. Closing the generator (``aclose()``) closes the
    connection.

    :param url: the full address, or a path below the ``base_url`` of ``client``.
    :param chat_data: the JSON body, with ``"stream": True`` for an answer in pieces.
    :param client: the client that posts, which stays open; by default a new one, which is closed.
    :param headers: HTTP headers.
    :param timeout: seconds for connecting, and for each read.
    :param caller: called with each piece before it is yielded, and awaited if it is a coroutine.
    :raises httpx.RequestError: if the status is not 200 (the log shows the body), the connection
        fails, or an event is malformed or reports an error.

    >>> import asyncio, httpx
    >>> events = "".join(f'data: {{"choices": [{{"text": "{word}"}}]}}\n\n' for word in ("Good", " morning!"))
    >>> server = httpx.MockTransport(lambda request: httpx.Response(200, text=events + "data: [DONE]\n\n"))
    >>> async def pieces():
    ...     async with httpx.AsyncClient(transport=server) as client:
    ...         stream = llmcall.aio.chat_completion_stream("http://server/v1/chat/completions", {}, client)
    ...         return [text async for text in stream]
    >>> asyncio.run(pieces())
    ['Good', ' morning!']
    """
    from ...support.libraries import httpx

    client_context = httpx.AsyncClient() if client is None else nullcontext(client)
    async with (
        client_context as http_client,
        http_client.stream(
            "POST", url, headers=dict(headers), json=chat_data, timeout=timeout
        ) as response,
    ):
        if response.status_code != 200:
            await response.aread()
            body = without_secrets(response.text, secrets_of(response.request))
            logger().error("Request failed with status %d. Error: %s", response.status_code, body)
            message = f"Request failed with status {response.status_code}"
            raise httpx.RequestError(message, request=response.request)
        async with aclosing(_pieces(response)) as pieces:
            async for piece in pieces:
                if caller is not None:
                    awaitable = caller(piece)
                    if awaitable is not None:
                        await awaitable
                yield piece


async def chat_completion(
    url: str,
    chat_data: Mapping[str, object],
    client: httpx.AsyncClient | None = None,
    headers: Mapping[str, object] = {},
    timeout: float | None = 60,
    caller: Callable[[str], Awaitable[None] | None] | None = None,
) -> str:
    """Post a chat request and return its whole answer.

    Takes the same arguments as :func:`chat_completion_stream`, and raises the same errors.

    >>> import asyncio, httpx
    >>> event = 'data: {"choices": [{"delta": {"content": "Good morning!"}}]}'
    >>> server = httpx.MockTransport(lambda request: httpx.Response(200, text=event))
    >>> question = {"messages": [{"role": "user", "content": "Good morning!"}], "stream": True}
    >>> async def answer():
    ...     async with httpx.AsyncClient(transport=server) as client:
    ...         return await llmcall.aio.chat_completion("http://server/v1/chat/completions", question, client)
    >>> asyncio.run(answer())
    'Good morning!'
    """
    stream = chat_completion_stream(url, chat_data, client, headers, timeout, caller)
    async with aclosing(stream) as pieces:
        return "".join([piece async for piece in pieces])


async def _pieces(response: httpx.Response) -> AsyncGenerator[str, None]:
    """Yield the pieces of text in a body."""
    from ...support.libraries import httpx

    try:
        async with aclosing(response.aiter_bytes()) as data:  # type: ignore[type-var]
            async for event in events_in(data, EventStream()):
                if text := _event_text(event):
                    yield text
    except ServiceError as error:
        raise httpx.RequestError(str(error), request=response.request) from error


def _event_text(event: dict[str, object] | str) -> str:
    """Return the text in an event, or a line outside any event; empty without text.

    The text is ``choices[0].delta.content`` (chat completions), ``choices[0].text`` (the older
    completions), or ``text`` if ``error_code`` is not zero (DB-GPT's clients show it instead of an
    answer).
    """
    if isinstance(event, str):
        return event
    if event.get("error_code"):
        return str(event.get("text") or event)
    check_no_error(event)
    choices = event.get("choices")
    if not choices:
        return ""  # the usage, or Azure's verdict on the prompt
    choice = choices[0] if isinstance(choices, list) else None
    if isinstance(choice, dict):
        delta = choice.get("delta") or {"content": choice.get("text")}
        text = delta.get("content") or "" if isinstance(delta, dict) else None
        if isinstance(text, str):
            return text
    raise ServiceError(f"a malformed event in the stream: {event!r:.200}")
