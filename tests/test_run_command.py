"""``llmcall run``: programs that do not know llmcall, each in a process of its own."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from servers import completion
from werkzeug import Request, Response

NOWHERE = "http://127.0.0.1:9/v1"  # nobody listens there
ASK = """
import os, sys, openai
client = openai.OpenAI(api_key="none", base_url=os.environ["MODEL_AT"], max_retries=0)
def ask(text, system=None):
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    made = client.chat.completions.create(model="gpt-4o-mini", messages=messages, temperature=1)
    return made.choices[0].message.content
"""


class Model:
    """Be a model's server on the loopback: each answer is another one.

    :ivar address: what a program is given.
    :ivar asked: the bodies that it got.
    """

    def __init__(self, server: Any) -> None:
        self.address = server.url_for("/v1")
        self.asked: list[dict[str, Any]] = []
        self._numbers = itertools.count()
        server.expect_request("/v1/chat/completions").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        self.asked.append(request.get_json())
        answer = completion(f"answer {next(self._numbers)}")
        return Response(json.dumps(answer), content_type="application/json")


@pytest.fixture
def model(httpserver: Any, monkeypatch: pytest.MonkeyPatch) -> Model:
    """Make a model's server, which the programs of a test find."""
    made = Model(httpserver)
    monkeypatch.setenv("MODEL_AT", made.address)
    return made


def ran(
    program: str, *options: str, code: int = 0, **named: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program under ``llmcall run`` in a fresh process, and check its exit code."""
    Path("program.py").write_text(ASK + textwrap.dedent(program), encoding="utf-8")
    command = [sys.executable, "-m", "llmcall", "run", *options, "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **named)
    assert done.returncode == code, done.stderr
    return done


def samples(path: str) -> list[str]:
    """Return the samples of a cassette's records."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [entry["sample"] for entry in map(json.loads, lines) if "sample" in entry]


# Who is asking


def test_a_function_of_a_module_names_actors(model: Model) -> None:
    """``--actor MODULE:FUNCTION`` takes the module beside the script."""
    Path("naming.py").write_text(
        "def who(request): return request.body['messages'][-1]['content'].split()[0]\n"
    )
    ran("ask('Lisa asks'); ask('Bart asks')", "--cassette", "a.jsonl", "--actor", "naming:who")
    assert samples("a.jsonl") == ["Bart#0", "Lisa#0"]


@pytest.mark.parametrize(
    ("actor", "message"),
    [
        ("user:(", "its regular expression is wrong"),
        ("user:x", "has no group"),
        ("nobody", '--actor is \'nobody\'; it must be "system", "header:NAME", "user:REGEX"'),
        ("nowhere:who", "there is no module 'nowhere' in the script's folder or installed"),
        ("json:who", "the module 'json' has no function 'who'"),
        ("json:__name__", "__name__ is no function of the request"),
    ],
)
def test_a_wrong_actor_is_refused_before_the_program_starts(actor: str, message: str) -> None:
    """The exit code is 2, as for any wrong option."""
    done = ran("print('started')", "--actor", actor, code=2)
    assert message in " ".join(done.stderr.split()) and not done.stdout
