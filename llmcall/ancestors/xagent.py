"""XAgent's ``chatcompletion_request``, which uses the same settings and records as other calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..call.drivers import drive
from ..clients.openai import OpenAIClient
from ..clients.registry import client as shared_client
from ..errors import APIError
from .model_dump import model_dump
from .patched_sdk import is_patched, with_patched_sdk
from .sdk_errors import sdk_error

if TYPE_CHECKING:
    from ..call.effects import Flow

SDK_CLASSES = ("OpenAI", "AzureOpenAI")


def chatcompletion_request(
    *,
    max_lenght_fallback: bool = True,
    request_timeout: float | None = 60,
    prompt: str | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Ask a model and return the whole response as a dict, as the SDK's ``model_dump()`` does.

    :param max_lenght_fallback: whether to ask the next model of ``[Fallbacks]`` if the context is
        too long.
    :param request_timeout: seconds for one attempt.
    :param prompt: one user message, instead of ``messages``.
    :param kwargs: ``messages``, ``model`` and the other arguments of
        :meth:`LLMClient.send_message`, also ``cache``.
    :raises openai.BadRequestError: for a bad request, and if the context is too long and no
        fallback is left.
    :raises openai.OpenAIError: for any other failure, after the retries.

    >>> response = llmcall.chatcompletion_request(prompt="Good morning!", max_tokens=16)
    >>> response["choices"][0]["message"]["content"]
    'Good morning!'
    """
    return drive(answer(SDK_CLASSES, max_lenght_fallback, request_timeout, prompt, kwargs))


def answer(
    sdk_classes: tuple[str, ...],
    fallback: bool,
    timeout: float | None,
    prompt: str | None,
    arguments: dict[str, Any],
) -> Flow[dict[str, Any]]:
    """Answer a request, or raise the SDK's error; the same for both drivers.

    If a test has replaced the SDK, the replacement is called, and its answers are not recorded.

    :param sdk_classes: the SDK's classes that a test may have replaced.
    :param fallback: whether another model may be asked if the context is too long.
    :param timeout: seconds for one attempt.
    :param prompt: one user message, or ``None``.
    :param arguments: the other arguments of the call.
    :raises TypeError: if both ``prompt`` and ``messages`` are given, or neither.
    """
    parameters = dict(arguments)
    parameters.pop("schema_error_retry", None)  # an option of XAgent's own
    messages = parameters.pop("messages", None)
    if (messages is None) == (prompt is None):
        raise TypeError("give either messages= or prompt= (the text of a single user message)")
    if messages is None:
        messages = prompt
    client = shared_client()
    is_sdk_patched = False
    if isinstance(client, OpenAIClient) and client.api_type != "local":
        is_sdk_patched = is_patched(sdk_classes)
        if is_sdk_patched:
            client = with_patched_sdk(client)
    options = {"timeout": timeout, **parameters}
    try:
        record = yield from client.respond(messages, fallback, options, fresh=is_sdk_patched)
    except APIError as error:
        raise sdk_error(error) from error
    return record.response if is_sdk_patched else model_dump(record.response)
