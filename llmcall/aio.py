"""The ancestors' functions, asynchronous: ``from llmcall.aio import chatcompletion_request``."""

from __future__ import annotations

from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Any

from .clients.api_errors import masked, secrets_of
from .clients.registry import client as shared_client
from .engine.drivers import adrive
from .errors import APIError, InvalidRequestError, ServiceError, short_traceback
from .legacy import answered, sdk_error
from .notices import logger
from .responses import EventStreamDecoder, check_no_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    import httpx

__all__ = [
    "chat_completion",
    "chat_completion_stream",
    "chatcompletion_request",
    "embedding_request",
]


@short_traceback
async def chatcompletion_request(
    *,
    max_lenght_fallback: bool = True,
    request_timeout: float | None = 60,
    prompt: str | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Ask a model and return the whole response as a dict; as
    :func:`llmcall.chatcompletion_request`.

    >>> import asyncio
    >>> response = asyncio.run(llmcall.aio.chatcompletion_request(prompt="Good morning!", max_tokens=16))
    >>> response["choices"][0]["message"]["content"]
    'Good morning!'
    """
    names = ("AsyncOpenAI", "AsyncAzureOpenAI")
    return await adrive(answered(names, max_lenght_fallback, request_timeout, prompt, kwargs))


@short_traceback
async def embedding_request(text: str) -> list[float] | None:
    """Return the embedding of a text, by the endpoint that lists the embedding model.

    :returns: its numbers, or ``None`` after a bad request, which is logged.
    :raises openai.OpenAIError: for other failures that remain after the retries.

    >>> import asyncio
    >>> numbers = asyncio.run(llmcall.aio.embedding_request("Good morning!"))
    >>> len(numbers)
    576
    """
    try:
        return await shared_client().aget_embedding(text, on_error="raise")
    except InvalidRequestError as error:
        sdk_error(error)
        return None
    except APIError as error:
        raise sdk_error(error) from error


async def chat_completion_stream(
    url: str,
    chat_data: Mapping[str, Any],
    client: httpx.AsyncClient | None = None,
    headers: Mapping[str, Any] = {},
    timeout: float | None = 60,
    caller: Callable[[str], Awaitable[None] | None] | None = None,
) -> AsyncGenerator[str, None]:
    r"""Post a chat request and yield the text of its answer piece by piece, as the server-sent
    events bring it.

    Nothing is cached, retried or counted here. Closing the generator (``aclose()``) closes the
    connection.

    :param url: the full address, or a path below the ``base_url`` of ``client``.
    :param chat_data: the JSON body, with ``"stream": True`` for an answer in pieces.
    :param client: the client that posts, left open; by default one of its own, closed at the end.
    :param headers: HTTP headers.
    :param timeout: seconds for connecting, and for each read.
    :param caller: awaited with each piece before it is yielded; a plain function is called.
    :raises httpx.RequestError: where the status is not 200 (its body is in the log), the connection
        fails, an event is malformed or reports an error, or the answer has more than 256 MiB.

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
    import httpx

    async with (
        httpx.AsyncClient() if client is None else nullcontext(client) as opened,
        opened.stream(
            "POST", url, headers=dict(headers), json=chat_data, timeout=timeout
        ) as response,
    ):
        if response.status_code != 200:
            await response.aread()
            text = masked(response.text, secrets_of(response.request))
            logger().error("Request failed with status %d. Error: %s", response.status_code, text)
            raise httpx.RequestError(
                f"Request failed with status {response.status_code}", request=response.request
            )
        async with aclosing(_pieces(response)) as pieces:
            async for piece in pieces:
                told = caller(piece) if caller is not None else None
                if told is not None:
                    await told
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
    async with aclosing(
        chat_completion_stream(url, chat_data, client, headers, timeout, caller)
    ) as pieces:
        return "".join([piece async for piece in pieces])


async def _pieces(response: httpx.Response) -> AsyncGenerator[str, None]:
    """Yield the texts of a body that are not empty."""
    import httpx

    decoder = EventStreamDecoder()
    try:
        async with aclosing(response.aiter_bytes()) as received:  # type: ignore[type-var]
            async for data in received:
                for text in filter(None, map(_text_in, decoder.feed(data))):
                    yield text
                if decoder.done:
                    return
        for text in filter(None, map(_text_in, decoder.close())):
            yield text
    except ServiceError as error:
        raise httpx.RequestError(str(error), request=response.request) from error


def _text_in(event: dict[str, Any] | str) -> str:
    """Return the text that an event, or a line that belongs to none, carries; ``""`` where there is
    none.

    It is ``choices[0].delta.content`` (chat completions), ``choices[0].text`` (the older
    completions), or ``text`` where ``error_code`` is not zero (DB-GPT, whose clients show it in
    place of an answer).
    """
    if isinstance(event, str):
        return event
    if event.get("error_code"):
        return str(event.get("text") or event)
    check_no_error(event)
    try:
        # none: only the usage, or Azure's verdict on the prompt
        choice = (event.get("choices") or [{}])[0]
        text = (choice.get("delta") or {"content": choice.get("text")}).get("content") or ""
    except (AttributeError, LookupError, TypeError):
        text = None
    if not isinstance(text, str):
        raise ServiceError(f"a malformed event in the stream: {event!r:.200}")
    return text
