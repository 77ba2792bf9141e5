"""The contracts of transports, storages and listeners, as checks that each implementation passes."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llmcall
from llmcall import LLMClient, ServiceError
from llmcall.apis.chunks import DONE, Assembler
from llmcall.clients.user_transports import as_transport
from llmcall.core import loops, threads
from llmcall.core.callbacks import Reading, aclose, close
from llmcall.core.effects import Next, Open, Send
from llmcall.core.kinds import KINDS, Kind
from llmcall.core.seams import Response, Sends
from llmcall.keys.request import Request
from llmcall.stores.cache.storages import Change, Storage
from llmcall.support.listeners import CallListener, Listener, listen, stop_listening
from llmcall.support.loop_waits import awaited
from llmcall.testing import ScriptedClient

THREADS = 4
ROWS = 10  # that each thread writes
TIMEOUT = 20.0  # of an attempt
QUESTION: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


# Transports


def run_in_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a procedure in an event loop."""
    return asyncio.run(awaited(loops.run(coroutine)))


def check_transport(
    make: Callable[[], Sends], request: Request | None = None, *, at_once: bool = True
) -> None:
    """Check a transport in threads and event loops: whole and streamed, left half-way, at once, and closed.

    :param at_once: ``True`` if it serves several calls at the same time; llmcall's own for one call do not.
    """
    asked = request or Request("chat", "m", QUESTION, QUESTION, {}, None, "0" * 64)
    transport = as_transport(make(), LLMClient())

    def sent() -> Request:
        return asked._replace(body=dict(asked.body), headers=dict(asked.headers))

    def accept(response: Response) -> None:
        KINDS.get(asked.kind, Kind()).check(asked, response, must_fit_window=False)

    async def send() -> Response:
        return await Send(transport, sent(), TIMEOUT)

    async def read(most: int | None = None) -> Response | None:
        chunks = await Open(transport, sent(), TIMEOUT)
        if chunks is None:
            return None
        assembler, whole, count = Assembler(), None, 0
        async with Reading(chunks):
            while (chunk := await Next(chunks, TIMEOUT)) is not None:
                if isinstance(chunk, Response):
                    whole = chunk or whole
                elif chunk is not DONE and not isinstance(chunk, bytes):
                    assembler.add(chunk)
                count += 1
                if count == most:
                    return None
        return whole or Response(assembler.response())

    async def together() -> list[Response]:
        return await asyncio.gather(*(loops.run(send()) for _ in range(THREADS)))

    async def send_and_close() -> None:
        accept(await send())
        await aclose(transport)

    for run in (threads.run, run_in_loop):
        accept(run(send()))
        if (streamed := run(read())) is not None:
            accept(streamed)
        run(read(most=1))  # a stream left half-way is closed
        accept(run(send()))
    if at_once:
        with ThreadPoolExecutor(THREADS) as pool:
            answers = pool.map(lambda _: threads.run(send()), range(THREADS))
        for response in [*answers, *run_in_loop(together())]:
            accept(response)
    close(transport)
    accept(threads.run(send()))  # which opens connections again
    run_in_loop(send_and_close())
    close(transport)
    close(transport)


# Storages


def check_storage(make: Callable[[], Storage]) -> None:
    """Check a storage.

    :param make: returns a new object for one place, which is empty at first.
    """
    storage, other = make(), make()
    check_empty(storage)
    check_first_counts(storage)
    check_order(storage)
    check_shared(storage, other)
    check_threads(storage, other)
    before = len(storage)
    assert storage.clear() == before
    check_empty(storage)
    storage.close()


def check_empty(storage: Storage) -> None:
    """Check a storage without rows."""
    assert (list(storage.rows()), len(storage), storage.get("a")) == ([], 0, None)
    assert storage.write([Change("a", None)]) == 0


def check_first_counts(storage: Storage) -> None:
    """Check that the bytes which were stored first stay unless a change replaces them."""
    now, every_byte = time.time(), bytes(range(256))
    assert storage.write([Change("a", every_byte)]) == 1
    row = storage.get("a")
    assert row is not None and row[0] == every_byte and abs(row[1] - now) < 60
    assert storage.write([Change("a", b"second")]) == 0
    assert storage.get("a") == row
    assert storage.write([Change("a", b"third", True, 5.0)]) == 1
    assert storage.get("a") == (b"third", 5.0)


def check_order(storage: Storage) -> None:
    """Check that rows come in the order of storing, and that a change may read a row while changes are written."""
    storage.write([Change("c", b"", stored_at=3.0), Change("b", b"B" * 2**20, stored_at=1.0)])
    storage.write([Change("a", b"A", True, 5.0)])
    rows = [("a", b"A", 5.0), ("c", b"", 3.0), ("b", b"B" * 2**20, 1.0)]
    assert (list(storage.rows()), len(storage)) == (rows, 3)
    assert storage.write([Change("c", None), Change("none", None), Change("d", b"D")]) == 2
    assert [key for key, *_ in storage.rows()] == ["a", "b", "d"]
    storage.write(
        Change(key, (row[0] or b"") + b"!", True, row[1])
        for key in ("a", "d", "none")
        if (row := storage.get(key)) is not None
    )
    assert [(storage.get(key) or (None,))[0] for key in ("a", "d")] == [b"A!", b"D!"]


def check_shared(storage: Storage, other: Storage) -> None:
    """Check that two objects for one place read the same, and that a closed one opens at its next use."""
    assert list(other.rows()) == list(storage.rows())
    other.write([Change("e", b"E")])
    assert storage.get("e") is not None
    other.close()
    storage.close()
    assert other.get("e") == storage.get("e") != None  # noqa: E711


def check_threads(storage: Storage, other: Storage) -> None:
    """Check that threads and objects that write at the same time lose nothing, and that one key has one value."""
    barrier = threading.Barrier(THREADS, timeout=TIMEOUT)

    def store(number: int) -> tuple[int, bytes | None]:
        own = (storage, other)[number % 2]
        barrier.wait()
        count = own.write([Change("raced", b"%d" % number)])
        for place in range(ROWS):
            own.write([Change(f"{number}-{place}", b"")])
        return count, (own.get("raced") or (None,))[0]

    with ThreadPoolExecutor(THREADS) as pool:
        counts, values = zip(*pool.map(store, range(THREADS)), strict=True)
    assert (sum(counts), len(set(values))) == (1, 1)
    kept = sum(key.partition("-")[1] == "-" for key, *_ in storage.rows())
    assert kept == THREADS * ROWS
    other.close()


# Listeners


def check_listener(make: Callable[[], Listener | CallListener]) -> None:
    """Check that a listener changes neither what callers get nor what is recorded."""
    expected = heard()
    listener = make()
    listen(listener)
    try:
        assert heard() == expected
    finally:
        stop_listening(listener)


def heard() -> list[object]:
    """Make answered, replayed, streamed and failed calls; return what came of them, and the file that has them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calls.jsonl"
        return [calls(folder, path, "once"), calls(folder, path, "none"), path.read_bytes()]


def calls(folder: str, path: Path, mode: str) -> list[object]:
    """Make calls of every kind, and return what came of them."""
    client = ScriptedClient(in_capitals, cache_mode="auto", cache_path=folder, on_error="raise")
    with llmcall.cassette(path, mode=mode), llmcall.scope("Ann"):
        got: list[object] = [client.send_message("Hello"), client.send_message("Hello")]
        got.append(list(client.stream_message("Hello")))
        got.append(client.get_embedding(["Hello", "you"]))
    failing = ScriptedClient([ServiceError("it fails")], retry_max_attempts=1, on_error="return")
    return [*got, type(failing.send_message("Hello"))]


def in_capitals(messages: list[Any]) -> Any:
    """Answer a chat or embeddings."""
    if isinstance(messages[-1], str):
        return [[float(len(text)), 0.5] for text in messages]
    return messages[-1]["content"].upper()
