"""``llmcall run --check``: does a recording replay?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from commands import ASK, LONGEST, NEEDS_POSIX, PRICED, done
from pytest_httpserver import HTTPServer
from servers import NumberedServer

A = "--cassette", "a.jsonl"
CHECK = *A, "--check"
AGAIN = "running program.py 3 times from a.jsonl: no model is called, but everything else happens again\n"


@pytest.fixture
def model(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> NumberedServer:
    """A model's server, which the programs find."""
    made = NumberedServer(httpserver)
    monkeypatch.setenv("MODEL_AT", made.address)
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    return made


def write(text: str) -> None:
    """Write a program."""
    preamble = f"import asyncio, queue, random, threading, time\n{ASK}"
    Path("program.py").write_text(preamble + textwrap.dedent(text), encoding="utf-8")


def ran(*options: str, code: int = 0, given: str = "") -> tuple[str, str]:
    """Run the program under ``llmcall run``; return the standard output and error."""
    Path("input").write_text(given, encoding="utf-8")
    with open("input", encoding="utf-8") as standard_input:
        process = subprocess.run(
            [sys.executable, "-m", "llmcall", "run", *options, "program.py"],
            capture_output=True,
            text=True,
            stdin=standard_input,
            timeout=LONGEST,
            check=False,
        )
    assert process.returncode == code, process.stdout + process.stderr
    return process.stdout, process.stderr


CROWD = """
    said = {}
    def person(name):
        said[name] = [ask("Bread?"), ask("Milk?")]
    threads = [threading.Thread(target=person, args=(name,)) for name in range(5)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(said)
"""


@pytest.mark.ci
def test_threads_that_ask_the_same_replay(model: NumberedServer) -> None:
    """It says first that it runs the program again, and sends nothing."""
    write(CROWD.replace("print(said)", "print(sorted(said.items()))"))
    ran(*A)
    assert len(model.asked) == 10
    printed, reported = ran(*CHECK)
    assert printed == "3 replays: the same output, 10 calls each\n"
    assert reported.startswith(AGAIN)
    assert len(model.asked) == 10


@pytest.mark.ci
def test_the_order_in_which_answers_come_differs_from_replay_to_replay(
    model: NumberedServer,
) -> None:
    """Each second one mirrors the delays of the one before it: of two that race, each comes first once."""
    write(CROWD.replace("range(5)", "('Ann', 'Ben')").replace('"Bread?"', 'f"{name}?"'))
    ran(*A)
    printed, _ = ran(*CHECK, "2", code=1)
    assert "line 1 of the output differs:" in printed
    assert "It looks like an order of arrival" in printed


@pytest.mark.ci
def test_a_worker_that_takes_another_job_is_named(model: NumberedServer) -> None:
    """With what it asked, and the cure."""
    write(
        """
        jobs = queue.Queue()
        for job in "ababcacb" * 3: jobs.put(job)
        def work():
            while not jobs.empty():
                ask(jobs.get())
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """
    )
    ran(*A)
    printed, _ = ran(*CHECK, code=1)
    first, who, *_, remedy = printed.splitlines()
    assert "calls may have another caller's answer" in first
    assert "thread work" in who
    assert "in scope run" in who
    assert "Name the actors with --actor" in remedy


@pytest.mark.ci
def test_a_set_differs_unless_the_recording_fixes_the_hash_seed(model: NumberedServer) -> None:
    """A replay has the recorded seed."""
    write("ask('Bread?'); print({'bread', 'milk', 'salt', 'eggs', 'tea', 'jam'})")
    ran(*A)
    printed, _ = ran(*CHECK, code=1)
    assert "It looks like a set, whose order depends on the hash seed" in printed
    ran("--cassette", "b.jsonl", "--seed", "7")
    printed, _ = ran("--cassette", "b.jsonl", "--check", "2")
    assert printed == "2 replays: the same output, 1 call each\n"


@pytest.mark.ci
def test_a_miss_is_shown_though_the_program_goes_on(model: NumberedServer) -> None:
    """With the usual report."""
    write(
        """
        try:
            ask(f"Bread? {random.random()}")
        except Exception:
            print("no answer")
        """
    )
    ran(*A)
    printed, _ = ran(*CHECK, code=1)
    assert printed.startswith("replay 1 of 3 (seed 1): a call has no recorded answer. ")
    assert "differs    messages[0].content" in printed
    assert printed.endswith("If chance decides what the program asks, record it with --seed N.\n")


FAILS = {
    "import": "import no_such_module",
    "exit": "sys.exit('the file exists')",
    "abruptly": "print('the file exists', file=sys.stderr, flush=True); os._exit(1)",
}


@pytest.mark.ci
@pytest.mark.parametrize("way", FAILS)
def test_a_program_that_fails_in_each_replay_and_not_in_the_recording_does_not_replay(
    model: NumberedServer, way: str
) -> None:
    """Its last lines say why."""
    write(f"ask('Bread?')\nif os.path.exists('made'): {FAILS[way]}\nopen('made', 'w').close()")
    ran(*A)
    printed, _ = ran(*CHECK, code=1)
    assert printed.startswith(
        "replay 1 of 3 (seed 1): the exit code differs:\n  the recording: exit code 0\n  replay 1: exit code 1\n"
    )
    assert "no_such_module" in printed or "the file exists" in printed


@pytest.mark.ci
def test_a_recorded_exit_code_is_no_difference(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header has it; another one is."""
    write("ask('Bread?'); sys.exit(int(os.environ.get('CODE', 3)))")
    ran(*A, code=3)
    header = json.loads(Path("a.jsonl").read_text(encoding="utf-8").partition("\n")[0])
    assert header["run"] == {"exit_code": 3}
    printed, _ = ran(*CHECK)
    assert printed == "3 replays: the same output and exit code 3, 1 call each\n"
    monkeypatch.setenv("CODE", "4")
    printed, _ = ran(*CHECK, code=1)
    assert "  the recording: exit code 3\n  replay 1: exit code 4\n" in printed


@pytest.mark.ci
def test_a_miss_fails_the_check_though_the_program_ends_abruptly(model: NumberedServer) -> None:
    """It was noted when it came."""
    text = "try: ask('Bread?')\nexcept Exception: pass\n"
    write(text)
    ran(*A)
    write(f"{text.replace('Bread', 'Milk')}os._exit(0)")
    printed, _ = ran(*CHECK, code=1)
    assert printed.startswith("replay 1 of 3 (seed 1): a call has no recorded answer. ")


@pytest.mark.ci
def test_other_calls_than_in_the_recording_are_a_difference(model: NumberedServer) -> None:
    """In all replays, or in some."""
    write("ask('Bread?')\nif not os.path.exists('less'): ask('Milk?')")
    ran(*A)
    Path("less").touch()
    printed, _ = ran(*CHECK, code=1)
    assert printed.startswith("replay 1 of 3 (seed 1): 1 call, and 1 record not used: ")
    write("ask('Bread?')\nif random.random() < .5: ask('Milk?')")
    printed, _ = ran(*CHECK, "30", code=1)
    assert "1 record not used" in printed


@pytest.mark.ci
def test_each_replay_reads_the_standard_input_from_its_beginning(model: NumberedServer) -> None:
    """Of a file."""
    write("print(input()); ask('Bread?'); print(input())")
    ran(*A, given="Ann\nBen\n")
    printed, _ = ran(*CHECK, given="Ann\nBen\n")
    assert printed == "3 replays: the same output, 1 call each\n"


@pytest.mark.ci
def test_the_programs_own_cassettes_are_checked(model: NumberedServer) -> None:
    """They need no option; a record that a replay does not use is a difference."""
    text = """
        import llmcall
        with llmcall.cassette("own.jsonl"):
            ask("Bread?"); ask("Milk?")
    """
    write(text)
    ran()
    write(text.replace('; ask("Milk?")', ""))
    printed, _ = ran("--check", code=1)
    assert "1 call, and 1 record not used" in printed


@pytest.mark.ci
@NEEDS_POSIX
def test_ctrl_c_ends_it_with_what_was_seen(model: NumberedServer) -> None:
    """The program ends, too."""
    write("ask('Bread?')\nif os.path.exists('wait'): open('begun', 'w').close(); time.sleep(600)")
    ran(*A)
    Path("wait").touch()
    command = [sys.executable, "-m", "llmcall", "run", *CHECK, "program.py"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not Path("begun").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=LONGEST)
    assert printed == "interrupted in replay 1 of 3\n"
    assert process.returncode == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--check"], 1, "a.jsonl does not exist, so there is nothing to check"),
        (["--check", "0"], 2, "0 is not in the range"),
        (["--check", "1"], 2, "1 is not in the range"),
        (["--check=many"], 2, "'many' is not a valid integer"),
        (["--mode", "new", "--check"], 2, "--check replays, and --mode new records"),
    ],
)
def test_what_cannot_be_checked_is_refused(options: list[str], code: int, words: str) -> None:
    """Before the program starts."""
    write(f"open({os.path.abspath('ran')!r}, 'w')")
    assert words in done("run", *A, *options, "program.py", code=code)
    assert not Path("ran").exists()
