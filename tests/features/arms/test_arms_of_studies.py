"""``llmcall.arms``: studies whose arms share the draws of equal requests."""

from __future__ import annotations

import contextlib
import random
import signal
import statistics
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from clients import numbered
from commands import LONGEST, NEEDS_POSIX, ran, start
from map_functions import Dice
from pytest_httpserver import HTTPServer
from servers import OK, Answer, ScriptedServer, embeddings

import llmcall
from llmcall.testing import ScriptedClient

ASKED = "Bread?"


def ask(client: llmcall.LLMClient, text: str = ASKED) -> str:
    """Return the sample of a call."""
    reply = client.send_message(text, temperature=1)
    assert reply is not None and reply.sample is not None
    return reply.sample


class World:
    """A market of one buyer, whose first answer no treatment changes."""

    def __init__(self, client: llmcall.LLMClient, taxed: bool) -> None:
        with llmcall.scope("lisa"):
            self.answers = [client.send_message(ASKED, temperature=1).content]
            more = "It is taxed." if taxed else "It is not."
            self.answers.append(
                client.send_message(f"{self.answers[0]} {more}", temperature=1).content
            )


ARMS = {"control": {"taxed": False}, "treated": {"taxed": True}, "placebo": {"taxed": False}}


def played(client: llmcall.LLMClient, **options: Any) -> llmcall.types.Arms:
    """Play a market with and without a tax."""

    def play(taxed: bool) -> World:
        return World(client, taxed)

    return llmcall.arms(play, ARMS, **{"scope": "app", "repeats": 3, **options})


@pytest.mark.parametrize("workers", [1, 8])
def test_a_placebo_arm_makes_no_call(workers: int) -> None:
    """It equals its twin in every repeat, and what all ask alike is one call."""
    client = numbered()
    runs = played(client, workers=workers)
    for repeat in range(3):
        assert runs["placebo", repeat].answers == runs["control", repeat].answers
        assert runs["treated", repeat].answers[0] == runs["control", repeat].answers[0]
        assert runs["treated", repeat].answers[1] != runs["control", repeat].answers[1]
    assert (runs.calls, runs.shared) == (9, 9)
    assert "3 arms, 3 repeats: 9 different calls, 9 shared" in str(runs)
    assert client.usage.calls == 9


def test_a_study_is_replayed() -> None:
    """The same results and counts from the cache alone."""
    client = numbered()
    first = played(client)
    with llmcall.configured(cache_mode="replay"):
        again = played(numbered(cache_mode="replay"))
    assert [again[run].answers for run in again] == [first[run].answers for run in first]
    assert (again.calls, again.shared) == (first.calls, first.shared)


def test_repeats_that_are_added_ask_for_themselves_alone() -> None:
    """The earlier ones keep their answers."""
    client = numbered()
    played(client, repeats=2)
    asked = client.usage.calls
    played(client, repeats=3)
    assert client.usage.calls == asked + 3


@pytest.mark.parametrize("mode", ["once", "rewrite"])
def test_one_cassette_around_all_arms_replays_them(mode: str) -> None:
    """It replays in a fresh process's stead, with nothing but itself."""
    with llmcall.cassette("study.jsonl", mode=mode) as tape:
        first = played(numbered(cache_mode="off"))
    with llmcall.cassette("study.jsonl", mode="none"):
        again = played(numbered(cache_mode="off"))
    assert tape.recorded == 9
    assert [again[run].answers for run in again] == [first[run].answers for run in first]


@pytest.mark.parametrize(("mode", "cache"), [("once", "auto"), ("rewrite", "off")])
def test_arms_at_once_ask_alike_once(mode: str, cache: str) -> None:
    """The cassette alone is enough to share: an equal call under way in another arm is waited for."""
    both_asked = threading.Barrier(2)

    def answer(messages: Any) -> str:
        with contextlib.suppress(threading.BrokenBarrierError):
            both_asked.wait(0.2)
        return "yes"

    client = ScriptedClient(answer, cache_mode=cache, on_error="raise")
    with llmcall.cassette("study.jsonl", mode=mode):
        runs = llmcall.arms(lambda: ask(client), {"control": {}, "twin": {}}, scope="app")
    assert (runs.calls, runs.shared, client.usage.calls) == (1, 1, 1)


KILLED = """
import contextlib, signal
mode, dies_after = sys.argv[1], int(sys.argv[2])
asked = 0

def answer(messages):
    global asked
    if asked == dies_after:
        os.kill(os.getpid(), signal.SIGKILL)
    asked += 1
    return os.urandom(8).hex()

client = ScriptedClient(answer, cache_mode="auto", on_error="raise")

def play(taxed):
    answers = []
    for buyer in ("lisa", "omar"):
        with llmcall.scope(buyer):
            answers.append(client.send_message("Bread?", temperature=1).content)
            more = f"{answers[-1]} {'It is taxed.' if taxed else 'It is not.'}"
            answers.append(client.send_message(more, temperature=1).content)
    return answers

arms = {"control": {"taxed": False}, "treated": {"taxed": True}, "placebo": {"taxed": False}}
cassette = llmcall.cassette("study.jsonl", mode=mode) if mode != "cache" else contextlib.nullcontext()
with llmcall.configured(cache_mode="auto"), cassette:
    runs = llmcall.arms(play, arms, scope="app", repeats=4, workers=3)
for repeat in range(4):
    control, treated = runs["control", repeat], runs["treated", repeat]
    assert runs["placebo", repeat] == control
    assert treated[0::2] == control[0::2] and not set(treated[1::2]) & set(control[1::2])
print(asked, list(runs.items()))
"""


@pytest.mark.ci
@pytest.mark.newest_only
@NEEDS_POSIX
@pytest.mark.parametrize("mode", [pytest.param("cache", marks=pytest.mark.slow), "once"])
def test_after_a_kill_the_pairs_are_the_same(mode: str) -> None:
    """A study whose process was killed goes on with what was answered, and its arms stay paired."""
    with start(KILLED, mode, 10) as process:
        process.communicate(timeout=LONGEST)
    assert process.returncode == -signal.SIGKILL
    asked, _, results = ran(KILLED, mode, -1).partition(" ")
    assert int(asked) <= 24 - 10 + 3  # three workers may each lose the answer of a call
    again = "0 " + results
    assert ran(KILLED, mode, 0) == again
    if mode == "once":
        assert ran(KILLED, "none", 0) == again


def test_a_recording_counts_shared_answers_as_its_replay_does(
    httpserver: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A recording has the server's own order of fields, a replay has not."""
    server = ScriptedServer(httpserver, OK)
    client = llmcall.OpenAIClient(base_url=server.base_url, cache_mode="off", on_error="raise")

    def play(last: str) -> list[str]:
        return [ask(client, text) for text in (ASKED, last)]

    for mode in ("once", "none"):
        with llmcall.cassette("study.jsonl", mode=mode):
            runs = llmcall.arms(play, {"a": {"last": "A"}, "b": {"last": "B"}}, scope="app")
        assert (runs.calls, runs.shared, len(server.requests)) == (3, 1, 3)
    assert "shared no answer" not in caplog.text


def test_a_cassettes_bytes_are_the_same_whichever_arm_comes_first() -> None:
    """Records stand by scope, then as the first arm that used them asked for them."""
    client = numbered()
    for name, workers in (("one.jsonl", 1), ("two.jsonl", 8)):
        with llmcall.cassette(name):
            played(client, workers=workers)
    with open("one.jsonl", encoding="utf-8") as one, open("two.jsonl", encoding="utf-8") as two:
        assert one.readlines()[1:] == two.readlines()[1:]


def test_refresh_keeps_arms_paired() -> None:
    """Each key is asked once in a process, so the arms get the same new answers."""
    client = numbered()
    played(client)
    runs = played(numbered(cache_mode="refresh"))
    assert all(
        runs["placebo", repeat].answers == runs["control", repeat].answers for repeat in range(3)
    )


def test_a_table_of_arms_has_a_row_for_each_run() -> None:
    """A row for each arm and repeat; a dict gives its columns."""
    runs = played(numbered(), repeats=2)
    frame = runs.table(lambda world: {"first": world.answers[0], "count": len(world.answers)})
    assert list(frame.columns) == ["repeat", "arm", "first", "count"]
    assert list(zip(frame["repeat"], frame["arm"], strict=True)) == [
        (repeat, name) for repeat in range(2) for name in ARMS
    ]
    assert set(runs.table(lambda world: 1).columns) == {"repeat", "arm", "measure"}


def test_compare_shows_where_two_arms_part() -> None:
    """For each actor of each repeat, from what each arm used, in one cache."""
    runs = played(numbered(), repeats=2)
    comparison = runs.compare("control", "treated")
    assert [
        (divergence.scope, divergence.index, divergence.reason)
        for divergence in comparison.divergences
    ] == [
        ("0/lisa", 1, "prompt"),
        ("1/lisa", 1, "prompt"),
    ]
    assert comparison.same == 2 and not runs.compare("control", "placebo").divergences


def test_a_study_costs_what_its_draws_cost() -> None:
    """Each draw once, when it was made: a replay, which pays nothing, says the same."""
    prices = {"gpt-4o-mini": (0.15, 0.60)}

    def play(item: str) -> None:
        for text in ("market", item):
            Dice(prices=prices).send_message(text, on_error="raise")

    arms = {"control": {"item": "bread"}, "treated": {"item": "cake"}}
    with llmcall.track() as usage:
        runs = llmcall.arms(play, arms, scope="app", repeats=2)
    assert runs.cost == pytest.approx(usage.cost) and runs.cost > 0
    with llmcall.configured(cache_mode="replay"):
        again = llmcall.arms(play, arms, scope="app", repeats=2)
    assert again.cost == runs.cost
    assert "<$0.0001" in str(again) and "<table>" in again._repr_html_()


def test_a_budget_ends_a_study_and_the_next_run_goes_on() -> None:
    """It holds for all arms together; what was answered is kept and paired."""
    client = numbered()
    exhausted = pytest.raises(llmcall.BudgetExceededError)
    with exhausted as caught, llmcall.budget(calls=4):
        played(client, workers=1)
    first = caught.value.results  # type: ignore[attr-defined]
    assert list(first) == [("control", 0), ("treated", 0), ("placebo", 0)]
    runs = played(client)
    assert runs["control", 0].answers == first["control", 0].answers
    assert client.usage.calls == 9


def test_a_bar_shows_the_runs_of_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    """One for all arms and repeats."""
    played(numbered(), repeats=2, progress=True)
    assert "6/6" in capsys.readouterr().err


def test_an_arm_that_fails_has_no_values() -> None:
    """Failures follow ``on_error``, as in ``map``; the study names them."""

    def play(fails: bool) -> int:
        if fails:
            raise ValueError("no")
        return 1

    arms = {"a": {"fails": False}, "b": {"fails": True}}
    runs = llmcall.arms(play, arms, scope="app", on_error="return")
    assert runs["a", 0] == 1 and isinstance(runs["b", 0], ValueError)
    assert runs.table(lambda value: value)["measure"].isna().tolist() == [False, True]
    assert "1 of 2 runs failed" in str(runs)


@dataclass(frozen=True)
class Unsold(Exception):
    """An exception that refuses new attributes."""

    why: str


@pytest.mark.parametrize("error", [ValueError, Unsold])
def test_results_of_finished_runs_are_in_the_exception(error: type[Exception]) -> None:
    """An exception that leaves has the results so far, by arm and repeat."""

    def play(number: int) -> int:
        if number == 2:
            raise error("no")
        return number

    arms = {name: {"number": number} for number, name in enumerate("abc")}
    with pytest.raises(error, match="no") as caught:
        llmcall.arms(play, arms, scope="app", workers=1)
    assert caught.value.results == {("a", 0): 0, ("b", 0): 1}  # type: ignore[attr-defined]


def test_arms_that_share_no_answer_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """A prompt that names its arm ends the pairing, and nobody else would say so."""
    client = numbered()
    llmcall.arms(
        lambda name: ask(client, f"You are in {name}."),
        {"control": {"name": "control"}, "treated": {"name": "treated"}},
        scope="app",
        repeats=2,
    )
    [warning] = [
        entry.getMessage()
        for entry in caplog.records
        if "prompts name the arm" in entry.getMessage()
    ]
    assert "'control' and 'treated' shared no answer in 2 repeats" in warning


def test_arms_that_share_embeddings_alone_are_warned_of(
    httpserver: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An embedding is the same for all, so it shows nothing of the pairing."""
    server = ScriptedServer(httpserver, Answer(200, embeddings([1.0])), OK)
    settings = {"base_url": server.base_url, "cache_mode": "auto", "on_error": "raise"}

    def play(name: str) -> None:
        client.get_embedding("Bread", dimensions=1)
        client.send_message(f"You are in {name}.", temperature=1)

    with llmcall.OpenAIClient(**settings) as client:
        arms = {name: {"name": name} for name in ("control", "treated")}
        llmcall.arms(play, arms, scope="app", workers=1)
    assert len(server.requests) == 3
    assert "'control' and 'treated' shared no answer in 1 repeat" in caplog.text


def test_a_recorded_function_is_no_call_of_a_study() -> None:
    """Only the calls of models are counted, though each arm records the function's result."""
    client = numbered()

    @llmcall.recorded(name="weather")
    def weather() -> str:
        return "rain"

    def play() -> tuple[str, str]:
        return weather(), ask(client)

    runs = llmcall.arms(play, {"control": {}, "treated": {}}, scope="app")
    assert (runs.calls, runs.shared) == (1, 1)


def test_arms_that_failed_in_a_kept_scope_go_on_from_there() -> None:
    """Running them again draws what they drew, so the arms stay paired and nothing is asked twice."""
    client = numbered()
    fails = [True]

    def play(breaks: bool) -> list[str | None]:
        samples = [ask(client), ask(client)]
        if breaks and fails[0]:
            raise ValueError("no")
        return samples

    arms = {"a": {"breaks": False}, "b": {"breaks": True}}
    with llmcall.scope("paper"):
        with pytest.raises(ValueError, match="no"):
            llmcall.arms(play, arms, scope="app", repeats=2, workers=1)
        fails[0] = False
        runs = llmcall.arms(play, arms, scope="app", repeats=2)
    assert all(
        runs[arm, repeat] == [f"paper/app/{repeat}#0", f"paper/app/{repeat}#1"]
        for arm, repeat in runs
    )
    assert client.usage.calls == 4


def test_arms_whose_client_has_no_cache_are_told_that_it_shares_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In each study: that one call has none is said once in a process."""
    client = numbered(cache_mode="off")
    for study in ("first", "second"):
        caplog.clear()
        llmcall.arms(lambda: ask(client), {"a": {}, "b": {}}, scope=study)
        assert "shared no answer in 1 repeat" in caplog.text
        assert "whether their calls have cache=False or cache_mode='off'" in caplog.text


# Known truth

REPLICATIONS = 200
EFFECT = 0.2


HOUSEHOLDS = range(10)


def willing(client: llmcall.LLMClient, household: int) -> float:
    """Return how willing a household is, from 0 to 1; it also makes a call that does not matter."""
    with llmcall.scope(household):
        reply = client.send_message("How willing?", temperature=1)
        client.send_message("Hello", temperature=1)
    assert reply is not None and reply.content is not None
    return float(reply.content)


def in_order(client: llmcall.LLMClient) -> list[float]:
    """Ask one household after the other."""
    return [willing(client, household) for household in HOUSEHOLDS]


def in_shuffled_threads(client: llmcall.LLMClient) -> list[float]:
    """Ask the households in threads, which begin in another order each time."""
    shuffled = random.sample(HOUSEHOLDS, len(HOUSEHOLDS))
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(llmcall.bind(lambda person: willing(client, person)), shuffled))


def test_arms_whose_threads_begin_in_another_order_share_their_draws(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each household is in a scope of its own. A replay begins them in yet another order, and says nothing."""
    for mode in "rewrite", "none":
        client = ScriptedClient([str(number / 20) for number in range(20)], cache_mode="off")
        arms = {"a": {"client": client}, "b": {"client": client}}
        with llmcall.cassette("study.jsonl", mode=mode):
            runs = llmcall.arms(in_shuffled_threads, arms, scope="study")
        assert runs.shared == 20
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.parametrize("how", [in_order, in_shuffled_threads])
def test_paired_arms_are_unbiased_and_vary_less(
    how: Callable[[llmcall.LLMClient], list[float]],
) -> None:
    """Over 200 replications the effect is found, with a smaller variance than that of apart runs."""
    chance = random.Random(7)
    client = ScriptedClient(
        lambda messages: str(chance.random()), cache_mode="off", on_error="raise"
    )

    def adoption(subsidy: bool) -> float:
        threshold = 0.3 + (EFFECT if subsidy else 0.0)
        return statistics.mean(age < threshold for age in how(client))

    arms = {"control": {"subsidy": False}, "treated": {"subsidy": True}}
    with llmcall.cassette("study.jsonl", mode="rewrite"):
        runs = llmcall.arms(adoption, arms, scope="paired", repeats=REPLICATIONS)
    assert client.usage.calls == runs.shared == REPLICATIONS * 20
    paired = [runs["treated", repeat] - runs["control", repeat] for repeat in range(REPLICATIONS)]
    shuffled = [
        runs["treated", repeat] - runs["control", (repeat + 1) % REPLICATIONS]
        for repeat in range(REPLICATIONS)
    ]
    error = statistics.stdev(paired) / REPLICATIONS**0.5
    assert abs(statistics.mean(paired) - EFFECT) < 4 * error
    assert statistics.variance(paired) < statistics.variance(shuffled) / 1.5
