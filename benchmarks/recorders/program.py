"""A program on the OpenAI SDK in which five actors ask the same; each recorder runs it twice.

``python NAME_program.py JOB FOLDER BASE_URL`` writes what each actor got to the folder.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.workload import API_KEY, MODEL, messages

ACTORS = [f"actor-{number}" for number in range(5)]
MOST_SECONDS = 0.05  # that a thread waits before it asks, so that threads overtake each other

Answers = dict[str, list[str]]
Block = AbstractContextManager[Any]


def answers_file(folder: str, *, replays: bool) -> Path:
    """Return the file of the answers of the recording, or of the replay."""
    return Path(folder, "replayed.json" if replays else "recorded.json")


def main(
    recording: Callable[[bool], Block] = lambda _: nullcontext(),
    actor: Callable[[str], Block] = nullcontext,
    options: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Run the job that the command line names.

    :param recording: returns the block that records, or replays, in the working directory.
    :param actor: returns the block that names an actor, where the library has one.
    :param options: returns what the SDK's client is made with.
    """
    job, folder, base_url = sys.argv[1:]
    replays = answers_file(folder, replays=False).exists()
    with recording(replays):
        ask = _asker(base_url, options())
        if job == "named":
            answers = _in_turn(ask, actor, ACTORS[::-1] if replays else ACTORS)
        elif job == "threads":
            answers = _in_threads(ask)
        else:
            answers = _in_children(base_url)
    answers_file(folder, replays=replays).write_text(json.dumps(answers), encoding="utf-8")


def _asker(base_url: str, options: dict[str, Any]) -> Callable[[], str]:
    """Return a function that asks all actors' question and returns the answer's text."""
    import openai

    client = openai.OpenAI(api_key=API_KEY, base_url=base_url, max_retries=0, **options)
    question: Any = messages(0, draws=True)

    def ask() -> str:
        response = client.chat.completions.create(model=MODEL, messages=question)
        return str(response.choices[0].message.content)

    return ask


def _in_turn(ask: Callable[[], str], actor: Callable[[str], Block], order: list[str]) -> Answers:
    answers: Answers = {}
    for name in order:
        with actor(name):
            answers[name] = [ask()]
    return answers


def _in_threads(ask: Callable[[], str]) -> Answers:
    """Ask twice in a thread for each actor."""
    waits = random.SystemRandom()

    def ask_twice(_: str) -> list[str]:
        answers = []
        for _ in range(2):
            time.sleep(waits.uniform(0, MOST_SECONDS))
            answers.append(ask())
        return answers

    with ThreadPoolExecutor(len(ACTORS)) as pool:
        return dict(zip(ACTORS, pool.map(ask_twice, ACTORS), strict=True))


def _in_children(base_url: str) -> Answers:
    """Ask once in a child process for each actor, all at once."""
    command = [sys.executable, __file__, base_url]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in ACTORS]
    return {name: [child.communicate()[0]] for name, child in zip(ACTORS, children, strict=True)}


if __name__ == "__main__":  # a child
    print(_asker(sys.argv[1], {})())
