"""The stub server as a process of its own, as the runner and the contestants see it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

SCRIPT = Path(__file__).with_name("stub_server.py")
_opener = build_opener(ProxyHandler({}))  # the loopback needs no proxy


@contextmanager
def stub_server() -> Iterator[str]:
    """Run the stub server for a while, and give its address."""
    command = [sys.executable, "-I", str(SCRIPT)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.communicate("")


def base_url(address: str, delay: int = 0, at_once: int | None = None) -> str:
    """Return the API's address at the stub server; it answers after so many milliseconds.

    :param at_once: how many completions may wait at once; it refuses more.
    """
    return f"{address}/{delay}{'' if at_once is None else f'-{at_once}'}/v1"


def calls_received(address: str) -> int:
    """Return how many completions the stub server was asked for so far."""
    return _counts(address)["calls"]


def calls_refused(address: str) -> int:
    """Return how many completions the stub server refused so far."""
    return _counts(address)["refused"]


def _counts(address: str) -> dict[str, int]:
    with _opener.open(f"{address}/calls", timeout=60) as response:
        counts: dict[str, int] = json.load(response)
    return counts
