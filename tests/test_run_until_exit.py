"""``llmcall run`` until the process ends: threads that outlive the script, Ctrl-C, exit codes."""

from __future__ import annotations

import os
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


WAITING = {
    "script": "tell('Bread?')\ntime.sleep(60)",
    "waiting event loop": "import asyncio\nasync def main():\n    await asyncio.to_thread(tell, 'Bread?')\n"
    "    await asyncio.sleep(60)\nasyncio.run(main())",
    "event loop": "import asyncio\nasyncio.run(asyncio.to_thread(tell, 'Bread?'))\ntime.sleep(60)",
    "thread": "def late():\n    tell('Bread?')\n    time.sleep(60)\n"
    "threading.Thread(target=late).start()",
}


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("place", WAITING)
def test_a_program_that_is_terminated_is_recorded(model: NumberedServer, place: str) -> None:
    """SIGTERM, as a cluster's scheduler sends it, keeps what was asked; the process ends by the signal."""
    written(WAITING[place])
    with started("--cassette", "run.jsonl") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "Bread? answer 0\n"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LONGEST)
    assert process.returncode == -signal.SIGTERM, said
    assert "1 asked, 0 from the cache, 0 replayed, 0 refused: run.jsonl" in said
    written("tell('Bread?')")
    assert ran("--mode", "none")[0] == "Bread? answer 0\n"


def test_a_pool_that_is_terminated_ends_nothing_else(model: NumberedServer) -> None:
    """A child process that gets SIGTERM dies of it; the program goes on and is recorded."""
    written("""
        import multiprocessing
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=[60])
        child.start()
        child.terminate()
        child.join()
        print(child.exitcode == -signal.SIGTERM)
        tell("Bread?")
    """)
    printed, _ = ran()
    assert printed == "True\nBread? answer 0\n"


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


ACTORS = """
import threading, time
is_asked = threading.Event()
def baker(request):
    if threading.current_thread().daemon:
        is_asked.set()
        time.sleep(60)
    return "baker"
"""


@pytest.mark.newest_only
def test_a_thread_that_a_replay_cuts_off_is_told(model: NumberedServer) -> None:
    """What a daemon thread asks while the program ends is neither a miss nor an answer that was lost:
    nothing was asked, and the exit code is 0.
    """
    Path("actors.py").write_text(ACTORS, encoding="utf-8")
    written("tell('Bread?')\ntell('Milk?')")
    ran("--actor", "actors:baker")
    written("""
        import actors
        threading.Thread(target=ask, args=["Milk?"], daemon=True).start()
        actors.is_asked.wait()
        tell("Bread?")
    """)
    _, said = ran("--mode", "none")
    assert "1 call got no answer before the program ended" in said
    assert "0 asked, 0 from the cache, 1 replayed, 0 refused: run.jsonl" in said


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


@pytest.mark.newest_only
def test_streams_that_are_open_at_the_end_count_as_asked(streaming: RawServer) -> None:
    """The last line counts what was paid for and is lost, and says that no file was written."""
    written(f"{STREAM}\nnext(begin('Bread?'))\nnext(begin('Milk?'))")
    _, said = ran()
    counted = "2 asked (2 not recorded), 0 from the cache, 0 replayed, 0 refused"
    assert f"{counted}: run.jsonl was not written" in said
    assert "2 calls ended before the whole answer arrived" in said
    assert not Path("run.jsonl").exists()


LEAVE_AND_READ = """
def stream(text):
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "stream": True}
    return client.stream("POST", "/chat/completions", json=body)
with stream("Bread?") as left:
    print(left.status_code, next(left.iter_lines()))
with stream(os.environ["READ"]) as read:
    print(*read.iter_lines())
"""


@pytest.mark.newest_only
@pytest.mark.parametrize(("read", "status"), [("Bread?", 200), ("Milk?", 409)])
def test_what_a_replay_gives_for_a_stream_that_was_left(
    streaming: RawServer, monkeypatch: pytest.MonkeyPatch, read: str, status: int
) -> None:
    """It gives the answer of an equal call that was read to its end, and is a miss without one; the
    warning says so.
    """
    monkeypatch.setenv("READ", read)
    written(LEAVE_AND_READ)
    _, said = ran()
    assert "replay of the cassette run.jsonl that asks for one raises CacheMissError" in said
    assert "or gets the answer of an equal call" in said
    assert ran("--mode", "none", code=int(status != 200))[0].startswith(f"{status} ")


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


CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Milk?"}]}


@pytest.mark.newest_only
@pytest.mark.parametrize("path", ["'/models'", f"'/chat/completions', json={CHAT}"])
def test_what_a_finalizer_asks_after_the_program_is_not_sent(
    model: NumberedServer, path: str
) -> None:
    """Python calls ``__del__`` of global objects last, and nobody could record an answer then."""
    written(f"""
        class Baker:
            def __init__(self, send):
                self.send = send
            def __del__(self):
                self.send({path})
        baker = Baker(client.{"post" if "json" in path else "get"})
        tell("Bread?")
    """)
    _, said = ran()
    assert "the program has ended, so this request was not sent" in said
    assert model.asked == ["Bread?"]


@pytest.mark.newest_only
def test_what_llmcall_itself_is_asked_after_the_program_is_not_sent(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python closes the handlers of logging last, and nobody could record an answer then."""
    monkeypatch.setenv("OPENAI_BASE_URL", model.address)
    written("""
        import logging
        import llmcall
        class Summary(logging.Handler):
            def close(self):
                try:
                    llmcall.client().send_message("Milk?")
                except llmcall.LLMCallError as error:
                    print(error)
        handler = Summary()
        tell("Bread?")
    """)
    printed, _ = ran()
    assert "the program has ended, so this request was not sent" in printed
    assert model.asked == ["Bread?"]


EXITS = {
    "main": "tell('Bread?')\nos._exit(3)",
    "thread": """
        def leave():
            tell('Bread?')
            os._exit(3)
        threading.Thread(target=leave).start()
        time.sleep(60)
    """,
}


@pytest.mark.parametrize("place", EXITS)
def test_a_program_that_ends_by_os_exit_is_recorded(model: NumberedServer, place: str) -> None:
    """``os._exit`` ends the process without Python's own end, and what was asked is kept."""
    written(EXITS[place])
    printed, said = ran(code=3)
    assert printed == "Bread? answer 0\n"
    assert "1 asked, 0 from the cache, 0 replayed, 0 refused: run.jsonl" in said
    assert ran("--mode", "none", code=3)[0] == printed
    assert model.asked == ["Bread?"]


def test_a_forked_process_that_ends_by_os_exit_ends_nothing_else(model: NumberedServer) -> None:
    """A child process leaves the recording to its parent."""
    written("""
        if os.fork() == 0:
            os._exit(0)
        os.wait()
        tell('Bread?')
    """)
    printed, said = ran()
    assert printed == "Bread? answer 0\n"
    assert said.count("1 asked, 0 from the cache, 0 replayed, 0 refused: run.jsonl") == 1


REPLACING = {
    "execv": "os.execv('/bin/echo', ['echo', 'another program'])",
    "execlp": "os.execlp('echo', 'echo', 'another program')",
    "execve": "os.execve('/bin/echo', ['echo', 'another program'], {})",
}


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a new process is started")
@pytest.mark.parametrize("function", REPLACING)
def test_a_program_that_replaces_itself_is_recorded(model: NumberedServer, function: str) -> None:
    """``os.exec…`` ends the program without Python's own end: what it asked before is kept, and what
    the new program asks is said not to be recorded.
    """
    written(f"tell('Bread?')\n{REPLACING[function]}")
    printed, said = ran()
    assert printed == "Bread? answer 0\nanother program\n"
    assert "1 asked, 0 from the cache, 0 replayed, 0 refused: run.jsonl" in said
    assert "echo (os.exec). llmcall neither records nor replays what the new program asks" in said
    assert ran("--mode", "none")[0] == printed
    assert model.asked == ["Bread?"]


@pytest.mark.newest_only
@pytest.mark.skipif(os.name != "posix", reason="elsewhere a new process is started")
def test_a_program_that_cannot_replace_itself_goes_on(model: NumberedServer) -> None:
    """If the other program does not exist, the recording goes on."""
    written("""
        try:
            os.execvp("no-such-program", ["no-such-program"])
        except FileNotFoundError:
            tell("Bread?")
    """)
    _, said = ran()
    assert "1 asked, 0 from the cache, 0 replayed, 0 refused: run.jsonl" in said
    assert "os.exec" not in said


@pytest.mark.newest_only
@pytest.mark.skipif(os.name != "posix", reason="elsewhere a new process is started")
@pytest.mark.parametrize("mode", ["update", "rewrite"])
def test_a_program_that_replaces_itself_at_once_loses_no_record(
    model: NumberedServer, mode: str
) -> None:
    """A run that asked nothing before it replaced itself leaves the old file as it is."""
    written("tell('Bread?')")
    ran()
    recorded = Path("run.jsonl").read_bytes()
    written(REPLACING["execv"])
    ran("--mode", mode)
    assert Path("run.jsonl").read_bytes() == recorded


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


def test_notices_come_at_the_end_if_the_program_closed_standard_error(
    model: NumberedServer,
) -> None:
    """Logging would raise there, in the midst of a call or at the end."""
    written("""
        import sys
        sys.stderr.close()
        client.post("/completions", content=b"no JSON")
        tell("Bread?")
    """)
    printed, said = ran()
    assert printed == "Bread? answer 0\n"
    assert "1 asked, 0 from the cache, 0 replayed, 0 refused: run.jsonl" in said
    assert "POST /v1/completions is sent but not recorded" in said


def test_a_process_that_outlives_the_run_holds_no_standard_error(model: NumberedServer) -> None:
    """A forked process that closes its own standard streams keeps nobody waiting for their end."""
    written("""
        import os
        child = os.fork()
        if child == 0:
            for number in range(3):
                os.close(number)
            time.sleep(60)
            os._exit(0)
        print(child, ask("Bread?"))
    """)
    printed, _ = ran()
    os.kill(int(printed.split()[0]), signal.SIGKILL)  # it still runs


@pytest.mark.newest_only
def test_the_exit_code_tells_of_a_cassette_that_cannot_be_written(model: NumberedServer) -> None:
    """What goes wrong when the process ends is said, and the exit code is 1 instead of 0."""
    written("tell('Bread?')\nopen('run.jsonl', 'w').write('something else')")
    printed, said = ran(code=1)
    assert printed == "Bread? answer 0\n"
    assert "Error: run.jsonl was written by another process" in said
