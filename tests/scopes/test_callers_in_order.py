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


MOVED = "may have another caller's answer"


@pytest.mark.parametrize(
    ("recorded", "again", "calls"),
    [
        pytest.param([0, 1, 0, 1], [0, 1, 0, 1], 0, id="the same"),
        pytest.param([0, 1, 0, 1], [1, 1, 0, 0], 0, id="each as often"),
        pytest.param([0, 1, 0, 1], [0, 1], 0, id="each less often"),
        pytest.param([0, 1, 0, 1], [0, 0, 0, 1], 4, id="one more often"),
        pytest.param([0, 1, 0, 1], [0, 0, 0], 3, id="one for another"),
        pytest.param([1, 1], [0, 1], 2, id="one whom the file does not name"),
    ],
)
def test_a_replay_counts_the_calls_of_requests_that_other_workers_made(
    recorded: list[int], again: list[int], calls: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is that lets them ask in turns; the recording says nothing."""
    client = plain_program(Server())
    with llmcall.cassette("run.jsonl"):
        play(client, recorded)
    assert MOVED not in caplog.text
    with llmcall.cassette("run.jsonl", mode="none"):
        play(client, again)
    assert caplog.text.count(f"{calls} calls {MOVED}") == bool(calls)


def work(client: Any, jobs: list[str]) -> None:
    """Let a thread of each job make its requests, one after the other."""
    for job in jobs:
        thread = threading.Thread(target=lambda job=job: [ask(client, seed=ord(it)) for it in job])
        thread.start()
        thread.join()


@pytest.mark.parametrize(
    ("jobs", "again", "calls"),
    [
        (["ab", "cb"], ["ab", "cb"], 0),
        (["ab", "cb"], ["cb", "ab"], 2),
        (["ab", "cb"], ["a", "cb"], 0),
        (["ab", "cb"], ["b", "acb"], 2),
        (["ab", "ab"], ["ab", "ab"], 0),
        (["ab", "ab"], ["ba", "ba"], 4),
        (["ab", "ab"], ["ab", "ba"], 4),
    ],
)
def test_workers_that_exchange_identical_jobs_are_counted(
    jobs: list[str], again: list[str], calls: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Each makes each request as often as then: what it asked before shows that it took another one's work."""
    client = plain_program(Server())
    with llmcall.cassette("run.jsonl"):
        work(client, jobs)
    with llmcall.cassette("run.jsonl", mode="none"):
        work(client, again)
    assert caplog.text.count(f"{calls} calls {MOVED}") == bool(calls)


def test_an_export_of_a_cache_does_not_know_what_callers_asked_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """So its replay compares the callers alone."""
    client = plain_program(Server())
    with llmcall.cassette("run.jsonl"):
        work(client, ["ab", "cb"])
    llmcall.client().cache.export("exported.jsonl")
    with llmcall.cassette("exported.jsonl", mode="none"):
        work(client, ["ab", "cb"])
    assert MOVED not in caplog.text


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
