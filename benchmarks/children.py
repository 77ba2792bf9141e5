"""Calls of child processes through the server of ``llmcall run``, against the same calls in threads.

``python -m benchmarks.children [ROUNDS]`` records 1,000 calls of 20 children at once, and of 20 threads, to a
server that answers at once, and replays both. Children and threads begin when all of them have imported
openai and made a call. It prints the best of the rounds: the seconds, and those of all processors.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from time import perf_counter, process_time

from .processes import clean_environment
from .stub import base_url, stub_server

CALLERS = 20
CALLS = 50  # of each
ROUNDS = 5
FOLDER = Path(__file__).parents[1]
PROMPT = "You are one of twenty people who answer. " * 10


class Caller:
    """Asks questions that nobody else asks, with the openai SDK."""

    def __init__(self, name: int) -> None:
        import openai

        self._name = name
        self._client = openai.OpenAI(max_retries=0)
        self.ask("warm")

    def ask(self, number: object) -> None:
        """Ask one question."""
        messages = [
            {"role": "system", "content": PROMPT},
            {"role": "user", "content": f"{self._name}: question {number}"},
        ]
        self._client.chat.completions.create(model="gpt-6-luna", messages=messages)

    def ask_all(self) -> None:
        """Ask as many as each caller does."""
        for number in range(CALLS):
            self.ask(number)


def ask_in_threads() -> None:
    """Ask in threads, and print the seconds and the processor's seconds."""
    callers = [Caller(number) for number in range(CALLERS)]
    threads = [threading.Thread(target=caller.ask_all) for caller in callers]
    start = perf_counter(), process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps([perf_counter() - start[0], process_time() - start[1]]))


def ask_in_children() -> None:
    """Ask in child processes, and print the seconds and the processors' seconds."""
    command = [sys.executable, "-m", __spec__.name, "child"]
    children = [
        subprocess.Popen(
            [*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(CALLERS)
    ]
    said = [(child.stdin, child.stdout) for child in children if child.stdin and child.stdout]
    for _, output in said:
        output.readline()
    start = perf_counter(), process_time()
    for order, _ in said:
        print(file=order, flush=True)
    used = sum(float(output.readline()) for _, output in said)
    print(json.dumps([perf_counter() - start[0], process_time() - start[1] + used]))
    for child in children:
        child.wait()


def ask_as_child(name: int) -> None:
    """Be one of the children."""
    caller = Caller(name)
    print("ready", flush=True)
    sys.stdin.readline()
    start = process_time()
    caller.ask_all()
    print(process_time() - start, flush=True)


def main(rounds: int) -> None:
    """Measure and print."""
    best: dict[tuple[str, str], list[float]] = defaultdict(lambda: [float("inf")] * 2)
    with stub_server() as address, tempfile.TemporaryDirectory() as folder:
        environment = clean_environment() | {
            "OPENAI_API_KEY": "none",
            "OPENAI_BASE_URL": base_url(address),
            "LLMCALL_CACHE_MODE": "off",
        }
        for _ in range(rounds):
            for how in ("threads", "children"):
                for mode in ("rewrite", "none"):
                    options = ["--cassette", f"{folder}/{how}.jsonl", "--mode", mode]
                    command = [sys.executable, "-m", "llmcall", "run", *options]
                    done = subprocess.run(
                        [*command, "-m", __spec__.name, how],
                        cwd=FOLDER,
                        env=environment,
                        capture_output=True,
                        text=True,
                    )
                    if f"{(CALLS + 1) * CALLERS:,}" not in done.stderr:
                        raise SystemExit(done.stderr)
                    measured = json.loads(done.stdout.splitlines()[-1])
                    best[how, mode] = [*map(min, best[how, mode], measured)]
    for mode, what in (("rewrite", "recorded"), ("none", "replayed")):
        threads, children = best["threads", mode], best["children", mode]
        for unit, one, other in zip(("s", "s of processors"), threads, children, strict=True):
            words = f"{what}: threads {one:.2f} {unit}, children {other:.2f} {unit}"
            print(f"{words}, ratio {other / one:.2f}")


if __name__ == "__main__":
    job, *rest = [*sys.argv[1:], str(ROUNDS)]
    if job == "threads":
        ask_in_threads()
    elif job == "children":
        ask_in_children()
    elif job == "child":
        ask_as_child(int(rest[0]))
    else:
        main(int(job))
