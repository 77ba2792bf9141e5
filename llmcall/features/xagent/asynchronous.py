"""XAgent's functions, asynchronous."""

from __future__ import annotations

from typing import Any

from ...clients.registry import client as shared_client
from ...core import loops
from ...errors import APIError, InvalidRequestError
from .functions import answer, sdk_error

SDK_CLASSES = ("AsyncOpenAI", "AsyncAzureOpenAI")


async def chatcompletion_request(
    *,
    max_lenght_fallback: bool = True,
    request_timeout: float | None = 60,
    prompt: str | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Call a model and return the whole response as a dict.

    Takes the same arguments as :func:`llmcall.chatcompletion_request`, and raises the same errors.

    >>> import asyncio
    >>> response = asyncio.run(llmcall.aio.chatcompletion_request(prompt="Good morning!", max_tokens=16))
    >>> response["choices"][0]["message"]["content"]
    'Good morning!'
    """
    return await loops.run(
        answer(SDK_CLASSES, max_lenght_fallback, request_timeout, prompt, kwargs)
    )


async def embedding_request(text: str) -> list[float] | None:
    """Return the embedding of a text, from the endpoint that lists the embedding model.

    :returns: the embedding's numbers, or ``None`` after a bad request, which is logged.
    :raises openai.OpenAIError: for any other failure, after the retries.

    >>> import asyncio
    >>> numbers = asyncio.run(llmcall.aio.embedding_request("Good morning!"))
    >>> len(numbers)
    576
    """
    try:
        return await shared_client().aget_embedding(text, on_error="raise")
    except InvalidRequestError as error:
        sdk_error(error)  # logs it
        return None
    except APIError as error:
        raise sdk_error(error) from error
