"""The providers' own addresses, answered on this machine: a proxy for HTTPS that is all of them at once."""

from __future__ import annotations

import itertools
import json
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from servers import chunk, completion, embeddings, made_certificate

HOSTS = "api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com"
USAGE = {"input_tokens": 11, "output_tokens": 3}


class Providers:
    """Answer each request to a model with another text; a context manager.

    :param folder: for the certificate.
    :ivar asked: the path of each request, in order.
    :ivar variables: what leads a program here.
    """

    def __init__(self, folder: Path) -> None:
        certificate, key = made_certificate(folder, *HOSTS)
        self.asked: list[str] = []
        self._numbers = itertools.count()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, key)
        handler = type("Handler", (_Handler,), {"providers": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.variables = {
            "HTTPS_PROXY": f"http://127.0.0.1:{self._server.server_port}",
            "SSL_CERT_FILE": certificate,
            "ANTHROPIC_API_KEY": "none",
            "GOOGLE_API_KEY": "none",
        }

    def __enter__(self) -> Providers:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the answer as JSON, or as the events of a stream."""
        self.asked.append(path)
        number = next(self._numbers)
        text = json.dumps({"decision": "buy"}) if "response_format" in body else f"answer {number}"
        streams = bool(body.get("stream")) or "stream" in path
        if path.endswith("/chat/completions"):
            return chat_events(text) if streams else completion(text)
        if path.endswith("/responses"):
            return responses_events(text) if streams else response_of(text)
        if path.endswith("/messages"):
            return message_events(text) if streams else message_of(text)
        if path.endswith("/embeddings"):
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            return embeddings(*([float(number), 0.5] for _ in texts))
        if "enerateContent" in path:
            content = {"role": "model", "parts": [{"text": text}]}
            counts = {"promptTokenCount": 11, "candidatesTokenCount": 3, "totalTokenCount": 14}
            candidates = [{"content": content, "finishReason": "STOP", "index": 0}]
            whole = {"candidates": candidates, "usageMetadata": counts}
            return iter([("", whole)]) if streams else whole
        return {"object": "response.input_tokens", "input_tokens": number}


def chat_events(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the events of a streamed chat completion."""
    yield from (("", chunk(piece)) for piece in text)
    yield "", chunk(finish_reason="stop")


def response_of(text: str, status: str = "completed") -> dict[str, Any]:
    """Return a response of the Responses API."""
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"id": "m", "type": "message", "role": "assistant", "status": status, "content": [part]}
    return {
        "id": "r",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "gpt-4o-mini",
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            **USAGE,
            "total_tokens": 14,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }


def responses_events(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the events of a streamed response."""
    whole = response_of(text)
    [item] = whole["output"]
    begun = {**response_of("", "in_progress"), "output": [], "usage": None}
    where = {"item_id": "m", "output_index": 0, "content_index": 0}
    events: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": begun}),
        ("response.output_item.added", {**where, "item": {**item, "content": []}}),
        ("response.content_part.added", {**where, "part": {**item["content"][0], "text": ""}}),
        *(
            ("response.output_text.delta", {**where, "delta": piece, "logprobs": []})
            for piece in text
        ),
        ("response.output_text.done", {**where, "text": text, "logprobs": []}),
        ("response.output_item.done", {**where, "item": item}),
        ("response.completed", {"response": whole}),
    ]
    for number, (kind, data) in enumerate(events):
        yield kind, {"type": kind, "sequence_number": number, **data}


def message_of(text: str, reason: str | None = "end_turn") -> dict[str, Any]:
    """Return a message of Anthropic's API."""
    content = [{"type": "text", "text": text}]
    named = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    return {
        **named,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": USAGE,
    }


def message_events(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the events of a streamed message."""
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message_of("", None), "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": piece},
            }
            for piece in text
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    for event in events:
        yield event["type"], event


class _Handler(BaseHTTPRequestHandler):
    """Open the tunnel of a proxy's client, and answer what comes through it."""

    protocol_version = "HTTP/1.1"
    providers: Providers

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_CONNECT(self) -> None:
        """Be the host that is asked for."""
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with self.providers.tls.wrap_socket(self.connection, server_side=True) as tunnel:
            type(self)(tunnel, self.client_address, self.server)

    def do_POST(self) -> None:
        """Answer a request."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = self.providers.answer(self.path.partition("?")[0], body)
        is_whole = isinstance(answer, dict)
        content = json.dumps(answer).encode() if is_whole else b"".join(map(as_event, answer))
        if not is_whole and self.path.endswith("/chat/completions"):
            content += b"data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("content-type", "application/json" if is_whole else "text/event-stream")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def as_event(event: Iterable[Any]) -> bytes:
    """Return an event as a server sends it."""
    kind, data = event
    name = f"event: {kind}\n" if kind else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()
