"""The ancestors' functions, asynchronous: ``from llmcall.aio import chatcompletion_request``."""

from __future__ import annotations

from typing import Any

from .clients.registry import client as shared_client
from .engine.drivers import adrive
from .errors import APIError, InvalidRequestError
from .legacy import answering, asking, dumped, is_stand_in, sdk_error
from .responses.raw_stream import chat_completion, chat_completion_stream

__all__ = ["chat_completion", "chat_completion_stream", "chatcompletion_request", "embedding_request"]


async def chatcompletion_request(
    *, max_lenght_fallback: bool = True, request_timeout: float | None = 60, prompt: str | None = None, **kwargs: Any
) -> dict[str, Any]:
    """Ask a model and return the whole response as a dict; as :func:`llmcall.chatcompletion_request`."""
    client = answering("AsyncOpenAI", "AsyncAzureOpenAI")
    flow = asking(client, max_lenght_fallback, request_timeout, prompt, kwargs)
    try:
        return dumped((await adrive(flow)).record.response, as_it_is=is_stand_in(client))
    except APIError as error:
        raise sdk_error(error) from error


async def embedding_request(text: str) -> list[float] | None:
    """Return the embedding of a text, by the endpoint that lists the embedding model.

    :returns: its numbers, or ``None`` after a bad request, which is logged.
    :raises openai.OpenAIError: for other failures that remain after the retries.
    """
    try:
        return await shared_client().aget_embedding(text, on_error="raise")
    except InvalidRequestError as error:
        sdk_error(error)
        return None
    except APIError as error:
        raise sdk_error(error) from error
