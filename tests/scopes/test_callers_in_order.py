"""Identical requests of one named actor, one after the other, replay in their order, whichever thread makes them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from clients import Server, ask, plain_program
from commands import LONGEST

import llmcall


def play(client: Any, workers: list[int]) -> list[Any]:
    """Let threads that live as long as the run ask one after the other."""
    turns = [threading.Semaphore(0) for _ in range(2)]
    done, answers = threading.Semaphore(0), list[Any]()
    is_over = False

    def work(number: int) -> None:
        while turns[number].acquire(timeout=LONGEST) and not is_over:
            answers.append(ask(client, seed=1))
            done.release()

    threads = [threading.Thread(target=work, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for number in workers:
        turns[number].release()
        assert done.acquire(timeout=LONGEST)
    is_over = True
    for number, thread in enumerate(threads):
        turns[number].release()
        thread.join()
    return answers


@pytest.mark.parametrize("replayed_by", [[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
def test_requests_that_followed_one_another_replay_in_their_order(replayed_by: list[int]) -> None:
    """The thread that happens to run the actor decides nothing."""
    client = plain_program(Server())
    with llmcall.cassette("run.jsonl", actor=lambda _: "ann"):
        recorded = play(client, [0, 1, 0, 1])
    assert len({*recorded}) == 4
    with llmcall.cassette("run.jsonl", mode="none", actor=lambda _: "ann"):
        assert play(client, replayed_by) == recorded


def test_pool_jobs_that_followed_one_another_are_callers() -> None:
    """Work is named where it is submitted, so another order changes no answer."""
    client = plain_program(Server())

    def submit(order: list[int]) -> dict[int, Any]:
        starts = [threading.Event() for _ in order]

        def job(number: int) -> Any:
            assert starts[number].wait(LONGEST)
            return ask(client, seed=1)

        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(job, number) for number in range(2)]
            answers = {}
            for number in order:
                starts[number].set()
                answers[number] = jobs[number].result()
        return answers

    with llmcall.cassette("run.jsonl", actor=lambda _: "ann"):
        recorded = submit([0, 1])
    with llmcall.cassette("run.jsonl", mode="none", actor=lambda _: "ann"):
        assert submit([1, 0]) == recorded


QUEUE = (
    "identical requests came from 2 callers in scope 'run'; if they take work from a queue, or a shell started "
    "them at once, a replay may swap their answers: name the actors (--actor)"
)


@pytest.mark.parametrize(
    ("turns", "actor", "warnings"),
    [([0, 1, 0, 1], None, 1), ([0, 0, 1, 1], None, 0), ([0, 1, 0, 1], "system", 0)],
)
def test_a_recording_warns_once_of_callers_that_ask_in_turns(
    turns: list[int], actor: Any, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers that take from a queue do so; callers that ask one after the other, and named actors, do not."""
    client = plain_program(Server())
    for path in ("run.jsonl", "other.jsonl"):
        with llmcall.cassette(path, actor=actor and (lambda _: "ann")):
            play(client, turns)
    assert caplog.text.count(QUEUE) == warnings


@pytest.mark.parametrize("turns", [[0, 0, 0, 1], [1, 1], [1, 0], [0, 1, 0, 1]])
def test_an_update_drops_no_draw_of_what_it_asks_and_leaves_no_gap(turns: list[int]) -> None:
    """Workers of a queue may take other items than in the recording, or fewer."""
    client = plain_program(Server())
    with llmcall.cassette("run.jsonl"):
        recorded = play(client, [0, 1, 0, 1])
    with llmcall.cassette("run.jsonl", mode="update"):
        updated = play(client, turns)
    with llmcall.cassette("run.jsonl", mode="none") as tape:
        assert play(client, turns) == updated
        records = tape.all_records()
    samples = [str(record.sample) for record in records]
    assert sorted(samples) == [f"run#{number}" for number in range(len(samples))]
    assert {*recorded} <= {
        record.response["choices"][0]["message"]["content"] for record in records
    }


@pytest.mark.parametrize("mode", ["new", "update"])
@pytest.mark.parametrize("turns", [[0, 0, 0, 1], [1, 1, 0, 1], [1, 0, 1, 1]])
def test_an_unchanged_program_sends_nothing(mode: str, turns: list[int]) -> None:
    """Whichever worker of its queue takes more items than in the recording; a replay gives each what it got."""
    server = Server()
    client = plain_program(server)
    with llmcall.cassette("run.jsonl"):
        recorded = play(client, [0, 1, 0, 1])
    with llmcall.cassette("run.jsonl", mode=mode):
        again = play(client, turns)
    assert len(server.requests) == 4
    assert sorted(again) == sorted(recorded)
    with llmcall.cassette("run.jsonl", mode="none"):
        assert play(client, turns) == again


def test_a_replay_says_that_further_draws_stay(caplog: pytest.LogCaptureFixture) -> None:
    """The mode 'update' moves them nowhere."""
    client = plain_program(Server())
    with llmcall.cassette("run.jsonl"):
        play(client, [0, 1])
    with llmcall.cassette("run.jsonl", mode="none"):
        play(client, [0])
    words = "1 record was not used; mode 'update' keeps it, like all further draws of requests that the run made"
    assert words in caplog.text
