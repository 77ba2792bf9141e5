"""Programs on libraries that nobody here wrote, recorded from a real model and replayed without it:
``make programs``.

Each runs in an environment of its own, made when it is first needed, and kept in the folder
``TEST_PROGRAMS``. TinyTroupe is installed from the folder ``TINYTROUPE``, where that is given, else
from GitHub.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from environments import FOLDER, NOWHERE, environment, python_with
from providers import Providers
from servers import completion
from werkzeug import Response

pytestmark = pytest.mark.programs

ORDERS = 20
PROGRAMS = {
    "pydantic_ai_market": ["pydantic-ai-slim[openai]==2.68.0", "openai==3.52.0"],
    "openai_agents_market": ["openai-agents==0.24.0", "openai==3.52.0"],
    "langchain_market": ["langchain-openai==1.7.3", "openai==3.52.0"],
    "camel_market": ["camel-ai==0.2.90", "openai==3.52.0", "mcp<2"],
    "autogen_market": ["autogen-agentchat==0.7.5", "autogen-ext[openai]==0.7.5", "openai==3.52.0"],
    "smolagents_market": ["smolagents[openai]==1.26.0", "openai==3.52.0"],
    "litellm_market": ["litellm==1.106.2", "openai==2.54.0"],
}


def ran(folder: Path, *command: object, **variables: str) -> list[Any]:
    """Return the transcripts that a command prints, one a line; a library may log on standard
    output as well.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment(OPENAI_API_KEY="sk-loopback", **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def check_replays(program: str, python: str, base_url: str, folder: Path) -> None:
    """Record a program, then replay it in many orders of its actors without asking the server."""
    command = [python, "-m", "llmcall", "run", "--cassette", "run.jsonl", "--actor", "system"]
    [recorded] = ran(folder, *command, FOLDER / "market.py", program, 0, OPENAI_BASE_URL=base_url)
    assert len({json.dumps(answer) for answer in recorded.values()}) == len(recorded)
    shutil.rmtree(folder / ".llmcall")
    assert ran(
        folder,
        *command,
        "--mode",
        "none",
        FOLDER / "market.py",
        program,
        1,
        OPENAI_BASE_URL=NOWHERE,
    ) == [recorded]
    shuffled = ran(
        folder,
        python,
        FOLDER / "shuffled.py",
        program,
        "run.jsonl",
        ORDERS,
        OPENAI_BASE_URL=NOWHERE,
    )
    assert shuffled == [recorded] * ORDERS


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_others_replays(program: str, model_server: Any, tmp_path: Path) -> None:
    """The transcripts are those that were recorded, in whatever order the actors' tasks or threads
    run.
    """
    check_replays(program, python_with(*PROGRAMS[program]), model_server.base_url, tmp_path)


AT_PROVIDERS = {
    "sdks_at_providers": ["openai==3.52.0", "anthropic==2.14.0", "google-genai==3.6.1"],
    "agents_at_openai": ["openai-agents==0.24.0", "openai==3.52.0"],
    "litellm_at_providers": ["litellm==1.106.2", "openai==2.54.0"],
    "langchain_at_providers": [
        "langchain-openai==1.7.3",
        "openai==3.52.0",
        "langchain-anthropic==1.7.10",
        "langchain-google-genai==4.4.3",
    ],
    "crewai_at_openai": ["crewai==1.15.30"],
    "langgraph_panel": ["langgraph==1.2.22", "langchain-openai==1.7.3", "openai==3.52.0"],
    "inspect_epochs": ["inspect_ai==0.3.285", "openai==3.54.0"],
}


@pytest.mark.parametrize("program", [*AT_PROVIDERS, *PROGRAMS])
def test_a_program_at_the_providers_own_addresses_replays(program: str, tmp_path: Path) -> None:
    """Libraries send more there than to another server: keys of a prompt cache, counts of tokens."""
    is_market = program in PROGRAMS
    python = python_with(*(PROGRAMS if is_market else AT_PROVIDERS)[program])
    command = [python, "-m", "llmcall", "run", "--cassette", "run.jsonl"]
    command += ["--actor", "system"] if is_market else []
    script: list[object] = (
        [FOLDER / "market.py", program] if is_market else [FOLDER / f"{program}.py"]
    )
    with Providers(tmp_path) as providers:
        recorded = ran(tmp_path, *command, *script, *[0] * is_market, **providers.variables)
        asked = [*providers.asked]
        shutil.rmtree(tmp_path / ".llmcall")
        command += ["--mode", "none"]
        assert ran(tmp_path, *command, *script, *[1] * is_market, **providers.variables) == recorded
        assert recorded and providers.asked == asked


ON_GITHUB = "tinytroupe @ https://github.com/microsoft/TinyTroupe/archive/refs/tags/v0.6.0.zip"
TINYTROUPE = os.environ.get("TINYTROUPE") or ON_GITHUB
UNREACHABLE = (
    "TinyTroupe is released on GitHub alone (tinytroupe on the index is an empty placeholder), and "
)
# Of its dependencies, its world of agents needs these.
NEEDED = [
    "openai==2.54.0",
    "pandas",
    "httpx",
    "tiktoken",
    "msal",
    "rich",
    "requests",
    "chevron",
    "llama-index-core==0.14.25",
    "llama-index-embeddings-openai",
    "llama-index-readers-web",
    "llama-index-embeddings-azure-openai",
    "pypandoc",
    "docx",
    "markdown",
    "ipython",
    "ipywidgets",
    "matplotlib",
    "textdistance",
    "scipy",
    "pytest",
]
CONFIG = "[OpenAI]\nMODEL=gpt-4o-mini\nMAX_COMPLETION_TOKENS=1000\nMAX_ATTEMPTS=1\nWAITING_TIME=0\n"


DONE = {"type": "DONE", "target": "", "content": ""}
STATE: dict[str, Any] = {"goals": "bread", "context": [], "attention": "the price"}


@pytest.fixture
def actions(httpserver: Any) -> str:
    """Answer each chat with an action of its own: a prompt of 5,000 tokens takes a model on one
    core a minute.
    """
    numbers = itertools.count()

    def answer(request: Any) -> Response:
        number = next(numbers)
        done = [{"type": "TALK", "content": f"sentence {number}", "target": ""}, DONE]
        content = json.dumps(
            {"actions": done, "cognitive_state": {**STATE, "emotions": f"mood {number}"}}
        )
        return Response(json.dumps(completion(content)), content_type="application/json")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(answer)
    return str(httpserver.url_for("/v1"))


def tinytroupe(folder: Path) -> str:
    """Return the interpreter of an environment with TinyTroupe, and configure it for a folder."""
    (folder / "config.ini").write_text(CONFIG)
    return python_with(*NEEDED, alone=TINYTROUPE, otherwise=UNREACHABLE)


def test_a_world_of_tinytroupe_replays(actions: str, tmp_path: Path) -> None:
    """Its agents act in its threads."""
    check_replays("tinytroupe_market", tinytroupe(tmp_path), actions, tmp_path)


def test_calls_of_tinytroupes_client_replay(model_server: Any, tmp_path: Path) -> None:
    """A real model answers the calls of its threads."""
    check_replays("tinytroupe_talk", tinytroupe(tmp_path), model_server.base_url, tmp_path)
