"""The drivers: each effect is performed, its outcome goes back into the flow, and so do its errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from llmcall.engine.drivers import adrive, adrive_stream, drive, drive_stream
from llmcall.engine.effects import ALONE, END, Close, Do, Emit, Next, Open, Send, Sleep, Wait
from llmcall.engine.single_flight import Flight, SingleFlight
from llmcall.errors import RequestTimeoutError, ServiceError
from llmcall.types import Request

REQUEST = Request("chat", "m", {}, {"model": "m", "messages": []}, {}, None, "0" * 64)


class Transport:
    """Answer with what was asked, and stream three chunks; remember what was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def send(self, request: Request, timeout: float | None) -> dict[str, Any]:
        return {"model": request.model, "timeout": timeout, "thread": threading.get_ident()}

    def stream(self, request: Request, timeout: float | None) -> Iterator[dict[str, Any]]:
        try:
            yield from ({"text": text} for text in "abc")
        finally:
            self.closed += 1


class AsyncTransport(Transport):
    """Be the same with asynchronous twins."""

    async def asend(self, request: Request, timeout: float | None) -> dict[str, Any]:
        return self.send(request, timeout)

    async def astream(self, request: Request, timeout: float | None) -> AsyncGenerator[dict[str, Any], None]:
        try:
            for text in "abc":
                yield {"text": text}
        finally:
            self.closed += 1


def everything(transport: Transport) -> Any:
    """Yield each effect once and return what came back."""
    sent = yield Send(transport, REQUEST, 3.0)
    done = yield Do(lambda: "done")
    slept = yield Sleep(0)
    return sent["model"], sent["timeout"], done, slept


def streaming(transport: Transport) -> Any:
    """Hand on each chunk of a stream, closing it whatever happens."""
    chunks = yield Open(transport, REQUEST, None)
    texts = []
    try:
        while (chunk := (yield Next(chunks))) is not END:
            texts.append(chunk["text"])
            yield Emit(chunk["text"])
    finally:
        yield Close(chunks)
    return texts


def failing() -> Any:
    """Catch the error of an effect, and raise another."""
    try:
        yield Do(lambda: {}["missing"])
    except KeyError as error:
        raise ServiceError("the flow saw it") from error


def waiting(flight: Flight, timeout: float | None = None) -> Any:
    """Wait for the flight of another."""
    return (yield Wait(flight, timeout))


async def collected(stream: AsyncGenerator[str, None]) -> list[str]:
    """Read an asynchronous stream to its end."""
    return [text async for text in stream]


def led_elsewhere() -> Flight:
    """Return a flight that another thread leads."""
    flight = Flight("k")
    flight.thread = -1
    return flight


def test_effects_are_performed() -> None:
    """Each effect is performed and its outcome comes back, synchronously and in an event loop alike."""
    expected = ("m", 3.0, "done", None)
    assert drive(everything(Transport())) == expected
    assert asyncio.run(adrive(everything(AsyncTransport()))) == expected


def test_a_transport_without_twins_runs_in_threads() -> None:
    """In an event loop, a transport that only knows how to block does it in a thread."""

    def sent() -> Any:
        return (yield Send(Transport(), REQUEST, None))

    assert drive(sent())["thread"] == threading.get_ident()
    assert asyncio.run(adrive(sent()))["thread"] != threading.get_ident()


def test_errors_go_into_the_flow() -> None:
    """The error of an effect is raised inside the flow, which may catch it."""
    for run in (lambda: drive(failing()), lambda: asyncio.run(adrive(failing()))):
        with pytest.raises(ServiceError, match="the flow saw it") as caught:
            run()
        assert isinstance(caught.value.__cause__, KeyError)


def test_streams_are_handed_on() -> None:
    """Each emitted text reaches the reader, and at the end the flow's result is told."""
    results: list[Any] = []
    transport = Transport()
    assert list(drive_stream(streaming(transport), results.append)) == ["a", "b", "c"]
    assert results == [["a", "b", "c"]]
    assert transport.closed == 1


@pytest.mark.parametrize("transport", [AsyncTransport, Transport])
def test_asynchronous_streams_are_handed_on(transport: type[Transport]) -> None:
    """The same holds in an event loop, with an asynchronous transport and with one that blocks."""
    results: list[Any] = []
    used = transport()
    assert asyncio.run(collected(adrive_stream(streaming(used), results.append))) == ["a", "b", "c"]
    assert results == [["a", "b", "c"]]
    assert used.closed == 1


def test_a_reader_who_leaves_early() -> None:
    """Whoever stops reading closes the connection, and the flow has no result."""
    results: list[Any] = []
    transport = Transport()
    stream = drive_stream(streaming(transport), results.append)
    assert next(stream) == "a"
    stream.close()
    assert transport.closed == 1
    assert results == []


def test_an_asynchronous_reader_who_leaves_early() -> None:
    """The same holds in an event loop."""
    results: list[Any] = []
    transport = AsyncTransport()

    async def leave() -> None:
        stream = adrive_stream(streaming(transport), results.append)
        assert await anext(stream) == "a"
        await stream.aclose()

    asyncio.run(leave())
    assert transport.closed == 1
    assert results == []


def test_waiting_for_a_flight() -> None:
    """A follower gets what the leader lands with."""
    flight, outcomes = led_elsewhere(), []
    follower = threading.Thread(target=lambda: outcomes.append(drive(waiting(flight))))
    follower.start()
    SingleFlight().land(flight, "shared")
    follower.join()
    assert outcomes == ["shared"]


def test_waiting_for_a_flight_in_an_event_loop() -> None:
    """A task gets what a thread landed with, and its cancellation leaves the flight to the others."""
    flight = led_elsewhere()

    async def follow() -> Any:
        cancelled = asyncio.ensure_future(adrive(waiting(flight)))
        follower = asyncio.ensure_future(adrive(waiting(flight)))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert not flight.outcome.done()
        SingleFlight().land(flight, "shared")
        return await follower

    assert asyncio.run(follow()) == "shared"


def test_waiting_for_oneself() -> None:
    """A synchronous call on the thread that leads the flight would wait for ever, so it goes alone."""
    assert drive(waiting(SingleFlight().join("k")[1])) is ALONE


def test_waiting_has_an_end() -> None:
    """Who waits past its own deadline gets an error of its own, and the flight goes on."""
    flight = led_elsewhere()
    for run in (drive, lambda flow: asyncio.run(adrive(flow))):
        with pytest.raises(RequestTimeoutError, match="deadline"):
            run(waiting(flight, 0.001))
    assert not flight.outcome.done()


def test_followers_get_an_error_of_their_own() -> None:
    """The error that a leader shares is a copy for each follower, with the same cause: none spoils another's."""
    flight = led_elsewhere()
    shared = ServiceError("502", status_code=502)
    shared.__cause__ = OSError("the line")
    SingleFlight().land(flight, error=shared)
    caught: list[ServiceError] = []
    for run in (drive, drive, lambda flow: asyncio.run(adrive(flow))):
        with pytest.raises(ServiceError) as raised:
            run(waiting(flight))
        caught.append(raised.value)
    assert len({id(error) for error in [shared, *caught]}) == 4
    assert {(str(error), error.status_code, error.__cause__) for error in caught} == {("502", 502, shared.__cause__)}
