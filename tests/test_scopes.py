"""Scopes: the numbers of draws, and what carries a scope to threads, tasks, generators and
processes.
"""

from __future__ import annotations

import asyncio
import enum
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

import pytest
from programs import ran, start

import llmcall
from llmcall import InvalidRequestError, ScopeError, bind, scope
from llmcall.scopes import default_scope
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


def test_identical_requests_alone_are_counted() -> None:
    """Another message, model, parameter or path has a count of its own; a streamed draw counts like
    any.
    """
    with scope("a"):
        assert [sample(), sample("other"), sample(temperature=1), sample(model="m")] == ["a#0"] * 4
        with scope("b"):
            assert sample() == "a/b#0"
        with client_with().stream_message("Hello") as stream:
            list(stream)
        assert stream.reply is not None and stream.reply.sample == "a#1"
        assert [sample(temperature=1.0), sample(user="u", timeout=3)] == ["a#1", "a#2"]


def test_a_kept_scope_goes_on() -> None:
    """A scope in a variable that is entered again counts on, another object of the name does not."""
    trial = scope("trial")
    with trial:
        assert sample() == "trial#0"
    with trial:
        assert sample() == "trial#1"
    with scope("trial"):
        assert sample() == "trial#0"
    with scope("other"), trial:
        assert sample() == "other/trial#0"
    with trial:
        assert sample() == "trial#2"
        with trial:
            assert sample() == "trial/trial#0"


def test_a_failed_call_gives_its_number_back() -> None:
    """The lowest free number is next, whichever call failed."""
    failing = client_with([InvalidRequestError("no")] * 9)
    with scope("a"):
        assert sample() == "a#0"
        assert failing.send_message("Hello") is None
        with pytest.raises(InvalidRequestError):
            failing.send_message("Hello", on_error="raise")
        assert isinstance(failing.send_message("Hello", on_error="return"), InvalidRequestError)
        with failing.stream_message("Hello") as stream:
            assert list(stream) == []
        assert (sample(), sample()) == ("a#1", "a#2")


def test_the_lowest_free_number_is_next() -> None:
    """Where an earlier call fails after a later one began, its number is drawn before new ones."""
    with scope("a"):
        client = client_with()
        streams = [client.stream_message("Hello") for _ in range(4)]
        streams[2].close()
        streams[1].close()
        assert [sample(), sample(), sample()] == ["a#1", "a#2", "a#4"]
        streams[1].close()
        streams.pop()  # dropped without being read
        assert [sample(), sample()] == ["a#3", "a#5"]


def test_what_takes_no_number() -> None:
    """A request that is only built, and a call that never began for its arguments, move no count."""
    with scope("a"):
        request = client_with().build_request("Hello")
        assert request.sample == client_with().build_request("Hello").sample == "a#0"
        with pytest.raises(TypeError):
            sample(model=3)
        assert client_with().send_message("Hello", on_error="raise").cache_key == request.cache_key


@pytest.mark.parametrize(("given", "text"), [(1, "1"), ("1", "1"), ("x", "x"), (-3, "-3")])
def test_a_given_sample(given: Any, text: str) -> None:
    """sample= stands for the number and moves no count; the draw 0 and sample=0 are one request."""
    assert sample(sample=given) == f"#{text}"
    with scope("a"):
        client = ScriptedClient(["one"], cache_mode="auto")
        assert [sample(sample=given), sample(), sample(sample=given)] == [
            f"a#{text}",
            "a#0",
            f"a#{text}",
        ]
    with scope("a"):
        first = client.send_message("Hello", on_error="raise")
        again = client.send_message("Hello", on_error="raise", sample=0)
    assert (again.cache_key, again.content, again.cached) == (first.cache_key, "one", True)


@pytest.mark.parametrize("name", ["", "/", "a/b", "#", "a#1", "/a", "a/", b"a", True, ["a"], 1j])
def test_names_that_are_none(name: Any) -> None:
    """A name that is empty or holds a divider is a ValueError; one that is no string or number, a
    TypeError.
    """
    error, message = (
        (ValueError, "empty or contains")
        if isinstance(name, str)
        else (TypeError, "a string or a number")
    )
    with pytest.raises(error, match=message):
        scope(name)


def test_names_of_all_kinds() -> None:
    """Blanks, other scripts, enumerations of strings, rounds and prices are names."""

    class Actor(str, enum.Enum):
        LISA = "lisa"

    with scope("trial 3"), scope("Жанна 🧀"), scope(Actor.LISA), scope(3), scope(2.5):
        assert sample() == "trial 3/Жанна 🧀/lisa/3/2.5#0"
    assert repr(scope("a")) == "scope('a')"


def test_embeddings_take_no_sample() -> None:
    """The same text has the same embedding in every scope, and in a thread without one; sample= is
    refused.
    """
    client = ScriptedClient([[1.0]], cache_mode="auto")
    with scope("a"):
        client.get_embedding("text")
        assert in_a_thread(lambda: ScriptedClient([[2.0]]).get_embedding("other")) == [2.0]
    assert client.get_embedding("text") == [1.0]
    with pytest.raises(TypeError, match="sample"):
        client.get_embedding("text", sample=1)


def test_none_says_that_no_scope_is_meant() -> None:
    """Inside scope(None) there is no draw; a scope inside it begins anew; an exception leaves
    scopes like any end.
    """
    with pytest.raises(ZeroDivisionError), scope("a"):
        with scope(None):
            assert sample() is None
            with scope("b"):
                assert sample() == "b#0"
        assert sample() == "a#0"
        raise ZeroDivisionError
    assert (sample(), in_a_thread(sample)) == (None, None)
    with pytest.raises(ValueError, match="process"):
        scope(None, process=True)


def test_one_answer_for_many_personas_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Outside any scope, an answer that serves a second time is a warning, unless it is meant: by
    zero or a sample.
    """
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto")
    for number in range(5):
        client.send_message("Buy bread?", temperature=0)
        client.send_message("Buy bread?", temperature=1, sample=number)
        with scope("trial"):
            client.send_message("Buy bread?", temperature=1)
        client.send_message(f"Buy bread number {number}?", temperature=1)
    assert caplog.messages == []
    for _ in range(5):
        client.send_message("Buy bread?", temperature=1)
    (warning,) = caplog.messages
    assert "llmcall.scope(name)" in warning
    assert "sample=1" in warning


def ask_one_after_the_other(client: ScriptedClient) -> None:
    """Ask the same several times."""
    for _ in range(TOGETHER):
        client.send_message("Buy bread?", temperature=1)


def ask_in_threads(client: ScriptedClient) -> None:
    """Ask the same in several threads at the same time."""
    with ThreadPoolExecutor(TOGETHER) as executor:
        for _ in range(TOGETHER):
            executor.submit(client.send_message, "Buy bread?", temperature=1)


def ask_in_tasks(client: ScriptedClient) -> None:
    """Ask the same in several tasks at the same time."""

    async def ask_together() -> None:
        asking = (client.asend_message("Buy bread?", temperature=1) for _ in range(TOGETHER))
        await asyncio.gather(*asking)

    asyncio.run(ask_together())


def ask_in_streams(client: ScriptedClient) -> None:
    """Read streams of the same answer."""
    for _ in range(TOGETHER):
        list(client.stream_message("Buy bread?", temperature=1))


def ask_in_asynchronous_streams(client: ScriptedClient) -> None:
    """Read streams of the same answer in an event loop."""

    async def read_all() -> None:
        for _ in range(TOGETHER):
            async for _ in client.astream_message("Buy bread?", temperature=1):
                pass

    asyncio.run(read_all())


@pytest.mark.parametrize(
    "ask",
    [
        ask_one_after_the_other,
        ask_in_threads,
        ask_in_tasks,
        ask_in_streams,
        ask_in_asynchronous_streams,
    ],
)
def test_one_answer_for_all_is_told_however_they_ask(
    ask: Callable[[ScriptedClient], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Outside any scope, one answer that serves all who ask is told once, whether it is recorded or
    of a call that is still under way.
    """

    def answer_late(messages: Any) -> str:
        time.sleep(0.5)  # in which the others ask, too
        return "yes"

    ask(ScriptedClient(answer_late, cache_mode="auto"))
    (warning,) = caplog.messages
    assert "all identical requests get one answer" in warning


def test_answers_of_different_cassettes_are_not_one(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The same request in another cassette has an answer of its own: no warning."""
    for mode in ("once", "none"):
        for name in ("first", "second"):
            with llmcall.cassette(tmp_path / name, mode=mode):
                client_with().send_message("Buy bread?", temperature=1)
    assert caplog.messages == []


# Threads, tasks and bind


def test_a_thread_without_a_scope() -> None:
    """While a scope is open elsewhere, a call from another thread names its remedies; none of them
    fails.
    """
    with scope("a"):
        with pytest.raises(ScopeError) as caught:
            in_a_thread(sample)
        for remedy in (
            "llmcall.bind(function)",
            "llmcall.scope(name)",
            "process=True",
            "llmcall.scope(None)",
        ):
            assert remedy in str(caught.value)
        with pytest.raises(ScopeError):
            in_a_thread(lambda: client_with().send_message("Hello", on_error="none"))

        def alone() -> str | None:
            with scope(None):
                return sample()

        def own() -> str | None:
            with scope("own"):
                return sample()

        assert [in_a_thread(alone), in_a_thread(own), in_a_thread(bind(sample))] == [
            None,
            "own#0",
            "a#0",
        ]
        assert sample() == "a#1"
    assert in_a_thread(sample) is None


def test_bound_functions_draw_from_the_scope() -> None:
    """A bound function goes on counting in the scope in which it was bound, wherever it runs."""
    with scope("a"), scope("b"):
        bound = bind(sample)
        assert [in_a_thread(bound), sample(), in_a_thread(bound, "other"), in_a_thread(bound)] == [
            "a/b#0",
            "a/b#1",
            "a/b#0",
            "a/b#2",
        ]
    assert bound() == "a/b#3"
    assert (sample(), in_a_thread(sample)) == (None, None)
    named: Any = bound
    assert (named.__name__, named.__doc__) == ("sample", sample.__doc__)
    with pytest.raises(ZeroDivisionError), scope("a"):
        bind(lambda: 1 / 0)()


def test_bound_outside_any_scope_or_inside_none() -> None:
    """Where there is nothing to carry, the function stands where it is called; that none is meant
    is carried.
    """
    bound = bind(sample)
    with scope(None):
        without = bind(sample)
    with scope("a"):
        assert bound() == "a#0"
        with pytest.raises(ScopeError):
            in_a_thread(bound)
        assert in_a_thread(without) is None


def test_bound_coroutine_functions() -> None:
    """A bound coroutine function stands in the scope while it runs, in another thread's loop too."""

    async def twice() -> list[str | None]:
        first = await asample()
        await asyncio.sleep(0)
        return [first, await asample()]

    with scope("a"):
        bound = bind(twice)
        assert in_a_thread(lambda: asyncio.run(bound())) == ["a#0", "a#1"]
    assert sample() is None


def test_tasks_inherit_the_scope() -> None:
    """A task stands where it was made; what it opens is its own."""

    async def actor(name: str) -> list[str | None]:
        drawn = []
        for _ in range(3):
            with scope(name):
                drawn.append(await asample())
            await asyncio.sleep(0)
        return drawn

    async def main() -> Any:
        with scope("trial"):
            found = await asyncio.gather(actor("lisa"), actor("oscar"))
            late = asyncio.create_task(asample())
            threaded = await asyncio.to_thread(sample)
        return *found, await late, threaded, await asample()

    lisa, oscar, late, threaded, outside = asyncio.run(main())
    assert lisa == ["trial/lisa#0", "trial/lisa#1", "trial/lisa#2"]
    assert oscar == ["trial/oscar#0", "trial/oscar#1", "trial/oscar#2"]
    assert sorted([late, threaded]) == ["trial#0", "trial#1"]
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


def test_a_context_without_a_scope_while_threads_open_some() -> None:
    """It is plain where its own thread has one open, however quickly other threads open and leave
    theirs.
    """
    is_over = threading.Event()

    def open_scopes() -> None:
        while not is_over.is_set():
            with scope("other"):
                pass

    client = client_with()
    with ThreadPoolExecutor(2) as executor, scope("own"):
        for _ in range(2):
            executor.submit(open_scopes)
        try:
            drawn = {Context().run(client.build_request, "Hello").sample for _ in range(5000)}
        finally:
            is_over.set()
    assert drawn == {None}


def test_process_scope_is_that_of_threads_without_one() -> None:
    """Threads of a library draw from it; those with a scope of their own stand inside it; one at a
    time.
    """
    with scope("run", process=True):
        assert [in_a_thread(sample), sample(), in_a_thread(sample)] == ["run#0", "run#1", "run#2"]

        def own() -> tuple[str | None, str | None]:
            with scope("lisa"):
                nested = sample()
            with scope(None):
                return nested, sample()

        assert in_a_thread(own) == ("run/lisa#0", None)
        with (
            pytest.raises(
                ScopeError, match=r"'run'.*Leave it first.*without process=True.*llmcall\.bind"
            ),
            scope("second", process=True),
        ):
            raise AssertionError("never reached")
        assert in_a_thread(sample) == "run#3"
    assert (sample(), in_a_thread(sample)) == (None, None)
    with scope("next", process=True):
        assert in_a_thread(sample) == "next#0"


def test_the_same_request_of_two_tasks_warns(caplog: pytest.LogCaptureFixture) -> None:
    """Which task gets which draw is left to chance, as with threads."""

    async def ask(name: str) -> None:
        with scope(name):
            await asample()

    async def main(*names: str) -> None:
        with scope("trial"):
            await asyncio.gather(*map(ask, names))

    asyncio.run(main("a", "b"))
    assert caplog.messages == []
    asyncio.run(main("same", "same"))
    (warning,) = caplog.messages
    assert (
        "two tasks in the scope 'trial/same'" in warning
        and "Give each task its own scope" in warning
    )


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


@pytest.mark.parametrize("acting", [actor, staged_actor])
def test_generators_that_keep_a_scope_open_are_told_to_open_it_around_each_step(
    acting: Any,
) -> None:
    """Interleaved, their scopes would nest by chance: the second one's draw raises, and so does one
    between steps.
    """
    first, second = acting("a"), acting("b")
    assert next(first) == "a#0"
    with pytest.raises(ScopeError, match=r"generator \w*actor .* Open the scope around each step"):
        next(second)
    assert next(first) == "a#1"
    with pytest.raises(ScopeError, match="Open the scope around each step"):
        sample()
    with pytest.raises(ScopeError, match="generator"):
        bind(sample)
    with scope(None):
        assert sample() is None
    first.close()
    assert sample() is None


def test_a_generator_run_to_its_end_is_right() -> None:
    """Nothing asks between its steps, and what it delegates to or calls stands in its scope."""

    def inner() -> Iterator[str | None]:
        with scope("inner"):
            yield sample()
            yield sample()

    def outer() -> Iterator[str | None]:
        with scope("outer"):
            yield from inner()

    assert list(outer()) == ["outer/inner#0", "outer/inner#1"]
    with ExitStack() as stack:
        assert len(tuple(stack.enter_context(scope(name)) for name in "ab")) == 2
        assert sample() == "a/b#0"
    assert sample() is None


@contextmanager
def turn(name: str) -> Iterator[None]:
    """Hold a scope for a block, as a library does."""
    with scope(name):
        yield


class Turn:
    """Hold a scope for a block, as a class."""

    def __enter__(self) -> None:
        self._scope = scope("class")
        self._scope.__enter__()

    def __exit__(self, *error: object) -> None:
        self._scope.__exit__(None, None, None)


def test_context_managers_made_of_generators_go_on_working() -> None:
    """A scope in one is open for its block: with contextlib, exit stacks and classes."""
    with turn("a"), turn("b"):
        assert sample() == "a/b#0"
    with ExitStack() as stack:
        stack.enter_context(scope("c"))
        stack.enter_context(turn("d"))
        assert sample() == "c/d#0"
    with Turn():
        assert sample() == "class#0"

    @turn("e")
    def decorated() -> str | None:
        return sample()

    assert decorated() == "e#0"


@pytest.mark.parametrize("opened", [lambda: turn("x"), Turn])
def test_a_context_manager_that_a_generator_leaves_open(opened: Callable[[], Any]) -> None:
    """It is the generator's block that is left open, whatever opens the scope."""

    def steps() -> Generator[str | None, None, None]:
        with opened():
            yield sample()

    playing = steps()
    assert str(next(playing)).endswith("#0") and tried() == "ScopeError"
    playing.close()


@pytest.fixture
def in_a_fixture() -> Iterator[None]:
    """Hold a scope for a test, and another one in it."""
    with scope("fixture"), turn("nested"):
        yield


def test_fixtures_that_yield_inside_a_scope_go_on_working(in_a_fixture: None) -> None:
    """A fixture's scope is open for the test."""
    assert sample() == "fixture/nested#0"


def test_asynchronous_generators() -> None:
    """What one awaits, in tasks of its own too, stands in its scope; what asks between its steps
    does not.
    """

    async def steps() -> AsyncIterator[list[str | None]]:
        with scope("a"):
            yield list(await asyncio.gather(asample("x"), asample("y")))
            yield [await asample("z")]

    @asynccontextmanager
    async def held() -> AsyncIterator[None]:
        with scope("b"):
            yield

    async def main() -> None:
        playing = steps()
        assert await anext(playing) == ["a#0", "a#0"]
        with pytest.raises(ScopeError, match="generator steps"):
            await asample()
        assert await anext(playing) == ["a#0"]
        await playing.aclose()  # type: ignore[attr-defined]
        async with held():
            assert await asample() == "b#0"

    asyncio.run(main())


def test_a_generator_that_ends_elsewhere() -> None:
    """A generator that another thread or task began, or brings to its end, leaves nothing open."""
    elsewhere = actor("b")
    in_a_thread(next, elsewhere)
    elsewhere.close()

    async def main() -> None:
        async def steps() -> Any:
            with scope("a"):
                yield await asample()
                yield None

        generator = steps()
        assert await asyncio.create_task(generator.__anext__()) == "a#0"
        await asyncio.create_task(generator.aclose())

    asyncio.run(main())
    assert (sample(), in_a_thread(sample)) == (None, None)


# Processes


def pool(method: str) -> ProcessPoolExecutor:
    """Return a pool of two workers."""
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_of_processes_whose_function_is_not_bound(method: str) -> None:
    """A worker that was started while a scope is open raises, unless its function is bound."""
    with scope("s"), pool(method) as inside:
        assert set(inside.map(tried, "abcd")) == {"ScopeError"}
        assert list(inside.map(bind(tried), "ab")) == ["s#0", "s#0"]
    with pool(method) as later:
        assert list(later.map(tried, "ab")) == [None, None]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_forked_workers_see_scopes_that_open_and_close_later() -> None:
    """They raise as long as one is open in the process that forked them."""
    with pool("fork") as early:
        assert list(early.map(tried, "ab")) == [None, None]
        with scope("s"):
            assert set(early.map(tried, "abcd")) == {"ScopeError"}
            assert list(early.map(bind(tried), "ab")) == ["s#0", "s#0"]
        assert list(early.map(tried, "ab")) == [None, None]


@pytest.mark.parametrize("method", [each for each in METHODS if each.values != ("fork",)])
def test_workers_are_told_of_a_scope_at_their_start(method: str) -> None:
    """One that was started outside any scope, and not forked, cannot know of one that opens later;
    one that was started inside goes on to raise, and the error says what to do.
    """
    with pool(method) as early, pool(method) as late:
        assert list(early.map(tried, "ab")) == [None, None]
        with scope("s"):
            assert set(early.map(tried, "abcd")) == {None}
            assert set(late.map(tried, "abcd")) == {"ScopeError"}
        with pytest.raises(ScopeError, match="If the scope has ended since, start the workers"):
            list(late.map(sample, "a"))


IMPORTS_FIRST = """
import sys, multiprocessing
import llmcall
from concurrent.futures import ProcessPoolExecutor
from llmcall.testing import ScriptedClient

def asked(_):
    try:
        return ScriptedClient(["yes"]).send_message("Hello").sample
    except llmcall.ScopeError:
        return "ScopeError"

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with llmcall.scope("s"), ProcessPoolExecutor(1, mp_context=context) as pool:
        print(*pool.map(asked, "a"), *pool.map(llmcall.bind(asked), "a"))
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        print(*pool.map(asked, "a"))
"""


@pytest.mark.parametrize("method", METHODS)
def test_workers_of_a_program_that_imports_its_clients_first_are_told(
    method: str, tmp_path: Path
) -> None:
    """A worker imports the program's main module before it gets what it is told."""
    (tmp_path / "study.py").write_text(IMPORTS_FIRST)
    command = [sys.executable, "study.py", method]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ScopeError", "s#0", "None"]


KILLED = """
import multiprocessing

with llmcall.scope("trial"), multiprocessing.get_context("fork").Pool(1):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_process_that_is_killed_leaves_nothing_of_its_scopes(tmp_path: Path) -> None:
    """There is no file by which a later process could take them for its own."""
    with start(KILLED, TMPDIR=str(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        process.kill()
    assert list(tmp_path.iterdir()) == []


def test_programs_that_a_program_starts_know_of_no_scope() -> None:
    """Only workers of multiprocessing, and forked processes, belong to who started them."""
    program = """
    from concurrent.futures import ProcessPoolExecutor
    import multiprocessing

    def ask(_):
        return ScriptedClient(lambda messages: "yes").send_message("Hi").sample

    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        print(*pool.map(ask, "a"))
    """
    with scope("trial"):
        assert ran(program) == "None"


FORKED_TASKS = """
import logging

logging.basicConfig(stream=sys.stdout, format="%(message)s")
model = ScriptedClient(lambda messages: "six", cache_mode="auto")
trial = llmcall.scope("trial")


def ask():
    return model.send_message("Roll the dice").sample


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("way", ["kept", "bound"])
def test_forked_processes_that_make_the_same_draw_are_told(way: str) -> None:
    """Each counts for itself in a bound or kept scope, so the second gets the first one's answer: a
    warning says so.
    """
    first, warning, second = ran(FORKED_TASKS, way).splitlines()
    assert (first, second) == ("trial#0", "trial#0")
    assert warning.startswith(
        "two processes made the same draw in the scope 'trial' and share its answer"
    )


COLLECTED = """
import contextvars, gc

def actor():
    try:
        with llmcall.scope("trial"), client.stream_message("Hello") as stream:
            next(stream)
            yield
    finally:
        ended.append(stream)

def left():
    made = actor()
    contextvars.copy_context().run(next, made)
    cycle = [made]
    cycle.append(cycle)
    return cycle

def collect(frame, event, argument):
    if waiting and os.path.join("llmcall", "scopes") in frame.f_code.co_filename:
        waiting.pop()
        gc.collect()

client = ScriptedClient(lambda messages: "once upon a time")
gc.disable()
gc.freeze()
ended, waiting = [], [left() for _ in range(100)]
sys.setprofile(collect)
with llmcall.scope("run"):
    while waiting:
        for name in "ab":
            with llmcall.scope(name):
                sample = client.send_message("Hello").sample
sys.setprofile(None)
print(sample[:6], len(ended))
"""


def test_a_generator_may_be_collected_at_any_moment() -> None:
    """One with an open scope and a stream takes no lock when it ends, which this very thread may
    hold just then.
    """
    assert ran(COLLECTED) == "run/b# 100"


def test_a_root_scope_is_not_that_of_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker would count the draws of LLMCALL_SCOPE anew."""
    monkeypatch.setenv("LLMCALL_SCOPE", "r1")
    llmcall.reset()
    with pool("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn") as executor:
        assert set(executor.map(tried, "abcd")) == {"ScopeError"}
        assert list(executor.map(bind(tried), "ab")) == ["r1#0", "r1#0"]
    assert sample() == "r1#0"


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


def test_a_root_scope_for_a_whole_process() -> None:
    """LLMCALL_SCOPE replicates an unchanged script: another name, other draws; without it there are
    none.
    """
    assert ran(ROOTED, LLMCALL_SCOPE="r1") == "r1#0 r1/lisa#0 r1#1 None"
    assert ran(ROOTED, LLMCALL_SCOPE="") == "None lisa#0 None None"


def test_a_wrong_root_scope_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no scope can have is an error that says where it stands; reset() begins the draws
    of a root anew.
    """
    monkeypatch.setenv("LLMCALL_SCOPE", "a/b")
    llmcall.reset()
    with pytest.raises(ValueError, match="LLMCALL_SCOPE 'a/b'"):
        sample()
    monkeypatch.setenv("LLMCALL_SCOPE", "r1")
    for _ in range(2):
        llmcall.reset()
        assert (sample(), sample()) == ("r1#0", "r1#1")


# A default scope


def test_a_default_scope_is_that_of_calls_without_one() -> None:
    """Calls of every thread and task that would stand in no scope draw from it, until it ends."""
    with default_scope("run"):
        assert [sample(), sample(), in_a_thread(sample)] == ["run#0", "run#1", "run#2"]
        assert asyncio.run(asample()) == "run#3"
        assert bind(sample)() == "run#4"
    assert (sample(), in_a_thread(sample)) == (None, None)


def test_scopes_keep_their_paths_beside_a_default_scope() -> None:
    """Scopes that the program opens, for all threads too, do not stand below the default one."""
    with default_scope("run"):
        with scope("a"), scope("b"):
            assert sample() == "a/b#0"
        with scope("all", process=True):
            assert [in_a_thread(sample), sample()] == ["all#0", "all#1"]
        assert sample() == "run#0"


def test_no_scope_is_meant_beside_a_default_scope() -> None:
    """Inside scope(None) a call has no scope, as without the default one."""
    with default_scope("run"), scope(None):
        assert sample() is None
        with scope("a"):
            assert sample() == "a#0"


def test_a_default_scope_hides_no_scope_error() -> None:
    """A thread without a scope raises while one is open elsewhere, as without the default one."""
    with default_scope("run"), scope("a"):
        assert in_a_thread(tried) == "ScopeError"


def samples_in_an_item(name: str) -> list[str | None]:
    """Ask in a map's item, and in a scope of one's own."""
    with scope(name):
        own = sample()
    return [sample(), own]


def test_a_map_stands_in_the_default_scope() -> None:
    """Each item has a scope below it; scopes that its function opens keep their paths."""
    with default_scope("run"):
        found = llmcall.map(samples_in_an_item, ["a", "b"], key=str)
    assert found == [["run/a#0", "a#0"], ["run/b#0", "b#0"]]


def test_threads_that_an_item_starts_stand_in_the_default_scope() -> None:
    """A thread knows no item."""
    with default_scope("run"):
        assert llmcall.map(lambda item: in_a_thread(sample), ["a"], key=str) == ["run#0"]


def test_repeats_in_the_default_scope() -> None:
    """A repeat has a scope below its item's; what it opens keeps the path that it has without a
    default scope.
    """
    without = llmcall.map(samples_in_an_item, ["a"], key=str, repeats=2)
    with default_scope("run"):
        found = llmcall.map(samples_in_an_item, ["a"], key=str, repeats=2)
    assert without == [[[None, "a#0"], ["~1#0", "~1/a#0"]]]
    assert found == [[["run/a#0", "a#0"], ["run/a/~1#0", "~1/a#0"]]]


def test_a_map_in_a_map_stands_in_the_default_scope() -> None:
    """Its items have scopes below that of the outer item."""

    def inner(name: str) -> Any:
        return llmcall.map(samples_in_an_item, ["b"], key=str)

    with default_scope("run"):
        assert llmcall.map(inner, ["a"], key=str) == [[["run/a/b#0", "b#0"]]]


@pytest.mark.parametrize("method", METHODS)
def test_workers_of_a_map_stand_in_the_default_scope(method: str) -> None:
    """Their draws are counted with those of the process in which it holds."""
    with default_scope("run"), pool(method) as executor:
        for number in range(2):
            found = llmcall.map(samples_in_an_item, ["a"], key=str, executor=executor)
            assert found == [[f"run/a#{number}", "a#0"]]


def test_a_map_with_a_scope_does_not_stand_in_the_default_one() -> None:
    """A scope that the map is given keeps its path."""
    with default_scope("run"):
        found = llmcall.map(samples_in_an_item, ["a"], key=str, scope="s")
    assert found == [["s/a#0", "s/a/a#0"]]


class Agent:
    """No plain data."""

    def ask(self) -> str | None:
        """Ask."""
        return sample()


def test_a_default_scope_refuses_no_items() -> None:
    """Items that are no plain data are refused in a scope; a program whose map stands in none gets
    them named by their class and order.
    """
    agents = [Agent() for _ in range(3)]
    with default_scope("run"):
        first = llmcall.map(Agent.ask, agents)
    with default_scope("run"):
        assert llmcall.map(Agent.ask, agents) == first
    assert len(set(first)) == 3
    with scope("s"), pytest.raises(TypeError, match="not plain data"):
        llmcall.map(Agent.ask, agents)


def test_a_recorded_function_in_the_default_scope() -> None:
    """Each of its calls is a draw; scopes that it opens keep their paths."""

    @llmcall.recorded
    def roll() -> str:
        with scope("dice"):
            return str(sample())

    with default_scope("run"):
        assert [roll(), roll(), sample()] == ["dice#0", "dice#0", "run#0"]


def test_a_root_scope_comes_before_a_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scopes stand below LLMCALL_SCOPE, as without the default one."""
    monkeypatch.setenv("LLMCALL_SCOPE", "r1")
    llmcall.reset()
    with default_scope("run"):
        assert sample() == "r1#0"
        with scope("a"):
            assert sample() == "r1/a#0"


def test_usage_in_a_default_scope() -> None:
    """What is used in it, embeddings too, is counted under its name."""
    client = ScriptedClient(lambda texts: [[1.0]] * len(texts))
    with default_scope("run"):
        client.get_embedding("text")
    assert client.usage.by_scope.keys() == {"run"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_has_no_default_scope() -> None:
    """It would count the draws a second time."""
    program = """
    from llmcall.scopes import default_scope

    model = ScriptedClient(lambda messages: "yes")
    with default_scope("run"):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        print(model.send_message("Hi").sample, flush=True)
        if not child:
            os._exit(0)
    """
    assert ran(program).splitlines() == ["None", "run#0"]


def test_a_name_that_no_default_scope_can_have() -> None:
    """It is refused like that of a scope."""
    with pytest.raises(ValueError, match="'a/b' is empty or contains"), default_scope("a/b"):
        pass
