"""The chats of programs, answered by the model in this process whatever their address, key and model."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import TYPE_CHECKING

from ...core.effects import Blocks
from ...errors import ConfigError
from .client import find_model, running

if TYPE_CHECKING:
    import httpx

    from ...config.settings import Settings
    from ...programs.requests import RequestToRecord


def sender(
    library: ModuleType, to_record: RequestToRecord, settings: Settings
) -> Callable[[httpx.Request], Awaitable[httpx.Response]]:
    """Return what takes the place of the transport that would send a program's request.

    :param library: the request's module, ``httpx`` or ``httpx2``.
    """

    async def send(request: httpx.Request) -> httpx.Response:
        if to_record.kind != "chat":
            raise ConfigError(
                f"{request.method} {to_record.address} is not sent: with API_TYPE = local, a local model answers "
                "Chat Completions, and nothing is sent. Unset LLMCALL_API_TYPE to send it"
            )
        path = find_model(settings.model)
        address, key = await running(path, settings.context_window)
        body = {**json.loads(request.content), "model": path.stem}
        if (limit := body.pop("max_completion_tokens", None)) is not None:
            body["max_tokens"] = limit
        local = library.Request(
            "POST",
            f"{address}/v1/chat/completions",
            # no connection is left for a transport that is gone
            headers={"authorization": f"Bearer {key}", "connection": "close"},
            json=body,
            extensions=request.extensions,
        )
        # transports of their own, without the program's proxies
        if await Blocks():
            response: httpx.Response = library.HTTPTransport().handle_request(local)
        else:
            response = await library.AsyncHTTPTransport().handle_async_request(local)
        return response

    return send
