"""``llmcall run``: programs that do not know llmcall, each in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import ASK, LONGEST, NEEDS_POSIX, PRICED, RunningProgram, done
from files import written
from pytest_httpserver import HTTPServer
from servers import (
    TWO_COINS,
    NumberedServer,
    Paused,
    RawServer,
    answers,
    closes,
    completion,
    embeddings,
    streams,
)
from werkzeug import Request, Response

PREAMBLE = f"""
import atexit, signal, threading, time
from concurrent.futures import ThreadPoolExecutor
{ASK}
def tell(text):
    sys.stdout.write(f"{{text}} {{ask(text)}}\\n")  # whole, whatever other threads print
    sys.stdout.flush()
"""
SLOWLY = 0.4  # seconds that the model takes for a question that asks it to be slow


def program(text: str) -> str:
    """Write a program, and return its file's name."""
    Path("program.py").write_text(PREAMBLE + textwrap.dedent(text), encoding="utf-8")
    return "program.py"


def started(*options: str) -> RunningProgram:
    """Start the program under ``llmcall run``."""
    command = [sys.executable, "-m", "llmcall", "run", *options, "program.py"]
    return RunningProgram(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def ran(text: str, *options: str, code: int = 0) -> tuple[str, str]:
    """Run a program under ``llmcall run``; return what it printed, and what the command reported."""
    program(text)
    with started(*options) as process:
        printed, reported = process.communicate(timeout=LONGEST)
    assert process.returncode == code, reported
    return printed, reported


def refused(*options: str) -> str:
    """Return what ``llmcall run`` says when it refuses its options, and check that no program starts.

    It runs in this process: it ends before there is a program to run.
    """
    printed = done("run", *options, written("program.py", "print('started')\n"), code=2)
    assert "started" not in printed
    return " ".join(printed.split())


def entries(path: str) -> list[dict[str, Any]]:
    """Return the lines of a cassette."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def samples(path: str) -> list[str]:
    """Return the samples of a cassette's records."""
    return [entry["sample"] for entry in entries(path) if "sample" in entry]


A = "--cassette", "a.jsonl"
NONE = *A, "--mode", "none"

# The scope of a run

SCOPES = """
import llmcall
print(ask("Bread?"), ask("Bread?"))
thread = threading.Thread(target=lambda: print(ask("Bread?")))
thread.start()
thread.join()
with llmcall.scope("day-1"):
    print(ask("Bread?"), ask("Bread?"))
"""


def test_equal_calls_outside_any_scope_are_draws_of_the_scope_run(model: NumberedServer) -> None:
    """In any thread; scopes of the program's own keep their paths; a replay gives the same."""
    live, _ = ran(SCOPES, *A)
    assert samples("a.jsonl") == ["day-1#0", "day-1#1", "run#0", "run#1", "run#2"]
    assert entries("a.jsonl")[0]["run"] == {}
    assert ran(SCOPES, *NONE)[0] == live
    assert len(model.asked) == 5


def test_only_scope_puts_all_below_a_name(model: NumberedServer) -> None:
    """``--scope NAME`` is the scope of the whole process."""
    ran(SCOPES, *A, "--scope", "rep-1")
    assert all(sample.startswith("rep-1") for sample in samples("a.jsonl"))
    assert "rep-1/day-1#1" in samples("a.jsonl")


def test_a_request_that_names_no_actor_stands_in_the_runs_scope(model: NumberedServer) -> None:
    """Actors keep their own paths, and one warning names the others."""
    _, reported = ran("ask('Milk?'); ask('Bread?')", *A, "--actor", "user:^(Milk)")
    assert reported.count("some requests name no actor") == 1
    assert samples("a.jsonl") == ["Milk#0", "run#0"]


WITH_A_BLOCK = """
import llmcall
own_client = llmcall.OpenAIClient(api_key="none", base_url=os.environ["MODEL_AT"])
def own():
    return own_client.send_message("Milk?", model="gpt-4o-mini", on_error="raise").content
def round():
    return [ask("Bread?"), ask("Bread?"), own(), own()]
"""


@pytest.mark.ci
def test_a_block_of_the_program_is_the_same_under_run(model: NumberedServer) -> None:
    """Its file is, too: the program's calls are draws, from 0 at each opening, and llmcall's own are
    answered by a cache.
    """
    blocks = """
for _ in range(2):
    with llmcall.cassette("block.jsonl"):
        print(*round())
"""
    program(WITH_A_BLOCK + blocks)
    plain = subprocess.run(
        [sys.executable, "program.py"],
        capture_output=True,
        text=True,
        check=True,
        timeout=LONGEST,
    ).stdout
    assert plain == "answer 0 answer 1 answer 2 answer 2\n" * 2
    recorded = Path("block.jsonl").read_bytes()
    assert ran(WITH_A_BLOCK + blocks)[0] == plain
    assert ran(WITH_A_BLOCK + blocks, *NONE[2:])[0] == plain
    Path("block.jsonl").unlink()
    assert ran(WITH_A_BLOCK + blocks, *A)[0] == plain
    assert Path("block.jsonl").read_bytes() == recorded


@pytest.mark.ci
def test_patched_in_a_run_leaves_the_scope_of_the_run(model: NumberedServer) -> None:
    """It has no file, so all calls are draws of the run."""
    patched = """
def own_too():
    question = [{"role": "user", "content": "Bread?"}]
    return own_client.send_message(question, model="gpt-4o-mini", temperature=1).content
for _ in range(2):
    with llmcall.patched():
        print(ask("Bread?"), own_too())
"""
    for options in (A, ()):
        live, _ = ran(WITH_A_BLOCK + patched, *options)
        assert len(set(live.split())) == 5  # the word and four numbers
    assert samples("a.jsonl") == [f"run#{number}" for number in range(4)]


# What its options say, and its cassette to its replays

NAMING = "def who(request): return request.body['messages'][-1]['content'].split()[0]\n"


@pytest.mark.ci
def test_a_replay_takes_its_options_from_the_cassette(model: NumberedServer) -> None:
    """Scope, normalizers and seed stand in the header; a function must be named again, since a
    cassette runs no code.
    """
    # begins as "system" does, which names a text
    Path("systems.py").write_text(NAMING, encoding="utf-8")
    actor = "--actor", "systems:who"
    options = "--scope", "rep-1", "--seed", "3", "--normalize", "times"
    asking = "import random; tell('Lisa asks at 12:03'); tell('Lisa has ' + str(random.random()))"
    live, _ = ran(asking, *A, *options, *actor)
    recorded = {"actor": "systems:who", "normalizers": ["times"], "scope": "rep-1", "seed": 3}
    assert entries("a.jsonl")[0]["run"] == recorded
    assert samples("a.jsonl") == ["rep-1/Lisa#0", "rep-1/Lisa#0"]
    assert ran(asking.replace("12:03", "12:04"), *NONE, *actor)[0] == live.replace("12:03", "12:04")
    assert "--actor systems:who. Give the option again: a cassette runs no code" in refused(*NONE)
    assert "contradicts a.jsonl, which was recorded with --seed 3" in refused(
        *NONE, *actor, "--seed", "4"
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--actor", "user:("), "its regular expression is invalid"),
        (("--actor", "header:"), 'after "header:" it must name a header, such as "header:X-Actor"'),
        (("--actor", "header:X Actor"), "it must name a header"),
        (
            ("--actor", "nobody"),
            'it must be "system", "system:REGEX", "user:REGEX", "header:NAME" or',
        ),
        (("--actor", "nowhere:who"), "--actor nowhere:who: No module named 'nowhere'"),
        (("--actor", "json:who"), "--actor json:who: module 'json' has no attribute 'who'"),
        (("--normalize", "("), "--normalize"),
        (("--seed", "x"), "--seed"),
        (("--mode", "new"), "--mode new needs a cassette"),
        (
            ("--cassete", "a.jsonl"),
            "llmcall run has no option --cassete, and there is no file --cassete. "
            "Did you mean '--cassette'?",
        ),
    ],
)
def test_a_wrong_option_is_refused_before_the_program_starts(
    option: tuple[str, ...], message: str
) -> None:
    """The exit code is 2."""
    assert message in refused(*option)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("knows", "lines"),
    [
        ("", ["--cassette comes after program.py, so the program gets it"]),
        ("cassettes = 1", ["--cassette comes after program.py, so the program gets it"]),
        ("# my own cassette", []),
    ],
)
def test_an_option_after_the_script_is_pointed_out(
    knows: str, lines: list[str], model: NumberedServer
) -> None:
    """It is the program's argument, and nothing is recorded in that file; a program may know it."""
    program(f"{knows}\nprint(sys.argv[1:])")
    after = [sys.executable, "-m", "llmcall", "run", "program.py", "--cassette=x.jsonl"]
    done = subprocess.run(after, capture_output=True, text=True, timeout=LONGEST, check=True)
    assert done.stdout == "['--cassette=x.jsonl']\n"
    found = [line.partition(". ")[0] for line in done.stderr.splitlines()]
    assert [line for line in found if "comes after" in line] == lines


@pytest.mark.parametrize("script", [".", "nowhere.py"])
def test_a_script_must_be_a_file(script: str) -> None:
    """A folder is there, and is none."""
    assert f"there is no file {script}" in done("run", script, code=2)


def test_a_folder_is_run_by_its_main_module() -> None:
    """As Python does: its other modules are found."""
    written("study/__main__.py", "import sys, word\nprint(word.WORD, sys.argv[1:])")
    written("study/word.py", "WORD = 'found'")
    command = [sys.executable, "-m", "llmcall", "run", "study", "7"]
    ran_whole = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST)
    assert ran_whole.stdout == "found ['7']\n"


@pytest.mark.parametrize("options", [NONE, ()], ids=["options", "settings"])
def test_mode_none_needs_the_cassette_before_the_program_starts(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing file is an error that says what to do, whatever names it."""
    if not options:
        monkeypatch.setenv("LLMCALL_CASSETTE_PATH", "a.jsonl")
        monkeypatch.setenv("LLMCALL_CASSETTE_MODE", "none")
    printed = done("run", *options, written("program.py", "print('it starts')"), code=1)
    assert "it starts" not in printed
    assert "a.jsonl does not exist, so there is nothing to replay" in printed
    assert "run the program with --mode once" in " ".join(printed.split())


CHANCE = """
import random
own = random.Random()
words = {f"word {n}" for n in range(6)}
tell(f"{random.random()} {own.random()} {random.Random().random()} {list(words)}")
tell(f"{random.Random(3).random()}")
try:
    import numpy as np
    tell(f"{np.random.rand()} {np.random.default_rng().random()} {np.random.RandomState().rand()}")
except ModuleNotFoundError:
    pass
"""


@pytest.mark.ci
def test_the_option_seed_fixes_random_numpy_and_the_order_of_sets(model: NumberedServer) -> None:
    """Two fresh processes draw the same: generators without a seed, NumPy's, the order of sets."""
    live, _ = ran(CHANCE, *A, "--seed", "7")
    assert ran(CHANCE, *NONE)[0] == live
    drawn = model.asked[0].split()[:3]
    assert len(set(drawn)) == 3


@pytest.mark.ci
def test_a_seed_imports_no_numpy_and_a_shell_no_sdk(model: NumberedServer) -> None:
    """A program that never imports them does not wait for them."""
    program = "os.system('exit')\nprint({'numpy', 'openai'} & sys.modules.keys())"
    assert ran(program, "--seed", "7")[0] == "set()\n"


@pytest.mark.ci
def test_a_seed_gives_the_same_numbers_wherever_numpy_is_imported(model: NumberedServer) -> None:
    """NumPy's import moves none."""
    pytest.importorskip("numpy")
    imports, own = "import numpy as np", "own = random.Random().random()"
    drawn = "print(own, np.random.rand(), np.random.default_rng().random())"
    programs = (("import random", imports, own, drawn), ("import random", own, imports, drawn))
    first, second = (ran("\n".join(lines), "--seed", "7")[0] for lines in programs)
    assert first == second != ""


# What outlives the script

A_THREAD = "threading.Thread(target=tell, args=['from a thread, slowly']).start()"
LEFT_BEHIND = f"""
{A_THREAD}
ThreadPoolExecutor(1).submit(tell, 'from an executor, slowly')
atexit.register(tell, 'at exit')
"""


def test_calls_after_the_last_line_of_a_script_are_recorded(model: NumberedServer) -> None:
    """Calls of threads, executors and functions of ``atexit`` after the last line replay."""
    live, _ = ran(LEFT_BEHIND, *A)
    assert live.count("answer") == 3
    assert sorted(ran(LEFT_BEHIND, *NONE)[0].splitlines()) == sorted(live.splitlines())
    assert len(model.asked) == 3


def test_mode_none_sends_nothing_after_the_script(model: NumberedServer) -> None:
    """A call after the last line that is not recorded is refused, and the exit code is 1."""
    ran("tell('Bread?')", *A)
    _, reported = ran(f"tell('Bread?')\n{A_THREAD}", *NONE, code=1)
    assert "is not recorded" in reported
    assert model.asked == ["Bread?"]


@pytest.mark.ci
def test_calls_of_threads_after_ctrl_c_are_recorded(model: NumberedServer) -> None:
    """After Ctrl-C the program's threads go on; the process ends by the signal and says so once."""
    program("""
    def slow():
        tell("first, slowly")
        tell("second")
    threading.Thread(target=slow).start()
    time.sleep(60)
    """)
    with started(*A) as process:
        while not model.asked:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        live, reported = process.communicate(timeout=LONGEST)
    assert process.returncode == -signal.SIGINT
    assert reported.count("KeyboardInterrupt") == 1
    assert "second answer 1" in live
    assert ran("tell('first, slowly')\ntell('second')", *NONE)[0] == live


@pytest.mark.ci
@pytest.mark.feature("plans")
def test_a_plan_finds_the_answers_of_a_recording_that_broke_off(model: NumberedServer) -> None:
    """The next run replays those, and asks for the others."""
    text = """
    import llmcall
    from llmcall.testing import ScriptedClient
    call = llmcall.LLMCall(user="{{ name }}?", client=ScriptedClient(lambda messages: "yes"))
    rows = [{"name": name} for name in ("Ada", "Ben", "Cleo")]
    with llmcall.scope("survey"):
        print(*call.map(rows, key="name", dry_run=True)[:2])
        if BREAKS_OFF:
            call.map(rows[:2], key="name")
            sys.exit(1)
        call.map(rows, key="name")
    """
    assert ran(text.replace("BREAKS_OFF", "True"), *A, code=1)[0] == "0 3\n"
    planned, reported = ran(text.replace("BREAKS_OFF", "False"), *A)
    assert (planned, model.asked) == ("2 1\n", [])
    assert "1 asked (tokens and cost unknown for 1 call), 2 replayed" in reported


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    """A model's server that streams, which the programs of a test find."""
    with RawServer(streams(*TWO_COINS)) as server:
        monkeypatch.setenv("MODEL_AT", server.base_url)
        monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
        yield server


@pytest.mark.ci
def test_a_stream_that_is_read_at_exit_is_recorded(streaming: RawServer) -> None:
    """A function of ``atexit`` reads the whole answer, as in the plain interpreter."""
    reading = """
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    request = client.build_request("POST", "/chat/completions", json=body)
    lines = client.send(request, stream=True).iter_lines()
    atexit.register(lambda: print(*lines))
    """
    assert "[DONE]" in ran(reading, *A)[0]
    assert "[DONE]" in ran(reading, *NONE)[0]
    assert len(streaming.requests) == 1


@pytest.mark.ci
def test_a_response_that_outlives_llmcall_ends_quietly(streaming: RawServer) -> None:
    """Python clears a module that holds it later than llmcall's."""
    held = """
    import llmcall
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    request = client.build_request("POST", "/chat/completions", json=body)
    response = client.send(request, stream=True)
    lines = response.iter_lines()
    print(next(lines))
    threading.held = llmcall, response, lines
    """
    _, reported = ran(held, *A)
    assert reported.splitlines()[0].startswith("1 asked")
    assert "ignored" not in reported


@pytest.mark.ci
def test_a_task_that_waits_for_a_stream_when_its_loop_stops_loses_no_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answers that came whole are recorded; the one that was under way is counted."""
    waits = """
    import asyncio
    async def read():
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        async with httpx.AsyncClient() as own, own.stream(
            "POST", client.base_url.join("chat/completions"), json=body
        ) as response:
            async for line in response.aiter_lines():
                read_lines.set()
    async def begin():
        global read_lines, task
        read_lines = asyncio.Event()
        task = asyncio.ensure_future(read())
        await read_lines.wait()
    print(ask("Bread?"))
    asyncio.new_event_loop().run_until_complete(begin())
    """
    with RawServer(answers(), Paused(*TWO_COINS, after=2)) as server:
        monkeypatch.setenv("MODEL_AT", server.base_url)
        monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
        _, reported = ran(waits, *A)
    assert "2 asked" in reported and "1 not recorded" in reported
    assert "ignored" not in reported
    assert len(samples("a.jsonl")) == 1


PROGRAMS = {
    "code": "sys.exit(3)",
    "error": "def bake():\n    raise ValueError('no flour')\nbake()",
    "interrupt": """
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    """,
    "order": """
        import weakref
        class Baker:
            def __del__(self):
                print("the baker leaves")
        baker = Baker()
        weakref.finalize(baker, print, "finalized")
        atexit.register(print, "registered")
        def late():
            threading.main_thread().join()
            print("the thread ends", __name__, sys.modules["__main__"].baker is baker)
        threading.Thread(target=late).start()
        print("the script ends", __file__, __spec__, sys.argv)
    """,
    "fork": """
        if os.fork():
            os.wait()
            print("the parent ends")
        else:
            print("the child ends")
            sys.exit(7)
    """,
}


@pytest.mark.ci
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_as_python_ends_it(name: str) -> None:
    """Exit code, output, its order and tracebacks are those of the plain interpreter."""
    preamble = "import atexit, os, signal, sys, threading, time\n"
    written("program.py", preamble + textwrap.dedent(PROGRAMS[name]))
    plain, recorded = (
        subprocess.run(
            [sys.executable, *words, "program.py"],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
        )
        for words in ([], ["-m", "llmcall", "run"])
    )
    assert recorded.returncode == plain.returncode
    assert recorded.stdout == plain.stdout
    assert recorded.stderr.startswith(plain.stderr), recorded.stderr


# Its last lines

BREAD_AND_MILK = "ask('Bread?'); ask('Milk?')"


def test_the_last_lines_count_what_was_asked(model: NumberedServer) -> None:
    """Parts that are 0 are left out; records that were not used have a line; what came from the cache
    has one that names the remedy.
    """
    _, reported = ran(BREAD_AND_MILK, *A)
    assert reported.splitlines() == ["2 asked (30 tokens, <$0.0001): a.jsonl"]
    _, reported = ran("ask('Bread?')", *NONE)
    first, second = reported.splitlines()
    assert first == "1 call replayed from a.jsonl"
    assert second.startswith("1 record was not used; mode 'update'")
    _, reported = ran(f"{BREAD_AND_MILK}; ask('Salt?')", "--cassette", "b.jsonl")
    first, second = reported.splitlines()
    assert first == "1 asked (15 tokens, <$0.0001), 2 from the cache: b.jsonl"
    assert second == (
        "the answers from the cache come from an earlier run, or from identical calls in this one. "
        "For new ones, use --scope NAME and a new cassette"
    )


WORKERS = """
jobs = [2, 2]
def work(number):
    for _ in range(jobs[number]):
        ask("Bread?")
threads = [threading.Thread(target=work, args=[number]) for number in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
ask("Milk?")
"""


@pytest.mark.ci
def test_the_last_line_of_a_replay_counts_calls_that_may_have_another_callers_answer(
    model: NumberedServer,
) -> None:
    """A thread takes over another's work; the recording, and a replay in which each does its own, say nothing."""
    _, reported = ran(WORKERS, *A)
    assert reported.splitlines() == ["5 asked (75 tokens, <$0.0001): a.jsonl"]
    _, reported = ran(WORKERS, *NONE)
    assert reported == "5 calls replayed from a.jsonl\n"
    _, reported = ran(WORKERS.replace("[2, 2]", "[3, 1]"), *NONE)
    assert reported.splitlines() == [
        "5 calls replayed from a.jsonl",
        "4 calls may have another caller's answer. Name the actors: --actor",
    ]


@pytest.mark.ci
def test_the_last_line_counts_the_answers_whose_tokens_and_cost_are_unknown(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server reports the tokens of a chat, and none of an embedding; a model's price may be unknown."""
    monkeypatch.setenv("MODEL_AT", httpserver.url_for("/v1"))
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    unreported = {name: part for name, part in embeddings([0.5]).items() if name != "usage"}
    httpserver.expect_request("/v1/embeddings").respond_with_json(unreported)
    httpserver.expect_request("/v1/chat/completions").respond_with_json(completion(model=None))
    asking = """
    import llmcall
    llmcall.configure(base_url=os.environ["MODEL_AT"], api_key="k", embedding_model="own-embeddings")
    llmcall.client().get_embedding("Bread?")
    llmcall.client().send_message("Bread?", model="gpt-4o-mini")
    """
    unknown = "tokens and cost unknown for 1 call"
    _, reported = ran(asking, *A)
    assert reported.splitlines()[-1] == f"2 asked (15 tokens, <$0.0001, {unknown}): a.jsonl"
    _, reported = ran(asking.replace("gpt-4o-mini", "own-chat"), "--cassette", "b.jsonl")
    line = "1 asked (15 tokens, cost unknown for 1 call), 1 from the cache: b.jsonl"
    assert reported.splitlines()[-2] == line


@pytest.mark.ci
def test_the_last_line_of_a_run_counts_its_own_cassettes_calls(model: NumberedServer) -> None:
    """Tokens, retries and calls alike; what the program's own cassette records is not on the run's."""
    text = """
    import llmcall
    ask("Bread?")
    with llmcall.cassette("block.jsonl"):
        ask("Milk?"); ask("Salt?")
    """
    _, reported = ran(text, *A)
    assert len(model.asked) == 3
    assert reported.splitlines() == ["1 asked (15 tokens, <$0.0001): a.jsonl"]
    _, reported = ran(text.replace('ask("Bread?")', "pass"), "--cassette", "b.jsonl")
    assert reported.splitlines() == [
        "0 asked: b.jsonl not written",
        "the program's calls are in the cassettes that it opens itself",
    ]


@pytest.mark.ci
@pytest.mark.parametrize("options", [A, ()], ids=["a cassette", "the cache"])
def test_embeddings_of_several_texts_are_one_call(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """Whether all, some or none of them are recorded, and whichever texts are equal: the run of one program counts
    as many calls as its replay. The server's list is what was asked.
    """
    asked: list[list[str]] = []

    def respond(request: Request) -> Response:
        asked.append(request.get_json()["input"])
        body = embeddings(*([0.5] for _ in asked[-1]))
        return Response(json.dumps(body), content_type="application/json")

    monkeypatch.setenv("MODEL_AT", httpserver.url_for("/v1"))
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    httpserver.expect_request("/v1/embeddings").respond_with_handler(respond)
    text = """
    import llmcall
    llmcall.configure(base_url=os.environ["MODEL_AT"], api_key="k")
    with llmcall.track() as usage:
        llmcall.client().get_embedding(["Bread?", "Milk?", "Bread?"])
        llmcall.client().get_embedding(["Milk?", "Salt?"])
        llmcall.client().get_embedding(["Salt?", "Salt?"])
    print(usage.calls, usage.cached_calls, usage.errors)
    """
    is_file = bool(options)
    printed, reported = ran(text, *options)
    assert asked == [["Bread?", "Milk?"], ["Salt?"]]
    assert printed == "2 1 0\n"
    spent = "16 tokens, <$0.0001"
    assert f"2 asked ({spent}), 1 {'replayed' if is_file else 'from the cache'}: " in reported
    printed, reported = ran(text, *options)
    assert printed == "0 3 0\n"
    assert reported.startswith("3 calls replayed from " if is_file else "3 from the cache: ")
    assert len(asked) == 2


@pytest.mark.ci
@pytest.mark.parametrize("options", [A, ()], ids=["a cassette", "the cache"])
def test_attempts_that_a_programs_sdk_makes_again_are_retries(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """One call that failed twice, and one that failed once and was answered; with a cassette or without one."""
    asking = """
    import openai
    asked = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Bread?"}]}
    sdk = openai.OpenAI(api_key="none", base_url=os.environ["MODEL_AT"], max_retries=1)
    with contextlib.suppress(openai.APIConnectionError):
        sdk.chat.completions.create(**asked)
    """
    text = f"import contextlib, llmcall\n{textwrap.dedent(asking)}\nprint(llmcall.usage().errors)"
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    for behaviours, ending in {
        (closes,): "1 asked, 1 retry, 1 not recorded: " if options else "1 asked, 1 retry: ",
        (closes, answers()): "1 asked (15 tokens, <$0.0001), 1 retry: ",
    }.items():
        with RawServer(*behaviours) as server:
            monkeypatch.setenv("MODEL_AT", server.base_url)
            printed, reported = ran(text, *options)
        assert len(server.requests) == 2
        assert ending in reported
        assert printed == f"{int(len(behaviours) == 1)}\n"


@pytest.mark.ci
def test_answers_from_the_cache_name_another_scope_if_one_is_named(model: NumberedServer) -> None:
    """Without a cassette, the answers are all that another repeat has of its own."""
    for words in ["1 asked (15 tokens, <$0.0001)", "1 from the cache"]:
        _, reported = ran("ask('Bread?')", "--scope", "rep-1")
        assert words in reported
    assert reported.splitlines()[1] == (
        "the answers from the cache come from an earlier run, or from identical calls in this one. "
        "For new ones, use another --scope"
    )


def test_a_misspelt_normalizer_is_one_warning(model: NumberedServer) -> None:
    """It names the option, and the nearest name."""
    _, reported = ran("ask('Bread?')", "--normalize", "tims")
    warning = "--normalize: 'tims' is read as one regular expression. Did you mean 'times'?"
    assert reported.splitlines()[0] == warning
    assert reported.count("tims") == 1


def test_failures_and_refusals_are_counted(model: NumberedServer) -> None:
    """One that the program swallows gives the exit code 1 if it is llmcall's own."""
    swallowing = "ask('Bread?')\ntry: ask('{}')\nexcept httpx.HTTPStatusError: pass"
    _, reported = ran(swallowing.format("wrongly"), *A)
    assert "2 asked (15 tokens, <$0.0001), 1 not recorded: a.jsonl" in reported.splitlines()
    _, reported = ran(swallowing.format("Salt?"), *NONE, code=1)
    assert "1 replayed, 1 refused: a.jsonl" in reported.splitlines()
    assert reported.count("Error: chat request to gpt-4o-mini is not recorded") == 1


@pytest.mark.ci
@pytest.mark.parametrize("options", [A, ()], ids=["a cassette", "the cache"])
def test_calls_that_were_cancelled_before_they_were_sent_are_not_asked(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """The server's own list is what was asked."""
    monkeypatch.setenv("LLMCALL_LIMITS_REQUESTS_PER_MINUTE", "2")
    cancelling = """
    import asyncio
    async def read(own, number):
        messages = [{"role": "user", "content": f"Bread {number}?"}]
        await own.post("chat/completions", json={"model": "gpt-4o-mini", "messages": messages})
    async def main():
        async with httpx.AsyncClient(base_url=client.base_url) as own:
            tasks = [asyncio.create_task(read(own, number)) for number in range(9)]
            while sum(task.done() for task in tasks) < 2:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    asyncio.run(main())
    """
    _, reported = ran(cancelling, *options)
    assert len(model.asked) == 2
    assert reported.startswith("2 asked (30 tokens, <$0.0001), 7 not sent: "), reported


UNDER_WAY = {
    "a map": "llmcall.map(own, [f'Bread {item}, slowly?' for item in range(4)], workers=4)",
    "a map of streams": "llmcall.map(stream, [f'Bread {item}, slowly?' for item in range(4)], workers=4)",
    "a loop": "own('Bread, slowly?')",
    "a loop of streams": "stream('Bread, slowly?')",
}


@pytest.mark.ci
@NEEDS_POSIX
@pytest.mark.parametrize("options", [A, ()], ids=["a cassette", "the cache"])
@pytest.mark.parametrize("calls", UNDER_WAY)
def test_calls_under_way_at_ctrl_c_are_asked(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], calls: str
) -> None:
    """The server's own list is what was asked; the line says how many of these answers are not on the cassette."""
    program(f"""
    import llmcall
    def own(text):
        return llmcall.client().send_message(text)
    def stream(text):
        return "".join(llmcall.client().stream_message(text))
    llmcall.configure(base_url=os.environ["MODEL_AT"], api_key="k", model="gpt-4o-mini")
    own("Milk?"); own("Salt?")
    {UNDER_WAY[calls]}
    """)
    under_way = 4 if "map" in calls else 1
    with HTTPServer(threaded=True) as server:
        model = NumberedServer(server, slow=30)
        monkeypatch.setenv("MODEL_AT", model.address)
        monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
        with started(*options) as process:
            while len(model.asked) < 2 + under_way:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, reported = process.communicate(timeout=LONGEST)
    rest = f", {under_way} not recorded: a.jsonl" if options else ": "
    assert f"\n{2 + under_way} asked (30 tokens, <$0.0001){rest}" in reported, reported
    assert "before the whole answer arrived" not in reported


@pytest.mark.ci
@pytest.mark.parametrize("options", [A, ()], ids=["a cassette", "the cache"])
def test_calls_that_waited_for_an_equal_one_that_failed_are_not_asked(
    model: NumberedServer, options: tuple[str, ...]
) -> None:
    """All get its error, and the last line counts it once."""
    equal = """
    import llmcall
    own = llmcall.OpenAIClient(base_url=os.environ["MODEL_AT"], api_key="none")
    def send():
        own.send_message("slowly, wrongly", sample=1, model="gpt-4o-mini")
    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    """
    _, reported = ran(equal, *options)
    asked = len(model.asked)
    rest = f", {3 - asked} not sent" if asked < 3 else ""
    assert f"\n{asked} asked{rest}" in reported, reported


@pytest.mark.ci
def test_the_last_line_says_if_nothing_is_recorded(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed ``rewrite`` leaves the old file; a cache that is off records nothing."""
    ran("ask('Bread?')", *A)
    _, reported = ran("ask('Bread?'); 1 / 0", *A, "--mode", "rewrite", code=1)
    assert "1 asked (15 tokens, <$0.0001): a.jsonl not written" in reported.splitlines()
    monkeypatch.setenv("LLMCALL_CACHE_MODE", "off")
    _, reported = ran("ask('Milk?')")
    assert "nothing was recorded, because the cache's mode is off" in reported


def test_run_update_moves_unused_records_to_the_cache_if_the_program_ends_well(
    model: NumberedServer,
) -> None:
    """A whole process ends well with the exit code 0."""
    ran(BREAD_AND_MILK, *A)
    update = *A, "--mode", "update"
    _, reported = ran("ask('Bread?')\nsys.exit(3)", *update, code=3)
    assert len(samples("a.jsonl")) == 2
    _, reported = ran("ask('Bread?')", *update)
    assert "1 record was not used; moved to the disk cache" in reported
    assert len(samples("a.jsonl")) == 1


TAKEN_OVER = {
    "replaced": "import io; sys.stderr = sys.__stderr__ = io.StringIO()",
    "redirected": "os.dup2(os.open(os.devnull, os.O_WRONLY), 2)",
    "logging": "import logging.config; logging.config.dictConfig({'version': 1})",
}


@pytest.mark.ci
@pytest.mark.parametrize("how", TAKEN_OVER)
def test_counts_and_warnings_come_once_whatever_the_program_does_with_standard_error(
    model: NumberedServer, how: str
) -> None:
    """A program that takes over logging or standard error hides neither count nor warnings."""
    _, reported = ran(
        f'client.post("/completions", content=b"no JSON"); tell("Bread?"); {TAKEN_OVER[how]}', *A
    )
    assert reported.count("1 asked (15 tokens, <$0.0001): a.jsonl") == 1
    assert reported.count("POST localhost/v1/completions was sent and not recorded") == 1


@pytest.mark.ci
@NEEDS_POSIX
def test_a_program_whose_standard_output_is_closed_is_recorded(model: NumberedServer) -> None:
    """A shell's ``>&-`` leaves Python without one."""
    command = [sys.executable, "-m", "llmcall", "run", *A, program("ask('Bread?')")]
    assert (
        subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], check=False).returncode == 0
    )
    assert samples("a.jsonl") == ["run#0"]


def test_a_record_that_is_left_out_ends_run_with_exit_code_1(model: NumberedServer) -> None:
    """What else was asked is in the file."""
    _, reported = ran(
        """
        ask("Hi")
        ask("Password of the shop: http://ada:Xk3pQ9vL@shop.example")
        """,
        *("--cassette", "run.jsonl"),
        code=1,
    )
    assert "2 asked" in reported
    assert "1 not recorded: run.jsonl\n" in reported
    assert "run.jsonl: 1 record is left out" in reported
    assert "request.messages[0].content contains what looks like a password in a URL" in reported
    header, record = entries("run.jsonl")
    assert header["complete"] is False
    assert record["request"]["messages"][0]["content"] == "Hi"


def test_a_cassette_that_cannot_be_written_ends_run_with_exit_code_1(model: NumberedServer) -> None:
    """The error at the end of the process is printed."""
    _, reported = ran("tell('Bread?')\nopen('a.jsonl', 'w').write('something else')", *A, code=1)
    assert f"Error: another process wrote {Path('a.jsonl').resolve()} after" in reported


# What is not recorded


def test_mode_none_refuses_what_the_program_asks_by_llmcall(model: NumberedServer) -> None:
    """A program that uses llmcall itself sends nothing either, whatever cassette it opens."""
    asking = """
        import llmcall
        client = llmcall.OpenAIClient(api_key="none", base_url=os.environ["MODEL_AT"])
        with llmcall.cassette("own.jsonl", mode="new"):
            print(client.send_message("Salt?", model="gpt-4o-mini").content)
    """
    _, reported = ran(asking, "--mode", "none", code=1)
    assert "looked in  the cassette own.jsonl" in reported
    assert "(mode 'none' allows no calls)" in " ".join(reported.split())
    assert not model.asked


@pytest.mark.feature("local_model")
def test_mode_none_without_a_cassette_replays_the_cache_to_each_client(
    model: NumberedServer,
) -> None:
    """Of a model in the process, too, a request that is not recorded is a miss beside its nearest record."""
    ran("tell('Bread?')")
    asking = """
        import llmcall
        remote = llmcall.OpenAIClient(api_key="none", base_url=os.environ["MODEL_AT"])
        for client in remote, llmcall.LocalClient():
            try:
                client.send_message("Bread!", model="gpt-4o-mini", on_error="return")
            except llmcall.CacheMissError as error:
                print("nearest" in str(error), "--mode none" in str(error))
    """
    assert ran(asking, "--mode", "none", code=1)[0] == "True True\n" * 2


@pytest.mark.ci
def test_a_cassette_that_a_replayed_program_opens_may_record(model: NumberedServer) -> None:
    """Only the mode none forbids that, not a file that is whole."""
    script = """
        import llmcall
        print(ask("Bread?"))
        client = llmcall.OpenAIClient(api_key="none", base_url=os.environ["MODEL_AT"])
        with llmcall.cassette("own.jsonl"):
            client.send_message("Salt?", model="gpt-4o-mini", on_error="raise")
        """
    ran('print(ask("Bread?"))', *A)
    ran(script, *A)
    assert Path("own.jsonl").exists()


@pytest.mark.ci
def test_the_cassette_that_the_settings_name_is_the_runs(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``[Cassette] PATH, MODE`` serve a program whose code is not touched; options stand above them."""
    monkeypatch.setenv("LLMCALL_CASSETTE_PATH", "a.jsonl")
    live, reported = ran("tell('Bread?')")
    assert "1 asked (15 tokens, <$0.0001): " in reported
    monkeypatch.setenv("LLMCALL_CASSETTE_MODE", "replay")
    both = "tell('Bread?'); tell('Salt?')"
    assert ran(both, code=1)[0] == live
    assert ran(both, "--mode", "new")[0].startswith(live)
    assert model.asked == ["Bread?", "Salt?"]


# What a program is told of calls that are not recorded

A_CHILD = (
    "import subprocess; subprocess.run([sys.executable, '-c', 'pass', '--key=/a/secret-word'])"
)
A_PROCESS = """
import multiprocessing
if __name__ == "__main__":
    process = multiprocessing.get_context("{}").Process(target=print)
    process.start()
    process.join()
"""
A_CONNECTION = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
"""
REQUESTS = """
import contextlib, hashlib, httpx, requests
at = os.environ["MODEL_AT"].removesuffix("/v1")
httpx.get(f"{at}/health", params={"key": "secret-word"})
requests.post(f"{at}/to/sk-" + hashlib.sha256().hexdigest(), json={"question": "Bread?"})
with contextlib.suppress(httpx.ConnectError):
    httpx.get("http://127.0.0.1:1/" + "a" * 9_000)
"""
STARTED = "the program started other processes"
CONNECTED = "through a library that llmcall does not record"
PASSED = (
    "these requests were not recorded, since nothing shows that a model answers them: "
    f"GET localhost/health, POST localhost/to/{'*' * 67}, GET 127.0.0.1/{'a' * 186}…"
)
NONE_SEEN = "no model request was seen"
IN_A_BLOCK = "import llmcall\nwith llmcall.cassette('own.jsonl'): "


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        pytest.param("print('done')", 0, [NONE_SEEN], id="nothing"),
        *(
            pytest.param(text, code, words, id=name, marks=pytest.mark.ci)
            for name, text, code, words in (
                ("a failure", "sys.exit(3)", 3, [NONE_SEEN]),
                ("a child", A_CHILD, 0, [STARTED]),
                *(
                    (f"a process by {method}", A_PROCESS.format(method), 0, [STARTED])
                    for method in multiprocessing.get_all_start_methods()
                ),
                ("a connection", A_CONNECTION, 0, [CONNECTED]),
                ("both", f"{A_CHILD}\n{A_CONNECTION}", 0, [STARTED, CONNECTED]),
                ("requests", REQUESTS, 0, [PASSED]),
                ("a child in a block", IN_A_BLOCK + A_CHILD, 0, [STARTED]),
                ("a recorded call", f"{A_CHILD}\nask('Bread?')", 0, ["1 asked"]),
            )
        ),
    ],
)
def test_a_run_without_calls_tells_what_was_seen(
    text: str, code: int, words: list[str], model: NumberedServer
) -> None:
    """Children, connections and requests that others made, or nothing. No command line is told: it may hold a key."""
    _, reported = ran(text, *A, code=code)
    every = {STARTED, CONNECTED, PASSED, NONE_SEEN, "1 asked"}
    assert {one for one in every if one in reported} == {*words}
    assert "secret-word" not in reported and len(reported) < 1_000


@pytest.mark.ci
@NEEDS_POSIX
def test_the_first_miss_of_a_program_is_printed_at_once(model: NumberedServer) -> None:
    """A program that catches it may try again for minutes; it is printed once."""
    ran("print(ask('Bread?'))", *A)
    asking = """
        try:
            ask("Salt?")
        except Exception:
            sys.stderr.write("caught\\n")
            sys.stderr.flush()
        """
    _, reported = ran(asking, *NONE, code=1)
    assert reported.index("is not recorded") < reported.index("caught")
    assert reported.count("is not recorded (key") == 1


@pytest.mark.ci
@pytest.mark.parametrize("way", ["ask()", "threading.Thread(target=ask).start()"])
def test_a_miss_that_ends_a_program_or_a_thread_is_shown_once(
    model: NumberedServer, way: str
) -> None:
    """Python's traceback has its first line."""
    text = f"""
        import openai, threading
        client = openai.OpenAI(base_url=os.environ["MODEL_AT"], api_key="k")
        def ask():
            client.chat.completions.create(model="m", messages=[{{"role": "user", "content": "Bread?"}}])
        {way}
        """
    ran(text, *A)
    _, reported = ran(text.replace("Bread", "Salt"), *NONE, code=1)
    assert reported.count("  to record  ") == 1
    assert "openai.ConflictError: Error code: 409 - chat request to m is not recorded" in reported


@pytest.mark.ci
@pytest.mark.parametrize(
    "text",
    [
        """
        import openai
        client = openai.OpenAI(base_url=os.environ["MODEL_AT"], api_key="k", max_retries=0)
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": sys.argv[1]}])
        """,
        """
        import llmcall
        client = llmcall.OpenAIClient(base_url=os.environ["MODEL_AT"], model="m")
        client.send_message(sys.argv[1], on_error="raise")
        """,
        """
        import llmcall, threading
        client = llmcall.OpenAIClient(base_url=os.environ["MODEL_AT"], model="m", on_error="raise")
        threading.Thread(target=client.send_message, args=sys.argv[1:]).start()
        """,
    ],
    ids=["of the SDK", "of llmcall", "in a thread"],
)
def test_a_miss_that_ends_a_child_is_shown_once(model: NumberedServer, text: str) -> None:
    """The run prints the first one at once, and the child its own error; a second child's miss is only there."""
    Path("child.py").write_text("import os, sys" + textwrap.dedent(text))
    asking = """
        import subprocess
        for word in {}:
            subprocess.run([sys.executable, "child.py", word])
        """
    ran(asking.format('["Bread?"]'), *A)
    _, reported = ran(asking.format('["Salt?", "Milk?"]'), *NONE, code=1)
    assert len(re.findall(r"(?m)^\S+Error: .*is not recorded", reported)) == 2
    for word in ("Salt?", "Milk?"):
        assert reported.count(f"  asked      user: {word}") == 1
    assert reported.count("The first miss of this process was") == 1


@pytest.mark.ci
def test_a_miss_of_a_run_names_all_normalizers_that_it_needs_as_options(
    model: NumberedServer,
) -> None:
    """The line of config.ini would not be the run's own option."""
    text = "ask('It is {}:00, id {}-e89b-12d3-a456-426614174000. Bread?')"
    ran(text.format(12, "123e4567"), *A)
    _, reported = ran(text.format(13, "987e4567"), *NONE, code=1)
    command = "llmcall run --cassette a.jsonl --mode rewrite --normalize times --normalize uuids …"
    assert command in reported
    assert "NORMALIZE =" not in reported
    again = "--mode", "rewrite", "--normalize", "times,uuids"
    ran(text.format(12, "123e4567"), *A, *again)
    assert ran(text.format(13, "987e4567"), *NONE)[1] == "1 call replayed from a.jsonl\n"
