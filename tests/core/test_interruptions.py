"""Interruptions at each effect of a call: whatever ends it, nothing is left held, and the next call is answered."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any, ClassVar

import pytest
from clients import http
from commands import LONGEST
from driver import CLOSED, Driver
from servers import chunks_of, completion, embeddings

import llmcall
from llmcall import LLMClient
from llmcall.core import flights, loops, threads
from llmcall.core.answer import answer_calls, reply_to
from llmcall.core.calls import Call
from llmcall.core.effects import AbandonedError, Leave, Procedure
from llmcall.core.prepare import prepare_chat, prepare_embeddings
from llmcall.programs.answering import calls_of
from llmcall.programs.recorder import ProgramClient
from llmcall.programs.requests import request_to_record
from llmcall.programs.transport import ProgramTransport
from llmcall.recorded_functions import OwnFunction, prepare_recorded, recorded_result
from llmcall.support.request_origin import LLMCALL, sender
from llmcall.support.waits import open_calls
from llmcall.traffic import gate, limits

ERRORS: dict[str, Callable[[], BaseException]] = {
    "Ctrl-C": KeyboardInterrupt,
    "a cancellation": asyncio.CancelledError,
    "a reader who leaves": AbandonedError,
    "no memory": MemoryError,
    "an error of the API": lambda: llmcall.ServiceError("broken off"),
    "a closed procedure": lambda: CLOSED,
}


SETTINGS: dict[str, Any] = {
    "model": "m",
    "limits_max_concurrent_calls": 1,
    "retry_waiting_time": 0,
    "on_error": "raise",
}


class Answering(LLMClient):
    """Answer at once, whole or streamed; ``failures`` come first."""

    api_type = "answering"

    def __init__(self, *failures: Exception, **settings: Any) -> None:
        self.failures = list(failures)
        super().__init__(**{**SETTINGS, **settings})

    def send(self, request: Any, timeout: float | None) -> Any:
        """Return an answer."""
        if self.failures:
            raise self.failures.pop(0)
        if request.kind == "embedding":
            return embeddings(*([1.0] for _ in request.body["input"]))
        return completion("Two coins.")

    def stream(self, request: Any, timeout: float | None) -> Iterator[Any]:
        """Yield an answer."""
        return Connected(chunks_of("Two ", "coins."))


class Connected(Iterator[Any]):
    """The chunks of an answer, with their connection, until it is closed.

    :cvar open: the connections that are open.
    """

    open: ClassVar[list[Connected]] = []

    def __init__(self, chunks: list[Any]) -> None:
        self._chunks = iter(chunks)
        self.open.append(self)

    def __next__(self) -> Any:
        return next(self._chunks)

    def close(self) -> None:
        """Close the connection."""
        self.open.remove(self)


class Samples(llmcall.types.Listener):
    """Hear which draws are answered."""

    def __init__(self) -> None:
        self.answered_ones: set[str | None] = set()

    def answered(self, call: llmcall.types.CallInfo, record: Any) -> None:
        """Note the draw."""
        self.answered_ones.add(call.sample)


def chat(text: str) -> Procedure[Any]:
    """Ask."""
    return reply_to(prepare_chat(Answering(), text, {}))


def chat_that_fails_twice(text: str) -> Procedure[Any]:
    """Ask a busy server."""
    busy = [llmcall.ServiceError("busy"), llmcall.RateLimitError("slow", status_code=429)]
    return reply_to(prepare_chat(Answering(*busy), text, {}))


def stream(text: str) -> Procedure[Any]:
    """Ask for a stream."""
    return reply_to(prepare_chat(Answering(), text, {})._replace(is_streamed=True))


def embedded(text: str) -> Procedure[Any]:
    """Embed two texts."""
    return answer_calls(prepare_embeddings(Answering(), [text, f"{text}!"], None, {}))


def function(text: str) -> Procedure[Any]:
    """Run a recorded function."""
    fields = {"function": "f", "arguments": {"text": text}}
    return recorded_result(
        prepare_recorded("function", fields, llmcall.settings(), OwnFunction(lambda: 3, "f"))
    )


def of_program(text: str) -> Procedure[Any]:
    """Ask as a program does that streams."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True}
    return reply_to(programs_call("/chat/completions", body, *chunks_of("Two ", "coins.")))


def programs_call(path: str, body: dict[str, Any], *answer: dict[str, Any]) -> Call:
    """Return the call of a program's request whose answer is streamed."""
    request = http.Request("POST", f"http://localhost:9/v1{path}", json=body)
    events = [*map(json.dumps, answer), "[DONE]"]
    content = "".join(f"data: {event}\n\n" for event in events).encode()
    headers = {"content-type": "text/event-stream"}
    to_record = threads.run(request_to_record(request, (), is_models_host=True))
    assert to_record is not None
    transport = ProgramTransport(
        http, to_record, lambda _: http.Response(200, headers=headers, content=content)
    )
    [call] = calls_of(transport, ProgramClient(base_url="http://localhost:9/v1", on_error="raise"))
    return call


CASES: list[Any] = [chat, chat_that_fails_twice, stream, embedded, function]
CASES += [of_program]


def held() -> dict[str, Any]:
    """Return what calls hold."""
    states = limits._states.values()
    return {
        "flights": [*flights.flights],
        "open calls": [*open_calls()],
        "gates": [*gate._under_way],
        "slots": [slot for state in states for slot in state.running],
        "waiting": [state.name for state in states if state.queue],
    }


NOTHING: dict[str, Any] = {name: [] for name in held()}


@pytest.mark.parametrize("ask", CASES, ids=lambda ask: ask.__name__)
def test_a_call_that_is_interrupted_at_any_effect_leaves_nothing_held(
    ask: Callable[[str], Procedure[Any]], tmp_path: Path
) -> None:
    """Neither flights, permits, reservations, draws nor connections; nor, as the driver
    checks, any context variable that it set. A closed procedure can await nothing: it leaves its connection to the
    garbage collector, as does an error in the closing.
    """
    with (
        llmcall.configured(cache_path=str(tmp_path), cache_mode="auto"),
        llmcall.budget(calls=1_000) as budget,
    ):
        whole = Driver()
        whole.run(ask("Hello"))
        for name, error in ERRORS.items():
            for number in range(len(whole.effects)):
                text, scope = f"{name} at {number}", f"{name}-{number}".replace(" ", "-")
                driver = Driver(number, error())
                with llmcall.scope(scope), Samples() as samples:
                    with contextlib.suppress(BaseException):
                        driver.run(ask(text))
                    assert held() == NOTHING, (text, driver.effects)
                    assert not budget.reserved, text
                    assert len(driver.effects) > number
                    can_close = name != "a closed procedure" and not isinstance(
                        driver.effects[number], Leave
                    )
                    assert not (can_close and Connected.open), (text, driver.effects)
                    Connected.open.clear()
                    Driver().run(ask(text))
                    assert held() == NOTHING, text
                    draws = samples.answered_ones - {None}
                    assert draws == {f"{scope}#{draw}" for draw in range(len(draws))}, text


def test_a_call_that_is_closed_in_another_context_changes_nothing_there() -> None:
    """The garbage collector may close it anywhere."""

    class Never(llmcall.types.AsyncTransport):
        def send(self, request: Any, timeout: float | None) -> Any:
            raise AssertionError("a coroutine was asked for")

        async def asend(self, request: Any, timeout: float | None) -> Any:
            await Forever()

    client = LLMClient(transport=Never(), **SETTINGS)
    own, other = copy_context(), copy_context()
    other.run(sender.set, LLMCALL)
    before = dict(other)
    call = prepare_chat(client, "Hello", {})
    call = call._replace(
        options=call.options._replace(timeout=None)
    )  # asyncio's timers need a loop
    asked: Any = loops.run(reply_to(call))
    own.run(asked.send, None)
    other.run(asked.close)
    assert dict(other) == before
    assert held() == NOTHING


class Forever:
    """What nothing ends."""

    def __await__(self) -> Iterator[None]:
        yield


CHILD = """
import contextlib, driver, llmcall
import test_interruptions as tests
driver.set_variables = dict  # its link names the ticket of what it sends
for ask in (tests.chat, tests.chat_that_fails_twice, tests.stream, tests.embedded, tests.function):
    whole = driver.Driver()
    whole.run(ask("whole"))
    for name, error in tests.ERRORS.items():
        for number in range(len(whole.effects)):
            text = f"{ask.__name__}-{name}-{number}".replace(" ", "-")
            with llmcall.scope(text):
                with contextlib.suppress(BaseException):
                    driver.Driver(number, error()).run(ask(text))
                assert tests.held() == tests.NOTHING, text
                driver.Driver().run(ask(text))
                assert tests.held() == tests.NOTHING, text
"""
PROGRAM = """
import subprocess, sys, time
import test_interruptions as tests
subprocess.run([sys.executable, "child.py"], check=True)
until = time.monotonic() + 30
while tests.held() != tests.NOTHING and time.monotonic() < until:
    time.sleep(0.05)  # the calls that the child has left are being cancelled
assert tests.held() == tests.NOTHING
"""


@pytest.mark.ci
def test_a_childs_call_that_is_interrupted_at_any_effect_leaves_nothing_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the child nor in the process that records it."""
    monkeypatch.chdir(tmp_path)
    Path("child.py").write_text(CHILD, encoding="utf-8")
    Path("program.py").write_text(PROGRAM, encoding="utf-8")
    run = [sys.executable, "-m", "llmcall", "run", "--cassette", "a.jsonl", "program.py"]
    path = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    ran = subprocess.run(
        run, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=LONGEST
    )
    assert ran.returncode == 0, ran.stderr


def test_a_call_that_is_cancelled_before_its_transport_begins_leaves_no_coroutine(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Its task is cancelled as the loop ends: what was never awaited would be a warning."""

    class Slow(llmcall.types.AsyncTransport):
        def send(self, request: Any, timeout: float | None) -> Any:
            raise AssertionError("a coroutine was asked for")

        async def asend(self, request: Any, timeout: float | None) -> Any:
            await asyncio.sleep(60)

        async def astream(self, request: Any, timeout: float | None) -> Any:
            await asyncio.sleep(60)
            yield {}

    client = LLMClient(transport=Slow(), **SETTINGS)

    async def ask() -> None:
        await asyncio.sleep(0)  # asked as the loop is about to end
        await client.asend_message("Hello")

    async def read() -> None:
        await asyncio.sleep(0)
        async with client.astream_message("Hello!") as stream:
            await anext(stream)

    async def leave() -> None:
        tasks.extend([asyncio.create_task(ask()), asyncio.create_task(read())])
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []

    asyncio.run(leave())
    assert all(task.cancelled() for task in tasks)
    tasks.clear()
    gc.collect()
    assert not [str(warning.message) for warning in recwarn]
    assert held() == NOTHING
