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


def base_url(address: str, delay: int = 0) -> str:
    """Return the API's address at the stub server; it answers after so many milliseconds."""
    return f"{address}/{delay}/v1"


def calls_received(address: str) -> int:
    """Return how many completions the stub server was asked for so far."""
    with _opener.open(f"{address}/calls", timeout=60) as response:
        return int(json.load(response)["calls"])
