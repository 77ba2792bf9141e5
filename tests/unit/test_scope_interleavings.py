"""However actors interleave, each with a scope of its own, samples and answers are those of the sequential run."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcall import bind, scope
from llmcall.errors import InvalidRequestError
from llmcall.testing import ScriptedClient

MESSAGES = st.sampled_from(["hello", "how much?", "fail"])
ASKS = st.tuples(st.just("ask"), MESSAGES)
PROGRAMS = st.recursive(
    st.lists(ASKS, max_size=4),
    lambda inner: st.lists(ASKS | st.tuples(st.just("scope"), st.sampled_from(["a", "b"]), inner), max_size=4),
    max_leaves=6,
)
ACTORS = st.lists(PROGRAMS, min_size=2, max_size=4)
Seen = list[tuple[str | None, str | None]]


def client_in(folder: str, mode: str = "auto") -> ScriptedClient:
    """Return a client of which every answer is another, and "fail" fails at every second call."""
    numbers = itertools.count()

    def answer(messages: list[Any]) -> Any:
        number = next(numbers)
        return InvalidRequestError("no") if messages[-1]["content"] == "fail" and number % 2 else f"answer {number}"

    return ScriptedClient(answer, cache_mode=mode, cache_path=Path(folder) / "cache")


def steps(program: list[Any], client: ScriptedClient, seen: Seen) -> Iterator[None]:
    """Play an actor's program; stop before each call."""
    for step in program:
        if step[0] == "ask":
            yield
            reply = client.send_message(step[1])
            if reply is not None:
                seen.append((reply.sample, reply.content))
        else:
            # The scope is opened anew around each inner step: a generator must not keep one open between its steps.
            inner = steps(step[2], client, seen)
            while True:
                with scope(step[1]):
                    if next(inner, "end") == "end":
                        break
                yield


def sequentially(programs: list[Any], client: ScriptedClient) -> list[Seen]:
    """Let one actor after the other play."""
    seen: list[Seen] = [[] for _ in programs]
    with scope("trial"):
        for number, program in enumerate(programs):
            with scope(f"actor-{number}"):
                for _ in steps(program, client, seen[number]):
                    pass
    return seen


def in_threads(programs: list[Any], client: ScriptedClient, schedule: list[int]) -> list[Seen]:
    """Let each actor play in a thread of its own, a step at a time, in the order of a schedule."""
    seen: list[Seen] = [[] for _ in programs]
    turns: list[queue.Queue[bool]] = [queue.Queue() for _ in programs]
    done: queue.Queue[bool | BaseException] = queue.Queue()

    def actor(number: int) -> None:
        with scope(f"actor-{number}"):
            playing = steps(programs[number], client, seen[number])
            while turns[number].get():
                try:
                    done.put(next(playing, True) is True)
                except BaseException as error:
                    done.put(error)

    ended: bool | BaseException = False
    with scope("trial"):
        threads = [threading.Thread(target=bind(actor), args=(number,)) for number in range(len(programs))]
        for thread in threads:
            thread.start()
        playing = set(range(len(programs)))
        for turn in itertools.chain(schedule, itertools.count()):
            number = turn % len(programs)
            if number in playing:
                turns[number].put(True)
                ended = done.get()
                if ended is not False:
                    playing.remove(number)
            if not playing or isinstance(ended, BaseException):
                break
        for turn_queue in turns:
            turn_queue.put(False)
        for thread in threads:
            thread.join()
    if isinstance(ended, BaseException):
        raise ended
    return seen


def in_tasks(programs: list[Any], client: ScriptedClient) -> list[Seen]:
    """Let each actor play in a task of its own that gives way before each call."""
    seen: list[Seen] = [[] for _ in programs]

    async def actor(number: int) -> None:
        with scope(f"actor-{number}"):
            await played(programs[number], seen[number])

    async def played(program: list[Any], own: Seen) -> None:
        for step in program:
            await asyncio.sleep(0)
            if step[0] == "scope":
                with scope(step[1]):
                    await played(step[2], own)
                continue
            reply = await client.asend_message(step[1])
            if reply is not None:
                own.append((reply.sample, reply.content))

    async def main() -> None:
        with scope("trial"):
            await asyncio.gather(*(actor(number) for number in range(len(programs))))

    asyncio.run(main())
    return seen


def without_failures(programs: list[Any]) -> list[Any]:
    """Take out what fails: a failure is not recorded, so that a run with one is not replayed as it was."""
    return [
        [(step[0], step[1], without_failures([step[2]])[0]) if step[0] == "scope" else step
         for step in program if step != ("ask", "fail")]
        for program in programs
    ]  # fmt: skip


@settings(max_examples=30)
@given(ACTORS, st.lists(st.integers(0, 3), max_size=40))
def test_threads_replay_the_sequential_run(programs: list[Any], schedule: list[int]) -> None:
    """A run in threads, however they take turns, replays the run of one actor after the other, and vice versa."""
    programs = without_failures(programs)
    with TemporaryDirectory() as folder:
        expected = sequentially(programs, client_in(folder))
        assert in_threads(programs, client_in(folder, "replay"), schedule) == expected
    with TemporaryDirectory() as folder:
        expected = in_threads(programs, client_in(folder), schedule)
        assert sequentially(programs, client_in(folder, "replay")) == expected


@settings(max_examples=30)
@given(ACTORS)
def test_tasks_replay_the_sequential_run(programs: list[Any]) -> None:
    """The same holds for tasks of one event loop."""
    programs = without_failures(programs)
    with TemporaryDirectory() as folder:
        expected = sequentially(programs, client_in(folder))
        assert in_tasks(programs, client_in(folder, "replay")) == expected


@settings(max_examples=30)
@given(ACTORS, st.lists(st.integers(0, 3), max_size=30))
def test_failed_calls_leave_no_gaps(programs: list[Any], schedule: list[int]) -> None:
    """Whatever fails in whatever order, the numbers of each path and request are those from 0, each once."""
    with TemporaryDirectory() as folder:
        client = client_in(folder)
        seen = in_threads(programs, client, schedule)
        records = [record for record in client.cache.records() if record.sample]
    drawn: dict[tuple[str, str], list[int]] = {}
    for record in records:
        place, _, number = str(record.sample).partition("#")
        drawn.setdefault((place, str(record.request)), []).append(int(number))
    assert all(sorted(numbers) == list(range(len(numbers))) for numbers in drawn.values())
    assert len(records) == sum(map(len, seen))
