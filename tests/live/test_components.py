"""Components of other people's libraries that ask equal requests at once, recorded from a server whose
answers are random and slow by chance, replayed without it: ``make programs``.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from commands import RunningProgram
from environments import FOLDER, NOWHERE, environment, python_with
from pytest_httpserver import HTTPServer
from servers import completion
from werkzeug import Request, Response

pytestmark = pytest.mark.programs

SLOWEST = 0.05  # seconds, of an answer
HASH_SEEDS = ("1", "2", "3")


class Component(NamedTuple):
    """The needs of a program.

    :param requirements: packages.
    :param options: of ``llmcall run``, when it records.
    """

    requirements: list[str]
    options: tuple[str, ...] = ()


COMPONENTS = {
    "mesa_village": Component(["mesa==3.3.1", "openai==3.54.0"]),
    "langgraph_panel": Component(
        ["langgraph==1.2.22", "langchain-openai==1.7.3", "openai==3.54.0"]
    ),
    "inspect_epochs": Component(["inspect_ai==0.3.285", "openai==3.54.0"]),
    "litellm_tasks": Component(["litellm==1.106.2", "openai==2.54.0"]),
    "requests_market": Component(["requests==2.34.2"]),
    "agentscope_talk": Component(
        ["agentscope==2.0.10", "openai==3.54.0"], ("--normalize", "times", "--seed", "7")
    ),
    "concordia_talk": Component(
        ["gdm-concordia==2.1.0", "openai==3.54.0"], ("--actor", "system", "--seed", "1")
    ),
    "camel_twins": Component(["camel-ai==0.2.90", "openai==3.52.0", "mcp<2"]),
}


class RandomServer:
    """Answer each chat with a text that nobody else gets, after a time that chance decides.

    :ivar asked: how many requests came.
    :ivar on_request: is given the number of each.
    """

    def __init__(self, server: HTTPServer) -> None:
        self.base_url = str(server.url_for("/v1"))
        self.asked = 0
        self.on_request: Callable[[int], None] = lambda number: None
        self._chance = random.Random()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        server.expect_request(re.compile(".*")).respond_with_handler(self._respond)

    def _respond(self, request: Request) -> Response:
        with self._lock:
            number = self.asked = next(self._numbers)
            seconds = self._chance.uniform(0, SLOWEST)
        self.on_request(number)
        time.sleep(seconds)
        body = request.get_json()
        text = f"answer {number} {self._chance.getrandbits(32):08x}"
        if not body.get("stream"):
            return Response(json.dumps(completion(text)), content_type="application/json")
        return Response(streamed(text), content_type="text/event-stream")


def streamed(text: str) -> Iterator[str]:
    """Yield the events of a streamed answer, a word each."""
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": piece}, None) for piece in re.findall(r"\S+\s*", text)]
    deltas.append(({}, "stop"))
    for delta, reason in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        yield f"data: {json.dumps({**common, 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


@pytest.fixture
def server() -> Iterator[RandomServer]:
    """Serve each request in a thread of its own."""
    with HTTPServer(host="127.0.0.1", port=0, threaded=True) as served:
        yield RandomServer(served)


class Program:
    """A component, and the way to run it by ``llmcall run`` in a folder."""

    def __init__(self, name: str, folder: Path) -> None:
        component = COMPONENTS[name]
        self.folder = folder
        self.python = python_with(*component.requirements)
        self.options = component.options
        self.script = FOLDER / f"{name}.py"

    def start(self, base_url: str, *options: str, variant: str = "", **variables: str) -> Any:
        """Start it as a process whose output is text; a recording's header has its options."""
        asked = () if (self.folder / "run.jsonl").exists() else self.options
        arguments = ["--cassette", "run.jsonl", *asked, *options, str(self.script)]
        return RunningProgram(
            [self.python, "-m", "llmcall", "run", *arguments, *([variant] if variant else [])],
            cwd=self.folder,
            env=environment(OPENAI_API_KEY="sk-loopback", OPENAI_BASE_URL=base_url, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ran(self, base_url: str, *options: str, variant: str = "", **variables: str) -> Any:
        """Return the transcript that it prints."""
        with self.start(base_url, *options, variant=variant, **variables) as process:
            printed, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints
        return json.loads([line for line in printed.splitlines() if line[:1] in "[{"][-1])

    def replays(self, recorded: Any, variant: str = "") -> None:
        """Check that it prints the same in processes of other hash seeds, without the server."""
        for seed in HASH_SEEDS:
            found = self.ran(NOWHERE, "--mode", "none", variant=variant, PYTHONHASHSEED=seed)
            assert found == recorded


@pytest.fixture(params=COMPONENTS)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Program:
    """Each of the components, in an empty folder."""
    return Program(request.param, tmp_path)


def test_a_component_replays(program: Program, server: RandomServer) -> None:
    """It prints the recorded answers again, though equal requests were under way at once."""
    recorded = program.ran(server.base_url)
    assert server.asked
    program.replays(recorded)


def test_a_killed_recording_is_continued(program: Program, server: RandomServer) -> None:
    """A process that is killed in the middle keeps its paid answers, and what goes on replays."""

    def kill(number: int) -> None:
        if number == 3:
            os.kill(process.pid, signal.SIGKILL)

    server.on_request = kill
    process = program.start(server.base_url)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    server.on_request = lambda number: None
    program.replays(program.ran(server.base_url))


def test_one_changed_prompt_asks_for_itself_alone(program: Program, server: RandomServer) -> None:
    """With one prompt changed, the answers to all others stay as they were recorded."""
    recorded = program.ran(server.base_url)
    asked = server.asked
    changed = program.ran(server.base_url, "--mode", "new", variant="changed")
    assert asked < server.asked < 2 * asked
    assert 0 < len(answers(recorded) & answers(changed)) < len(answers(recorded))
    program.replays(changed, variant="changed")


def answers(transcript: Any) -> set[str]:
    """Return the server's answers in a transcript."""
    return set(re.findall(r"answer \d+ [0-9a-f]{8}", json.dumps(transcript)))
