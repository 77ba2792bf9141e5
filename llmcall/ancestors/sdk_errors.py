"""The errors that the OpenAI SDK raises, in place of llmcall's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..clients.sdk_exceptions import http_library
from ..errors import APIError, ContextLengthError, InvalidRequestError, RequestTimeoutError
from ..notices import logger

if TYPE_CHECKING:
    import openai

# The address in an SDK error if no server answered.
NO_ADDRESS = "http://localhost/chat/completions"


def sdk_error(error: APIError) -> Exception:
    """Return the SDK's error for one of llmcall's, or that itself if the SDK has none for it.

    Logs a bad request.
    """
    import openai

    if isinstance(error, InvalidRequestError):
        logger().error("bad request: %s", error)
    if isinstance(error.__cause__, openai.OpenAIError):
        return error.__cause__
    if isinstance(error, RequestTimeoutError):
        return openai.APITimeoutError(request=http_library().Request("POST", NO_ADDRESS))
    if isinstance(error, ContextLengthError):
        return _bad_request(error)
    return error


def _bad_request(error: ContextLengthError) -> openai.BadRequestError:
    """Return the error that the SDK raises if a server finds the context too long."""
    import openai

    library = http_library()
    response = library.Response(400, request=library.Request("POST", NO_ADDRESS))
    message = f"maximum context length exceeded: {error}"
    body = {"message": message, "code": "context_length_exceeded"}
    return openai.BadRequestError(message, response=response, body=body)
