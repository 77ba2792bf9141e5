"""Servers that fail as servers do: by a seeded draw for each attempt, to many connections at a
time.
"""

from __future__ import annotations

import json
import random
import socket
import threading
from collections import Counter
from contextlib import suppress

from processes import SECONDS
from servers import (
    OPEN_BODY,
    OPEN_HEAD,
    Answer,
    Behaviour,
    RawServer,
    answers,
    closes,
    completion,
    cut_chunk,
    dripping,
    http,
    read_request,
    refusal,
    resets,
    sends,
    stays_silent,
)
from streaming import HEAD, chunks_of, event


def flooding(start: bytes, piece: bytes) -> Behaviour:
    """Send the same piece without end and without a pause, until the client leaves."""

    def behaviour(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(start)
        while not stopped.is_set():
            connection.sendall(piece)

    return behaviour


FAULTS: dict[str, Behaviour] = {
    "400": answers(refusal(400)),
    "401": answers(refusal(401)),
    "408": answers(refusal(408)),
    "429": answers(refusal(429, headers={"retry-after-ms": "1"})),
    "500": answers(refusal(500)),
    "503": answers(refusal(503)),
    "HTML": answers(Answer(200, "<html>Sign in</html>")),
    "half of JSON": sends(http(b'{"choices": [')),
    "no choices": answers(Answer(200, {"choices": []})),
    "an error with 200": answers(Answer(200, {"error": {"message": "overloaded", "code": 503}})),
    "no HTTP": sends(b"220 mail.example.org ESMTP\r\n"),
    "close": closes,
    "reset": resets,
    "a cut chunk": cut_chunk(),
    "a cut stream": sends(HEAD + b"".join(map(event, chunks_of("half")[:2]))),
    "an error event": sends(HEAD + event({"error": {"message": "overloaded", "code": 503}})),
    "a short body": sends(http(b"{", length=100)),
    "silence": stays_silent,
    "a dripping body": dripping(OPEN_HEAD + OPEN_BODY, b" "),
    "endless headers": flooding(OPEN_HEAD, b"X-More: " + b"x" * 1000 + b"\r\n"),
}


def whole(item: str, streamed: bool) -> tuple[bytes, bool]:
    """Return the good answer to an item, and whether the connection stays open after it."""
    if streamed:
        return HEAD + b"".join(map(event, [*chunks_of("answer to ", item), b"[DONE]"])), False
    return http(json.dumps(completion(f"answer to {item}")).encode()), True


class Storm(RawServer):
    """Answer each item's attempts well or with a fault, as a seed draws it; a context manager.

    :param share: of the attempts that fail.
    :ivar attempts: how often each item was asked for.
    :ivar faults: how often each fault was met.
    """

    def __init__(self, seed: int, share: float) -> None:
        super().__init__()
        self.attempts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._seed, self._share = seed, share
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.all_left()

    def all_left(self) -> bool:
        """Wait until every client has closed its connections, without having been told to; return
        whether they did.
        """
        for thread in self._threads:
            thread.join(SECONDS)
        return not any(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._stopped.is_set():
                connection.close()
                return
            self._threads.append(
                threading.Thread(target=self._answer, args=(connection,), name="storm", daemon=True)
            )
            self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while (seen := read_request(connection)) is not None:
                item = seen.body["messages"][-1]["content"]
                fault = self._drawn(item)
                if fault is not None:
                    fault(connection, self._stopped)
                    return
                data, stays = whole(item, bool(seen.body.get("stream")))
                connection.sendall(data)
                if not stays:
                    return

    def _drawn(self, item: str) -> Behaviour | None:
        with self._lock:
            self.attempts[item] += 1
            dice = random.Random(f"{self._seed}/{item}/{self.attempts[item]}")
            if dice.random() >= self._share:
                return None
            name = dice.choice(sorted(FAULTS))
            self.faults[name] += 1
            return FAULTS[name]
