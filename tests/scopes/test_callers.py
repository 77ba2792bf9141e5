"""Equal requests of several tasks and threads in one scope: each gets its own answer in a replay."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import json
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import QUESTION, Server, ask, plain_program
from commands import LONGEST

import llmcall
from llmcall.testing import ScriptedClient


@contextlib.contextmanager
def recorded(mode: str = "once", actor: str | None = None) -> Iterator[None]:
    """Stand in a scope that all threads have, under ``patched``, with a cassette."""
    with (
        llmcall.cassette("run.jsonl", mode=mode),
        llmcall.patched(actor, cache_mode="off"),
        llmcall.scope("s", process=True),
    ):
        yield


def in_threads(job: Callable[[], Any], count: int) -> list[Any]:
    """Run a job in several threads at once; return what each came to."""
    begin = threading.Barrier(count, timeout=LONGEST)
    found: dict[int, Any] = {}

    def run(number: int) -> None:
        begin.wait()
        found[number] = job()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(count)]


def callers(path: str = "run.jsonl") -> dict[str, list[str | None]]:
    """Return the callers of a cassette's records, by the seed of the request."""
    found: dict[str, list[str | None]] = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "request" in entry:
            found.setdefault(str(entry["request"].get("seed")), []).append(entry.get("caller"))
    return found


def test_a_record_names_its_caller_if_several_ask() -> None:
    """Calls of a single caller need no name."""
    client = plain_program(Server())
    with recorded():
        ask(client, seed=1)
        ask(client, seed=1)
        in_threads(lambda: ask(client, seed=2), 2)
        in_threads(lambda: ask(client, seed=3), 1)
    found = {seed: sorted(names, key=str) for seed, names in callers().items()}
    assert found == {
        "1": [None, None],
        "2": ["thread run 0", "thread run 1"],
        "3": [None],
    }


def test_work_in_several_contexts_has_a_caller() -> None:
    """LangChain's pool runs a function in a context, which LangGraph runs in another one."""
    client = plain_program(Server())
    with recorded(), ThreadPoolExecutor(2) as pool:
        contexts = [[contextvars.copy_context().run for _ in range(2)] for _ in range(3)]
        for future in [pool.submit(*runs, ask, client, seed=1) for runs in contexts]:
            future.result()
    assert sorted(map(str, callers()["1"])) == ["work ask 0", "work ask 1", "work ask 2"]


def batch(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Call a function with items in a pool, as LangChain's ``batch`` does: each in any of the contexts
    that were copied before.
    """
    contexts = [contextvars.copy_context() for _ in items]
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(lambda item: contexts.pop().run(function, item), items))


def late(job: Callable[[], Any]) -> Any:
    """Do a job after a while that chance decides."""
    time.sleep(random.random() * 0.01)
    return job()


def test_work_in_a_context_that_was_copied_before_is_a_caller() -> None:
    """A copy of its maker's context does not hide it; nor in a batch of batches, nor in its loop."""
    client = plain_program(Server())

    def gathered(_: Any) -> list[Any]:
        async def main() -> list[Any]:
            return await asyncio.gather(
                *(asyncio.to_thread(late, lambda: ask(client, seed=3)) for _ in range(2))
            )

        return asyncio.run(main())

    def play() -> list[Any]:
        return [
            batch(lambda _: late(lambda: ask(client, seed=1)), range(6)),
            batch(lambda _: batch(lambda _: late(lambda: ask(client, seed=2)), range(3)), range(3)),
            batch(gathered, range(3)),
        ]

    with recorded():
        first = play()
    for _ in range(5):
        with recorded("none"):
            assert play() == first
    assert sorted(map(str, callers()["1"])) == [f"work <lambda> {number}" for number in range(6)]


class Baker:
    """Asks what another actor asks, too."""

    def __init__(self, client: openai.OpenAI) -> None:
        self.client = client

    def act(self) -> Any:
        """Ask."""
        return ask(self.client)


class Miller(Baker):
    """Another actor."""


def test_work_that_a_library_submits_in_any_order_is_distinguished_by_what_it_runs() -> None:
    """The library's function is the same for all actors, which it takes from a set of objects."""
    client = plain_program(Server())

    def run(function: Callable[[], Any]) -> Any:
        return function()

    def play(*actors: type[Baker]) -> dict[str, Any]:
        with ThreadPoolExecutor(1) as pool:
            work = {actor.__name__: pool.submit(run, actor(client).act) for actor in actors}
            return {name: future.result() for name, future in work.items()}

    with recorded():
        first = play(Baker, Miller)
    with recorded("none"):
        assert play(Miller, Baker) == first
    assert first["Baker"] != first["Miller"]


def test_a_context_from_the_side_brings_its_own_caller_into_a_pools_thread() -> None:
    """A function that serves others asks for them."""
    client = plain_program(Server())

    def serve(work: queue.SimpleQueue[Any]) -> None:
        while (order := work.get()) is not None:
            context, answered = order
            answered.set_result(context.run(ask, client))

    async def served(work: queue.SimpleQueue[Any]) -> str:
        await asyncio.sleep(random.random() * 0.01)
        answered: Future[str] = Future()
        work.put((contextvars.copy_context(), answered))
        return await asyncio.wrap_future(answered)

    async def play() -> list[str]:
        work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with ThreadPoolExecutor(3) as pool:
            for _ in range(3):
                pool.submit(serve, work)
            answers = await asyncio.gather(*(served(work) for _ in range(6)))
            for _ in range(3):
                work.put(None)
        return answers

    with recorded():
        first = asyncio.run(play())
    for _ in range(5):
        with recorded("none"):
            assert asyncio.run(play()) == first


def test_each_caller_gets_its_own_answers_in_their_order() -> None:
    """A caller that asks more often than it did gets the lowest draw that is left."""
    client = plain_program(Server())

    def twice() -> list[str]:
        return [ask(client), ask(client)]

    with recorded():
        first = in_threads(twice, 3)
    for _ in range(3):
        with recorded("none"):
            assert in_threads(twice, 3) == first


def rounds(
    client: openai.OpenAI, *names: str, count: int = 1, leaving: str = ""
) -> dict[str, list[str]]:
    """Return what callers of these names were answered, one after the other, in some rounds each.

    :param leaving: who first begins a stream and leaves it.
    """
    found: dict[str, list[str]] = {}
    for name in names:

        def job(name: str = name) -> None:
            if name == leaving:
                params: dict[str, Any] = {"model": "gpt-4o-mini", "temperature": 1, "stream": True}
                client.chat.completions.create(messages=QUESTION, **params).close()
            found[name] = [ask(client) for _ in range(count)]

        job.__code__ = job.__code__.replace(co_name=name)  # which names the caller
        thread = threading.Thread(target=job)
        thread.start()
        thread.join()
    return found


def test_a_recording_that_goes_on_keeps_the_answers_of_each_caller() -> None:
    """A caller that comes first this time, and was not recorded, asks for itself."""
    client = plain_program(Server())
    with contextlib.suppress(InterruptedError), recorded():
        first = rounds(client, "ben")
        raise InterruptedError
    with recorded():
        again = rounds(client, "ann", "ben")
    assert again["ann"] != again["ben"] == first["ben"]


@contextlib.contextmanager
def run_of(path: str | None, mode: str, cache_mode: str) -> Iterator[None]:
    """Run with a cassette, or with the cache alone."""
    tape = contextlib.nullcontext() if path is None else llmcall.cassette(path, mode=mode)
    with tape, llmcall.patched(cache_mode=cache_mode), llmcall.scope("s", process=True):
        yield


def test_a_scope_that_starts_again_has_its_answers_again_after_an_interruption() -> None:
    """In another thread, too, as in a run that nothing interrupted."""
    client = ScriptedClient(["Hi.", "Hello.", "Bye."], cache_mode="off")

    def ask_alone(count: int) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(ask_in_scope, count).result()

    def ask_in_scope(count: int) -> Any:
        with llmcall.scope("Ada"):
            return [client.send_message(QUESTION).sample for _ in range(count)]

    with contextlib.suppress(ZeroDivisionError), llmcall.cassette("tape.jsonl"):
        assert [ask_alone(1), ask_alone(2)] == [["Ada#0"], ["Ada#0", "Ada#1"]]
        raise ZeroDivisionError
    with llmcall.cassette("tape.jsonl"):
        assert [ask_alone(1), ask_alone(2)] == [["Ada#0"], ["Ada#0", "Ada#1"]]
        assert ask_alone(3) == ["Ada#0", "Ada#1", "Ada#2"]
    assert len(client.requests) == 3


def test_an_answer_whose_map_ended_early_is_anybodys_after_an_interruption() -> None:
    client = ScriptedClient(["Hi.", "Hello."], cache_mode="off")

    def ask_and_fail(item: int) -> None:
        client.send_message(QUESTION)
        raise ZeroDivisionError

    def ask_in_scope() -> str | None:
        with llmcall.scope("map"), llmcall.scope("1"):
            return client.send_message(QUESTION).sample

    def play() -> str | None:
        with llmcall.scope("trial"):
            with contextlib.suppress(ZeroDivisionError):
                llmcall.map(ask_and_fail, [1], key=str, scope="map", progress=False)
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(llmcall.bind(ask_in_scope)).result()

    with contextlib.suppress(InterruptedError), llmcall.cassette("tape.jsonl"):
        assert play() == "trial/map/1#0"
        raise InterruptedError
    with llmcall.cassette("tape.jsonl"):
        assert play() == "trial/map/1#0"
    assert len(client.requests) == 1


@pytest.mark.parametrize(
    ("first", "longer", "replay"),
    [
        (("a", "once", "off"), ("a", "new", "off"), ("a", "none", "off")),
        (("a", "once", "off"), ("a", "update", "off"), ("a", "none", "off")),
        (("a", "once", "auto"), ("b", "once", "auto"), ("b", "none", "off")),
        ((None, "", "auto"), ("b", "once", "auto"), ("b", "none", "off")),
        ((None, "", "auto"), (None, "", "auto"), (None, "", "replay")),
    ],
    ids=["new", "update", "another cassette", "a cassette from the cache", "the cache"],
)
def test_a_longer_run_is_replayed_as_it_was(first: Any, longer: Any, replay: Any) -> None:
    """A caller that asks more often than before gets none of the answers that others come for."""
    client = plain_program(Server())
    with run_of(*first):
        rounds(client, "ann", "ben")
    with run_of(*longer):
        answers = rounds(client, "ben", "ann", count=2)
    for names in (("ann", "ben"), ("ben", "ann")):
        with run_of(*replay):
            assert rounds(client, *names, count=2) == answers


@pytest.mark.parametrize("mode", ["update", "new"])
def test_callers_that_share_the_answers_of_one_replay_as_they_got_them(mode: str) -> None:
    """The file named nobody, since one alone had asked."""
    client = plain_program(Server())
    with run_of("a", "once", "off"):
        rounds(client, "cem", count=2)
    with run_of("a", mode, "off"):
        answers = rounds(client, "ann", "cem")
    with run_of("a", "none", "off"):
        assert rounds(client, "cem", "ann") == answers


def test_an_update_keeps_a_callers_answers_when_another_one_is_gone() -> None:
    """That one had taken an earlier answer of the caller's, which lies in the disk cache now."""
    client = plain_program(Server())
    with run_of("a", "once", "auto"):
        rounds(client, "ann", "cem", count=2)
    with run_of("a", "update", "auto"):
        rounds(client, "ben", "ann", "cem", count=2)  # a new caller takes what is left
    answers = []
    for mode in ("update", "update", "none"):
        with run_of("a", mode, "auto"):
            answers.append(rounds(client, "ann", "cem", count=2))
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("deleted", ["ann", "ben"])
def test_callers_keep_their_answers_when_one_is_deleted_from_the_cache(deleted: str) -> None:
    """Only the caller whose answer it was is answered anew."""
    client, names = plain_program(Server()), ("ann", "ben", "cem")
    with run_of(None, "", "auto"):
        first = rounds(client, *names)
    sample = f"s#{names.index(deleted)}"
    assert llmcall.client().cache.delete(where=lambda record: record.sample == sample) == 1
    for cache_mode in ("auto", "replay"):
        with run_of(None, "", cache_mode):
            again = rounds(client, *reversed(names))
        assert {name for name in names if again[name] != first[name]} == {deleted}


def test_a_caller_that_leaves_a_replayed_stream_gets_its_own_answer_next() -> None:
    """Its draw is given back to it, and not to another caller."""
    client = plain_program(Server())
    with recorded():
        first = rounds(client, "ann", "ben")
    with recorded("none"):
        assert rounds(client, "ben", "ann", leaving="ben") == first


@pytest.mark.parametrize("file", ["/IPython/core/interactiveshell.py", "/ipykernel/kernelbase.py"])
def test_the_cells_of_a_notebook_are_one_caller(file: str) -> None:
    """A kernel makes tasks for each cell, and a replay may run others in between."""
    client = plain_program(Server())
    kernel: dict[str, Any] = {}
    exec(compile("async def run_cell_async(job): return job()", file, "exec"), kernel)

    async def cells(*jobs: Callable[[], Any]) -> list[Any]:
        return [await asyncio.create_task(kernel["run_cell_async"](job)) for job in jobs]

    def question() -> str:
        return ask(client)

    with recorded():
        first = asyncio.run(cells(question, question))
    with recorded("none"):
        _, *again = asyncio.run(cells(time.time, question, question))
    assert again == first
    assert callers()["None"] == [None, None]


class AtOnce(Server):
    """Answers requests as soon as so many are in flight at once."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._all_here = threading.Barrier(count, timeout=LONGEST)

    def answer(self, request: Any) -> Any:
        self._all_here.wait()
        return super().answer(request)


@pytest.mark.parametrize("actor", [None, "user:(.)"])
def test_a_replay_by_other_threads_than_recorded_says_so_at_its_end(
    actor: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """It says for how many calls; the recording says nothing, and a replay by the same threads neither."""
    client = plain_program(AtOnce(3))
    for mode in ("once", "none"):
        with recorded(mode, actor=actor):
            in_threads(lambda: ask(client), 3)
        assert not caplog.text
    with recorded("none", actor), ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(ask, client) for _ in range(3)]:
            future.result()
    assert "run.jsonl: 3 calls may have another caller's answer" in caplog.text


@pytest.mark.parametrize("asks", ["a call", "a function"])
def test_own_calls_and_functions_of_threads_keep_their_answers_in_a_block(
    asks: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A cassette tells them apart by caller, as ``llmcall run`` does; no order of arrival counts."""
    numbers = itertools.count()
    client = ScriptedClient(lambda _: str(next(numbers)))
    draw = llmcall.recorded(name="draw")(lambda: next(numbers))

    def job() -> Any:
        return client.send_message("Heads?").content if asks == "a call" else draw()

    def run(numbers: Sequence[int]) -> dict[int, Any]:
        found: dict[int, Any] = {}
        turns = [threading.Event() for _ in numbers]

        def play(number: int) -> None:
            assert turns[number].wait(LONGEST)
            found[number] = job()

        threads = [threading.Thread(target=play, args=(number,)) for number in sorted(numbers)]
        for thread in threads:
            thread.start()
        for number in numbers:
            turns[number].set()
            threads[number].join()
        return found

    with llmcall.cassette("run.jsonl"), llmcall.scope("s", process=True):
        live = run([0, 1, 2, 3, 4])
    assert len({*live.values()}) == 5
    with llmcall.cassette("run.jsonl", mode="none"), llmcall.scope("s", process=True):
        assert run([3, 1, 4, 0, 2]) == live
    assert not caplog.text


def test_an_export_names_callers_as_a_cassette_does() -> None:
    """Only of a request that several asked."""
    client = plain_program(Server())
    with llmcall.patched(), llmcall.scope("s", process=True):
        ask(client, seed=1)
        in_threads(lambda: ask(client, seed=2), 2)
    llmcall.client().cache.export("exported.jsonl")
    found = {seed: sorted(names, key=str) for seed, names in callers("exported.jsonl").items()}
    assert found == {"1": [None], "2": ["thread run 0", "thread run 1"]}


def test_an_export_names_a_caller_whose_earlier_draw_is_missing() -> None:
    """As a cassette does: without the name, the caller would draw the missing one."""
    client = plain_program(Server())
    with llmcall.patched(), llmcall.scope("s", process=True):
        answers = rounds(client, "ann", "ben")
    cache = llmcall.client().cache
    cache.export("exported.jsonl", where=lambda record: record.sample == "s#1")
    with llmcall.cassette("exported.jsonl", mode="none"), llmcall.scope("s", process=True):
        assert rounds(client, "ben") == {"ben": answers["ben"]}


def test_a_caller_gets_its_answers_in_their_order_from_a_cache_that_loaded_the_first() -> None:
    """A cassette names no caller that is alone; the cache does, as soon as it gets the answer."""
    client = plain_program(Server())
    with recorded():
        first = ask(client)
    llmcall.client().cache.clear()
    llmcall.client().cache.load("run.jsonl")
    answers = []
    for _ in range(3):
        with llmcall.patched(), llmcall.scope("s", process=True):
            answers.append([ask(client), ask(client)])
    assert answers[0][0] == first
    assert answers == [answers[0]] * 3


def test_jobs_in_a_context_that_a_distant_maker_copied_are_callers_of_their_own(
    tmp_path: Path,
) -> None:
    """Also where the names of the makers in between are too long to be written."""
    everybody_asks = threading.Barrier(3)

    def answer(messages: object) -> str:
        everybody_asks.wait(LONGEST)
        return "Yes."

    client = ScriptedClient(answer)

    def a_maker_whose_name_is_so_long_that_it_is_replaced_by_a_digest_where_it_stands_before_others() -> (
        None
    ):
        contexts = [contextvars.copy_context() for _ in range(3)]

        def another_maker_whose_name_is_so_long_that_it_is_replaced_by_a_digest_before_yet_others() -> (
            None
        ):
            with ThreadPoolExecutor(3) as pool:
                for context in contexts:
                    pool.submit(context.run, client.send_message, "Bread?")

        started(
            another_maker_whose_name_is_so_long_that_it_is_replaced_by_a_digest_before_yet_others
        )

    def started(function: Callable[[], None]) -> None:
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()

    with llmcall.cassette(tmp_path / "a.jsonl"), llmcall.scope("market", process=True):
        started(
            a_maker_whose_name_is_so_long_that_it_is_replaced_by_a_digest_where_it_stands_before_others
        )
    lines = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert len({line["caller"] for line in lines if "caller" in line}) == 3
