"""A program's calls that are in no scope: in a cassette they are draws of the scope ``run``."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import KEY, QUESTION, Server, ask, http, plain_program, program
from commands import LONGEST

import llmcall

TAPE = "run.jsonl"
TIMES = 5


@pytest.fixture
def server() -> Server:
    """A model's server in this process."""
    return Server()


def samples(path: str = TAPE) -> list[str | None]:
    """Return the samples of a cassette's records, sorted."""
    return sorted((record.sample for record in llmcall.cassette(path).all_records()), key=str)


RUN = [f"run#{number}" for number in range(TIMES)]


# The ways to ask


def in_a_row(server: Server) -> list[str]:
    """Ask by one client, one time after the other."""
    client = plain_program(server)
    return [ask(client) for _ in range(TIMES)]


def by_a_recorded_client(server: Server) -> list[str]:
    """Ask by a client that records itself."""
    client = program(server)
    return [ask(client) for _ in range(TIMES)]


def in_tasks(server: Server) -> list[str]:
    """Ask at once in tasks."""

    async def aask(client: openai.AsyncOpenAI) -> str:
        made = await client.chat.completions.create(
            model="gpt-4o-mini",
            messages=QUESTION,  # type: ignore[arg-type]
            temperature=1,
        )
        return str(made.choices[0].message.content)

    async def main() -> list[str]:
        transport = http.AsyncClient(transport=server.transport)
        async with openai.AsyncOpenAI(api_key=KEY, http_client=transport) as client:
            return await asyncio.gather(*(aask(client) for _ in range(TIMES)))

    return asyncio.run(main())


def in_a_pool(server: Server) -> list[str]:
    """Ask in a pool's threads."""
    client = plain_program(server)
    with ThreadPoolExecutor(TIMES) as pool:
        return [future.result() for future in [pool.submit(ask, client) for _ in range(TIMES)]]


def in_a_map(server: Server) -> list[str]:
    """Ask in the items of a map outside any scope."""
    client = plain_program(server)
    return llmcall.map(lambda _: ask(client), range(TIMES))


def streamed(server: Server) -> list[str]:
    """Ask for streams."""
    client = plain_program(server)
    params: Any = {"model": "gpt-4o-mini", "messages": QUESTION, "stream": True}
    return [
        "".join(
            choice.delta.content or ""
            for chunk in client.chat.completions.create(**params)
            for choice in chunk.choices
        )
        for _ in range(TIMES)
    ]


@pytest.mark.parametrize(
    "asking", [in_a_row, by_a_recorded_client, in_tasks, in_a_pool, in_a_map, streamed]
)
def test_equal_calls_of_a_program_get_answers_of_their_own(
    asking: Callable[[Server], list[str]], server: Server
) -> None:
    """A replay gives the same."""
    with llmcall.cassette(TAPE) as tape:
        answers = asking(server)
    assert sorted(answers) == [f"answer number {number}" for number in range(TIMES)]
    assert tape.asked == TIMES
    assert samples() == RUN
    with llmcall.cassette(TAPE, mode="none"):
        assert asking(server) == answers


# The ways to open a cassette


def block(run: Callable[[], Any]) -> Any:
    """Run something in a block."""
    with llmcall.cassette(TAPE):
        return run()


def decorator(run: Callable[[], Any]) -> Any:
    """Run something decorated."""
    return llmcall.cassette(TAPE)(run)()


def cells(run: Callable[[], Any]) -> Any:
    """Run something between the cells that open and close it."""
    tape = llmcall.cassette(TAPE)
    tape.open()
    try:
        return run()
    finally:
        tape.close()


def named(run: Callable[[], Any]) -> Any:
    """Run something with the cassette that the settings name, from llmcall's first call on."""
    with llmcall.configured(cassette_path=TAPE):
        llmcall.testing.ScriptedClient(["Hi."]).send_message("Hello!")
        try:
            return run()
        finally:
            llmcall.reset()


@pytest.mark.parametrize("opened", [block, decorator, cells, named])
def test_each_opening_of_a_cassette_counts_from_0(
    opened: Callable[[Callable[[], Any]], Any], server: Server
) -> None:
    answers = opened(lambda: in_a_row(server))
    assert len(set(answers)) == TIMES
    assert opened(lambda: in_a_row(server)) == answers
    assert [sample for sample in samples() if sample] == RUN
    assert len(server.requests) == TIMES


def test_a_cassette_inside_another_counts_from_0(server: Server) -> None:
    """The outer one then goes on."""
    client = plain_program(server)

    def run() -> list[str]:
        answers = []
        with llmcall.cassette("outer.jsonl"):
            for _ in range(2):
                answers.append(ask(client))
                with llmcall.cassette("inner.jsonl"):
                    answers.append(ask(client))
        return answers

    with llmcall.configured(cache_mode="off"):
        answers = run()
    assert answers == [f"answer number {number}" for number in (0, 1, 2, 1)]
    assert samples("outer.jsonl") == ["run#0", "run#1"]
    assert samples("inner.jsonl") == ["run#0"]
    assert run() == answers


def test_a_cassette_that_is_opened_again_while_it_is_open_goes_on_counting(
    server: Server,
) -> None:
    client = plain_program(server)
    tape = llmcall.cassette(TAPE, actor=lambda request: str(request.body.get("seed", "")) or None)

    @tape
    def run() -> list[str]:
        return [ask(client), ask(client, seed=1)]

    with tape:
        answers = run() + run()
    assert len(set(answers)) == 4
    assert samples() == ["1#0", "1#1", "run#0", "run#1"]


def test_threads_that_open_one_cassette_at_once_are_all_recorded(server: Server) -> None:
    """Whichever of them opens it first, and leaves it first."""
    client = plain_program(server)
    tape = llmcall.cassette(TAPE)
    begin = threading.Barrier(TIMES, timeout=LONGEST)

    @tape
    def run(number: int) -> str:
        return ask(client, seed=number)

    def start(number: int) -> str:
        begin.wait()
        return run(number)

    with ThreadPoolExecutor(TIMES) as pool:
        answers = list(pool.map(start, range(TIMES)))
    with llmcall.cassette(TAPE, mode="none"):
        assert [ask(client, seed=number) for number in range(TIMES)] == answers
    assert len(server.requests) == TIMES


def in_threads_that_change_their_order(client: openai.OpenAI, waits: list[float]) -> list[str]:
    """Ask in threads, each after a while."""

    def late(seconds: float) -> str:
        time.sleep(seconds)
        return ask(client)

    with ThreadPoolExecutor(len(waits)) as pool:
        return list(pool.map(late, waits))


def test_each_opening_numbers_its_callers_anew(server: Server) -> None:
    """Also inside another block, where the first opening is followed by its replay."""
    client = plain_program(server)
    with llmcall.patched():
        answers = []
        for waits in ([0, 0.02, 0.04], [0.04, 0.02, 0], [0.02, 0.04, 0]):
            with llmcall.cassette(TAPE):
                answers.append(in_threads_that_change_their_order(client, waits))
    assert answers == [answers[0]] * 3
    assert len(server.requests) == 3


def test_patched_is_a_cassette_without_a_file(server: Server) -> None:
    """The cache answers the next time; a cassette inside or around it has the file and the draws."""
    answers = []
    for _ in range(2):
        with llmcall.patched():
            answers.append(in_a_row(server))
    assert answers[0] == answers[1]
    assert len(server.requests) == TIMES
    client = plain_program(server)
    with llmcall.cassette(TAPE):
        for _ in range(2):
            with llmcall.patched():
                ask(client)
    assert samples() == RUN[:2]


def test_answers_of_another_programs_callers_change_no_hands(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A recording may take them from the disk cache; what counts is that its replay is the same."""
    with llmcall.cassette("a.jsonl"):
        in_a_pool(server)
    with llmcall.cassette("b.jsonl") as tape:
        answers = in_tasks(server)
    assert tape.supplied == TIMES
    with llmcall.cassette("b.jsonl", mode="none"):
        assert in_tasks(server) == answers
    assert "another task or thread" not in caplog.text


def test_the_cassette_that_opens_last_gets_the_calls_of_every_thread(server: Server) -> None:
    """A process has one cassette at a time."""
    client = plain_program(server)
    with llmcall.cassette("a.jsonl") as first:

        def other() -> None:
            with llmcall.cassette("b.jsonl"):
                ask(client)
                in_a_thread(lambda: ask(client))

        in_a_thread(other)
    assert first.records == 0
    assert samples("b.jsonl") == ["run#0", "run#1"]


# What is in a scope, and what must be


def test_a_programs_call_in_a_scope_stays_there(server: Server) -> None:
    """So do those in the process's scope, and in none that is meant."""
    client = plain_program(server)
    with llmcall.cassette(TAPE):
        with llmcall.scope("day-1"):
            ask(client, seed=1)
        with llmcall.scope("all", process=True):
            in_a_thread(lambda: ask(client, seed=2))
        with llmcall.scope(None):
            ask(client, seed=3)
            llmcall.map(lambda _: ask(client, seed=4), range(2))
        ask(client, seed=5)
    found = {
        record.request["seed"]: record.sample for record in llmcall.cassette(TAPE).all_records()
    }
    assert found == {1: "day-1#0", 2: "all#0", 3: None, 4: None, 5: "run#0"}


def in_a_thread(job: Callable[[], Any]) -> Any:
    """Run a job in a thread of its own, and return its result."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(job).result()


def test_a_scope_of_that_name_beside_it_is_warned_of(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts from 0 as well; each opening does so without a warning."""
    tape = llmcall.cassette(TAPE)
    for _ in range(2):
        with tape:
            in_a_row(server)
    assert not caplog.text
    with tape, llmcall.scope("run"):
        in_a_row(server)
    assert "the scope 'run' starts again and gets its earlier answers" in caplog.text


def test_a_thread_that_must_have_a_scope_is_still_refused(server: Server) -> None:
    """While another thread has one open, timing would decide."""
    client = plain_program(server)
    with (
        pytest.raises(llmcall.ScopeError),
        llmcall.cassette(TAPE),
        llmcall.scope("lisa"),
        pytest.raises(openai.ConflictError, match="call without a scope"),
    ):
        in_a_thread(lambda: ask(client))


def test_llmcalls_own_calls_outside_any_scope_stay_a_cache(server: Server) -> None:
    """In a map, too; a program's call beside them has its own draw."""
    own = llmcall.OpenAIClient(api_key=KEY, base_url="http://127.0.0.1:9", cache_mode="auto")
    client = plain_program(server)
    with llmcall.cassette(TAPE):
        with llmcall.scope(None):
            first = ask(client)
        for _ in range(2):
            assert own.send_message(QUESTION, model="gpt-4o-mini", temperature=1).content == first
        replies = llmcall.map(
            lambda _: own.send_message(QUESTION, model="gpt-4o-mini", temperature=1), range(2)
        )
        assert [reply.content for reply in replies] == [first] * 2
        assert ask(client) != first
    assert samples() == [None, "run#0"]


def test_repeats_of_a_map_outside_any_scope_are_draws(server: Server) -> None:
    """Equal items get answers of their own in each repeat; a replay gives them to the same ones."""
    client = plain_program(server)

    def run() -> list[list[str]]:
        return llmcall.map(lambda _: ask(client), ["a", "a"], repeats=2)

    with llmcall.cassette(TAPE):
        answers = run()
    assert len({answer for repeats in answers for answer in repeats}) == 4
    with llmcall.cassette(TAPE, mode="none"):
        assert run() == answers


def test_items_of_maps_in_items_and_in_tasks_get_their_own_answers(server: Server) -> None:
    """The maker of a map is part of its items' names."""
    client = plain_program(server)

    def late(_: Any) -> str:
        time.sleep(random.random() * 0.01)
        return ask(client)

    def pair(_: Any) -> list[str]:
        return llmcall.map(late, range(2))

    async def in_threads() -> list[list[str]]:
        return await asyncio.gather(*(asyncio.to_thread(pair, number) for number in range(3)))

    def run() -> list[list[str]]:
        return llmcall.map(pair, range(3)) + asyncio.run(in_threads())

    with llmcall.cassette(TAPE):
        answers = run()
    assert len({answer for pairs in answers for answer in pairs}) == 12
    for _ in range(5):
        with llmcall.cassette(TAPE, mode="none"):
            assert run() == answers


def test_a_map_that_failed_gives_its_programs_draws_back(server: Server) -> None:
    """Running it again goes on from there."""
    client = plain_program(server)
    fails = True

    def item(number: int) -> str:
        answer = ask(client)
        if fails and number == 1:
            raise KeyError(number)
        return answer

    with llmcall.cassette(TAPE):
        with pytest.raises(KeyError):
            llmcall.map(item, range(2), workers=1)
        fails = False
        llmcall.map(item, range(2), workers=1)
    assert samples() == RUN[:2]
    assert len(server.requests) == 2


@pytest.mark.parametrize("mode", ["update", "new"])
def test_a_program_that_asks_less_often_keeps_the_answers_of_its_file(
    server: Server, mode: str
) -> None:
    """Whatever further draws the disk cache has: a replay has the file alone."""

    def answers(times: int, mode: str) -> list[str]:
        with llmcall.cassette(TAPE, mode=mode):
            return [ask(plain_program(server)) for _ in range(times)]

    first, second = answers(2, "once")
    assert answers(1, "update") == [first]
    for again in (mode, mode, "none"):
        assert answers(1, again) == [first]
    assert answers(2, mode) == answers(2, "none") == [first, second]
    assert len(server.requests) == 2


# Recorded functions


def test_calls_inside_a_recorded_function_move_no_draw_outside(server: Server) -> None:
    """A replay does not run it; its records count as used."""
    client = plain_program(server)

    @llmcall.recorded(name="market.search")
    def search(text: str) -> list[str]:
        return [ask(client), ask(client)]

    def run() -> list[Any]:
        return [search("bread"), ask(client), search("milk"), search("bread")]

    with llmcall.cassette(TAPE):
        answers = run()
    assert len({*answers[0], answers[1], *answers[2]}) == 5
    with llmcall.cassette(TAPE, mode="update") as tape:
        assert run() == answers
        assert tape.unused() == []
    scopes = [sample.rpartition("/")[0] for sample in samples() if sample]
    assert scopes == ["", *["run"] * 4]


def test_a_file_of_a_block_says_nothing_of_a_run(server: Server) -> None:
    """Its header holds no ``run``: no command recorded it."""
    with llmcall.cassette(TAPE, actor="system"):
        ask(plain_program(server))
    assert '"run": ' not in Path(TAPE).read_text(encoding="utf-8").splitlines()[0]
