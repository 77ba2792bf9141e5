"""XAgent's ``chatcompletion_request``, with the same settings and records as other calls."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ...apis.shapes import as_chat
from ...clients.api_errors import failure, http_library, mapped_error
from ...clients.openai import NO_KEY, OpenAIClient
from ...clients.registry import client as shared_client
from ...config.endpoints import Endpoint
from ...core import threads
from ...core.answer import reply_to
from ...core.kinds import is_cut_by_context_window
from ...core.prepare import prepare_chat
from ...core.seams import AsyncTransport
from ...errors import APIError, ContextLengthError, InvalidRequestError, RequestTimeoutError
from ...keys.request import Data, Request
from ...support.notices import logger
from ...support.waits import resolved

_COMPLETIONS = "openai.resources.chat.completions"


def is_patched(names: tuple[str, ...]) -> bool:
    """Return whether a test has replaced a class of the SDK, or its method that makes a completion.

    :param names: the classes.
    """
    if "openai" not in sys.modules:
        return False  # not imported, so not replaced; importing it takes a second
    from ...support.libraries import openai

    objects = [getattr(openai, name) for name in names]
    if _COMPLETIONS in sys.modules:
        completions = import_module(_COMPLETIONS)  # another thread may still import it
        objects += [completions.Completions.create, completions.AsyncCompletions.create]
    modules = [str(getattr(replaceable, "__module__", "")) for replaceable in objects]
    return any(module.partition(".")[0] != "openai" for module in modules)


def with_patched_sdk(client: Any) -> Any:
    """Return a client that calls the replaced SDK and shares everything else with another one."""
    # copy.copy() would make a client with its own meter.
    patched = object.__new__(type(client))
    patched.__dict__.update(client.__dict__)
    patched._transports = {}
    patched.transport = None
    patched.make_transport = ReplacedSDKTransport
    return patched


class ReplacedSDKTransport(AsyncTransport):
    """A transport that calls ``chat.completions.create`` of the SDK's current class.

    :param endpoint: the server; one with an API version is Azure.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint.name
        self._arguments: dict[str, object] = {
            "api_key": endpoint.key() or NO_KEY,
            "organization": endpoint.organization,
        }
        if endpoint.api_type == "azure" or endpoint.azure_api_version is not None:
            self._class = "AzureOpenAI"
            self._arguments["azure_endpoint"] = endpoint.address
            self._arguments["api_version"] = endpoint.azure_api_version
            if endpoint.deployment:
                self._arguments["azure_deployment"] = endpoint.deployment
        else:
            self._class = "OpenAI"
            self._arguments["base_url"] = endpoint.base_url

    def send(self, request: Request, timeout: float | None) -> Any:
        """Return the response."""
        from ...support.libraries import openai

        try:
            sdk = getattr(openai, self._class)(**self._arguments, timeout=timeout)
            completion = sdk.chat.completions.create(**_create_arguments(request))
            return completion.model_dump()
        except openai.APIError as error:
            raise _own_error(error, self._endpoint) from error

    async def asend(self, request: Request, timeout: float | None) -> Any:
        """Return the response."""
        from ...support.libraries import openai

        try:
            sdk = getattr(openai, f"Async{self._class}")(**self._arguments, timeout=timeout)
            completion = await resolved(sdk.chat.completions.create(**_create_arguments(request)))
            return await resolved(completion.model_dump())
        except openai.APIError as error:
            raise _own_error(error, self._endpoint) from error


def _create_arguments(request: Request) -> Mapping[str, Any]:
    if not request.headers:
        return request.body
    return {**request.body, "extra_headers": dict(request.headers)}


def _own_error(error: Any, url: str) -> APIError:
    """Return llmcall's error for one of the SDK's, or for a test's, which may hold a mock or only a message."""
    from ...support.libraries import openai

    is_real = isinstance(error.request, http_library().Request) and error.body
    if is_real or not isinstance(error, openai.APIStatusError):
        return mapped_error(error, url)
    status = error.status_code
    if not isinstance(status, int):
        status = getattr(type(error), "status_code", 500)
    return failure(status, error.body or error.message)


SDK_CLASSES = ("OpenAI", "AzureOpenAI")


def chatcompletion_request(
    *,
    max_lenght_fallback: bool = True,
    request_timeout: float | None = 60,
    prompt: str | None = None,
    **kwargs: object,
) -> dict[str, object]:
    """Call a model and return the whole response as a dict, as the SDK's ``model_dump()`` does.

    :param max_lenght_fallback: ``True`` tries the next model of ``[Fallbacks]`` if the context is
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
    return threads.run(answer(SDK_CLASSES, max_lenght_fallback, request_timeout, prompt, kwargs))


async def answer(
    sdk_classes: tuple[str, ...],
    fallback: bool,
    timeout: float | None,
    prompt: str | None,
    arguments: dict[str, object],
) -> dict[str, Data]:
    """Answer a request, or raise the SDK's error.

    If a test has replaced the SDK, the replacement is called, and its answers are not recorded.

    :param sdk_classes: the SDK's classes that a test may have replaced.
    :param fallback: ``True`` if another model may be tried if the context is too long.
    :param timeout: seconds for one attempt.
    :param prompt: one user message, or ``None``.
    :param arguments: the other arguments of the call.
    :raises TypeError: if both ``prompt`` and ``messages`` are given, or neither.
    """
    options = {
        "timeout": timeout,
        **arguments,
        "on_error": "raise",
        "enable_pydantic_model_return": None,
    }
    options.pop("schema_error_retry", None)  # an option of XAgent's own
    messages = options.pop("messages", None)
    if (messages is None) == (prompt is None):
        raise TypeError("give either messages= or prompt= (the text of a single user message)")
    client = shared_client()
    takes_sdk = isinstance(client, OpenAIClient) and not client.sends_nothing
    is_sdk_patched = takes_sdk and is_patched(sdk_classes)
    if is_sdk_patched:
        client = with_patched_sdk(client)
        options["cache"] = False
    call = prepare_chat(client, prompt if messages is None else messages, options)
    if is_sdk_patched:
        call = call.unrecorded()
    if not fallback:
        call = call._replace(fallbacks=())
    try:
        reply = await reply_to(call, looks_up=not is_sdk_patched)
        if is_cut_by_context_window(reply.raw, call.request):
            raise ContextLengthError("the answer was cut where the context window ended")
    except APIError as error:
        raise sdk_error(error) from error
    return reply.raw if is_sdk_patched else model_dump(as_chat(reply.raw))


# The response as the SDK's model_dump() gives it

# The fields that it has even if the API did not send them (openai 3.51), by the object's name
FIELDS = {
    "response": "id choices created model object metadata moderation service_tier system_fingerprint "
    "usage",
    "choices": "finish_reason index logprobs message",
    "message": "content refusal role annotations audio function_call tool_calls",
    "logprobs": "content refusal",
    "usage": "completion_tokens prompt_tokens total_tokens completion_tokens_details "
    "prompt_tokens_details",
}


def model_dump(value: object, name: str = "response") -> Any:
    """Return a response, or an object in it, with ``None`` for each field that the API did not send."""
    if isinstance(value, list):
        return [model_dump(item, name) for item in value]
    if not isinstance(value, dict):
        return value
    filled = {**dict.fromkeys(FIELDS[name].split()), **value}
    return {key: model_dump(item, key) if key in FIELDS else item for key, item in filled.items()}


# The errors that the SDK raises

# The address in an SDK error without a server's answer
NO_ADDRESS = "http://localhost/chat/completions"


def sdk_error(error: APIError) -> Exception:
    """Return the SDK's error for an llmcall error, or the error itself if the SDK has no
    equivalent; log a bad request.
    """
    from ...support.libraries import openai

    if isinstance(error, InvalidRequestError):
        logger().error("bad request: %s", error)
    if isinstance(error.__cause__, openai.OpenAIError):
        return error.__cause__
    if isinstance(error, RequestTimeoutError):
        return openai.APITimeoutError(request=http_library().Request("POST", NO_ADDRESS))
    if isinstance(error, ContextLengthError):
        library = http_library()
        response = library.Response(400, request=library.Request("POST", NO_ADDRESS))
        message = f"maximum context length exceeded: {error}"
        body = {"message": message, "code": "context_length_exceeded"}
        return openai.BadRequestError(message, response=response, body=body)
    return error
