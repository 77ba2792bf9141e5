"""The child processes of a program under ``llmcall run``: Python's and others', and those of a pool.

The model numbers its answers as questions come in, and each question waits for a random time first. So a
replay with other hash seeds gives each child its own answer only if it knows who asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import LONGEST, NEEDS_POSIX, RunningProgram
from pytest_httpserver import HTTPServer
from servers import NumberedServer

import llmcall
from llmcall.link.commands import caller_of

SLOWLY = 3.0  # seconds
PREAMBLE = """
import asyncio, multiprocessing, os, random, shlex, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
import httpx
CHILD = [sys.executable, "child.py"]
def ask(question="Bread?"):
    time.sleep(random.random() / 10)
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}
    response = httpx.post(os.environ["MODEL_AT"] + "/chat/completions", json=body, timeout=60)
    return response.raise_for_status().json()["choices"][0]["message"]["content"]
def tell(question="Bread?"):
    print(ask(question), flush=True)
"""
CHILD = [sys.executable, "child.py"]
SHELL = shlex.join(CHILD)
A = "--cassette", "a.jsonl"
NONE = *A, "--mode", "none"


def write(name: str, text: str) -> None:
    """Write a program with the usual imports."""
    Path(name).write_text(PREAMBLE + textwrap.dedent(text), encoding="utf-8")


def started(*options: str, **environment: str) -> RunningProgram:
    """Start the program under ``llmcall run``."""
    return RunningProgram(
        [sys.executable, "-m", "llmcall", "run", *options, "program.py"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def ran(*options: str, code: int = 0, **environment: str) -> tuple[str, str]:
    """Run the program; return what it and its children printed, and what the command reported."""
    with started(*options, **environment) as process:
        printed, reported = process.communicate(timeout=LONGEST)
    assert process.returncode == code, printed + reported
    return printed, reported


def check_replays(model: NumberedServer, calls: int) -> str:
    """Record the program, and check that a replay with nobody to ask prints the same; return that."""
    printed, reported = ran(*A)
    assert reported.startswith(f"{calls} asked"), reported
    assert len(model.asked) == calls
    replayed, reported = ran(*NONE, PYTHONHASHSEED="1")
    noun = "call" if calls == 1 else "calls"
    assert (replayed, reported) == (printed, f"{calls} {noun} replayed from a.jsonl\n")
    assert len(model.asked) == calls
    return printed


# Without BlockBuster's patches of types in C, which may crash the interpreter's end.
WATCHED = """
import blockbuster
for name, function in blockbuster.BlockBuster().functions.items():
    if name.startswith(("os.stat", "socket.")):
        function.activate()
async def tell_awaited():
    async with httpx.AsyncClient(base_url=os.environ["MODEL_AT"]) as client:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Bread?"}]}
        response = await client.post("/chat/completions", json=body, timeout=60)
    print(response.json()["choices"][0]["message"]["content"], flush=True)
"""
# By what holds of them: the number of calls, a child, and a program. Each has the usual imports.
REPLAYED: dict[str, tuple[int, str, str]] = {
    "equal children at once, with an environment of their own and children too": (
        6,
        "tell()\nif len(sys.argv) == 1: subprocess.run([sys.executable, __file__, 'x'])",
        """
        own = {name: os.environ[name] for name in ("PATH", "MODEL_AT")}
        children = [
            subprocess.Popen(CHILD, stdout=subprocess.PIPE, text=True, env=env)
            for env in (None, own, None)
        ]
        for child in reversed(children):
            print(child.communicate()[0])
        """,
    ),
    "uvloop starts children without subprocess": (
        3,
        "tell()",
        """
        import uvloop
        async def main():
            pipe = {"stdout": subprocess.PIPE}
            by_exec = [await asyncio.create_subprocess_exec(*CHILD, **pipe) for _ in range(2)]
            by_shell = await asyncio.create_subprocess_shell(shlex.join(CHILD), **pipe)
            for child in (*by_exec, by_shell):
                print(await child.communicate())
        uvloop.run(main())
        """,
    ),
    "event loops in which BlockBuster forbids to wait for a disk or a socket": (
        3,
        WATCHED + "asyncio.run(tell_awaited())",
        WATCHED
        + textwrap.dedent("""
        async def main():
            await tell_awaited()
            for _ in range(2):
                await (await asyncio.create_subprocess_exec(*CHILD)).wait()
        asyncio.run(main())
        """),
    ),
    "the name of a child is not UTF-8, as Linux allows, and a cassette holds text": (
        2,
        "tell()",
        """
        CHILD[1] = b"ch\\xffild.py"
        with open("child.py") as child, open(CHILD[1], "w") as other:
            other.write(child.read())
        children = [subprocess.Popen(CHILD, stdout=subprocess.PIPE, text=True) for _ in "ab"]
        for started in reversed(children):
            print(started.communicate()[0])
        """,
    ),
    "a daemon closes all descriptors, before its first call or later": (
        2,
        "os.closerange(3, 1024); tell(); os.closerange(3, 1024); tell()",
        "subprocess.run(CHILD)",
    ),
    "a Python that ignores its path, or has no llmcall, asks by the base URL": (
        1,
        "os.environ['MODEL_AT'] = os.environ['OPENAI_BASE_URL']\ntell()",
        """
        os.environ["OPENAI_BASE_URL"] = os.environ["MODEL_AT"]
        subprocess.run([sys.executable, "-I", "child.py"])
        """,
    ),
    "a worker of Ray has the name of its task, of which the first digits do not differ": (
        2,
        """
        import types
        ray = sys.modules["ray"] = types.ModuleType("ray")
        ray.WORKER_MODE, ray.is_initialized = 1, lambda: True
        task = os.environ["TASK"] * 16 + os.urandom(16).hex()
        worker = types.SimpleNamespace(mode=1)
        ray.get_runtime_context = lambda: types.SimpleNamespace(worker=worker, get_task_id=lambda: task)
        tell()
        """,
        """
        a, b = (f"TASK={task} {shlex.join(CHILD)} > {task}" for task in "12")
        subprocess.run(f"{a} & {b}; wait; cat 1 2", shell=True)
        """,
    ),
    "a stopped child stops no other": (
        3,
        "tell(sys.argv[1])",
        """
        import signal
        stopped = subprocess.Popen([*CHILD, "slowly"], stdout=subprocess.PIPE)
        time.sleep(1)
        stopped.send_signal(signal.SIGSTOP)
        for _ in range(2):
            subprocess.run([*CHILD, "Bread?"])
        stopped.send_signal(signal.SIGCONT)
        print(stopped.communicate()[0])
        """,
    ),
    **{
        f"work is named where it is submitted, by {method}": (
            15,
            "",
            f"""
            if __name__ == "__main__":
                context = multiprocessing.get_context({method!r})
                queue = context.Queue()
                processes = [context.Process(target=tell) for _ in range(2)]
                for process in processes:
                    process.start()
                    process.join()
                with ProcessPoolExecutor(2, context) as executor:
                    print(list(executor.map(ask, ["Bread?"] * 4)))
                with context.Pool(2) as pool:
                    print(pool.map(ask, ["Bread?"] * 4), pool.starmap(ask, [("Bread?",)] * 2))
                    print(list(pool.imap(ask, iter(["Bread?"] * 2))), pool.apply(ask))
            """,
        )
        for method in ("fork", "spawn", "forkserver")
    },
    "copies of multiprocessing, as of pathos and Celery, pickle and restart workers otherwise": (
        7,
        "",
        """
        import shutil
        from pathlib import Path
        if not os.path.exists("multiprocess"):
            shutil.copytree(Path(multiprocessing.__file__).parent, "multiprocess")
        import multiprocess
        if __name__ == "__main__":
            with multiprocess.get_context("fork").Pool(2) as pool:
                print(pool.map(ask, ["Bread?"] * 6, chunksize=1), pool.apply(ask))
        """,
    ),
    "the program forks by os.fork, without any library": (
        3,
        "",
        """
        for _ in range(2):
            if os.fork() == 0:
                tell()
                os._exit(0)
            os.wait()
        tell()
        """,
    ),
    **{
        f"what a process of multiprocessing forks has a name of its own, and {place}": (
            3,
            "",
            f"""
            import llmcall
            def fork(number):
                if os.fork() == 0:
                    with open(str(number), "w") as file:
                        file.write(ask())
                    os._exit(0)
            def run():
                {begins}: [fork(number) for number in range(3)]
                for _ in range(3): os.wait()
            if __name__ == "__main__":
                process = multiprocessing.get_context("fork").Process(target=run)
                process.start()
                process.join()
                print([open(str(number)).read() for number in range(3)])
            """,
        )
        for place, begins in [("no scope", "if True"), ("its scope", "with llmcall.scope('s')")]
    },
    "threads fork at once, and wait for the run's server": (
        12,
        "",
        """
        from concurrent.futures import ThreadPoolExecutor
        def run(number):
            answers = []
            for _ in range(3):
                with multiprocessing.get_context("fork").Pool(1) as pool:
                    answers.append(pool.apply(ask))
            return answers
        if __name__ == "__main__":
            with ThreadPoolExecutor(4) as threads:
                print(list(threads.map(run, range(4))))
        """,
    ),
    "joblib makes other batches, in processes of loky and in threads; a ThreadPool is a Pool": (
        12,
        "",
        """
        import joblib
        from multiprocessing.pool import ThreadPool
        if __name__ == "__main__":
            with ThreadPool(3) as pool:
                print(pool.map(ask, ["Bread?"] * 4), pool.apply(ask))
            with joblib.parallel_config(backend="threading", n_jobs=3):
                print(joblib.Parallel()(joblib.delayed(ask)() for _ in range(2)))
            print(ask(), joblib.Parallel(n_jobs=2)(joblib.delayed(ask)() for _ in range(4)))
        """,
    ),
    "each call of a pool's workers is recorded once": (
        10,
        "",
        """
        import llmcall
        def own(question):
            client = llmcall.OpenAIClient(
                api_key="none", base_url=os.environ["MODEL_AT"], model="gpt-4o-mini"
            )
            return client.send_message(question).content
        def by_client(question):
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}
            with llmcall.http_client() as client:
                answer = client.post(os.environ["MODEL_AT"] + "/chat/completions", json=body)
            return answer.json()["choices"][0]["message"]["content"]
        if __name__ == "__main__":
            questions = ["Bread?", "Milk?"]
            with ProcessPoolExecutor(2) as executor:
                print(llmcall.map(own, questions, executor=executor, scope="a"))
                print(llmcall.map(ask, questions, executor=executor, scope="b"))
                print([list(executor.map(asking, questions)) for asking in (own, by_client, ask)])
        """,
    ),
}


@pytest.mark.ci
@pytest.mark.parametrize(("calls", "child", "program"), REPLAYED.values(), ids=REPLAYED)
@pytest.mark.feature("executors")
def test_programs_with_children_replay_each_ones_own_answers(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch, calls: int, child: str, program: str
) -> None:
    """From 3.12 on, Python warns of threads where a process forks."""
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:This process:DeprecationWarning")
    for library in ("blockbuster", "joblib", "uvloop"):
        if f"import {library}" in program and find_spec(library) is None:
            pytest.skip(f"no {library}")
    write("child.py", child)
    write("program.py", program)
    check_replays(model, calls)


# Programs that are started


@NEEDS_POSIX
@pytest.mark.parametrize("folder", ["/", "/tmp"])
@pytest.mark.parametrize(
    "command",
    [
        "cat bread > {}",
        "for i in 1 2; do cat bread >{}; done",
        "sh -c 'cat bread > {}; rm {}'",
        ["sh", "-c", "cat bread 2>{}"],
        ["python", "-c", "open('{}').write('bread')"],
        ["cat", "bread", "--to=file:{}"],
    ],
)
def test_a_callers_name_depends_on_no_temporary_path_in_its_command(
    command: str | list[str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stands in a word; other words count."""

    def named(path: str, say: str = "bread") -> str:
        words = [command] if isinstance(command, str) else command
        named = [word.replace("{}", path).replace("bread", say) for word in words]
        return caller_of(named[0] if isinstance(command, str) else named)

    monkeypatch.chdir(folder)
    assert named("/tmp/f10x/o123") == named("/tmp/k9/o77") == named("/var/tmp/o-4")
    assert named("/tmp/f10x/o123") != named("/tmp/f10x/o123", "salt")


@pytest.mark.ci
def test_no_key_of_a_child_is_written_in_a_record(model: NumberedServer) -> None:
    """Whatever it looks like: one that the child inherits or gets, or one that stands in its code alone."""
    write(
        "child.py",
        """
        import openai
        key = os.environ.get(sys.argv[1]) or "open-" + "SESAME-56-in-code"
        sdk = openai.OpenAI(base_url=os.environ["MODEL_AT"], api_key=key)
        for text in ("Bread?", f"The key is {key}"):
            messages = [{"role": "user", "content": text}]
            sdk.chat.completions.create(model="m", messages=messages)
        """,
    )
    write(
        "program.py",
        """
        subprocess.run([*CHILD, "OPENAI_API_KEY"])
        own = {**os.environ, "MISTRAL_API_KEY": "open-SESAME-34-for-a-child"}
        subprocess.run([*CHILD, "MISTRAL_API_KEY"], env=own)
        subprocess.run([*CHILD, "NO_KEY"])
        """,
    )
    _, reported = ran(*A, code=1, OPENAI_API_KEY="open-SESAME-12-for-all")
    assert reported.count("contains a credential that this program uses") == 3
    written = Path("a.jsonl").read_text()
    assert "SESAME" not in written
    assert "Bread?" in written


@pytest.mark.ci
def test_what_all_children_would_warn_of_is_printed_once_by_the_run(model: NumberedServer) -> None:
    """They print nothing themselves: the program may read it."""
    write("child.py", "tell()")
    write(
        "program.py",
        f"""
        for _ in range(2):
            child = subprocess.run({CHILD}, capture_output=True, text=True)
            print(child.stdout, child.stderr)
        """,
    )
    printed, reported = ran(*A, "--actor", "system")
    assert printed.split() == ["answer", "0", "answer", "1"]
    assert reported.count("some requests name no actor") == 1


@pytest.mark.ci
def test_threads_of_a_child_that_call_at_once_survive_ctrl_c_in_another(
    model: NumberedServer,
) -> None:
    """They share a connection with the thread that is interrupted while it waits for its answer."""
    write(
        "child.py",
        """
        import signal, threading
        def tell_each():
            for number in range(3):
                tell(f"{threading.current_thread().name} {number}")
        ask()
        threads = [threading.Thread(target=tell_each, name=name) for name in "abcd"]
        for thread in threads:
            thread.start()
        interrupted = 0
        for number in range(3):
            signals = [threading.main_thread().ident, signal.SIGINT]
            threading.Timer(0.5, signal.pthread_kill, signals).start()
            try:
                ask("slowly")
            except KeyboardInterrupt:
                interrupted += 1
        for thread in threads:
            thread.join()
        print(interrupted)
        """,
    )
    write("program.py", f"subprocess.run({CHILD})")
    printed, _ = ran(*A)
    assert printed.splitlines()[-1] == "3", printed
    assert printed.count("answer") == 12, printed


# Each way to start a Python that runs asking.py with the way's name, and the clients that ask there.
STARTS = """
import asking, http.server
from pathlib import Path
PYTHON = [sys.executable, "asking.py"]
SHELL = shlex.join(PYTHON)
async def by_asyncio():
    process = await asyncio.create_subprocess_exec(*PYTHON, "asyncio")
    await process.wait()
def by_make():
    Path("Makefile").write_text(f"all:\\n\\t@{SHELL} make\\n")
    subprocess.run(["make", "-s"], check=True)
def by_multiprocessing(method):
    process = multiprocessing.get_context(method).Process(target=asking.main, args=[method])
    process.start()
    process.join()
def by_pool():
    with ProcessPoolExecutor(1) as pool:
        pool.submit(asking.main, "pool").result()
def by_exec():
    if os.fork() == 0:
        os.execv(sys.executable, [*PYTHON, "exec"])
    os.wait()
STARTS = {
    "subprocess": lambda: subprocess.run([*PYTHON, "subprocess"]),
    "env": lambda: subprocess.run([*PYTHON, "env"], env={"MODEL_AT": os.environ["MODEL_AT"]}),
    "system": lambda: os.system(f"{SHELL} system"),
    "command line": lambda: os.system("cat /proc/$$/cmdline; :"),
    "loop": lambda: subprocess.run(f"for way in loop-1 loop-2; do {SHELL} $way; done", shell=True),
    "xargs": lambda: subprocess.run(f"echo xargs-1 xargs-2 | xargs -n 1 {SHELL}", shell=True),
    "make": by_make,
    "asyncio": lambda: asyncio.run(by_asyncio()),
    "spawnv": lambda: os.spawnv(os.P_WAIT, sys.executable, [*PYTHON, "spawnv"]),
    "posix_spawn": lambda: os.waitpid(
        os.posix_spawn(sys.executable, [*PYTHON, "posix_spawn"], os.environ), 0
    ),
    "exec": by_exec,
    **{name: lambda name=name: by_multiprocessing(name) for name in ("fork", "spawn", "forkserver")},
    "pool": by_pool,
}
if __name__ == "__main__":
    for start in STARTS.values():
        start()
"""
ASKING = """
import aiohttp, json, llmcall, requests, urllib.request
AT = os.environ["MODEL_AT"] + "/chat/completions"
def by_aiohttp(body):
    async def post():
        async with aiohttp.ClientSession() as session, session.post(AT, json=body) as response:
            return await response.json()
    return asyncio.run(post())
def by_urllib(body):
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(AT, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)
def by_llmcall(body):
    client = llmcall.OpenAIClient(api_key="none", base_url=os.environ["MODEL_AT"])
    return client.send_message(body["messages"], model=body["model"]).raw
def by_mock(body):
    def answer(request):
        print(body["messages"][0]["content"], file=open("mocked", "a"))
        message = {"role": "assistant", "content": "mocked"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return httpx.Response(200, json={"choices": [choice]})
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        return client.post(AT, json=body).json()
CLIENTS = {
    "python-httpx": lambda body: httpx.post(AT, json=body).json(),
    "python-requests": lambda body: requests.post(AT, json=body).json(),
    "aiohttp": by_aiohttp,
    "Python-urllib": by_urllib,
    "OpenAI": by_llmcall,
    "mock": by_mock,
}
def main(way):
    for name, ask in CLIENTS.items():
        messages = [{"role": "user", "content": f"{way} {name}"}]
        answer = ask({"model": "gpt-4o-mini", "messages": messages})
        print(way, name, answer["choices"][0]["message"]["content"], flush=True)
if __name__ == "__main__":
    main(sys.argv[1])
"""
WAYS = (
    *("subprocess", "env", "system", "loop-1", "loop-2", "xargs-1", "xargs-2", "make", "asyncio"),
    *("spawnv", "posix_spawn", "exec", "fork", "spawn", "forkserver", "pool"),
)
SENDERS = ("python-httpx", "python-requests", "aiohttp", "Python-urllib", "OpenAI")


@pytest.mark.ci
@pytest.mark.feature("http_libraries")
def test_what_each_client_of_each_child_asks_is_sent_by_that_client_and_replays(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a mock, where the child has one; in a replay, nothing is sent. No command line shows what children get."""
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:This process:DeprecationWarning")
    write("program.py", STARTS)
    write("asking.py", ASKING)
    calls = {f"{way} {name}": name for way in WAYS for name in SENDERS}
    mocked = [f"{way} mock" for way in WAYS]
    printed, reported = ran(*A)
    assert reported.startswith(f"{len(calls) + len(mocked)} asked")
    assert sorted(model.asked) == sorted(calls)
    assert all(name in model.agents[question] for question, name in calls.items())
    assert Path("mocked").read_text(encoding="utf-8").splitlines() == mocked
    assert "sh\0-c\0cat /proc/$$/cmdline; :\0" in printed
    replayed, reported = ran(*NONE, PYTHONHASHSEED="1")
    assert (replayed, reported) == (
        printed,
        f"{len(calls) + len(mocked)} calls replayed from a.jsonl\n",
    )
    assert len(model.asked) == len(calls)
    assert Path("mocked").read_text(encoding="utf-8").splitlines() == mocked


CURL = (
    "curl -sS $OPENAI_BASE_URL/chat/completions -H 'content-type: application/json' "
    """-d '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Bread?"}]}'"""
    " | grep -o 'answer [0-9]*'"
)


@pytest.mark.ci
def test_a_child_in_another_language_asks_by_the_base_url_of_its_environment(
    model: NumberedServer,
) -> None:
    """It leads to where it pointed before."""
    program = f"subprocess.run({CURL!r}, shell=True); print(); tell(); subprocess.run({CURL!r}, shell=True)"
    write("program.py", f"os.environ['OPENAI_BASE_URL'] = os.environ['MODEL_AT']\n{program}")
    printed = check_replays(model, 3)
    assert [number in printed for number in ("answer 0", "answer 1", "answer 2")] == [True] * 3


@pytest.mark.ci
def test_a_child_in_another_language_needs_the_extra_serve(model: NumberedServer) -> None:
    """The report names it; the child's connection is refused."""
    Path("uvicorn.py").write_text("raise ModuleNotFoundError(name='uvicorn')", encoding="utf-8")
    write("program.py", f"subprocess.run({CURL!r}, shell=True)")
    _, reported = ran(*A, code=1)
    assert "[serve]" in reported and not model.asked


@pytest.mark.ci
def test_a_python_child_has_the_environment_that_the_program_gave_it(model: NumberedServer) -> None:
    """So its SDKs ask where they asked before, and its own sitecustomize runs."""
    Path("own").mkdir()
    Path("own/sitecustomize.py").write_text("print('own sitecustomize')\n", encoding="utf-8")
    names = ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "PYTHONPATH", "_LLMCALL_ROUTE")
    write("child.py", f"print([os.environ.get(name) for name in {names}], sys.path[1])\ntell()")
    write("program.py", f"subprocess.run({CHILD})")
    given = {"PYTHONPATH": "own", "OPENAI_BASE_URL": "http://localhost:9/v1"}
    printed, _ = ran(*A, **given)
    plain = subprocess.run(
        [sys.executable, "program.py"],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=True,
        timeout=LONGEST,
    ).stdout
    assert printed.replace("answer 0", "answer 1") == plain


@pytest.mark.ci
def test_a_child_imports_llmcall_when_it_first_needs_it(model: NumberedServer) -> None:
    """One that asks nothing starts as fast as it would alone; threads before the first request are told apart."""
    Path("child.py").write_text(
        textwrap.dedent("""
        import sys, threading
        print("llmcall" in sys.modules)
        threads = [threading.Thread(target=print, args=["in a thread"]) for _ in range(2)]
        for thread in threads:
            thread.start()
            thread.join()
        print("llmcall" in sys.modules)
        """),
        encoding="utf-8",
    )
    write("program.py", f"subprocess.run({CHILD})\ntell()")
    assert ran(*A)[0].split("\n")[:4] == ["False", "in a thread", "in a thread", "True"]


@pytest.mark.ci
def test_a_python_child_that_is_not_recorded_is_named(model: NumberedServer) -> None:
    """It may have asked anything, so a replay has failed."""
    write("child.py", "print('asked', ask.__name__)")
    script = f"{shlex.quote(sys.executable)} -VV\nenv -i {shlex.quote(sys.executable)} child.py\n"
    Path("script").write_text(script, encoding="utf-8")
    write(
        "program.py",
        f"""
        tell()
        subprocess.run([sys.executable, "--version"])
        subprocess.run({CHILD})
        subprocess.run([sys.executable, "-I", "child.py"])
        subprocess.run(["env", "-i", sys.executable, "child.py"])
        os.system("cd . && sh script; true")
        if os.fork() == 0:
            os.execv("/bin/sh", ["sh", "-c", "true"])
        os.wait()
        """,
    )
    printed, reported = ran(*A, PYTHONWARNINGS="ignore")
    missed = "3 Python children were not recorded: child.py, child.py, child.py\n"
    assert reported.endswith(missed)
    assert ran(*NONE, code=1, PYTHONWARNINGS="ignore") == (
        printed,
        f"1 call replayed from a.jsonl\n{missed}",
    )


def test_a_block_names_a_python_child_that_it_did_not_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At its end."""
    with llmcall.cassette("a.jsonl"):
        subprocess.run([sys.executable, "-I", "-c", ""], check=True)
    assert "1 Python child was not recorded: python" in caplog.text


def test_a_python_child_that_begins_as_the_block_ends_is_not_called_unrecorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It says hello a moment later."""
    with llmcall.cassette("a.jsonl"):
        child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert "not recorded" not in caplog.text


def test_children_that_make_no_call_need_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """So they run under pytest-socket."""
    with llmcall.cassette("a.jsonl"), monkeypatch.context() as patch:
        patch.delattr(socket, "socket")
        subprocess.run("exit", shell=True, check=True)
        subprocess.run([sys.executable, "-c", ""], check=True)


@pytest.mark.ci
def test_children_of_a_shell_that_run_at_once_are_told_apart_by_their_commands(
    model: NumberedServer,
) -> None:
    """Only their arrival tells identical ones apart, so the last line counts them; not those of a sequence."""
    write("child.py", "tell()")
    python = shlex.join(CHILD)
    command = f"{python} > 0 & {python} x > 1; wait; cat 0 1"
    write("program.py", f"subprocess.run({command!r}, shell=True)")
    check_replays(model, 2)
    for both, is_counted in (f"{python} & {python} & wait", True), (f"{python}; {python}", False):
        write("program.py", f"subprocess.run({both!r}, shell=True)")
        ran(*A, "--mode", "rewrite")
        _, reported = ran(*NONE)
        assert ("2 calls may have another caller's answer" in reported) == is_counted


@pytest.mark.ci
def test_children_that_a_pool_starts_by_a_shell_in_another_order_replay(
    model: NumberedServer,
) -> None:
    """Their commands tell them apart; no word of these is recorded or printed."""
    write("child.py", "tell()")
    command = f"DB_PASSWORD=secret-word {shlex.join(CHILD)} "
    write(
        "program.py",
        f"""
        from concurrent.futures import ThreadPoolExecutor
        def start(name):
            subprocess.run({command!r} + f"{{name}} > {{name}}", shell=True)
        names = ["Ada", "Ben", "Cem"]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(start, reversed(names) if os.environ.get("TURNED") else names))
        print([open(name).read() for name in names])
        """,
    )
    printed, reported = ran(*A)
    written = Path("a.jsonl").read_text(encoding="utf-8")
    assert not {word for word in ("secret-word", "Ada") if word in written + reported}
    for turned in ({}, {"TURNED": "1"}):
        assert ran(*NONE, **turned) == (printed, "3 calls replayed from a.jsonl\n")


@pytest.mark.ci
@pytest.mark.parametrize("variable", ["PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"])
def test_the_ranks_of_a_job_name_its_processes(model: NumberedServer, variable: str) -> None:
    """Whichever of them is started first."""
    write("child.py", f"with open(os.environ['{variable}'], 'w') as file: file.write(ask())")
    child = shlex.join(CHILD)
    write(
        "program.py",
        f"""
        ranks = "10" if os.environ.get("TURNED") else "01"
        started = [f"{variable}={{rank}} {child} &" for rank in ranks]
        subprocess.run(" ".join([*started, "wait"]), shell=True)
        print(*(open(rank).read() for rank in "01"))
        """,
    )
    printed, _ = ran(*A)
    for turned in ({}, {"TURNED": "1"}):
        assert ran(*NONE, **turned) == (printed, "2 calls replayed from a.jsonl\n")


# Processes of multiprocessing, and pools


@pytest.mark.ci
@pytest.mark.parametrize("arguments", [CHILD, ["/bin/sh", "-c", shlex.join(CHILD)]])
def test_what_the_program_itself_becomes_replays(
    model: NumberedServer, arguments: list[str]
) -> None:
    """By ``os.exec…``; its exit code is the run's, and nothing else of the program runs."""
    write("child.py", "tell('Milk?'); sys.exit(3)")
    write(
        "program.py",
        f"""
        import atexit
        atexit.register(print, "at exit")
        tell()
        try:
            os.execv({arguments[0]!r}, {arguments!r})
        finally:
            print("finally")
        """,
    )
    printed, reported = ran(*A, code=3)
    assert reported.startswith("2 asked"), reported
    assert printed == "answer 0\nanswer 1\n"
    assert ran(*NONE, code=3) == (printed, "2 calls replayed from a.jsonl\n")
    assert len(model.asked) == 2


@pytest.mark.ci
def test_the_first_fork_of_a_block_is_quiet() -> None:
    """What the recording imports for it has hooks of a fork, which are called for the next one."""
    program = """
        import os, llmcall
        with llmcall.patched():
            if os.fork() == 0:
                os._exit(0)
            os.wait()
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.ci
@pytest.mark.feature("executors")
def test_a_cassette_in_mode_none_sends_nothing_from_a_maps_workers(model: NumberedServer) -> None:
    """Whatever cassette the program opens around the map; what its workers swallow is a miss of the run."""
    write(
        "program.py",
        """
        import llmcall
        from multiprocessing import get_context
        def own(item):
            client = llmcall.OpenAIClient(api_key="none", base_url=os.environ["MODEL_AT"])
            try:
                return client.send_message("Salt?", model="gpt-4o-mini", on_error="raise").content
            except llmcall.CacheMissError:
                return "none"
        if __name__ == "__main__":
            tell()
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                if os.path.exists("a.jsonl"):
                    with llmcall.cassette("b.jsonl", mode="new"):
                        print(llmcall.map(own, [0], scope="market", executor=pool))
        """,
    )
    ran(*A)
    asked = len(model.asked)
    printed, reported = ran(*NONE, code=1)
    assert printed == "answer 0\n['none']\n"
    assert "chat request to gpt-4o-mini is not recorded" in reported
    assert len(model.asked) == asked


@pytest.mark.ci
def test_llmcalls_own_calls_in_a_child_are_the_runs(model: NumberedServer) -> None:
    """With the scopes that the child opens, and the settings that it has."""
    write(
        "child.py",
        """
        import llmcall
        os.environ["LLMCALL_MODEL"] = "gpt-4o-mini"
        client = llmcall.OpenAIClient(api_key="none", base_url=os.environ["MODEL_AT"])
        with llmcall.scope("trial-1"), llmcall.scope("Ada"):
            print(*[client.send_message("Bread?").content for _ in range(2)])
        """,
    )
    write("program.py", f"subprocess.run({CHILD})")
    check_replays(model, 2)
    lines = Path("a.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines[1:]]
    assert {record["request"]["model"] for record in records} == {"gpt-4o-mini"}
    assert [record["sample"] for record in records] == ["trial-1/Ada#0", "trial-1/Ada#1"]
    write("child.py", Path("child.py").read_text(encoding="utf-8").replace("Bread?", "Milk?"))
    _, reported = ran(*NONE, code=1)
    assert "{+Milk+}" in reported or "Milk?" in reported
    assert "CacheMissError" in reported


# What may not be sent, and what is under way


@pytest.mark.ci
def test_a_childs_sdk_repeats_no_call_that_the_run_has_repeated(
    model: NumberedServer, httpserver: HTTPServer
) -> None:
    """As in the program's own process, MAX_ATTEMPTS is the number of requests."""
    httpserver.expect_request("/failing/v1/chat/completions").respond_with_json({}, status=500)
    write(
        "ask.py",
        f"""
        import openai
        client = openai.OpenAI(base_url={httpserver.url_for("/failing/v1")!r}, api_key="x", max_retries=2)
        try:
            client.chat.completions.create(model="m", messages=[{{"role": "user", "content": "Bread?"}}])
        except openai.InternalServerError:
            print("failed", flush=True)
        """,
    )
    write("program.py", f"subprocess.run([{sys.executable!r}, 'ask.py'])")
    printed, _ = ran(LLMCALL_RETRY_MAX_ATTEMPTS="2", LLMCALL_RETRY_WAITING_TIME="0.01")
    assert (printed, len(httpserver.log)) == ("failed\n", 2)


@pytest.mark.ci
@pytest.mark.parametrize(
    "child",
    [
        f"subprocess.run({CHILD})",
        "multiprocessing.Process(target=tell, args=['Milk?']).start()",
        "os.wait() if os.fork() else tell('Milk?')",
    ],
)
def test_a_new_question_of_a_child_is_a_miss_of_the_run(model: NumberedServer, child: str) -> None:
    """Told with what differs; the exit code is 1, and nothing is sent."""
    write("child.py", "tell()")
    write("program.py", f"subprocess.run({CHILD})")
    ran(*A)
    write("child.py", "try: tell('Milk?')\nexcept httpx.HTTPStatusError as error: print(error)")
    write("program.py", f"multiprocessing.set_start_method('fork')\n{child}")
    printed, reported = ran(*NONE, code=1)
    assert "409" in printed + reported
    assert "[-Bread-] {+Milk+}" in " ".join(reported.split())
    assert "1 refused: a.jsonl" in reported
    assert len(model.asked) == 1


@pytest.mark.ci
def test_the_calls_of_children_count_in_the_programs_budget(model: NumberedServer) -> None:
    """As if they were made in its process."""
    write("child.py", "try: tell()\nexcept httpx.HTTPStatusError: print('refused')")
    write(
        "program.py",
        f"""
        import llmcall
        with llmcall.budget(calls=2), llmcall.track() as usage:
            for _ in range(3):
                subprocess.run({CHILD})
        print(usage.calls)
        """,
    )
    printed, _ = ran(*A, code=1)
    assert printed.split("\n") == ["answer 0", "answer 1", "refused", "2", ""]


@pytest.mark.ci
def test_a_child_that_is_killed_frees_its_place(model: NumberedServer) -> None:
    """Its call is lost, as one of a program that is killed; the next one need not wait for it."""
    write("child.py", "tell(sys.argv[1])")
    write(
        "program.py",
        """
        command = [sys.executable, "child.py"]
        child = subprocess.Popen([*command, "slowly"])
        while not os.path.exists("asked"):
            time.sleep(0.05)
        child.kill()
        subprocess.run([*command, "Bread?"])
        """,
    )
    environment = {"LLMCALL_LIMITS_MAX_CONCURRENT_CALLS": "1"}
    with started(*A, **environment) as process:
        while not model.asked and process.poll() is None:
            time.sleep(0.05)
        Path("asked").touch()
        printed, reported = process.communicate(timeout=LONGEST)
    assert (printed, process.returncode) == ("answer 1\n", 0)
    assert "1 call ended before the whole answer arrived" in reported
    text = Path("a.jsonl").read_text(encoding="utf-8")
    assert "answer 1" in text
    assert "answer 0" not in text


@pytest.mark.ci
def test_a_child_that_outlives_the_run_gets_no_live_answer(model: NumberedServer) -> None:
    """Its connection is refused."""
    write(
        "child.py",
        """
        parent = os.getppid()
        open("begun", "w").close()
        while os.getppid() == parent:
            time.sleep(0.05)
        try:
            answer = ask()
        except httpx.ConnectError:
            answer = "no connection"
        open("answer.tmp", "w").write(answer)
        os.rename("answer.tmp", "answer")
        """,
    )
    write(
        "program.py",
        f"""
        child = subprocess.Popen({CHILD}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not os.path.exists("begun"):
            time.sleep(0.05)
        """,
    )
    ran(*A)
    deadline = time.monotonic() + LONGEST
    while not Path("answer").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert Path("answer").read_text(encoding="utf-8") == "no connection"
    assert not model.asked


@pytest.mark.ci
def test_a_child_that_opens_a_cassette_is_left_to_itself(model: NumberedServer) -> None:
    """It records there, and the run knows nothing of it."""
    write("child.py", "import llmcall\nwith llmcall.cassette('b.jsonl'): tell()")
    write("program.py", f"subprocess.run({CHILD})")
    printed, _ = ran(*A)
    assert "answer 0" in Path("b.jsonl").read_text(encoding="utf-8")
    Path("a.jsonl").unlink(missing_ok=True)
    assert ran(*A)[0] == printed
    assert len(model.asked) == 1


@pytest.mark.parametrize("mode", ["new", "once", "rewrite"])
def test_a_child_that_opens_a_cassette_only_replays_it_where_nothing_is_sent(
    model: NumberedServer, mode: str
) -> None:
    """Whatever its mode, and whether it is started or spawned."""
    write(
        "child.py", f"import llmcall\nwith llmcall.cassette('b.jsonl', {mode!r}): tell(sys.argv[1])"
    )
    with llmcall.cassette("a.jsonl"):
        printed = subprocess.check_output([*CHILD, "Bread?"], text=True)
    assert printed == "answer 0\n"
    with pytest.raises(llmcall.CacheMissError), llmcall.cassette("a.jsonl", "none"):
        assert subprocess.check_output([*CHILD, "Bread?"], text=True) == printed
        subprocess.run([*CHILD, "Salt?"], stderr=subprocess.DEVNULL)
    assert len(model.asked) == 1
    assert "Salt" not in Path("b.jsonl").read_text(encoding="utf-8")


def test_no_child_in_a_replay_has_a_key_that_pays(model: NumberedServer) -> None:
    """Whatever the provider, and whatever the variable: a key is known by its mark, or by the request that used it.
    SDKs find a placeholder where none is set, too.
    """
    keys = {
        **dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY"), "key-of-somebody"),
        **dict.fromkeys(("GOOGLE_API_KEY", "AZURE_OPENAI_API_KEY"), "key-of-another"),
        "MARKED": "sk-proj-4f9GkQ2mZ7xTb1YvN8cR",
        "USED": "f3a1c05e9b7d4826",
    }
    others = {  # a replay may need them
        "DB_PASSWORD": "open-SESAME-12-of-a-database",
        "DATABASE_URL": "postgres://user:pa55word9@db.example/x",
    }
    write(
        "program.py",
        """
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Bread?"}]}
        headers = {"authorization": f"Bearer {os.environ['USED']}"}
        httpx.post(os.environ["MODEL_AT"] + "/chat/completions", json=body, headers=headers)
        subprocess.run("env", shell=True)
        subprocess.run("env", shell=True, env={"OWN": os.environ["USED"]})
        """,
    )
    given, _ = ran(*A, **keys, **others)
    printed, _ = ran(*NONE, **keys, **others)
    assert all(f"{name}={value}" in printed for name, value in others.items())
    assert "GEMINI_API_KEY=" in printed and "GEMINI_API_KEY=" not in given
    for name, key in {**keys, "OWN": keys["USED"]}.items():
        assert f"{name}={key}" in given and f"{name}=" in printed
        assert key not in printed


@pytest.mark.feature("redis")
def test_no_environment_of_a_child_has_a_key_or_password_of_a_setting(
    model: NumberedServer,
) -> None:
    """Neither as it is nor pickled in hexadecimal digits, as the other settings are."""
    secrets = [f"sesame-{number}" for number in range(6)]
    keys, passwords = secrets[:2], secrets[2:]
    addresses = [f"https://me:{password}@models.example/v1" for password in passwords]
    endpoint = {"name": "west", "models": ["m"], "api_key": keys[0], "base_url": addresses[0]}
    with llmcall.patched(
        api_key=keys[1],
        endpoints=[endpoint],
        base_url=addresses[1],
        azure_endpoint=addresses[2],
        cache_path=f"redis://:{passwords[3]}@127.0.0.1:1/0",
    ):
        printed = subprocess.run(["env"], stdout=subprocess.PIPE, text=True, check=True).stdout
    (route,) = (line for line in printed.splitlines() if line.startswith("_LLMCALL_ROUTE="))
    for text in secrets:
        assert text not in printed and text.encode().hex() not in printed
    assert b"models.example".hex() in route


@pytest.mark.ci
@pytest.mark.feature("redis")
def test_the_password_of_a_cache_is_known_to_the_recording_process_for_its_childrens_calls(
    model: NumberedServer,
) -> None:
    """A child names the server without it; the server hears the password all the same."""
    pytest.importorskip("redis")
    write("child.py", "ask()")
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hear() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        heard.append(connection.recv(1000))

        threading.Thread(target=hear, daemon=True).start()
        path = f"redis://:sesame@127.0.0.1:{server.getsockname()[1]}/0"
        with pytest.raises(llmcall.CacheError), llmcall.patched(cache_path=path):
            subprocess.run(CHILD, stderr=subprocess.DEVNULL)
    assert heard
    assert all(b"AUTH" in words and b"sesame" in words for words in heard)


@pytest.mark.ci
def test_what_a_child_in_another_folder_asks_is_in_the_programs_cache(
    model: NumberedServer,
) -> None:
    """A daemon's folder is the root, where it may write nothing."""
    write("child.py", "tell()")
    Path("elsewhere").mkdir()
    write("program.py", f"subprocess.run([{sys.executable!r}, '../child.py'], cwd='elsewhere')")
    printed, _ = ran(*A)
    assert list(Path("elsewhere").iterdir()) == []
    Path("a.jsonl").unlink()
    assert ran(*A)[0] == printed
    assert len(model.asked) == 1


def test_no_child_in_a_replay_has_the_key_of_an_endpoint_that_was_used(
    model: NumberedServer,
) -> None:
    """Of a call by llmcall's client, whatever the variable."""
    key = "f3a1c05e9b7d4826"
    endpoint = {"name": "west", "models": ["m"], "api_key": key, "base_url": model.address}
    client = llmcall.OpenAIClient(endpoints=[endpoint], model="m")
    environment = {**os.environ, "OWN": key}
    command = [sys.executable, "-S", "-c", "import os; print(os.environ['OWN'])"]
    for mode in ("new", "none"):
        with llmcall.cassette("a.jsonl", mode=mode):
            client.send_message("Bread?", on_error="raise")
            printed = subprocess.check_output(command, env=environment, text=True)
            assert (key in printed) == (mode == "new")


IN_THREADS = """
import threading
from concurrent.futures import ThreadPoolExecutor
together = threading.Barrier(30)
def ask_at_once(number):
    together.wait()
    return ask(str(number))
with ThreadPoolExecutor(30) as threads:
    list(threads.map(ask_at_once, range(30)))
"""
IN_LOOPS = """
async def ask_in_loop(*numbers):
    async with httpx.AsyncClient(timeout=60, verify=False) as client:
        async def ask_one(number):
            messages = [{"role": "user", "content": str(number)}]
            body = {"model": "gpt-4o-mini", "messages": messages}
            address = os.environ["MODEL_AT"] + "/chat/completions"
            (await client.post(address, json=body)).raise_for_status()
        await asyncio.gather(*map(ask_one, numbers))
import gc
gc.disable()
for number in range(10):
    asyncio.run(ask_in_loop(3 * number, 3 * number + 1))
    asyncio.new_event_loop().run_until_complete(ask_in_loop(3 * number + 2))  # nobody closes it
"""
IN_PROCESSES = """
started = []
for number in range(30):
    if (process := os.fork()) == 0:
        ask(str(number))
        time.sleep(2)
        os._exit(0)
    started.append(process)
assert not any(os.waitpid(process, 0)[1] for process in started)
"""


@pytest.mark.ci
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="other systems have other limits")
@pytest.mark.parametrize(("child", "lines"), [(IN_THREADS, 0), (IN_LOOPS, 0), (IN_PROCESSES, 1)])
def test_calls_of_children_wait_where_the_run_may_open_few_files(
    model: NumberedServer, child: str, lines: int
) -> None:
    """No call fails, and one line says why they wait; the threads and the tasks of a child share a connection, which
    ends with the last call of a loop, and wait for none.
    """
    write("child.py", child)
    write(
        "program.py",
        f"""
        children = [
            subprocess.Popen({CHILD}, preexec_fn=lambda: time.sleep(0.2)) for _ in range(3)
        ]
        subprocess.run(["prlimit", "--pid", str(os.getpid()), "--nofile=40:40"], check=True)
        print(*(child.wait() for child in children))
        """,
    )
    printed, reported = ran(*A)
    assert printed == "0 0 0\n"
    assert reported.startswith("90 asked"), reported
    assert reported.count("may open only 40 files") == lines


@pytest.mark.ci
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other limits")
def test_the_connections_of_children_take_no_file_that_the_program_may_open(
    model: NumberedServer,
) -> None:
    write(
        "program.py",
        """
        import resource
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, most))
        started = []
        try:
            for number in range(16):
                if (process := os.fork()) == 0:
                    ask(str(number))
                    os.mkdir(f"asked {number}")
                    time.sleep(60)
                started.append(process)
                while not os.path.exists(f"asked {number}"):
                    time.sleep(0.01)
                open("program.py").close()
        finally:
            for process in started:
                os.kill(process, 9)
        """,
    )
    _, reported = ran(*A)
    assert reported.startswith("16 asked"), reported


@pytest.mark.ci
def test_ctrl_c_ends_a_run_whose_child_waits(model: NumberedServer) -> None:
    """The file is written."""
    write("child.py", "tell('Bread?'); tell('slowly')")
    write("program.py", f"subprocess.run({CHILD})\ntime.sleep(60)")
    with started(*A) as process:
        while len(model.asked) < 2 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LONGEST)
    assert process.returncode == -signal.SIGINT
    assert "answer 0" in Path("a.jsonl").read_text(encoding="utf-8")
