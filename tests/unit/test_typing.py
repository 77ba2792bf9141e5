"""What type checkers see of the public functions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

API = Path(__file__).resolve().parents[1] / "typing" / "api.py"


def test_the_api_is_typed(tmp_path: Path) -> None:
    """mypy, at its strictest, infers of each call what its user expects, and refuses wrong arguments."""
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(API)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
