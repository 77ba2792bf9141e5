"""A chat completions server on the loopback that answers at once, or after the delay that its path
names.

``python stub_server.py`` prints its port and serves until its standard input closes. ``POST
/50/v1/chat/completions`` answers after 50 ms, ``POST /50-40/v1/chat/completions`` too, and refuses (429)
what is asked while 40 others wait for their answers. ``GET /calls`` tells how many completions were
asked for and how many were refused.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.workload import DRAW, completion

HEAD = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
REFUSAL: dict[str, object] = {"error": {"message": "too many at once", "type": "rate_limit"}}
BACKLOG = 1024  # connections that may wait: 500 are opened at once


class StubProtocol(asyncio.Protocol):
    """Answer the requests of one connection in turn."""

    calls = refused = waiting = 0

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is there as a whole."""
        self._received += data
        while (request := self._whole_request()) is not None:
            self._answer(*request)

    def _whole_request(self) -> tuple[str, bytes] | None:
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        length = _content_length(head)
        if not blank or len(rest) < length:
            return None
        self._received = rest[length:]
        return head.split(b" ", 2)[1].decode(), rest[:length]

    def _answer(self, path: str, body: bytes) -> None:
        if not body:
            self._send({"calls": StubProtocol.calls, "refused": StubProtocol.refused})
            return
        StubProtocol.calls += 1
        delay, _, most = path.split("/")[1].partition("-")
        if most and StubProtocol.waiting >= int(most):
            StubProtocol.refused += 1
            self._send(REFUSAL, 429)
            return
        question = json.loads(body)["messages"][-1]["content"]
        response = completion(
            f"{question} {StubProtocol.calls}" if question.startswith(DRAW) else question
        )
        if int(delay):
            StubProtocol.waiting += 1
            asyncio.get_running_loop().call_later(int(delay) / 1000, self._send_late, response)
        else:
            self._send(response)

    def _send_late(self, response: dict[str, object]) -> None:
        StubProtocol.waiting -= 1
        self._send(response)

    def _send(self, response: dict[str, object], status: int = 200) -> None:
        body = json.dumps(response).encode()
        self._transport.write(HEAD % (status, len(body)) + body)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def serve() -> None:
    """Print the port and serve until the standard input closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(StubProtocol, "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
