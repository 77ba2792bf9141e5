"""Equal requests of several tasks and threads in one scope: each gets its own answer in a replay."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from servers import completion
from streaming import chunks_of, event
from werkzeug import Request, Response

CROWD = Path(__file__).with_name("crowd.py")
NOWHERE = "http://127.0.0.1:9/v1"  # nobody listens there


class Chance:
    """A model's server whose answers and delays are left to chance.

    :ivar asked: how many requests it got.
    """

    def __init__(self, server: HTTPServer) -> None:
        self.asked = 0
        self.address = server.url_for("/v1")
        server.expect_request("/v1/chat/completions").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        self.asked += 1
        time.sleep(random.random() * 0.01)
        text = uuid.uuid4().hex
        if request.get_json().get("stream"):
            events = b"".join(map(event, [*chunks_of(text[:5], text[5:]), b"[DONE]"]))
            return Response(events, content_type="text/event-stream")
        return Response(json.dumps(completion(text)), content_type="application/json")


@pytest.fixture
def model() -> Iterator[Chance]:
    """Serve several requests at once."""
    with HTTPServer(port=0, threaded=True) as server:
        yield Chance(server)


def ran(
    address: str, *arguments: object, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``llmcall run`` in a fresh process, with a hash seed of its own."""
    from os import environ

    command = [sys.executable, "-m", "llmcall", "run", *map(str, arguments)]
    named = {**environ, "MODEL_AT": address, "PYTHONHASHSEED": "random", **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=named)
    assert done.returncode == code, done.stderr
    return done


def check_replays(model: Chance, seed: int, replays: int) -> None:
    """Record a crowd, and replay it from the cassette, and then from the cache."""
    options = ("--cassette", f"{seed}.jsonl")
    first = ran(model.address, *options, CROWD, seed)
    assert first.stdout.count("\n") == model.asked > 20
    assert "WARNING" not in first.stderr and "differ" not in first.stderr, first.stderr
    for _ in range(replays):
        again = ran(NOWHERE, *options, "--mode", "none", CROWD, seed)
        assert again.stdout == first.stdout, again.stderr
    cached = ran(NOWHERE, "--mode", "none", CROWD, seed)
    assert cached.stdout == first.stdout, cached.stderr


def test_a_crowd_replays_exactly(model: Chance) -> None:
    """Random tasks, threads and pools that ask the same get the same answers, whatever the timing."""
    check_replays(model, 1, replays=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 10))
def test_any_crowd_replays_exactly(model: Chance, seed: int) -> None:
    """Whatever the program, and in any number of fresh processes."""
    check_replays(model, seed, replays=3)
