"""Scopes: the numbers of draws, and what carries a scope to threads, tasks, generators and
processes.
"""

from __future__ import annotations

import asyncio
import enum
import multiprocessing
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from contextvars import Context, copy_context
from types import SimpleNamespace
from typing import Any

import pytest
from commands import NEEDS_POSIX, ran
from files import write_cassette

import llmcall
from llmcall import InvalidRequestError, ScopeError, bind, scope
from llmcall.testing import ScriptedClient

TOGETHER = 12  # that ask the same
METHODS = [
    pytest.param(method, marks=() if method == "fork" else pytest.mark.slow)
    for method in multiprocessing.get_all_start_methods()
]


def client_with(answers: Any = None) -> ScriptedClient:
    """Return a client that answers whatever is asked, or as told."""
    return ScriptedClient(answers or (lambda messages: "yes"))


def sample(message: str = "Hello", **arguments: Any) -> str | None:
    """Ask and return the reply's sample."""
    return client_with().send_message(message, on_error="raise", **arguments).sample


async def asample(message: str = "Hello") -> str | None:
    """Ask without blocking and return the reply's sample."""
    return (await client_with().asend_message(message, on_error="raise")).sample


def tried(message: str = "Hello") -> str | None:
    """Ask, and return the sample, or the error's class."""
    try:
        return sample(message)
    except ScopeError:
        return "ScopeError"


def in_a_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a new thread and return its result, or raise its error; its context is
    empty on any Python.
    """
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(Context().run, function, *arguments).result()


# Numbers


def test_only_identical_requests_share_a_count() -> None:
    """Another message, parameter, model or path has a count of its own."""
    with scope("a"):
        assert [sample(), sample("other"), sample(temperature=1), sample(model="m")] == ["a#0"] * 4
        with scope("b"):
            assert sample() == "a/b#0"


def test_another_scope_of_the_same_name_starts_at_0() -> None:
    """The object counts, not its name."""
    trial = scope("trial")
    with trial:
        assert sample() == "trial#0"
    with scope("trial"):
        assert sample() == "trial#0"
    with trial:
        assert sample() == "trial#1"


@pytest.mark.parametrize("on_error", ["none", "raise", "return", "a stream"])
def test_a_failed_call_gives_its_number_back(on_error: Any) -> None:
    """The next call draws the number of a call that failed."""
    failing = client_with([InvalidRequestError("no")] * 9)
    with scope("a"):
        assert sample() == "a#0"
        with pytest.raises(InvalidRequestError) if on_error == "raise" else nullcontext():
            if on_error == "a stream":
                with failing.stream_message("Hello") as stream:
                    assert list(stream) == []
            else:
                failing.send_message("Hello", on_error=on_error)
        assert (sample(), sample()) == ("a#1", "a#2")


def test_the_lowest_free_number_is_next() -> None:
    """If an earlier call fails after a later one began, its number is drawn before new ones."""
    with scope("a"):
        streams = [client_with().stream_message("Hello") for _ in range(4)]
        streams[2].close()
        streams[1].close()
        assert [sample(), sample(), sample()] == ["a#1", "a#2", "a#4"]


def test_a_request_that_is_only_built_takes_no_number() -> None:
    """It shows the number of the next call, which then has the same key."""
    with scope("a"):
        request = client_with().build_request("Hello")
        assert request.sample == client_with().build_request("Hello").sample == "a#0"
        assert client_with().send_message("Hello", on_error="raise").cache_key == request.cache_key


@pytest.mark.parametrize(("setting", "text"), [(1, "1"), ("x", "x")])
def test_a_given_sample_stands_for_the_number(setting: Any, text: str) -> None:
    """``sample=`` is the number of the draw, inside a scope and outside any; it moves no count."""
    assert sample(sample=setting) == f"#{text}"
    with scope("a"):
        drawn = [sample(sample=setting), sample(), sample(sample=setting)]
    assert drawn == [f"a#{text}", "a#0", f"a#{text}"]


def test_the_draw_0_and_the_sample_0_are_one_request() -> None:
    """The record of the first draw answers ``sample=0``."""
    client = ScriptedClient(["one"], cache_mode="auto")
    with scope("a"):
        first = client.send_message("Hello", on_error="raise")
        second = client.send_message("Hello", on_error="raise", sample=0)
    assert (second.cache_key, second.content, second.cached) == (first.cache_key, "one", True)


def test_blanks_scripts_enumerations_and_numbers_are_names() -> None:
    """Any text without a divider is a name, and so is a number."""

    class Actor(str, enum.Enum):
        LISA = "lisa"

    with scope("trial 3"), scope("Жанна 🧀"), scope(Actor.LISA), scope(3), scope(2.5):
        assert sample() == "trial 3/Жанна 🧀/lisa/3/2.5#0"


def test_an_embedding_is_the_same_in_every_scope() -> None:
    """An embedding is no draw: a scope does not change its record, and a thread needs none."""
    client = ScriptedClient([[1.0]], cache_mode="auto")
    with scope("a"):
        in_a_thread(client.get_embedding, "text")
    assert client.get_embedding("text") == [1.0]


def test_inside_scope_none_there_is_no_draw() -> None:
    """A call inside ``scope(None)`` has no sample, and takes no number of the scope around it."""
    with scope("a"):
        with scope(None):
            assert sample() is None
        assert sample() == "a#0"


def test_one_answer_for_many_personas_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Outside any scope, a single warning says that an answer serves a second time."""
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto")
    client.send_message("Buy bread?", temperature=1)
    assert caplog.messages == []
    client.send_message("Buy bread?", temperature=1)
    (warning,) = caplog.messages
    for _ in range(3):
        client.send_message("Buy bread?", temperature=1)
    assert caplog.messages == [warning]
    assert "llmcall.scope(name)" in warning
    assert "sample=1" in warning


@pytest.mark.parametrize(
    "request_of",
    [
        lambda number: {"temperature": 0},
        lambda number: {"sample": number},
        lambda number: {"seed": number},
    ],
    ids=["zero", "samples", "others"],
)
def test_one_answer_that_is_meant_is_not_warned_of(
    request_of: Callable[[int], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """Temperature 0, samples and different requests give no warning."""
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto")
    for number in range(5):
        client.send_message("Buy bread?", **{"temperature": 1, **request_of(number)})
    assert caplog.messages == []


def test_one_answer_of_a_call_under_way_is_warned_of_too(caplog: pytest.LogCaptureFixture) -> None:
    """Outside any scope, threads that ask at the same time share it."""

    def answer_late(messages: Any) -> str:
        time.sleep(0.2)  # in which the others ask, too
        return "yes"

    client = ScriptedClient(answer_late, cache_mode="auto")
    with ThreadPoolExecutor(TOGETHER) as executor:
        for _ in range(TOGETHER):
            executor.submit(client.send_message, "Buy bread?", temperature=1)
    (warning,) = caplog.messages
    assert "identical requests outside any scope share one answer" in warning


def test_a_bounded_number_of_answers_is_remembered_for_the_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that asks ever new questions does not grow; one that shares answers does so early."""
    monkeypatch.setattr("llmcall.scopes.repeated.MOST_REMEMBERED", 1)
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto")
    for question in ("Bread?", "Salt?", "Salt?", "Salt?"):
        client.send_message(question, temperature=1)
    assert not caplog.messages
    client.send_message("Bread?", temperature=1)
    assert "identical requests outside any scope share one answer" in caplog.text


RESTARTED = "the scope 'Ann' starts again and gets its earlier answers; if rounds are meant, put one scope around them"


def ask_in(client: ScriptedClient, *names: str, temperature: float = 1) -> None:
    """Ask in nested scopes."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(scope(name))
        client.send_message("Buy bread?", temperature=temperature)


def test_an_outermost_scope_that_starts_again_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Agents in a loop of rounds would say the same in every round."""
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto")
    for _ in range(3):
        for name in ("Ann", "Ben"):
            ask_in(client, name)
    assert caplog.messages == [RESTARTED]


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda client, number: ask_in(client, f"round-{number}", "Ann"), id="other"),
        pytest.param(lambda client, number: ask_in(client, "Ann", f"round-{number}"), id="below"),
        pytest.param(lambda client, number: ask_in(client, "Ann", temperature=0), id="zero"),
        pytest.param(lambda client, number: ask_in(numbered(), "Ann"), id="nothing kept"),
        pytest.param(
            lambda client, number: in_a_cassette(f"{number}.jsonl", "Ann"), id="other cassettes"
        ),
    ],
)
def test_a_scope_that_starts_again_and_gets_other_answers_is_not_warned_of(
    ask: Callable[[ScriptedClient, int], object], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor one whose answers could not differ."""
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto")
    for number in range(3):
        ask(client, number)
    assert caplog.messages == []


def numbered() -> ScriptedClient:
    """Return a client whose answers are kept nowhere."""
    return ScriptedClient(lambda messages: "yes", cache_mode="off")


def in_a_cassette(file: str, name: str) -> None:
    """Ask in a scope on a cassette of its own."""
    with llmcall.cassette(file):
        ask_in(ScriptedClient(lambda messages: "yes"), name)


def test_a_scope_around_the_rounds_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Nor one that is kept and entered again."""
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto")
    kept = scope("kept")
    with scope("trial"):
        for _ in range(2):
            ask_in(client, "Ann")
    for _ in range(2):
        with kept:
            ask_in(client, "Ann")
    assert caplog.messages == []


def test_a_later_cell_of_a_notebook_may_start_a_scope_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running again is meant there; within one cell a warning comes as in a script."""
    shell = SimpleNamespace(execution_count=1)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto")
    ask_in(client, "Ann")
    shell.execution_count = 2
    ask_in(client, "Ann")
    assert caplog.messages == []
    ask_in(client, "Ann")
    assert caplog.messages == [RESTARTED]


# Threads, tasks and bind


def test_on_error_hides_no_scope_error() -> None:
    """It is the program's mistake, so it is raised whatever ``on_error`` says."""
    with scope("a"), pytest.raises(ScopeError):
        in_a_thread(lambda: client_with().send_message("Hello", on_error="none"))


def sample_in(name: str | None) -> str | None:
    """Ask in a scope and return the reply's sample."""
    with scope(name):
        return sample()


def test_each_remedy_lets_a_thread_ask() -> None:
    """In a scope of its own, in none, and bound, a thread may ask while a scope is open elsewhere."""
    with scope("a"):
        assert in_a_thread(sample_in, None) is None
        assert in_a_thread(sample_in, "own") == "own#0"
        assert in_a_thread(bind(sample)) == "a#0"
    assert in_a_thread(sample) is None  # none is open any more


def test_bound_functions_draw_from_the_scope() -> None:
    """A bound function goes on counting in the scope in which it was bound, wherever it runs."""
    with scope("a"), scope("b"):
        bound = bind(sample)
        drawn = [in_a_thread(bound), sample(), in_a_thread(bound, "other"), in_a_thread(bound)]
    assert drawn == ["a/b#0", "a/b#1", "a/b#0", "a/b#2"]
    assert bound() == "a/b#3"


def test_a_bound_coroutine_function_stands_in_the_scope_while_it_runs() -> None:
    """It draws from the scope in another thread's loop too, and leaves nothing open."""

    async def twice() -> list[str | None]:
        first = await asample()
        await asyncio.sleep(0)
        return [first, await asample()]

    with scope("a"):
        bound = bind(twice)
        assert in_a_thread(lambda: asyncio.run(bound())) == ["a#0", "a#1"]
    assert sample() is None


def test_a_scope_that_a_task_opens_is_its_own() -> None:
    """Tasks that open scopes while others wait do not mix their paths."""

    async def actor(name: str) -> list[str | None]:
        drawn = []
        for _ in range(3):
            with scope(name):
                drawn.append(await asample())
            await asyncio.sleep(0)
        return drawn

    async def main() -> list[list[str | None]]:
        with scope("trial"):
            return await asyncio.gather(actor("lisa"), actor("oscar"))

    lisa, oscar = asyncio.run(main())
    assert lisa == ["trial/lisa#0", "trial/lisa#1", "trial/lisa#2"]
    assert oscar == ["trial/oscar#0", "trial/oscar#1", "trial/oscar#2"]


def test_a_task_stands_in_the_scope_in_which_it_was_made() -> None:
    """A task and a thread of ``asyncio.to_thread`` count on in the scope in which they were made."""

    async def main() -> tuple[list[str | None], str | None]:
        with scope("trial"):
            late = asyncio.create_task(asample())
            threaded = await asyncio.to_thread(sample)
        return [await late, threaded], await asample()

    inside, outside = asyncio.run(main())
    assert sorted(map(str, inside)) == ["trial#0", "trial#1"]
    assert outside is None


def test_a_thread_that_inherits_the_context_stands_in_its_scope() -> None:
    """It counts with the others there, also once the scope has ended, until it opens a scope of its
    own.

    Free-threaded Python 3.14 begins every thread in a copy of the context; elsewhere a program does
    so itself.
    """
    with scope("trial"):
        inherited = copy_context()
        with ThreadPoolExecutor(1) as executor:
            drawn = [executor.submit(inherited.run, sample).result() for _ in range(2)]
        drawn.append(sample())
    with ThreadPoolExecutor(1) as executor, scope("next"):
        drawn.append(executor.submit(inherited.run, sample).result())
        drawn.append(executor.submit(inherited.run, bind(sample)).result())
    assert drawn == ["trial#0", "trial#1", "trial#2", "trial#3", "next#0"]


def test_threads_without_a_scope_draw_from_the_process_scope() -> None:
    """A thread's own scope stands inside it; ``scope(None)`` leaves it, and it ends with its block."""
    with scope("run", process=True):
        assert [in_a_thread(sample), sample(), in_a_thread(sample)] == ["run#0", "run#1", "run#2"]
        assert in_a_thread(sample_in, "lisa") == "run/lisa#0"
        assert in_a_thread(sample_in, None) is None
    assert (sample(), in_a_thread(sample)) == (None, None)
    with scope("next", process=True):
        assert in_a_thread(sample) == "next#0"


def test_the_same_request_of_two_tasks_warns(caplog: pytest.LogCaptureFixture) -> None:
    """Chance decides which task gets which draw, as with threads."""
    both_ask = threading.Barrier(2)

    def answer(messages: object) -> str:
        both_ask.wait(60)
        return "yes"

    async def main() -> None:
        with scope("trial"):
            await asyncio.gather(*[client_with(answer).asend_message("Hello") for _ in range(2)])

    asyncio.run(main())
    (warning,) = caplog.messages
    assert "two tasks in scope 'trial'" in warning


# Generators


def actor(name: str) -> Generator[str | None, None, None]:
    """Ask in a scope that stays open between the steps."""
    with scope(name):
        while True:
            yield sample()


def staged_actor(name: str) -> Generator[str | None, None, None]:
    """Draw at each step, in a scope that a function opens and leaves open."""
    with ExitStack() as stack:
        stack.push(left_open := scope(name))
        (lambda: left_open.__enter__())()
        while True:
            yield sample()


OPEN_AROUND_EACH_STEP = "Open the scope around each step"


@pytest.mark.parametrize("acting", [actor, staged_actor])
def test_a_draw_between_a_generators_steps_is_refused(acting: Any) -> None:
    """The scope that the generator left open is not the caller's."""
    playing = acting("a")
    next(playing)
    with pytest.raises(ScopeError, match=OPEN_AROUND_EACH_STEP):
        sample()
    playing.close()


def test_a_generator_run_to_its_end_draws_from_its_scope() -> None:
    """Nothing asks between its steps, and what it delegates to stands in its scope."""

    def inner() -> Iterator[str | None]:
        with scope("inner"):
            yield sample()
            yield sample()

    def outer() -> Iterator[str | None]:
        with scope("outer"):
            yield from inner()

    assert list(outer()) == ["outer/inner#0", "outer/inner#1"]
    assert sample() is None


@contextmanager
def turn(name: str) -> Iterator[None]:
    """Open a scope for a block, as a library does."""
    with scope(name):
        yield


def test_a_scope_in_a_context_manager_is_open_for_its_block() -> None:
    """A function of ``contextlib.contextmanager`` may hold a scope."""
    with turn("a"), turn("b"):
        assert sample() == "a/b#0"


@pytest.fixture
def in_a_fixture() -> Iterator[None]:
    """Open a scope for a test, and another one in it."""
    with scope("fixture"), turn("nested"):
        yield


def test_fixtures_that_yield_inside_a_scope_go_on_working(in_a_fixture: None) -> None:
    """A fixture's scope is open for the test."""
    assert sample() == "fixture/nested#0"


async def steps_in_a_scope() -> AsyncIterator[list[str | None]]:
    """Ask in a scope that stays open between the steps."""
    with scope("a"):
        yield list(await asyncio.gather(asample("x"), asample("y")))
        yield [await asample("z")]


def test_a_draw_between_an_asynchronous_generators_steps_is_refused() -> None:
    """The scope that the generator left open is not the caller's; the generator goes on."""

    async def main() -> None:
        playing = steps_in_a_scope()
        await anext(playing)
        with pytest.raises(ScopeError, match="generator steps_in_a_scope"):
            await asample()
        assert await anext(playing) == ["a#0"]
        await playing.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


def test_a_scope_in_an_asynchronous_context_manager_is_open_for_its_block() -> None:
    """A function of ``contextlib.asynccontextmanager`` may hold a scope."""

    @asynccontextmanager
    async def held() -> AsyncIterator[None]:
        with scope("b"):
            yield

    async def main() -> None:
        async with held():
            assert await asample() == "b#0"

    asyncio.run(main())


# Processes


def pool(method: str) -> ProcessPoolExecutor:
    """Return a pool of two workers."""
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_was_started_inside_a_scope_needs_a_bound_function(method: str) -> None:
    """It raises, unless its function is bound; one started when the scope has ended asks freely."""
    with scope("s"), pool(method) as inside:
        assert set(inside.map(tried, "abcd")) == {"ScopeError"}
        assert list(inside.map(bind(tried), "ab")) == ["s#0", "s#0"]
    with pool(method) as later:
        assert list(later.map(tried, "ab")) == [None, None]


@pytest.mark.parametrize("method", METHODS)
def test_workers_learn_of_a_scope_at_their_start_only(method: str) -> None:
    """A worker does not learn of a scope that opens or ends after its start."""
    with pool(method) as early, pool(method) as late:
        assert list(early.map(tried, "ab")) == [None, None]
        with scope("s"):
            assert set(early.map(tried, "abcd")) == {None}
            assert set(late.map(tried, "abcd")) == {"ScopeError"}
        with pytest.raises(ScopeError, match="If the scope has ended since, start the workers"):
            list(late.map(sample, "a"))


FORKED_TASKS = """
import logging

logging.basicConfig(stream=sys.stdout, format="%(message)s")
model = ScriptedClient(lambda messages: "six", cache_mode="auto")


def ask():
    return model.send_message("Roll the dice").sample


if "recorded" in sys.argv:
    with llmcall.scope("trial"):
        ask()
trial = llmcall.scope("trial")


def ask_in_kept():
    with trial:
        return ask()


with trial:
    tasks = {"bound": llmcall.bind(ask), "kept": ask_in_kept}
for _ in range(2):
    child = os.fork()
    if not child:
        print(tasks[sys.argv[1]](), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@NEEDS_POSIX
@pytest.mark.parametrize("way", ["kept", "bound"])
def test_forked_processes_that_make_the_same_draw_are_warned_of(way: str) -> None:
    """Each counts for itself in a bound or kept scope, so the second gets the first one's answer: a
    warning says so.
    """
    first, warning, second = ran(FORKED_TASKS, way).splitlines()
    assert (first, second) == ("trial#0", "trial#0")
    assert warning.startswith(
        "two processes made the same draw in the scope 'trial' and share its answer"
    )


ROOTED = """
    client = ScriptedClient(lambda messages: "yes")
    samples = [client.send_message("Hello").sample]
    with llmcall.scope("lisa"):
        samples.append(client.send_message("Hello").sample)
    thread = threading.Thread(target=lambda: samples.append(client.send_message("Hello").sample))
    thread.start()
    thread.join()
    with llmcall.scope(None):
        samples.append(client.send_message("Hello").sample)
    print(*samples)
"""


def test_a_root_scope_is_that_of_a_whole_process() -> None:
    """``LLMCALL_SCOPE`` names the scope of all threads, above the program's own."""
    assert ran(ROOTED, LLMCALL_SCOPE="r1") == "r1#0 r1/lisa#0 r1#1 None"


# A default scope


def recorded_by_run() -> llmcall.types.Cassette:
    """Return a recording of ``llmcall run``: while it is open, the scope of calls without one is ``run``."""
    return llmcall.cassette(write_cassette("run.jsonl", [], {}, run={}), mode="new")


def test_a_default_scope_is_that_of_calls_without_one() -> None:
    """Calls of every thread and task that would stand in no scope draw from it. A cassette in it that is no
    recording of a run has none, and leaves it.
    """
    with recorded_by_run():
        with scope("a"), scope("b"):  # scopes that the program opens keep their paths
            assert sample() == "a/b#0"
        with llmcall.cassette("block.jsonl"):
            assert sample() is None
        assert [sample(), sample(), in_a_thread(sample)] == ["run#0", "run#1", "run#2"]
        assert asyncio.run(asample()) == "run#3"
        assert bind(sample)() == "run#4"


def samples_in_an_item(name: str) -> list[str | None]:
    """Ask in a map's item, and in a scope of one's own."""
    with scope(name):
        own = sample()
    return [sample(), own]


def test_a_map_stands_in_the_default_scope() -> None:
    """Each item has a scope below it; scopes that its function opens keep their paths."""
    with recorded_by_run():
        found = llmcall.map(samples_in_an_item, ["a", "b"], key=str)
    assert found == [["run/a#0", "a#0"], ["run/b#0", "b#0"]]
