"""Calls through a test's replacement of the OpenAI SDK."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ..clients.api_errors import failure, http_library, mapped_error
from ..clients.openai import NO_KEY
from ..config.endpoints import Endpoint
from ..core.seams import AsyncTransport
from ..errors import APIError
from ..keys.request import Request
from ..support.waits import resolved

_COMPLETIONS = "openai.resources.chat.completions"


def is_patched(names: tuple[str, ...]) -> bool:
    """Return whether a test has replaced a class of the SDK, or its method that makes a completion.

    :param names: the classes.
    """
    if "openai" not in sys.modules:
        return False  # not imported, so not replaced; importing it takes a second
    from ..support.libraries import openai

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
    patched.make_transport = PatchedTransport
    return patched


class PatchedTransport(AsyncTransport):
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
        from ..support.libraries import openai

        try:
            sdk = getattr(openai, self._class)(**self._arguments, timeout=timeout)
            completion = sdk.chat.completions.create(**_create_arguments(request))
            return completion.model_dump()
        except openai.APIError as error:
            raise _own_error(error, self._endpoint) from error

    async def asend(self, request: Request, timeout: float | None) -> Any:
        """Return the response."""
        from ..support.libraries import openai

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
    """Return llmcall's error for the SDK's, or for a test's: with a mock, or no words but its message."""
    from ..support.libraries import openai

    is_real = isinstance(error.request, http_library().Request) and error.body
    if is_real or not isinstance(error, openai.APIStatusError):
        return mapped_error(error, url)
    status = error.status_code
    if not isinstance(status, int):
        status = getattr(type(error), "status_code", 500)
    return failure(status, error.body or error.message)
