"""What a program gets: recorded answers as the HTTP responses of the API."""

from __future__ import annotations

import base64
import functools
import json
from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..engine.drivers import END
from ..errors import LLMCallError

if TYPE_CHECKING:
    from types import ModuleType

    from .calls import ProgramClient

# the openai SDK keeps to it: the retries are llmcall's
NOT_REPEATED = ((b"x-should-retry", b"false"),)


@functools.cache
def derived(http: ModuleType, kind: type) -> Any:
    """Return a class of ours that the HTTP library takes for one of its own, synchronous and
    asynchronous.
    """
    return type(kind.__name__, (kind, *(getattr(http, base) for base in kind.bases)), {})  # type: ignore[attr-defined]


def whole_response(reply: Any) -> dict[str, Any]:
    """Return a chat's whole response; programs check that what a cassette leaves out of it is
    there.
    """
    return {
        "id": f"chatcmpl-{reply.cache_key[:29]}",
        "object": "chat.completion",
        "created": 0,
        **reply.raw,
    }


class ChatEvents:
    """Hand on a streamed chat as server-sent events, as its pieces come, synchronously or
    asynchronously.

    :param note: is given each error of llmcall's own that the program gets.
    :param body: what the program asked.
    :param stream: the answer.
    :param first: its first piece, or ``END``.
    """

    bases = "SyncByteStream", "AsyncByteStream"

    def __init__(
        self,
        note: Callable[[Exception], None],
        body: Mapping[str, Any],
        stream: Any,
        first: Any,
    ) -> None:
        self._note = note
        self._begun = {"id": "chatcmpl-recorded", "created": 0, "model": body.get("model")}
        self._wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._stream = stream
        self._opening = _chunk(self._begun, {"role": "assistant", "content": ""})
        self._has_text = first is not END  # of the first choice, which is told by its pieces
        if self._has_text:
            self._opening += self._told(first)

    def __iter__(self) -> Iterator[bytes]:
        yield self._opening
        try:
            for piece in self._stream:
                yield self._told(piece)
            last = self._rest(whole_response(self._stream.reply))
        except LLMCallError as error:
            last = self._failed(error)
        yield last

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._opening
        try:
            async for piece in self._stream:
                yield self._told(piece)
            last = self._rest(whole_response(self._stream.reply))
        except LLMCallError as error:
            last = self._failed(error)
        yield last

    def _told(self, piece: str) -> bytes:
        return _chunk(self._begun, {"content": piece})

    def _failed(self, error: LLMCallError) -> bytes:
        """Return an event of which the SDK makes an error of its own."""
        self._note(error)
        return _sent(about_error(error))

    def _rest(self, response: Mapping[str, Any]) -> bytes:
        """Return the events of what remains of the whole answer when the text of its first choice
        has been sent.
        """
        events: list[bytes] = []
        for choice in response["choices"]:
            index, message = choice.get("index", 0), choice["message"]
            delta = {
                name: value
                for name, value in message.items()
                if name != "role" and value is not None
            }
            if index == 0 and self._has_text:
                delta.pop("content", None)
            if message.get("tool_calls"):
                delta["tool_calls"] = [
                    {"index": number, **call} for number, call in enumerate(message["tool_calls"])
                ]
            # As the API does: programs stop reading where they see the reason, and look no further
            # into that chunk.
            events += (
                _chunk(response, delta, index),
                _chunk(response, {}, index, choice.get("finish_reason")),
            )
        if self._wants_usage and response.get("usage") is not None:
            events.append(_event(response, choices=[], usage=response["usage"]))
        return b"".join([*events, b"data: [DONE]\n\n"])

    def close(self) -> None:
        """Leave the rest."""
        self._stream.close()

    async def aclose(self) -> None:
        """Leave the rest."""
        await self._stream.aclose()


def _chunk(
    response: Mapping[str, Any], delta: dict[str, Any], index: int = 0, finish_reason: Any = None
) -> bytes:
    return _event(
        response, choices=[{"index": index, "delta": delta, "finish_reason": finish_reason}]
    )


def _event(response: Mapping[str, Any], **fields: Any) -> bytes:
    about = {name: response.get(name) for name in ("id", "created", "model")}
    return _sent({**about, "object": "chat.completion.chunk", **fields})


def _sent(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def embeddings_response(
    client: ProgramClient, body: Mapping[str, Any], found: Any
) -> dict[str, Any]:
    """Return the response to an embeddings request, encoded as the program asked for it."""
    one = isinstance(body["input"], str)
    texts, vectors = ([body["input"]], [found]) if one else (body["input"], found)
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(array("f", vector).tobytes()).decode() for vector in vectors]
    tokens = sum(int(client.count_tokens(text, body.get("model"))) for text in texts)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": vector}
            for i, vector in enumerate(vectors)
        ],
        "model": body.get("model"),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def made_response(
    http: ModuleType, status: int, data: Any, media_type: str = "application/json"
) -> Any:
    """Return a response with a text, or with data as JSON."""
    content = data if isinstance(data, str) else json.dumps(data)
    headers = [(b"content-type", media_type.encode()), *NOT_REPEATED]
    # also for iter_raw
    return http.Response(status, headers=headers, stream=http.ByteStream(content.encode()))


def about_error(error: BaseException) -> dict[str, Any]:
    return {
        "error": {
            "message": str(error),
            "type": "llmcall",
            "code": type(error).__name__,
            "param": None,
        }
    }
