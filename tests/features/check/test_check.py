"""``llmcall run --check``: does a recording replay?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from commands import done, under_run
from files import written
from servers import NumberedServer

A = "--cassette", "a.jsonl"
CHECK = *A, "--check"
AGAIN = "running program.py 3 times from a.jsonl: no model is called, but everything else happens again\n"
CROWD = """
    import threading
    said = {}
    def person(name):
        said[name] = [ask("Bread?"), ask("Milk?")]
    threads = [threading.Thread(target=person, args=(name,)) for name in range(5)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(said)
"""


def checked(program: str, *number: str, code: int = 1, given: str = "") -> tuple[str, str]:
    """Record a program, and check its replays; return what that printed, and what it reported."""
    under_run(program, *A, given=given)
    return under_run(program, *CHECK, *number, code=code, given=given)


@pytest.mark.ci
def test_threads_that_ask_the_same_replay(model: NumberedServer) -> None:
    """It says first that it runs the program again, and sends nothing."""
    program = CROWD.replace("print(said)", "print(sorted(said.items()))")
    printed, reported = checked(program, code=0)
    assert printed == "3 replays: the same output, 10 calls each\n"
    assert reported.startswith(AGAIN)
    assert len(model.asked) == 10


@pytest.mark.ci
def test_the_order_in_which_answers_come_differs_from_replay_to_replay(
    model: NumberedServer,
) -> None:
    """Each second one mirrors the delays of the one before it: of two that race, each comes first once."""
    program = CROWD.replace("range(5)", "('Ann', 'Ben')").replace('"Bread?"', 'f"{name}?"')
    printed, _ = checked(program, "2")
    assert "line 1 of the output differs:" in printed
    assert "It looks like an order of arrival" in printed


@pytest.mark.ci
def test_a_worker_that_takes_another_job_is_named(model: NumberedServer) -> None:
    """With what it asked, and the cure."""
    printed, _ = checked(
        """
        import queue, threading
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
    first, who, *_, remedy = printed.splitlines()
    assert "calls may have another caller's answer" in first
    assert "thread work" in who
    assert "in scope run" in who
    assert "Name the actors with --actor" in remedy


@pytest.mark.ci
def test_a_set_differs_unless_the_recording_fixes_the_hash_seed(model: NumberedServer) -> None:
    """A replay has the recorded seed."""
    program = "ask('Bread?'); print({'bread', 'milk', 'salt', 'eggs', 'tea', 'jam'})"
    printed, _ = checked(program)
    assert "It looks like a set, whose order depends on the hash seed" in printed
    under_run(program, "--cassette", "b.jsonl", "--seed", "7")
    printed, _ = under_run(program, "--cassette", "b.jsonl", "--check", "2")
    assert printed == "2 replays: the same output, 1 call each\n"


@pytest.mark.ci
def test_a_miss_is_shown_though_the_program_goes_on(model: NumberedServer) -> None:
    """With the usual report."""
    printed, _ = checked(
        """
        import random
        try:
            ask(f"Bread? {random.random()}")
        except Exception:
            print("no answer")
        """
    )
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
    printed, _ = checked(
        f"ask('Bread?')\nif os.path.exists('made'): {FAILS[way]}\nopen('made', 'w').close()"
    )
    assert printed.startswith(
        "replay 1 of 3 (seed 1): the exit code differs:\n  the recording: exit code 0\n  replay 1: exit code 1\n"
    )
    assert "no_such_module" in printed or "the file exists" in printed


@pytest.mark.ci
def test_a_program_that_fails_without_a_recording_fails_the_check(model: NumberedServer) -> None:
    printed, _ = under_run(FAILS["import"], "--check", code=1)
    assert "the program failed:\n  replay 1: exit code 1\n" in printed


@pytest.mark.ci
def test_a_recorded_exit_code_is_no_difference(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header has it; another one is."""
    program = "ask('Bread?'); sys.exit(int(os.environ.get('CODE', 3)))"
    under_run(program, *A, code=3)
    header = json.loads(Path("a.jsonl").read_text(encoding="utf-8").partition("\n")[0])
    assert header["run"] == {"exit_code": 3}
    printed, _ = under_run(program, *CHECK)
    assert printed == "3 replays: the same output and exit code 3, 1 call each\n"
    monkeypatch.setenv("CODE", "4")
    printed, _ = under_run(program, *CHECK, code=1)
    assert "  the recording: exit code 3\n  replay 1: exit code 4\n" in printed


@pytest.mark.ci
def test_a_miss_fails_the_check_though_the_program_ends_abruptly(model: NumberedServer) -> None:
    """It was noted when it came."""
    text = "try: ask('Bread?')\nexcept Exception: pass\n"
    under_run(text, *A)
    printed, _ = under_run(f"{text.replace('Bread', 'Milk')}os._exit(0)", *CHECK, code=1)
    assert printed.startswith("replay 1 of 3 (seed 1): a call has no recorded answer. ")


@pytest.mark.ci
def test_other_calls_than_in_the_recording_are_a_difference(model: NumberedServer) -> None:
    """In all replays, or in some."""
    under_run("ask('Bread?'); ask('Milk?')", *A)
    printed, _ = under_run("ask('Bread?')", *CHECK, code=1)
    assert printed.startswith("replay 1 of 3 (seed 1): 1 call, and 1 record not used: ")
    program = "import random; ask('Bread?')\nif random.random() < .5: ask('Milk?')"
    printed, _ = under_run(program, *CHECK, "30", code=1)
    assert "1 record not used" in printed


@pytest.mark.ci
def test_each_replay_reads_the_standard_input_from_its_beginning(model: NumberedServer) -> None:
    """Of a file."""
    program = "print(input()); ask('Bread?'); print(input())"
    printed, _ = checked(program, code=0, given="Ann\nBen\n")
    assert printed == "3 replays: the same output, 1 call each\n"


@pytest.mark.ci
def test_the_programs_own_cassettes_are_checked(model: NumberedServer) -> None:
    """They need no option; a record that a replay does not use is a difference."""
    text = """
        import llmcall
        with llmcall.cassette("own.jsonl"):
            ask("Bread?"); ask("Milk?")
    """
    under_run(text)
    printed, _ = under_run(text.replace('; ask("Milk?")', ""), "--check", code=1)
    assert "1 call, and 1 record not used" in printed


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--check"], 1, "a.jsonl does not exist, so there is nothing to check"),
        (["--check", "0"], 2, "0 is not in the range"),
        (["--check", "1"], 2, "1 is not in the range"),
        (["--check=many"], 2, "'many' is not a valid integer"),
    ],
)
def test_what_cannot_be_checked_is_refused(options: list[str], code: int, words: str) -> None:
    """Before the program starts."""
    written("program.py", f"open({os.path.abspath('ran')!r}, 'w')")
    assert words in done("run", *A, *options, "program.py", code=code)
    assert not Path("ran").exists()
