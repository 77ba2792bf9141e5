"""``chatcompletion_request``, as XAgent's users call it, by the same steps and records as
everything else.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

from .clients.api_errors import http_library, mapped_error
from .clients.openai import NO_KEY, OpenAIClient
from .clients.registry import client as shared_client
from .engine.drivers import drive
from .errors import (
    APIError,
    ContextLengthError,
    InvalidRequestError,
    RequestTimeoutError,
    short_traceback,
)

if TYPE_CHECKING:
    from .config.settings import Endpoint
    from .engine.drivers import Flow
    from .types import Request

# the address in an SDK error that no response of a server stands behind
NOWHERE = "http://localhost/chat/completions"

# The fields that the SDK's model_dump() has beside those that the API sent (openai 3.51).
LOGPROBS = ("content", "refusal")
MESSAGE = ("content", "refusal", "role", "annotations", "audio", "function_call", "tool_calls")
CHOICE = ("finish_reason", "index", "logprobs", "message")
USAGE = (
    "completion_tokens",
    "prompt_tokens",
    "total_tokens",
    "completion_tokens_details",
    "prompt_tokens_details",
)
RESPONSE = (
    "id", "choices", "created", "model", "object", "metadata", "moderation", "service_tier", "system_fingerprint",
    "usage",
)  # fmt: skip


@short_traceback
def chatcompletion_request(
    *,
    max_lenght_fallback: bool = True,
    request_timeout: float | None = 60,
    prompt: str | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Ask a model and return the whole response as a dict, in the shape of the SDK's
    ``model_dump()``.

    :param max_lenght_fallback: where the context is too long, ask the next model of
        ``[Fallbacks]``.
    :param request_timeout: seconds for one attempt.
    :param prompt: one user message, instead of ``messages``.
    :param kwargs: ``messages``, ``model`` and the other arguments of
        :meth:`LLMClient.send_message`, also ``cache``.
    :raises openai.BadRequestError: for a bad request, also where the context is too long and no
        fallback is left.
    :raises openai.OpenAIError: for other failures that remain after the retries.

    >>> response = llmcall.chatcompletion_request(prompt="Good morning!", max_tokens=16)
    >>> response["choices"][0]["message"]["content"]
    'Good morning!'
    """
    return drive(
        answered(("OpenAI", "AzureOpenAI"), max_lenght_fallback, request_timeout, prompt, kwargs)
    )


def answered(
    names: tuple[str, ...],
    fallback: bool,
    timeout: float | None,
    prompt: str | None,
    arguments: dict[str, Any],
) -> Flow[dict[str, Any]]:
    """Answer a request, or raise the SDK's error; the same for both drivers.

    Where a test has replaced the SDK, it is sent through what stands in its place, whose answers
    are no records.

    :param names: the SDK's classes that the function is known to use.
    :raises TypeError: where both ``prompt`` and ``messages`` are given, or neither.
    """
    given = dict(arguments)
    given.pop("schema_error_retry", None)  # XAgent passes it along; it says nothing to a model
    messages = given.pop("messages", None)
    if (messages is None) == (prompt is None):
        raise TypeError("give either messages= or prompt=, which is one user message")
    asked = prompt if messages is None else messages
    client = shared_client()
    is_sent_by_the_sdk = isinstance(client, OpenAIClient) and client.api_type != "local"
    is_replaced = is_sent_by_the_sdk and is_patched(names)
    if is_replaced:
        # The same settings, pools and meter, so not copy.copy(), which makes a client that begins
        # anew.
        shared, client = client, object.__new__(type(client))
        client.__dict__.update(
            shared.__dict__, _transports={}, transport=None, make_transport=PatchedTransport
        )
    try:
        outcome = yield from client.respond(
            asked, fallback, {"timeout": timeout, **given}, fresh=is_replaced
        )
    except APIError as error:
        raise sdk_error(error) from error
    response = outcome.record.response
    return response if is_replaced else dumped(response)


def dumped(response: dict[str, Any]) -> dict[str, Any]:
    """Return a response in the shape of ``model_dump()``: fields that the API left out are
    ``None``.
    """
    choices = [
        _filled(CHOICE, choice, message=MESSAGE, logprobs=LOGPROBS)
        for choice in response["choices"]
    ]
    return {**_filled(RESPONSE, response, usage=USAGE), "choices": choices}


def _filled(
    names: tuple[str, ...], given: dict[str, Any], **inner: tuple[str, ...]
) -> dict[str, Any]:
    """Return fields with those that are missing as ``None``; the same of the fields inside that are
    objects.
    """
    filled = {**dict.fromkeys(names), **given}
    for name, inside in inner.items():
        if isinstance(filled[name], dict):
            filled[name] = _filled(inside, filled[name])
    return filled


def sdk_error(error: APIError) -> Exception:
    """Return the SDK's error behind one of ours, and log a bad request; ours where the SDK raised
    none.
    """
    import logging

    import openai

    if isinstance(error, InvalidRequestError):
        logging.getLogger("llmcall").error("bad request: %s", error)
    if isinstance(error.__cause__, openai.OpenAIError):
        return error.__cause__
    if isinstance(error, RequestTimeoutError):
        return openai.APITimeoutError(request=http_library().Request("POST", NOWHERE))
    if not isinstance(error, ContextLengthError):
        return error
    # What the SDK would have raised, had the server said what was found out here.
    response = http_library().Response(400, request=http_library().Request("POST", NOWHERE))
    body = {
        "message": f"maximum context length exceeded: {error}",
        "code": "context_length_exceeded",
    }
    return openai.BadRequestError(body["message"], response=response, body=body)


def is_patched(names: tuple[str, ...]) -> bool:
    """Return whether any of these classes of the SDK, or what makes a completion, is not the SDK's
    own.
    """
    if (
        "openai" not in sys.modules
    ):  # what is not imported is not replaced, and importing it takes a second
        return False
    import openai
    from openai.resources.chat import completions

    found = [getattr(openai, name) for name in names]
    found += [completions.Completions.create, completions.AsyncCompletions.create]
    return any(str(getattr(each, "__module__", "")).partition(".")[0] != "openai" for each in found)


class PatchedTransport:
    """Call ``chat.completions.create`` of the class that is there at the time, and take its
    ``model_dump()``.

    :param endpoint: where to; one with an API version is Azure.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint.name
        self._arguments: dict[str, Any] = {
            "api_key": endpoint.key() or NO_KEY,
            "organization": endpoint.organization,
        }
        if endpoint.api_type == "azure" or endpoint.azure_api_version is not None:
            self._name = "AzureOpenAI"
            self._arguments |= {
                "azure_endpoint": endpoint.address,
                "api_version": endpoint.azure_api_version,
            }
            self._arguments |= (
                {"azure_deployment": endpoint.deployment} if endpoint.deployment else {}
            )
        else:
            self._name = "OpenAI"
            self._arguments |= {"base_url": endpoint.base_url}

    def send(self, request: Request, timeout: float | None) -> Any:
        """Return what stands for the response."""
        import openai

        try:
            sdk = getattr(openai, self._name)(**self._arguments, timeout=timeout)
            return sdk.chat.completions.create(**_arguments(request)).model_dump()
        except openai.APIError as error:
            raise mapped_error(error, self._endpoint) from error

    async def asend(self, request: Request, timeout: float | None) -> Any:
        """Return what stands for the response, as :meth:`send`."""
        import openai

        try:
            sdk = getattr(openai, f"Async{self._name}")(**self._arguments, timeout=timeout)
            completion = await _awaited(sdk.chat.completions.create(**_arguments(request)))
            return await _awaited(completion.model_dump())
        except openai.APIError as error:
            raise mapped_error(error, self._endpoint) from error


def _arguments(request: Request) -> dict[str, Any]:
    return {**request.body, **({"extra_headers": dict(request.headers)} if request.headers else {})}


async def _awaited(value: Any) -> Any:
    """Return a value that a mock may have made awaitable, or not."""
    return await value if inspect.isawaitable(value) else value
