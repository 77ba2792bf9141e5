"""``chatcompletion_request``, as XAgent's users call it, on the same road and records as everything else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .clients.openai import NO_KEY, OpenAIClient
from .clients.patched import PatchedTransport, is_patched
from .effects import drive
from .errors import APIError, ContextLengthError, InvalidRequestError
from .registry import client as shared_client

if TYPE_CHECKING:
    from .clients.base import LLMClient
    from .config import Endpoint
    from .effects import Flow
    from .flow import Answer

__all__ = ["asking", "chatcompletion_request", "dumped", "sdk_error"]

ACCEPTED = ("schema_error_retry",)  # XAgent passes it along; it says nothing to a model

# The fields that the SDK's model_dump() has beside those that the API sent (openai 3.51).
MESSAGE = ("content", "refusal", "role", "annotations", "audio", "function_call", "tool_calls")
CHOICE = ("finish_reason", "index", "logprobs", "message")
RESPONSE = ("id", "choices", "created", "model", "object", "service_tier", "system_fingerprint", "usage")


def chatcompletion_request(
    *, max_lenght_fallback: bool = True, request_timeout: float | None = 60, prompt: str | None = None, **kwargs: Any
) -> dict[str, Any]:
    """Ask a model and return the whole response as a dict, in the shape of the SDK's ``model_dump()``.

    :param max_lenght_fallback: where the context is too long, ask the next model of ``[Fallbacks]``.
    :param request_timeout: seconds for one attempt.
    :param prompt: one user message, instead of ``messages``.
    :param kwargs: ``messages``, ``model`` and the other arguments of :meth:`LLMClient.send_message`, also ``cache``.
    :raises openai.BadRequestError: for a bad request, also where the context is too long and no fallback is left.
    :raises openai.OpenAIError: for other failures that remain after the retries.
    """
    patched = is_patched("OpenAI", "AzureOpenAI")
    flow = asking(max_lenght_fallback, request_timeout, prompt, kwargs, patched=patched)
    try:
        return dumped(drive(flow).record.response, as_it_is=patched)
    except APIError as error:
        raise sdk_error(error) from error


def asking(
    fallback: bool, timeout: float | None, prompt: str | None, arguments: dict[str, Any], *, patched: bool
) -> Flow[Answer]:
    """Return the flow that answers a request; the same for both drivers.

    :param patched: whether a test has replaced the SDK's class: its answers are neither stored nor replaced.
    :raises TypeError: where both ``prompt`` and ``messages`` are given, or neither.
    """
    given = {name: value for name, value in arguments.items() if name not in ACCEPTED}
    messages = given.pop("messages", None)
    if (messages is None) == (prompt is None):
        raise TypeError("give either messages= or prompt=, which is one user message")
    client: LLMClient = _PatchedClient() if patched else shared_client()
    return client.responding(
        prompt if messages is None else messages, fallback, {"timeout": timeout, **given}, fresh=patched
    )


class _PatchedClient(OpenAIClient):
    """Send through whatever stands in the SDK's place."""

    def make_transport(self, endpoint: Endpoint) -> Any:
        azure = endpoint.api_type == "azure" or endpoint.azure_api_version is not None
        arguments: dict[str, Any] = {"api_key": endpoint.key() or NO_KEY}
        if azure:
            arguments |= {
                "azure_endpoint": endpoint.azure_endpoint or endpoint.base_url,
                "api_version": endpoint.azure_api_version,
            }
        else:
            arguments |= {"base_url": endpoint.base_url, "organization": endpoint.organization}
        return PatchedTransport("AzureOpenAI" if azure else "OpenAI", arguments, endpoint.name)


def dumped(response: dict[str, Any], *, as_it_is: bool = False) -> dict[str, Any]:
    """Return a response in the shape of ``model_dump()``: fields that the API left out are ``None``."""
    if as_it_is:
        return response
    choices = [
        {**dict.fromkeys(CHOICE), **choice, "message": {**dict.fromkeys(MESSAGE), **choice["message"]}}
        for choice in response["choices"]
    ]
    return {**dict.fromkeys(RESPONSE), **response, "choices": choices}


def sdk_error(error: APIError) -> Exception:
    """Return the SDK's error behind one of ours, and log a bad request; ours where the SDK raised none."""
    import logging

    import openai

    if isinstance(error, InvalidRequestError):
        logging.getLogger("llmcall").error("bad request: %s", error)
    if isinstance(error.__cause__, openai.OpenAIError):
        return error.__cause__
    return _bad_request(error) if isinstance(error, ContextLengthError) else error


def _bad_request(error: ContextLengthError) -> Exception:
    """Return the error that the SDK would have raised, had the server said what was found out here."""
    import openai

    http = sys.modules[openai.DefaultHttpxClient.__base__.__module__.partition(".")[0]]
    request = http.Request("POST", "http://localhost/chat/completions")
    body = {"message": f"maximum context length exceeded: {error}", "code": "context_length_exceeded"}
    return openai.BadRequestError(body["message"], response=http.Response(400, request=request), body=body)
