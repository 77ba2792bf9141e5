"""Environments of other people's libraries, each made once and kept, and the programs that run in them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).with_name("programs")
ENVIRONMENTS = Path(os.environ.get("TEST_PROGRAMS") or Path.home() / ".cache" / "llmcall-programs")
NOWHERE = "http://127.0.0.1:9/v1"
KEPT = ("PATH", "HOME", "PIP_", "GIT_", "LANG", "TMPDIR", "SSL_")


def environment(**variables: str) -> dict[str, str]:
    """Return the variables of a program: none that steers a library, and a tokenizer's words that
    need no network.
    """
    kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    core = find_spec("llama_index") and find_spec("llama_index.core")
    if core is not None and core.origin is not None:
        kept["TIKTOKEN_CACHE_DIR"] = str(Path(core.origin).parent / "_static" / "tiktoken_cache")
    return kept | variables


def python_with(*requirements: str, alone: str = "", otherwise: str = "") -> str:
    """Return the interpreter of an environment that holds these packages and this checkout.

    :param alone: one more, without what it requires; the first that is installed.
    :param otherwise: what the skip says first if that cannot be installed.
    """
    asked = "\n".join([sys.version, *requirements, alone])
    folder = ENVIRONMENTS / hashlib.sha256(asked.encode()).hexdigest()[:12]
    python, made = folder / "bin" / "python", folder / "made"
    if not made.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        if alone:
            _install(python, ["--no-deps", alone], otherwise)
        if requirements:
            _install(python, requirements)
        _install(python, ["-e", str(ROOT)])
    elif made.read_text(encoding="utf-8") != str(ROOT):
        _install(python, ["--no-deps", "-e", str(ROOT)])
    made.write_text(str(ROOT), encoding="utf-8")
    return str(python)


def _install(python: Path, packages: Sequence[str], otherwise: str = "") -> None:
    """Install packages, or skip the test that needs them."""
    options = ["-q", "--disable-pip-version-check", "--retries", "1"]
    done = subprocess.run(
        [str(python), "-m", "pip", "install", *options, *packages],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error: " in line.lower()]
        reason = (errors or ["pip failed"])[0].strip()
        pytest.skip(f"{otherwise}cannot install {' '.join(packages)}: {reason}")
