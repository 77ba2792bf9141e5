"""Maps on executors of other processes, Dask's too: what holds here holds there, and what is done
there counts here.
"""

from __future__ import annotations

import functools
import gc
import json
import multiprocessing
import operator
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import ExitStack
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

import pytest
from commands import NEEDS_POSIX, ran
from map_functions import (
    AGE,
    CALL,
    PORTRAIT,
    ask,
    ask_alone,
    ask_and_be_killed,
    ask_inside_a_stream,
    ask_or_say_why_not,
    ask_slowly,
    ask_then_be_killed,
    ask_with_new_keys,
    calls,
    describe,
    divide,
    draw,
    first,
    greet,
    nested,
    post,
    post_and_fail_once,
    post_and_go_on,
    post_as_twins,
    reply,
    sample,
    samples,
    samples_in_a_thread,
    stream,
    talk,
    wait_or_fail,
)
from pytest_httpserver import HTTPServer
from servers import OK, NumberedServer, RedisProcess, ScriptedServer, refusal

import llmcall
from llmcall import imap, map, scope
from llmcall.errors import BudgetExceededError

pytestmark = NEEDS_POSIX
ELSEWHERE = [
    "threads",
    "fork",
    pytest.param("spawn", marks=pytest.mark.slow),
    pytest.param("dask", marks=pytest.mark.slow),
]
OTHER_METHODS = [pytest.param(name, marks=pytest.mark.ci) for name in ("spawn", "forkserver")]
EACH_METHOD = pytest.mark.parametrize("method", ["fork", *OTHER_METHODS])


def path_of_workers() -> str:
    """Return the path on which a worker finds these modules."""
    return os.pathsep.join([str(Path(__file__).parents[1]), os.environ["PYTHONPATH"]])


@pytest.fixture(scope="module")
def dask(only_loopback: None) -> Iterator[Any]:
    """Give a client of a cluster of two workers on the loopback, each a process with two threads;
    it starts slowly.
    """
    distributed = pytest.importorskip("distributed")
    with ExitStack() as stack:
        monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        monkeypatch.setenv("PYTHONPATH", path_of_workers())
        made = distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0"
        )
        yield stack.enter_context(stack.enter_context(made).get_client())


@pytest.fixture
def model(httpserver: HTTPServer) -> NumberedServer:
    """A model's server."""
    return NumberedServer(httpserver)


def begin_anew(folder: str) -> None:
    """Make a worker one that has worked for no other test."""
    os.chdir(folder)
    llmcall.reset()


def misspell(normalizer: str) -> None:
    """Make a client with a normalizer whose name is wrong, of which llmcall warns."""
    llmcall.OpenAIClient(api_key="none", cache_normalize=normalizer)


@pytest.fixture(params=ELSEWHERE)
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
    """Give an executor of two workers."""
    if request.param == "threads":
        with ThreadPoolExecutor(2) as made:
            yield made
    elif request.param == "dask":
        client = request.getfixturevalue("dask")
        client.run(begin_anew, os.getcwd())
        yield client.get_executor()
    else:
        monkeypatch.setenv("PYTHONPATH", path_of_workers())
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(request.param)) as made:
            yield made


@pytest.fixture
def processes() -> Iterator[Executor]:
    """Give an executor of two other processes."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as made:
        yield made


@pytest.fixture
def processes_elsewhere(processes: Executor, monkeypatch: pytest.MonkeyPatch) -> Executor:
    """Give an executor whose processes cannot reach this one, as those of other machines."""

    def refuse(*_: Any) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", refuse)  # which the forked processes inherit
    return processes


@pytest.mark.parametrize(
    "how", [{"repeats": 2}, {"scope": "survey"}, {"scope": "survey", "repeats": 3, "key": str}]
)
def test_scopes_and_repeats_apply_in_workers(pool: Executor, how: dict[str, Any]) -> None:
    """Samples are those of threads."""
    assert map(samples, "aab", executor=pool, **how) == map(samples, "aab", **how)


def test_a_workers_thread_with_a_bound_function_draws_in_the_scope_of_the_item(
    pool: Executor,
) -> None:
    """As in this process."""
    with scope("trial"):
        found = map(samples_in_a_thread, "ab", scope="survey", key=str, executor=pool)
    assert found == [
        [f"trial/survey/{item}{end}" for end in ("#0", "#1", "/inside#0")] for item in "ab"
    ]


def test_draws_in_workers_go_on_counting(pool: Executor) -> None:
    """Draws before a map, here or there, are counted there, and the map's draws are counted here;
    all replays.
    """
    for first_in, then_in, path in (
        (pool, None, "trial/day"),
        (None, pool, "trial"),
        (None, pool, "trial/day/noon"),
    ):
        with ExitStack() as stack:
            for name in path.split("/"):
                stack.enter_context(scope(name))
            for number, executor in enumerate((first_in, then_in, first_in)):
                assert map(sample, "ab", key=str, repeats=2, executor=executor) == [
                    [f"{path}/{item}#{number}", f"{path}/{item}/~1#{number}"] for item in "ab"
                ]
    assert calls() == 3 * (2 * 2 * 3)


def test_draws_on_other_machines_go_on_counting(processes_elsewhere: Executor) -> None:
    """And what is used there is counted here."""
    with scope("trial"), llmcall.track() as used:
        for number, executor in enumerate((processes_elsewhere, None, processes_elsewhere)):
            found = map(sample, "ab", key=str, executor=executor)
            assert found == [f"trial/{item}#{number}" for item in "ab"]
    assert used.calls == calls() == 6


def test_a_failed_draw_is_given_back(pool: Executor) -> None:
    """The number of a failed call is the next one's, wherever that is made."""
    with scope("trial"):
        failed = map(draw, [("a", "fail")], key=first, executor=pool, on_error="return")
        assert [type(error) for error in failed] == [llmcall.InvalidRequestError]
        assert map(
            draw, [("a", "b"), ("c", "fail")], key=first, executor=pool, on_error="none"
        ) == ["trial/a#0", None]
        Path("mended").touch()
        assert map(draw, [("a", "fail")], key=first, executor=pool) == ["trial/a#0"]


class NotingThreads(ThreadPoolExecutor):
    """Threads that note what is shown of what they get, as a cluster's log does."""

    shown = ""

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Any:
        """Note what a worker would show."""
        task, fields = function.__reduce__()
        NotingThreads.shown += repr(function) + repr(task(*fields))
        return super().submit(function, *arguments, **options)


def test_what_a_cluster_logs_of_a_task_shows_no_key() -> None:
    """The settings go with each task, and the keys in them."""
    llmcall.configure(api_key="sesame-street")
    with NotingThreads(1) as noting:
        map(ask, "a", executor=noting)
    assert "RemoteTask" in NotingThreads.shown
    assert "sesame" not in NotingThreads.shown


def test_settings_apply_in_workers(pool: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of code, a block, the environment and a change since the last map hold in the
    workers too.
    """
    llmcall.configure(model="gpt-4o", timeout=None)
    with llmcall.configured(temperature=0.5):
        assert {found[1:3] for found in map(describe, range(4), executor=pool)} == {("gpt-4o", 0.5)}
    assert {found[1:3] for found in map(describe, range(4), executor=pool)} == {("gpt-4o", None)}
    monkeypatch.setenv("LLMCALL_TEMPERATURE", "0.25")
    assert llmcall.settings().temperature == 0.25
    assert {found[1:3] for found in map(describe, range(4), executor=pool)} == {("gpt-4o", 0.25)}


def test_the_process_of_a_map_logs_what_its_workers_would_warn_of(
    processes: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, whatever the worker did before, and however soon the map ends afterwards."""
    names = [f"times{letter}" for letter in "abcdefghijkl"]
    for name in names:
        map(misspell, [name] * 2, executor=processes)
    assert [caplog.text.count(f"'{name}' is read as one") for name in names] == [1] * len(names)


def test_usage_in_workers_is_counted_in_the_parent_process(pool: Executor) -> None:
    """Calls, hits, tokens and failures are counted by model and scope, once each."""
    before = llmcall.usage()
    with llmcall.track() as used:
        map(ask, ["a", "b", "fail"], key=str, scope="survey", executor=pool, on_error="none")
        map(ask, "a", key=str, scope="survey", executor=pool)
    assert (used.calls, used.cached_calls, used.errors, used.input_tokens) == (2, 1, 1, 10)
    assert {name: part.calls for name, part in used.by_scope.items()} == {
        "survey": 2,
        "survey/a": 1,
        "survey/b": 1,
        "survey/fail": 0,
    }
    assert llmcall.usage().calls == before.calls + 2


def test_a_budget_without_a_name_counts_the_calls_of_all_workers(pool: Executor) -> None:
    """No call begins that could go past it, in whichever worker; what is left of it, any of them may use."""
    with llmcall.budget(calls=8) as budget:
        map(ask, range(3), executor=pool)
        with pytest.raises(BudgetExceededError, match="the limit of 8 calls"):
            map(ask, range(20), executor=pool)
        assert (calls(), budget.spent.calls) == (8, 8)
        assert map(ask, range(3), executor=pool) == map(ask, range(3))


def test_limits_hold_for_all_workers_together(pool: Executor) -> None:
    """No more calls are under way at once than the endpoint allows."""
    llmcall.configure(limits_max_concurrent_calls=1)
    assert map(ask_alone, range(6), executor=pool) == [True] * 6


def test_a_refused_key_is_asked_for_again_in_a_worker(
    processes: Executor, httpserver: HTTPServer
) -> None:
    server = ScriptedServer(httpserver, refusal(401, "expired"), OK)
    map(ask_with_new_keys, [server.base_url], executor=processes)
    assert len({seen.headers["authorization"] for seen in server.requests}) == 2


def test_nothing_of_a_call_in_a_pool_is_kept_after_it(processes: Executor) -> None:
    """The context of a call is that of its submitter."""
    inside: ContextVar[object] = ContextVar("inside")

    def use() -> weakref.ref[object]:
        inside.set(value := {0})
        processes.submit(ask, "Bread?").result()
        return weakref.ref(value)

    processes.submit(ask, "Salt?").result()
    with llmcall.cassette("run.jsonl"):
        value = copy_context().run(use)
        gc.collect()
        assert value() is None


def test_a_workers_call_inside_a_stream_gets_the_slot_of_the_stream(pool: Executor) -> None:
    """The slot is one of the map's process, which hears that the stream has begun."""
    llmcall.configure(limits_max_concurrent_calls=1)
    assert map(ask_inside_a_stream, range(4), executor=pool) == ["one two"] * 4


def test_a_workers_stream_of_an_answer_that_comes_whole_has_its_text(pool: Executor) -> None:
    for text, content in map(stream, range(4), executor=pool):
        assert text == content != ""


def test_a_budget_for_a_workers_stream_alone_refuses_the_call_inside_it(pool: Executor) -> None:
    """The budget is open in the map's process, which knows neither stream nor reader."""
    refusal = pytest.raises(llmcall.BudgetExceededError, match="open streams reserve all")
    with llmcall.budget(calls=1), refusal:
        map(ask_inside_a_stream, "a", executor=pool)


def test_a_worker_that_is_killed_keeps_nothing_of_a_budget_or_a_limit() -> None:
    """What its call had reserved is there for the next one."""
    llmcall.configure(limits_max_concurrent_calls=1)
    with llmcall.budget(calls=1) as budget:
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(1, context) as pool, pytest.raises(BrokenExecutor):
            map(ask_and_be_killed, "a", executor=pool)
        with ProcessPoolExecutor(1, context) as pool:
            assert len(map(ask, "b", executor=pool)) == 1
        assert budget.spent.calls == 1


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (lambda: llmcall.budget(calls=3), "Run the map without a budget"),
        (lambda: llmcall.cassette("tape.jsonl"), r"tape\.jsonl, which is open.*or on this machine"),
    ],
    ids=["budget", "cassette"],
)
def test_a_budget_or_a_cassette_is_refused_on_other_machines(
    block: Callable[[], Any], words: str, processes_elsewhere: Executor
) -> None:
    """A worker that cannot reach the map's process names the remedy, and asks nothing."""
    with block(), pytest.raises(llmcall.CacheError, match=words):
        map(ask, "a", executor=processes_elsewhere)
    assert calls() == 0


def test_a_budget_itself_is_not_sent_to_workers(processes: Executor) -> None:
    """A copy there would allow as much again."""
    with (
        llmcall.budget(calls=3) as budget,
        pytest.raises(TypeError, match="open it around the map"),
    ):
        map(functools.partial(operator.is_, budget), "a", executor=processes)


def test_llm_functions_are_pickled_for_workers(processes: Executor) -> None:
    """An LLMCall and an @llm function can be pickled for workers, and whole answers for the parent
    process; the call's client counts them.
    """
    before = CALL.client.usage.calls
    rows = [{"name": "Lisa"}, {"name": "Bart"}]
    assert greet.map(rows, executor=processes, scope="s") == greet.map(rows, scope="s")
    assert CALL.map(rows, executor=processes, scope="s") == CALL.map(rows, scope="s")
    assert CALL.client.usage.calls == before + 2
    (there,), (here,) = map(reply, "a", executor=processes), map(reply, "a")
    assert (there, there.cache_key, there.cached, here.cached) == (
        here,
        here.cache_key,
        False,
        True,
    )


def test_a_cassette_records_every_client_of_its_maps_workers(
    pool: Executor, model: NumberedServer
) -> None:
    """Also those of workers that are older than its block. In the mode none they send nothing; later they do again."""
    pool.submit(calls).result()
    items = [(model.address, question) for question in ("Bread?", "Salt?", "Bread?")]
    llmcall.configure(cache_mode="off")
    with llmcall.cassette("pool.jsonl", actor="header:x-actor") as tape:
        found = map(post, items, scope="survey", executor=pool)
    assert (tape.recorded, len({text for texts in found for text in texts})) == (6, 6)
    with llmcall.cassette("pool.jsonl", mode="none"):
        assert map(post, items, scope="survey", executor=pool) == found
        assert map(post, items, scope="survey") == found
    new = [(model.address, "Wine?")]
    with (
        pytest.raises(llmcall.CacheMissError, match="Wine"),
        llmcall.cassette("pool.jsonl", mode="none"),
    ):
        assert map(post_and_go_on, new, scope="survey", executor=pool) == [[]]
    assert len(model.asked) == 6
    [sent] = map(post, new, executor=pool)  # nothing records it, and the pool has been in a replay
    assert len({*sent}) == len(model.asked) - 6 == 2


@pytest.mark.parametrize("waits", [(0.0, 0.5), pytest.param((0.5, 0.0), marks=pytest.mark.ci)])
def test_twins_in_an_item_of_a_maps_worker_replay_their_own_answers(
    waits: tuple[float, float], pool: Executor, model: NumberedServer
) -> None:
    """Equal requests of tasks, in whatever order they come."""
    pool.submit(calls).result()
    llmcall.configure(cache_mode="off")
    options: dict[str, Any] = {"scope": "survey", "key": lambda _: "a", "executor": pool}
    with llmcall.cassette("pool.jsonl"):
        recorded = map(post_as_twins, [(model.address, (0.5, 0.0))], **options)
    assert sorted(recorded[0]) == ["answer 0", "answer 1"]
    with llmcall.cassette("pool.jsonl", mode="none"):
        assert map(post_as_twins, [(model.address, waits)], **options) == recorded


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("in_arm", [False, True])
@pytest.mark.feature("arms")
def test_a_programs_calls_in_an_item_that_failed_are_not_paid_again(
    in_arm: bool, elsewhere: bool, model: NumberedServer
) -> None:
    """The map is run again in the same scope: all draws of the item were given back."""
    llmcall.configure(cache_mode="off")
    failed = Path("failed")
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        pool.submit(calls).result()
        executor = pool if elsewhere else None

        def play() -> list[list[str]]:
            item = model.address, "Bread?", str(failed.absolute())
            with pytest.raises(RuntimeError):
                map(post_and_fail_once, [item], key=lambda _: "a", executor=executor)
            return map(post_and_fail_once, [item], key=lambda _: "a", executor=executor)

        with llmcall.cassette("pool.jsonl"):
            if in_arm:
                found = llmcall.arms(play, {"one": {}}, scope="survey")["one", 0]
            else:
                with scope("survey"):
                    found = play()
    assert found == [["answer 0", "answer 1", "answer 2", "answer 3"]]
    assert len(model.asked) == 4


def test_workers_that_ask_the_same_at_once_get_one_answer(pool: Executor) -> None:
    """The first answer that comes is on the cassette, and everybody gets that one, now and in a replay."""
    llmcall.configure(cache_mode="off")
    items = ["a"] * 6 + ["b"] * 6
    with llmcall.cassette("tape.jsonl") as tape:
        found = map(ask_slowly, items, executor=pool)
    assert (len(set(found[:6])), len(set(found[6:])), tape.records) == (1, 1, 2)
    with llmcall.cassette("tape.jsonl", mode="none"):
        assert map(ask_slowly, items, executor=pool) == map(ask_slowly, items) == found


@pytest.mark.parametrize("cache_mode", ["off", pytest.param("auto", marks=pytest.mark.ci)])
@pytest.mark.feature("arms")
def test_a_study_in_workers_is_recorded_as_in_threads(pool: Executor, cache_mode: str) -> None:
    """Arms, repeats, twins and a table ask, cost and record the same, whatever takes how long."""
    llmcall.configure(cache_mode=cache_mode)

    def study(tape: str, executor: Executor | None, mode: str) -> list[Any]:
        def play(style: str) -> list[Any]:
            return map(talk, ["ann", f"bob {style}", "ann"], key=str, executor=executor)

        llmcall.configure(cache_path=f"cache-{tape}")
        before = calls()
        with (
            llmcall.cassette(tape, mode=mode) as recorded,
            llmcall.budget(calls=1000) as budget,
            llmcall.track() as used,
        ):
            arms = {"plain": {"style": "plain"}, "loud": {"style": "loud"}}
            runs = llmcall.arms(play, arms, scope="arms", repeats=2)
            twins = map(talk, ["ann", "bob", "ann"], scope="twins", repeats=2, executor=executor)
            rows = [{"name": name} for name in "abc"]
            table = PORTRAIT.table(
                rows, vary={"temperature": [0, 1]}, scope="table", executor=executor
            )
        counted = used.usage()
        return [
            [runs[arm, repeat] for arm in arms for repeat in range(2)],
            (runs.calls, runs.shared, twins, table.to_csv()),
            (counted.calls, counted.input_tokens, budget.spent, calls() - before),
            (recorded.recorded, recorded.unused(), sorted(counted.by_scope)),
        ]

    there, here = study("there.jsonl", pool, "once"), study("here.jsonl", None, "once")
    assert there == here
    assert Path("there.jsonl").read_bytes() == Path("here.jsonl").read_bytes()
    replayed = study("here.jsonl", pool, "none")
    assert (replayed[:2], replayed[2][0], replayed[3][1]) == (here[:2], 0, [])


def test_what_a_worker_could_not_read_is_noted_before_its_map_ends(processes: Executor) -> None:
    rows = [{"name": name} for name in "abc"]
    with llmcall.cassette("ages.jsonl") as tape:
        answers = AGE.map(rows, scope="ages", executor=processes, on_error="return")
    assert [type(answer) for answer in answers] == [llmcall.OutputError] * 3
    assert [record.notes["unread"] for record in tape.all_records()] == [True] * 3


def test_a_killed_worker_leaves_what_it_was_answered_on_the_cassette() -> None:
    """The program goes on from it, though no result came."""
    llmcall.configure(cache_mode="off")
    with llmcall.cassette("tape.jsonl", mode="new") as tape:
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(1, context) as pool, pytest.raises(BrokenExecutor) as caught:
            map(ask_then_be_killed, "a", executor=pool, scope="survey", key=str)
        assert caught.value.results == [None]  # type: ignore[attr-defined]
        assert tape.asked == 1
        assert len(map(ask, "a", scope="survey", key=str)) == 1
        assert (tape.asked, tape.replayed, calls()) == (1, 1, 1)


def test_a_long_name_of_the_temporary_folder_keeps_no_worker_from_its_process(
    processes: Executor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The name of a socket has room for a hundred letters, as clusters' folders may have."""
    long_path = tmp_path / ("x" * 100)
    long_path.mkdir()
    for name in ("XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(long_path))
    with llmcall.budget(calls=2):
        assert len(map(ask, "ab", executor=processes)) == 2


def test_a_failure_in_a_worker_is_reported_at_the_end_of_a_recording(
    pool: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A call that failed after all retries in a worker is named by the cassette here."""
    with llmcall.cassette("market.jsonl"):
        map(ask, ["a", "fail"], executor=pool, on_error="return", scope="survey", key=str)
    assert "1 call failed (1 in scope 'survey/fail'" in caplog.text


def test_a_workers_result_is_not_recorded_if_a_call_failed_in_its_function(pool: Executor) -> None:
    """As in this process; the function's other results are."""
    with llmcall.cassette("market.jsonl"):
        results = map(ask_or_say_why_not, ["a", "fail"], executor=pool, scope="survey", key=str)
    assert results[1] == "no answer"
    lines = Path("market.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    requests = [json.loads(line)["request"] for line in lines]
    words = [request["arguments"]["word"] for request in requests if "arguments" in request]
    assert words == ["a"]


@pytest.mark.ci
def test_loky_sends_functions_that_python_itself_cannot() -> None:
    """Such as a lambda, and one of a script."""
    pytest.importorskip("joblib")
    program = """
        from joblib.externals.loky import get_reusable_executor
        def ask(item):
            return ScriptedClient(lambda messages: messages[-1]["content"].upper()).send_message(item).content
        pool = get_reusable_executor(2)
        print(llmcall.map(ask, "ab", executor=pool), llmcall.map(lambda item: item * 2, "ab", executor=pool))
        pool.shutdown()
    """
    assert ran(program) == "['A', 'B'] ['aa', 'bb']"


def test_errors_are_raised_in_the_parent_process(processes: Executor) -> None:
    """An exception is the worker's; its cause is its traceback there."""
    with pytest.raises(ZeroDivisionError) as caught:
        map(divide, [1, 0], executor=processes, workers=1)
    assert caught.value.results[0] == 6.0  # type: ignore[attr-defined]
    assert "return 6 / item" in str(caught.value.__cause__)
    error = map(ask, ["fail"], executor=processes, on_error="return")[0]
    assert (type(error), error.status_code) == (llmcall.InvalidRequestError, 400)


def test_a_map_whose_item_failed_waits_for_items_that_have_begun(pool: Executor) -> None:
    """After a failure no queued item begins, and what runs in a worker ends before the exception
    leaves.
    """
    with pytest.raises(ValueError, match="item 0 fails") as caught:
        map(wait_or_fail, range(400), executor=pool)
    if not type(pool).__module__.startswith("distributed"):  # Dask itself cancels what runs
        assert Path("ended").exists()
        assert caught.value.results[1] == 1  # type: ignore[attr-defined]
    assert len(list(Path().glob("began-*"))) < 200  # on a slow machine the failure is heard of late


def test_a_lambda_is_refused_before_it_is_sent_to_other_processes(processes: Executor) -> None:
    """A lambda is refused before anything is run, with the remedy."""
    with pytest.raises(TypeError, match=r"fn cannot be sent to other processes: .* not a lambda"):
        map(lambda item: item, [1], executor=processes)
    llmcall.configure(api_key=lambda: "key")
    with pytest.raises(TypeError, match="the settings cannot be sent to other processes"):
        map(divide, [1], executor=processes)


def test_a_map_inside_a_worker_runs_in_threads_and_counts_its_usage(processes: Executor) -> None:
    """A map inside a worker's item runs in threads there, and the parent process counts
    its usage.
    """
    assert sorted(imap(divide, [1, 2, 3], executor=processes)) == [(0, 6.0), (1, 3.0), (2, 2.0)]
    with llmcall.track() as used:
        found = map(nested, [1, 2], executor=processes, scope="outer", key=str)
    assert used.calls == 4
    assert map(nested, [1, 2], scope="outer", key=str) == found


@pytest.mark.slow
@pytest.mark.feature("redis")
def test_dask_with_a_cache_on_a_server(dask: Any) -> None:
    """Workers need no common disk: with [Cache] PATH in Redis they share answers, and a budget is refused."""
    dask.run(begin_anew, os.getcwd())
    with pytest.raises(TypeError, match=r"pass client.get_executor\(\)"):
        map(divide, [1], executor=dask)
    with RedisProcess() as server:
        llmcall.configure(cache_path=server.url)
        found = map(ask, "abcdefgh", executor=dask.get_executor())
        assert map(ask, "abcdefgh") == found
        assert (calls(), len(llmcall.client("openai").cache)) == (8, 8)


@EACH_METHOD
def test_a_pool_in_a_cassettes_block_is_recorded(method: str) -> None:
    """Also one that is older; after the block, its processes go on alone, unless it was one that sends nothing."""
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        pool.submit(calls).result()
        with llmcall.cassette("run.jsonl") as tape:
            found = pool.submit(ask, "Bread?").result()
            assert map(ask, ["Bread?"], executor=pool) == [found]
        assert (tape.recorded, calls()) == (1, 1)
        assert pool.submit(ask, "Milk?").result().startswith("item Milk?")
        with llmcall.configured(cache_mode="off"), llmcall.cassette("run.jsonl", mode="none"):
            assert pool.submit(ask, "Bread?").result() == found
        with (
            pytest.raises(llmcall.CacheMissError, match="Salt"),
            llmcall.cassette("run.jsonl", mode="none"),
        ):
            pool.submit(ask, "Salt?").result()
        with pytest.raises(llmcall.LLMCallError, match="has ended"):
            pool.submit(ask, "Eggs?").result()


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.ci)])
def test_a_pool_replays_a_cassette_that_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Each of its processes opens the file, which it only reads."""
    with llmcall.cassette("run.jsonl"):
        answer = ask("Bread?")
    monkeypatch.setenv("LLMCALL_CASSETTE_PATH", "run.jsonl")
    monkeypatch.setenv("LLMCALL_CASSETTE_MODE", "none")
    llmcall.reset()
    assert ask("Bread?") == answer
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert pool.submit(ask, "Bread?").result() == answer
        with pytest.raises(llmcall.CacheMissError):
            pool.submit(ask, "Salt?").result()
