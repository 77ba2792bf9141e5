"""``llmcall run --override``: programs that do not know llmcall, each in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import done, under_run
from servers import NumberedServer

ACTOR = "--actor", r"system:You are (\w+)"
A, B = ("--cassette", "a.jsonl"), ("--cassette", "b.jsonl")
THREADS = """
    import threading
    said = {}
    def person(name):
        said[name] = [ask(f"{name} {day}", f"You are {name}.") for day in (1, 2)]
    threads = [threading.Thread(target=person, args=(name,)) for name in ("Ann", "Ben")]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(sorted(said.items()))
"""
TASKS = """
    import asyncio
    async def person(name):
        async with httpx.AsyncClient(base_url=os.environ["MODEL_AT"], timeout=60) as client:
            said = []
            for day in (1, 2):
                messages = [{"role": role, "content": text} for role, text in
                            (("system", f"You are {name}."), ("user", f"{name} {day}"))]
                body = {"model": "gpt-4o-mini", "messages": messages}
                response = await client.post("/chat/completions", json=body)
                said.append(response.json()["choices"][0]["message"]["content"])
            return name, said
    async def main():
        print(await asyncio.gather(person("Ann"), person("Ben")))
    asyncio.run(main())
"""
CHILDREN = """
    import subprocess
    if len(sys.argv) > 1:
        name = sys.argv[1]
        print(name, [ask(f"{name} {day}", f"You are {name}.") for day in (1, 2)])
    else:
        for name in ("Ann", "Ben"):
            sys.stdout.flush()
            subprocess.run([sys.executable, __file__, name], check=True)
"""


@pytest.mark.parametrize(
    "program",
    [
        THREADS,
        pytest.param(TASKS, marks=pytest.mark.ci),
        pytest.param(CHILDREN, marks=pytest.mark.ci),
    ],
)
def test_one_answer_is_given_and_only_what_it_changes_is_sent(
    model: NumberedServer, program: str
) -> None:
    """By the server's own log, from threads, tasks and child processes; a replay gives the same."""
    under_run(program, *ACTOR, *A)
    model.asked.clear()
    printed, reported = under_run(program, *ACTOR, *B, "--override", "Ben:2=no, thanks: 3=4")
    assert "'no, thanks: 3=4']" in printed and not model.asked
    assert reported.startswith("3 from the cache, 1 overridden: b.jsonl")
    assert under_run(program, *B, "--mode", "none") == (printed, "4 calls replayed from b.jsonl\n")


@pytest.mark.ci
def test_a_block_in_a_child_process_is_an_error(model: NumberedServer) -> None:
    """Its parent answers its calls, and would not know of it."""
    child = """
        import llmcall, subprocess
        if len(sys.argv) == 1:
            sys.exit(subprocess.run([sys.executable, __file__, "child"]).returncode)
        with llmcall.override({("Ben", 1): "no"}):
            print(ask("Bread?", "You are Ben."))
    """
    _, reported = under_run(child, *ACTOR, *A, code=1)
    assert "is opened in a child process, whose calls the parent answers" in reported
    assert not model.asked


def test_a_call_that_never_came_ends_the_run_with_1(model: NumberedServer) -> None:
    """It is named with how many calls there were."""
    _, reported = under_run(THREADS, *ACTOR, *A, "--override", "Ben:3=no", code=1)
    assert "the override of Ben's call 3 answered no call: Ben made 2 calls" in reported


def test_a_wrong_override_is_wrong_usage() -> None:
    """Before the program starts."""
    Path("program.py").touch()
    words = "'Ben=no' is not of the form NAME:K=TEXT, such as Ben:2=no"
    assert words in done("run", "--override", "Ben=no", "program.py", code=2)
