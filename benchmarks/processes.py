"""Contestants' processes, as the runner sees them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
PRIVATE = (
    "OPENAI_",
    "AZURE_",
    "LLMCALL_",
    "PYTHON",
    "LITELLM_",
    "DSPY_",
    "INSPECT_",
    "LANGCHAIN_",
    "LANGSMITH_",
)


class ContestantFailedError(Exception):
    """Raised when a contestant fails, with what it said."""


def clean_environment() -> dict[str, str]:
    """Return the environment variables without proxies, and without what steers any contestant."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PRIVATE) and not name.lower().endswith("_proxy")
    }
    # litellm would otherwise fetch its table of prices from the network when it is imported.
    return variables | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


class Process:
    """Run one contestant in an empty folder; a context manager.

    :param python: the interpreter of its environment.
    :param order: what to measure: ``module``, ``case``, ``measure`` and ``parameters``.
    """

    def __init__(self, python: str, order: Mapping[str, Any]) -> None:
        self._home = tempfile.TemporaryDirectory()
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [python, "-I", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=self._home.name,
            env=clean_environment(),
            text=True,
        )
        self._order = order

    def start(self) -> None:
        """Run it up to its first round.

        :raises ContestantFailedError: if it fails.
        """
        self._tell(json.dumps(self._order))

    def round(self) -> list[float]:
        """Return what one round measured: a value and, where there is one, what was measured beside
        it.

        :raises ContestantFailedError: where it fails.
        """
        answer = self._tell("")
        return answer if isinstance(answer, list) else [answer]

    def _tell(self, line: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(line, file=self._process.stdin, flush=True)
        except BrokenPipeError as error:
            raise ContestantFailedError(self._last_words()) from error
        answer = self._process.stdout.readline()
        if not answer:
            raise ContestantFailedError(self._last_words())
        return json.loads(answer)

    def _last_words(self) -> str:
        self._process.wait()
        self._stderr.seek(0)
        lines = [line for line in self._stderr.read().splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"[\w.]+: ", line)]
        return (errors or lines or [f"ended with status {self._process.returncode}"])[-1].strip()[
            :200
        ]

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._stderr.close()
        self._home.cleanup()
