"""What a simulation relies on when it is run again: scopes in generators, tasks, processes; draws given back."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import llmcall
from llmcall import ScopeError, bind, scope
from llmcall.testing import ScriptedClient

METHODS = [
    pytest.param(method, marks=() if method == "fork" else pytest.mark.slow)
    for method in multiprocessing.get_all_start_methods()
]


def sample(message: str = "Hello") -> str | None:
    """Ask and return the reply's sample."""
    return ScriptedClient(["yes"]).send_message(message, on_error="raise").sample


async def asample(message: str = "Hello") -> str | None:
    """Ask without blocking and return the reply's sample."""
    return (await ScriptedClient(["yes"]).asend_message(message, on_error="raise")).sample


def tried(message: str = "Hello") -> str | None:
    """Ask, and return the sample, or the error's class."""
    try:
        return sample(message)
    except ScopeError:
        return "ScopeError"


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Scopes in generators


def actor(name: str) -> Iterator[str | None]:
    """Ask in a scope that stays open between the steps."""
    with scope(name):
        while True:
            yield sample()


def test_generators_that_keep_a_scope_open_are_told_to_open_it_around_each_step() -> None:
    """Interleaved, their scopes would nest by chance: the second one's draw raises, and so does one between steps."""
    first, second = actor("a"), actor("b")
    assert next(first) == "a#0"
    with pytest.raises(ScopeError, match=r"generator actor .* Open the scope around each step"):
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


def test_a_context_manager_that_a_generator_leaves_open() -> None:
    """It is the generator's block that is left open, whatever opens the scope."""

    def steps(opened: Callable[[], Any]) -> Iterator[str | None]:
        with opened():
            yield sample()

    def stacked() -> Any:
        stack = ExitStack()
        stack.enter_context(turn("x"))
        return stack

    for opened in (lambda: turn("x"), Turn):
        playing = steps(opened)
        assert str(next(playing)).endswith("#0")
        assert tried() == "ScopeError"
        playing.close()


@pytest.fixture
def in_a_fixture() -> Iterator[str]:
    """Hold a scope for a test."""
    with scope("fixture"):
        yield "fixture"


@pytest.fixture
def in_a_nested_fixture(in_a_fixture: str) -> Iterator[str]:
    """Hold a scope in another fixture's."""
    with turn("nested"):
        yield f"{in_a_fixture}/nested"


def test_fixtures_that_yield_inside_a_scope_go_on_working(in_a_nested_fixture: str) -> None:
    """A fixture's scope is open for the test."""
    assert sample() == f"{in_a_nested_fixture}#0"


def test_asynchronous_generators() -> None:
    """What one awaits, in tasks of its own too, stands in its scope; what asks between its steps does not."""

    async def steps() -> AsyncIterator[list[str | None]]:
        with scope("a"):
            yield await asyncio.gather(asample("x"), asample("y"))
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


def test_a_dropped_generator_hangs_nobody() -> None:
    """The collector may end its scope at any instant, also while another scope is being opened or closed."""
    program = """
        import gc, llmcall
        from llmcall import scope

        def steps(number):
            with scope(f"dropped-{number}"):
                yield

        gc.set_threshold(1)
        for number in range(300):
            loop = [steps(number)]
            next(loop[0])
            loop.append(loop)
            del loop
            try:
                with scope("a"):
                    pass
            except llmcall.ScopeError:
                pass
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "done\n", done.stderr
    gc.collect()


# Outside any scope


def test_one_answer_for_many_personas_is_told_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Outside any scope, an answer that serves a second time is a warning, unless it is meant: by zero or a sample."""
    client = ScriptedClient(lambda messages: "yes", cache_mode="auto", cache_path=tmp_path)
    for number in range(5):
        client.send_message("Buy bread?", temperature=0)
        client.send_message("Buy bread?", temperature=1, sample=number)
        with scope("trial"):
            client.send_message("Buy bread?", temperature=1)
        client.send_message(f"Buy bread number {number}?", temperature=1)
    assert warnings_of(caplog) == []
    for _ in range(5):
        client.send_message("Buy bread?", temperature=1)
    (warning,) = warnings_of(caplog)
    assert "llmcall.scope(name)" in warning
    assert "sample=1" in warning


# Threads and tasks


def test_the_same_request_of_two_tasks_warns(caplog: pytest.LogCaptureFixture) -> None:
    """Which task gets which draw is left to chance, as with threads."""

    async def main(names: list[str | None]) -> None:
        async def ask(name: str | None) -> None:
            with scope(name) if name else scope("same"):
                await asample()

        with scope("trial"):
            await asyncio.gather(*map(ask, names))

    asyncio.run(main(["a", "b"]))
    assert warnings_of(caplog) == []
    asyncio.run(main([None, None]))
    (warning,) = warnings_of(caplog)
    assert "two tasks in the scope 'trial/same'" in warning
    assert "Give each task a scope of its own" in warning


def test_numbers_are_names() -> None:
    """A round's or a price's number names a scope; a truth value does not."""
    with scope("trial"), scope(3), scope(2.5):
        assert sample() == "trial/3/2.5#0"
    with pytest.raises(TypeError, match="not bool"):
        scope(True)


def test_a_second_scope_of_the_process_is_told_what_to_do() -> None:
    """One holds for all threads at a time; the error names both ways out."""
    with (
        scope("first", process=True),
        pytest.raises(ScopeError, match=r"'first'.*Leave it first.*without process=True.*llmcall\.bind"),
        scope("second", process=True),
    ):
        raise AssertionError("never reached")


# Processes


def pool(method: str) -> ProcessPoolExecutor:
    """Return a pool of two workers."""
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_of_processes_whose_function_is_not_bound(method: str) -> None:
    """While a scope is open its calls raise, wherever the workers were started; without one they are plain."""
    with pool(method) as early:
        assert list(early.map(tried, "ab")) == [None, None]
        with scope("s"), pool(method) as inside:
            assert set(inside.map(tried, "abcd")) == {"ScopeError"}
            assert set(early.map(tried, "abcd")) == {"ScopeError"}
            assert list(inside.map(bind(tried), "ab")) == ["s#0", "s#0"]
            assert list(early.map(bind(tried), "ab")) == ["s#0", "s#0"]
        assert list(early.map(tried, "ab")) == [None, None]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_stands_outside_its_parent_s_scope() -> None:
    """It opens one of its own, as a thread does, or is told to."""
    with scope("s"):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            with scope("own"):
                found = [tried(), sample()]
            os.write(write, repr([tried(), *found]).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 999) == b"['ScopeError', 'own#0', 'own#1']"
        assert sample() == "s#0"
    os.close(read)
    os.close(write)


def test_a_root_scope_is_not_that_of_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker would count the draws of LLMCALL_SCOPE anew."""
    monkeypatch.setenv("LLMCALL_SCOPE", "r1")
    llmcall.reset()
    with pool("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn") as executor:
        assert set(executor.map(tried, "abcd")) == {"ScopeError"}
        assert list(executor.map(bind(tried), "ab")) == ["r1#0", "r1#0"]
    assert sample() == "r1#0"
