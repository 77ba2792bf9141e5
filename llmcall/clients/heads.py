"""The head of a request as the SDK made it, sent again with another body.

The SDK makes address and headers anew for every request, which takes longer than sending it; they are the same for all
calls of a model. So its first request to a model is the pattern of those that follow, which go through the same HTTP
client and fail with the same errors.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from .sdk_errors import transport_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Head", "timeouts"]

CONNECTING = 0.8  # the share of an attempt's time in which the connection must be there
OF_ONE_REQUEST = (b"content-length", b"cookie", b"x-stainless-read-timeout")
NAMES_OF_SERVERS = "sni_hostname"  # the only extension of the SDK's own
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode  # as the SDK does


class Head(NamedTuple):
    """Hold where requests go, and their headers as bytes."""

    url: Any
    headers: list[tuple[bytes, bytes]]
    extensions: dict[str, Any]

    @classmethod
    def of(cls, request: Any) -> Head:
        """Return the head of a request that the SDK made."""
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in OF_ONE_REQUEST]
        extensions = {name: value for name, value in request.extensions.items() if name == NAMES_OF_SERVERS}
        return cls(request.url, headers, extensions)

    def request(self, sdk: Any, body: Mapping[str, Any], seconds: float | None) -> Any:
        """Return a request with a body, to be sent by the HTTP client of the SDK's.

        :param seconds: bound each step of it, as the SDK's timeout does.
        """
        extensions = {**self.extensions, "timeout": timeouts(seconds).as_dict()}
        content = _encode(body).encode()
        return sdk._client.build_request("POST", self.url, headers=self.headers, content=content, extensions=extensions)

    def send(self, sdk: Any, body: Mapping[str, Any], seconds: float | None) -> Any:
        """Send a body and return the response, of which the body is not read yet; raise what the SDK would."""
        request = self.request(sdk, body, seconds)
        try:
            answer = sdk._client.send(request, stream=True)
        except _broken() as error:
            _fail(request, error)
        if answer.is_success:
            return answer
        try:
            answer.read()
        finally:
            answer.close()
        raise sdk._make_status_error_from_response(answer) from None

    async def asend(self, sdk: Any, body: Mapping[str, Any], seconds: float | None) -> Any:
        """Send a body, as :meth:`send`, by the asynchronous client."""
        request = self.request(sdk, body, seconds)
        try:
            answer = await sdk._client.send(request, stream=True)
        except _broken() as error:
            _fail(request, error)
        if answer.is_success:
            return answer
        try:
            await answer.aread()
        finally:
            await answer.aclose()
        raise sdk._make_status_error_from_response(answer) from None


@lru_cache(maxsize=64)
def timeouts(seconds: float | None) -> Any:
    """Return the SDK's timeouts: a connection that is not there in time is given up before its task is cancelled.

    Cancelled in the middle of TLS's handshake, the asynchronous libraries forget to close it (anyio 4.9, httpcore 1.0).
    """
    import openai

    return openai.Timeout(seconds, connect=None if seconds is None else CONNECTING * seconds)


def _broken() -> tuple[type[BaseException], ...]:
    """Return what the SDK takes for a failed connection (openai 3.51, _httpx2.request_exceptions)."""
    import anyio

    return (*transport_errors("RequestError"), OSError, anyio.EndOfStream)


def _fail(request: Any, error: BaseException) -> NoReturn:
    import openai

    if isinstance(error, transport_errors("TimeoutException")):
        raise openai.APITimeoutError(request=request) from error
    raise openai.APIConnectionError(request=request) from error
