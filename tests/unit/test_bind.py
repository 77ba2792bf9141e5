"""What carries a scope to threads, tasks, executors and processes: bind, process=True, LLMCALL_SCOPE, contexts."""

from __future__ import annotations

import asyncio
import pickle
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from programs import ran

import llmcall
from llmcall import bind, scope
from llmcall.errors import ScopeError
from llmcall.replay.scopes import path
from llmcall.testing import ScriptedClient


def sample(message: str = "Hello") -> str | None:
    """Ask and return the reply's sample."""
    return ScriptedClient(["yes"]).send_message(message, on_error="raise").sample


async def asample(message: str = "Hello") -> str | None:
    """Ask without blocking and return the reply's sample."""
    return (await ScriptedClient(["yes"]).asend_message(message, on_error="raise")).sample


def in_a_thread(function: Any, *arguments: Any) -> Any:
    """Run a function in a new thread and return its result."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function, *arguments).result()


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
    assert (path(), in_a_thread(sample)) == (None, None)


def test_bound_functions_look_like_themselves() -> None:
    """Name, docstring, arguments, result and exceptions are those of the function."""
    bound = bind(sample)
    assert (bound.__name__, bound.__doc__, bound.__wrapped__) == ("sample", sample.__doc__, sample)  # type: ignore[attr-defined]
    assert bind(lambda a, *, b: (a, b))(1, b=2) == (1, 2)
    with pytest.raises(ZeroDivisionError), scope("a"):
        bind(lambda: 1 / 0)()
    assert path() is None


def test_bound_outside_any_scope() -> None:
    """There is nothing to carry: the function stands where it is called."""
    bound = bind(sample)
    with scope("a"):
        assert bound() == "a#0"
        with pytest.raises(ScopeError):
            in_a_thread(bound)


def test_bound_inside_none() -> None:
    """scope(None) is carried too, and opens no scope for others."""
    started, leave = threading.Event(), threading.Event()

    def wait() -> str | None:
        started.set()
        leave.wait(30)
        return path()

    with scope(None):
        bound = bind(wait)
    thread = threading.Thread(target=bound)
    thread.start()
    started.wait(30)
    assert sample() is None
    leave.set()
    thread.join()
    with scope("a"):
        assert in_a_thread(bound) is None


def test_an_executor_with_many_threads() -> None:
    """However threads share the work, the draws are the numbers from 0, each once."""
    with scope("a"), ThreadPoolExecutor(8) as executor:
        drawn = list(executor.map(bind(sample), ["Hello"] * 100))
    assert sorted(drawn, key=lambda text: int(str(text).partition("#")[2])) == [f"a#{number}" for number in range(100)]


def test_bound_coroutine_functions() -> None:
    """A bound coroutine function stands in the scope while it runs, in another thread's loop too."""

    async def twice() -> list[str | None]:
        first = await asample()
        await asyncio.sleep(0)
        return [first, await asample(), path()]

    with scope("a"):
        bound = bind(twice)
        assert in_a_thread(lambda: asyncio.run(bound())) == ["a#0", "a#1", "a"]
    assert path() is None


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


def test_a_task_outside_a_scope_beside_one_inside() -> None:
    """A task without a scope is plain, though another one of its loop has one open."""

    async def main() -> tuple[str | None, str | None]:
        opened, done = asyncio.Event(), asyncio.Event()

        async def inside() -> str | None:
            with scope("a"):
                opened.set()
                await done.wait()
                return await asample()

        task = asyncio.create_task(inside())
        await opened.wait()
        outside = await asample()
        done.set()
        return outside, await task

    assert asyncio.run(main()) == (None, "a#0")


def test_an_asynchronous_generator_in_another_context() -> None:
    """A scope in an asynchronous generator that its loop brings to an end leaves nothing open."""

    async def main() -> None:
        async def steps() -> Any:
            with scope("a"):
                yield await asample()
                yield None

        generator = steps()
        assert await asyncio.create_task(generator.__anext__()) == "a#0"
        await asyncio.create_task(generator.aclose())

    asyncio.run(main())
    assert in_a_thread(sample) is None


def test_process_scope_is_that_of_threads_without_one() -> None:
    """Threads of a library draw from it; those with a scope of their own stand inside it; one at a time."""
    with scope("run", process=True):
        assert [in_a_thread(sample), sample(), in_a_thread(sample)] == ["run#0", "run#1", "run#2"]

        def own() -> tuple[str | None, str | None]:
            with scope("lisa"):
                nested = sample()
            with scope(None):
                return nested, sample()

        assert in_a_thread(own) == ("run/lisa#0", None)
        with (
            pytest.raises(ScopeError, match="'run' holds for the whole process already"),
            scope("second", process=True),
        ):
            raise AssertionError("never reached")
        assert in_a_thread(sample) == "run#3"
    assert (sample(), in_a_thread(sample)) == (None, None)
    with scope("next", process=True):
        assert in_a_thread(sample) == "next#0"


def test_bound_functions_are_pickled_with_their_path() -> None:
    """In another process the path is the same and the draws begin at 0."""
    with scope("a"), scope("b"):
        assert sample() == "a/b#0"
        frozen = pickle.dumps(bind(sample))
        bound = pickle.loads(frozen)
        assert (bound(), bound()) == ("a/b#0", "a/b#1")
    assert pickle.loads(frozen)() == "a/b#0"
    assert pickle.loads(pickle.dumps(bind(sample)))() is None


POOL = """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from programs_of_scopes import sample
    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        with ProcessPoolExecutor(1, mp_context=context) as executor, llmcall.scope("a"):
            print(sample(), *executor.map(llmcall.bind(sample), ["x", "y"]))
"""


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_processes(method: str, tmp_path: Any) -> None:
    """A bound function carries its scope into the processes of a pool."""
    (tmp_path / "programs_of_scopes.py").write_text(
        "from llmcall.testing import ScriptedClient\n"
        "def sample(message='x'):\n"
        "    return ScriptedClient(['yes']).send_message(message, on_error='raise').sample\n"
    )
    (tmp_path / "main.py").write_text("import sys, llmcall\n" + textwrap.dedent(POOL))
    program = "import runpy; sys.path.insert(0, os.getcwd()); runpy.run_path('main.py', run_name='__main__')"
    assert ran(program, method).split() == ["a#0", "a#0", "a#0"]


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
    """LLMCALL_SCOPE replicates an unchanged script: another name, other draws; without it there are none."""
    assert ran(ROOTED, LLMCALL_SCOPE="r1") == "r1#0 r1/lisa#0 r1#1 None"
    assert ran(ROOTED, LLMCALL_SCOPE="") == "None lisa#0 None None"


def test_a_wrong_root_scope_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no scope can have is an error that says where it stands."""
    monkeypatch.setenv("LLMCALL_SCOPE", "a/b")
    llmcall.reset()
    with pytest.raises(ValueError, match="LLMCALL_SCOPE 'a/b'"):
        sample()
    monkeypatch.setenv("LLMCALL_SCOPE", "r1")
    llmcall.reset()
    assert (sample(), sample()) == ("r1#0", "r1#1")


def test_threads_that_begin_together_share_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root scope is one, however many threads ask for it first."""
    monkeypatch.setenv("LLMCALL_SCOPE", "r1")
    for _ in range(20):
        llmcall.reset()
        barrier = threading.Barrier(8)
        with ThreadPoolExecutor(8) as executor:
            drawn = list(executor.map(lambda _, barrier=barrier: (barrier.wait(), sample())[1], range(8)))
        assert sorted(drawn) == [f"r1#{number}" for number in range(8)]
