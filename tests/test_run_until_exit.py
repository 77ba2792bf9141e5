"""``llmcall run`` until the process ends: threads that outlive the script, Ctrl-C, exit codes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import ASK, LONGEST, PRICED, RunningProgram
from pytest_httpserver import HTTPServer
from servers import NumberedServer, RawServer, stays_silent
from streaming import TWO_COINS, streams

PREAMBLE = f"""
import atexit, signal, threading, time
from concurrent.futures import ThreadPoolExecutor
{ASK}
def tell(text):
    print(text, ask(text), flush=True)
"""
SLOWLY = 1.0  # seconds that the model takes for a question that asks it to be slow


@pytest.fixture
def model(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> NumberedServer:
    """A model's server, which the programs of a test find."""
    made = NumberedServer(httpserver, slow=SLOWLY)
    monkeypatch.setenv("MODEL_AT", made.address)
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    return made


def written(program: str, preamble: str = PREAMBLE) -> str:
    """Write a program, and return its file's name."""
    Path("program.py").write_text(preamble + textwrap.dedent(program), encoding="utf-8")
    return "program.py"


def started(*options: str) -> RunningProgram:
    """Start the program under ``llmcall run``."""
    command = [sys.executable, "-m", "llmcall", "run", *options, "program.py"]
    return RunningProgram(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def ran(*options: str, code: int = 0) -> tuple[str, str]:
    """Run the program under ``llmcall run``; return what it printed, and what was said."""
    with started("--cassette", "run.jsonl", *options) as process:
        printed, said = process.communicate(timeout=LONGEST)
    assert process.returncode == code, said
    return printed, said


LEFT_BEHIND = {
    "thread": "threading.Thread(target=tell, args=['from a thread, slowly']).start()",
    "executor": "ThreadPoolExecutor(1).submit(tell, 'from an executor, slowly')",
    "atexit": "atexit.register(tell, 'at exit')",
}


@pytest.mark.parametrize("left_behind", LEFT_BEHIND)
def test_what_outlives_the_script_is_recorded(model: NumberedServer, left_behind: str) -> None:
    """What threads, executors and functions of ``atexit`` ask after the last line is recorded and replays."""
    written(LEFT_BEHIND[left_behind])
    live, _ = ran()
    assert "answer 0" in live
    assert ran("--mode", "none")[0] == live
    assert len(model.asked) == 1


@pytest.mark.newest_only
@pytest.mark.parametrize("left_behind", LEFT_BEHIND)
def test_none_sends_nothing_after_the_script(model: NumberedServer, left_behind: str) -> None:
    """What outlives the script and is not recorded is refused in mode ``none``, and the exit code is 1."""
    written("tell('Bread?')")
    ran()
    written(f"tell('Bread?')\n{LEFT_BEHIND[left_behind]}")
    _, said = ran("--mode", "none", code=1)
    assert "is not recorded" in said
    assert model.asked == ["Bread?"]


INTERRUPTED = """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it's ignored
    def slow():
        tell("first, slowly")
        tell("second")
    threading.Thread(target=slow).start()
    time.sleep(60)
"""


def interrupted(model: NumberedServer) -> tuple[int, str, str]:
    """Run a program whose thread asks, and interrupt it; return its status, what it printed, and
    what was said.
    """
    written(INTERRUPTED)
    with started("--cassette", "run.jsonl") as process:
        while not model.asked:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        live, said = process.communicate(timeout=LONGEST)
    return process.returncode, live, said


def test_what_a_thread_asks_after_an_interrupt_is_recorded(model: NumberedServer) -> None:
    """After Ctrl-C the program's threads go on."""
    _, live, _ = interrupted(model)
    assert "second answer 1" in live
    written("tell('first, slowly')\ntell('second')")
    assert ran("--mode", "none")[0] == live
    assert len(model.asked) == 2


def test_an_interrupted_process_ends_by_the_signal(model: NumberedServer) -> None:
    """It says so once, as Python does."""
    status, _, said = interrupted(model)
    assert status == -signal.SIGINT
    assert said.count("KeyboardInterrupt") == 1


def stays_silent_once_asked(connection: socket.socket, stopped: threading.Event) -> None:
    """Note in a file that a request came, and never answer it."""
    Path("asked").touch()
    stays_silent(connection, stopped)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_comes_too_late_is_told(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon thread is cut off at the end, as Python does: that its answer is lost is said."""
    written(f"""
        late = dict(args=["slowly"], kwargs=dict(stream={stream}), daemon=True)
        threading.Thread(target=ask, **late).start()
        while not os.path.exists("asked"):
            time.sleep(0.01)
    """)
    with RawServer(stays_silent_once_asked) as server:
        monkeypatch.setenv("MODEL_AT", server.base_url)
        _, said = ran()
    assert "1 call ended before the whole answer arrived" in said
    assert ("chat request" if stream else "POST /v1/chat/completions") in said
    assert (
        "1 asked (1 not recorded), 0 from the cache, 0 replayed, 0 refused: run.jsonl was" in said
    )


STREAM = """
streams = []
def begin(text):
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "stream": True}
    request = client.build_request("POST", "/chat/completions", json=body)
    streams.append(client.send(request, stream=True).iter_lines())
    return streams[-1]
"""


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    """A model's server that streams, which the programs of a test find."""
    with RawServer(streams(*TWO_COINS)) as server:
        monkeypatch.setenv("MODEL_AT", server.base_url)
        monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
        yield server


def test_a_stream_that_is_read_at_exit_is_recorded(streaming: RawServer) -> None:
    """What a function of ``atexit`` reads is the whole answer, as in the plain interpreter."""
    written(f"{STREAM}\natexit.register(lambda: print(*streams[0]))\nbegin('Bread?')")
    live, said = ran()
    assert "coins" in live
    assert "[DONE]" in live
    assert "1 asked, 0 from the cache, 0 replayed, 0 refused: run.jsonl" in said
    replayed, _ = ran("--mode", "none")
    assert "coins" in replayed
    assert "[DONE]" in replayed
    assert len(streaming.requests) == 1


PROGRAMS = {
    "code": "sys.exit(3)",
    "words": "sys.exit('no more bread')",
    "error": "def bake():\n    raise ValueError('no flour')\nbake()",
    "interrupt": """
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    """,
    "hook": "sys.excepthook = lambda *error: print('hooked', error[1])\nraise ValueError('no flour')",
    "syntax": "for",
    "order": """
        import weakref
        class Baker:
            def __del__(self):
                print("the baker leaves")
        baker = Baker()
        weakref.finalize(baker, print, "finalized")
        atexit.register(print, "first registered")
        atexit.register(print, "last registered")
        def late():
            threading.main_thread().join()
            print("the thread ends", __name__, sys.modules["__main__"].baker is baker)
        threading.Thread(target=late).start()
        print("the script ends", __file__, __spec__, sys.argv)
    """,
    "error_in_a_thread": """
        def late():
            threading.main_thread().join()
            raise ValueError("no flour")
        threading.Thread(target=late).start()
        print("the script ends")
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


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_as_python_ends_it(name: str) -> None:
    """Exit code, output, its order and tracebacks are those of the plain interpreter."""
    file = written(PROGRAMS[name], "import atexit, os, signal, sys, threading, time\n")
    plain, recorded = (
        subprocess.run(
            [sys.executable, *words, file],
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


def test_none_needs_the_cassette_before_the_program_starts(model: NumberedServer) -> None:
    """Mode ``none`` without the file is an error that says what to do, and the program does not start."""
    written("print('it starts')")
    printed, said = ran("--mode", "none", code=1)
    assert printed == ""
    assert "run.jsonl does not exist" in said
    assert "run the program once without --mode none" in said


def test_notices_are_said_once_more_at_the_end(model: NumberedServer) -> None:
    """A framework that takes over logging hides llmcall's warnings; ``run`` says them itself."""
    written("""
        import logging.config
        logging.config.dictConfig({"version": 1})
        logging.disable(logging.CRITICAL)
        client.post("/completions", content=b"no JSON")
    """)
    _, said = ran()
    assert said.count("POST /v1/completions is sent but not recorded") == 1


TAKEN_OVER = {
    "closed": "sys.stderr.close()",
    "replaced": "sys.stderr = sys.__stderr__ = io.StringIO()",
    "redirected": "os.dup2(os.open(os.devnull, os.O_WRONLY), 2)",
}


@pytest.mark.newest_only
@pytest.mark.parametrize("how", TAKEN_OVER)
def test_the_last_line_comes_whatever_the_program_does_with_standard_error(
    model: NumberedServer, how: str
) -> None:
    """A program that closes, replaces or redirects standard error hides neither count nor notices."""
    written(f"""
        import io, os, sys
        client.post("/completions", content=b"no JSON")
        tell("Bread?")
        {TAKEN_OVER[how]}
    """)
    _, said = ran()
    assert "1 asked, 0 from the cache, 0 replayed, 0 refused: run.jsonl" in said
    assert "POST /v1/completions is sent but not recorded" in said


@pytest.mark.newest_only
def test_the_exit_code_tells_of_a_cassette_that_cannot_be_written(model: NumberedServer) -> None:
    """What goes wrong when the process ends is said, and the exit code is 1 instead of 0."""
    written("tell('Bread?')\nopen('run.jsonl', 'w').write('something else')")
    printed, said = ran(code=1)
    assert printed == "Bread? answer 0\n"
    assert "Error: run.jsonl was written by another process" in said
