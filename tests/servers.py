"""Servers on the loopback that behave as a model's API does, or as a broken one, by a script."""

from __future__ import annotations

import copy
import itertools
import json
import re
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import openai
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from llmcall import LLMClient, OpenAIClient

QUESTION = [{"role": "user", "content": "What do apples cost?"}]
TOOL_CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "price_of", "arguments": '{"item": "bread"}'},
}
CALLING: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
RETRY_AT_ONCE = {"retry_waiting_time": 0.0001, "retry_max_attempts": 3}
DRIP = 0.01  # seconds between two pieces of what drips
TOO_LONG = (
    60.0  # seconds: a client that still waits then does not keep its timeouts, and its test fails
)
OPEN_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
OPEN_BODY = b"Content-Length: 1000000\r\n\r\n"
ANY_PATH = re.compile(".*")
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with a time of 0: closing sends RST instead of FIN


class Seen(NamedTuple):
    """A request that a server saw."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Answer(NamedTuple):
    """What to answer: a status, a body (a text is sent as it is, anything else as JSON) and
    headers.
    """

    status: int = 200
    body: Any = ""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed

    def text(self) -> str:
        return self.body if isinstance(self.body, str) else json.dumps(self.body)


def completion(
    content: Any = "Two coins.", *, finish_reason: str = "stop", **fields: Any
) -> dict[str, Any]:
    """Return a chat completion as OpenAI's API gives it."""
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    message = {"role": "assistant", "content": content, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}
        ],
        "usage": usage,
        **fields,
    }


def embeddings(*vectors: Any) -> dict[str, Any]:
    """Return a list of embeddings as OpenAI's API gives it."""
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    return {
        "object": "list",
        "data": data,
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 8},
    }


def refusal(
    status: int, message: str = "no", *, headers: dict[str, str] | None = None, **fields: Any
) -> Answer:
    """Return an error as OpenAI's API gives it, with its identifier of the request."""
    error = {
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": None,
        **fields,
    }
    return Answer(status, {"error": error}, {"x-request-id": f"req-{status}", **(headers or {})})


OK = Answer(200, completion(), {"x-request-id": "req-ok"})


class Responding(LLMClient):
    """Answer with whole responses, without a server: one after the other, the last one again and
    again.
    """

    api_type = "responding"

    def __init__(self, *responses: Any, **settings: Any) -> None:
        self.responses = list(responses)
        super().__init__(**{"retry_waiting_time": 0, "retry_max_attempts": 1, **settings})

    def send(self, request: Any, timeout: float | None) -> Any:
        """Return a copy of the next response."""
        return copy.deepcopy(
            self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        )


class ScriptedServer:
    """Answer over HTTP: one answer after the other, the last one again and again.

    :ivar base_url: what a client is given.
    :ivar requests: what was seen, in order.
    """

    def __init__(self, server: HTTPServer, *answers: Answer) -> None:
        self.base_url = f"http://127.0.0.1:{server.port}/v1"
        self.requests: list[Seen] = []
        self._answers = answers
        self._lock = threading.Lock()
        server.expect_request(ANY_PATH).respond_with_handler(self._respond)

    def _respond(self, request: Request) -> Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self._lock:
            answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
            self.requests.append(
                Seen(request.full_path.rstrip("?"), headers, request.get_json(silent=True) or {})
            )
        return Response(answer.text(), answer.status, answer.headers, mimetype="application/json")


class NumberedServer:
    """Answer each chat completion with another text: "answer 0", "answer 1", and so on.

    A question with the word "wrongly" gets the status 400.

    :param slow: how long to wait before the answer to a question with the word "slowly", in seconds.
    :ivar address: the base URL that a program is given.
    :ivar asked: the last message of each request, in order.
    :ivar bodies: what was sent, in order.
    """

    def __init__(self, server: HTTPServer, *, slow: float = 0.0) -> None:
        self.address = server.url_for("/v1")
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self._slow = slow
        self._numbers = itertools.count()
        server.expect_request("/v1/chat/completions").respond_with_handler(self._respond)

    def _respond(self, request: Request) -> Response:
        body = request.get_json()
        question = body["messages"][-1]["content"]
        self.asked.append(question)
        self.bodies.append(body)
        if "slowly" in question:
            time.sleep(self._slow)
        if "wrongly" in question:
            return Response(refusal(400).text(), status=400, content_type="application/json")
        answer = completion(f"answer {next(self._numbers)}")
        return Response(json.dumps(answer), content_type="application/json")


Behaviour = Callable[[socket.socket, threading.Event], None]


class RawServer:
    """Behave on a bare socket: one behaviour for each connection, the last one again and again; a
    context manager.

    :ivar base_url: what a client is given.
    :ivar requests: what was seen, in order; a connection that brings no request counts nothing.
    """

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours = behaviours
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self.requests: list[Seen] = []

    def __enter__(self) -> RawServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with socket.create_connection(self._listener.getsockname()[:2]):
            self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, suppress(OSError):  # a client leaves when it likes
                if self._stopped.is_set():
                    return
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        seen = read_request(connection)
        if seen is not None:
            behaviour = self._behaviours[min(len(self.requests), len(self._behaviours) - 1)]
            self.requests.append(seen)
            behaviour(connection, self._stopped)


def read_request(connection: socket.socket) -> Seen | None:
    """Read a whole request: closing a socket with unread bytes would reset it."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        if not received:
            return None
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        received = connection.recv(65536)
        if not received:
            return None
        body += received
    return Seen(first.split(" ")[1], headers, json.loads(body or b"{}"))


def sends(data: bytes) -> Behaviour:
    """Send some bytes and close."""
    return lambda connection, stopped: connection.sendall(data)


def http(
    body: bytes,
    *,
    length: int | None = None,
    status: str = "200 OK",
    stays: bool = True,
    **headers: str,
) -> bytes:
    """Return a response with a body and its length, or with another length than it has.

    Where the connection does not stay, it says so: else the next attempt may find it open, and
    closed when it is used.
    """
    size = len(body) if length is None else length
    given = {"Content-Type": "application/json", "Content-Length": size, **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in given.items())]
    lines += [] if stays else ["Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answers(answer: Answer = OK, *, stays: bool = False) -> Behaviour:
    """Answer as an ordinary server would; it says that the connection ends then, or leaves that
    open.
    """
    return sends(
        http(answer.text().encode(), status=f"{answer.status} X", stays=stays, **answer.headers)
    )


def cut_chunk() -> Behaviour:
    """Send half of an answer in chunks, and close in the middle of one."""
    body = json.dumps(completion()).encode()
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return sends(head + f"{len(body):x}\r\n".encode() + body[: len(body) // 2])


def resets(connection: socket.socket, stopped: threading.Event) -> None:
    """Reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def closes(connection: socket.socket, stopped: threading.Event) -> None:
    """Close the connection without a byte."""


def stays_silent(connection: socket.socket, stopped: threading.Event) -> None:
    """Answer nothing until the client is gone."""
    connection.settimeout(TOO_LONG)
    connection.recv(1)


def stays_silent_after(data: bytes) -> Behaviour:
    """Send some bytes, and no more until the client is gone."""

    def behaviour(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(data)
        stays_silent(connection, stopped)

    return behaviour


def dripping(start: bytes, piece: bytes) -> Behaviour:
    """Send the same piece again and again, without a pause that a timeout for each read would
    notice, for too long.
    """

    def behaviour(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(start)
        for _ in range(int(TOO_LONG / DRIP)):
            connection.sendall(piece)
            if stopped.wait(DRIP):
                return

    return behaviour


def client_for(base_url: str, **settings: Any) -> OpenAIClient:
    """Return a client that tries three times and hardly waits; without certificates to load, it is
    made in no time.
    """
    http_client = openai.DefaultHttpxClient(verify=False)
    client = OpenAIClient(
        base_url=base_url, http_client=http_client, **{**RETRY_AT_ONCE, **settings}
    )
    weakref.finalize(client, http_client.close)
    return client


@contextmanager
def refusing() -> Iterator[str]:
    """Provide the base URL of a port on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
