"""Programs on libraries that nobody here wrote, recorded from a real model and replayed without it: ``make programs``.

Each runs in an environment of its own, made when it is first needed, and kept in the folder ``LLMCALL_TEST_PROGRAMS``.
TinyTroupe is installed from the folder ``TINYTROUPE``, where that is given, else from GitHub.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.programs

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).with_name("programs")
ENVIRONMENTS = Path(os.environ.get("LLMCALL_TEST_PROGRAMS") or Path.home() / ".cache" / "llmcall-programs")
ORDERS = 20
NOWHERE = "http://127.0.0.1:9/v1"
KEPT = ("PATH", "HOME", "PIP_", "GIT_", "LANG", "TMPDIR", "SSL_")
PROGRAMS = {
    "pydantic_ai_market": ["pydantic-ai-slim[openai]==2.68.0", "openai==3.52.0"],
    "openai_agents_market": ["openai-agents==0.24.0", "openai==3.52.0"],
    "langchain_market": ["langchain-openai==1.7.3", "openai==3.52.0"],
    "camel_market": ["camel-ai==0.2.90", "openai==3.52.0", "mcp<2"],
    "autogen_market": ["autogen-agentchat==0.7.5", "autogen-ext[openai]==0.7.5", "openai==3.52.0"],
    "smolagents_market": ["smolagents[openai]==1.26.0", "openai==3.52.0"],
    "litellm_market": ["litellm==1.106.2", "openai==2.54.0"],
}


def environment(**variables: str) -> dict[str, str]:
    """Return the variables of a program: none that steers a library, and a tokenizer's words that need no network."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    core = find_spec("llama_index.core")
    if core is not None and core.origin is not None:
        kept["TIKTOKEN_CACHE_DIR"] = str(Path(core.origin).parent / "_static" / "tiktoken_cache")
    return kept | variables


def python_with(*requirements: str, alone: str = "", otherwise: str = "") -> str:
    """Return the interpreter of an environment that holds these packages and the checkout.

    :param alone: one more, without what it requires; the first that is installed.
    :param otherwise: what is said where that cannot be installed.
    """
    place = ENVIRONMENTS / hashlib.sha256("\n".join([sys.version, *requirements, alone]).encode()).hexdigest()[:12]
    python, made = place / "bin" / "python", place / "made"
    if not made.exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "1"]
        for packages in (["--no-deps", alone] if alone else [], requirements, ["-e", str(ROOT)]):
            if not packages:
                continue
            done = subprocess.run([*install, *packages], env=environment(), capture_output=True, text=True, check=False)
            if done.returncode:
                said = [line for line in done.stderr.splitlines() if "error: " in line.lower()] or ["pip failed"]
                reason = otherwise if alone in packages else ""
                pytest.skip(f"{reason}cannot install {' '.join(packages)}: {said[0].strip()}")
        made.touch()
    return str(python)


def ran(folder: Path, *command: object, **variables: str) -> list[Any]:
    """Return the transcripts that a command prints, one a line."""
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment(OPENAI_API_KEY="sk-loopback", **variables),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_replays(program: str, python: str, base_url: str, folder: Path) -> None:
    """Record a program, then replay it in many orders of its actors with the server out of reach."""
    script = FOLDER / f"{program}.py"
    command = [python, "-m", "llmcall", "run", "--cassette", "run.jsonl", "--actor", "system"]
    [recorded] = ran(folder, *command, script, 0, OPENAI_BASE_URL=base_url)
    assert len({json.dumps(said) for said in recorded.values()}) == len(recorded)
    shutil.rmtree(folder / ".llmcall")
    assert ran(folder, *command, "--mode", "none", script, 1, OPENAI_BASE_URL=NOWHERE) == [recorded]
    shuffled = ran(folder, python, FOLDER / "shuffled.py", script, "run.jsonl", ORDERS, OPENAI_BASE_URL=NOWHERE)
    assert shuffled == [recorded] * ORDERS


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_others(program: str, model_server: Any, tmp_path: Path) -> None:
    """The transcripts are those that were recorded, in whatever order the actors' tasks or threads run."""
    check_replays(program, python_with(*PROGRAMS[program]), model_server.base_url, tmp_path)


ON_GITHUB = "tinytroupe @ https://github.com/microsoft/TinyTroupe/archive/refs/tags/v0.6.0.zip"
TINYTROUPE = os.environ.get("TINYTROUPE") or ON_GITHUB
UNREACHABLE = "TinyTroupe is released on GitHub alone (tinytroupe on the index is an empty placeholder), and "
# Of its dependencies, its world of agents needs these.
NEEDED = [
    "openai==2.54.0", "pandas", "httpx", "tiktoken", "msal", "rich", "requests", "chevron", "llama-index-core==0.14.25",
    "llama-index-embeddings-openai", "llama-index-readers-web", "llama-index-embeddings-azure-openai", "pypandoc",
    "docx", "markdown", "ipython", "ipywidgets", "matplotlib", "textdistance", "scipy", "pytest",
]  # fmt: skip
CONFIG = "[OpenAI]\nMODEL=gpt-4o-mini\nMAX_COMPLETION_TOKENS=1000\nMAX_ATTEMPTS=1\nWAITING_TIME=0\n"


class Actions(BaseHTTPRequestHandler):
    """Answer each chat with an action of its own: a prompt of 5,000 tokens takes a model on one core a minute."""

    numbers = itertools.count()

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["content-length"]))
        number = next(self.numbers)
        actions = [{"type": "TALK", "content": f"sentence {number}", "target": ""}, {**DONE, "content": ""}]
        content = json.dumps({"actions": actions, "cognitive_state": {**STATE, "emotions": f"mood {number}"}})
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        about = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini"}
        body = json.dumps({**about, "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


DONE = {"type": "DONE", "target": ""}
STATE: dict[str, Any] = {"goals": "bread", "context": [], "attention": "the price"}


@pytest.fixture
def actions() -> Iterator[str]:
    """Serve actions, and give the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Actions)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def tinytroupe(folder: Path) -> str:
    """Return the interpreter of an environment with TinyTroupe, and configure it for a folder."""
    (folder / "config.ini").write_text(CONFIG)
    return python_with(*NEEDED, alone=TINYTROUPE, otherwise=UNREACHABLE)


def test_tinytroupe(actions: str, tmp_path: Path) -> None:
    """A world of TinyTroupe's agents, which act in its threads, replays with their actions."""
    check_replays("tinytroupe_market", tinytroupe(tmp_path), actions, tmp_path)


def test_tinytroupe_with_short_prompts(model_server: Any, tmp_path: Path) -> None:
    """What is asked by its client in its threads, of a real model, replays."""
    check_replays("tinytroupe_talk", tinytroupe(tmp_path), model_server.base_url, tmp_path)
