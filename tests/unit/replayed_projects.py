"""Small projects whose tests call a model, run by pytest with the plugin in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pydantic
import pytest

from llmcall import calls as call
from llmcall import prompts as jinja
from llmcall import testing
from llmcall.cassettes import format as lines
from llmcall.pytest_plugin import replay as pytest_replay
from llmcall.replay import recorded
from llmcall.requests import keys

# pytester forgets what was first imported while it ran; what has a state is imported before, and so only once.
STATEFUL = [call, jinja, jinja2, pydantic, pytest_replay, recorded, testing]

PLUGIN = ("-p", "llmcall.pytest_plugin", "-p", "no:cacheprovider")
# A client of one's own, as the plugin sees a client that reaches a model over the network; it notes each call.
MARKET = """
import llmcall

class Model(llmcall.LLMClient):
    api_type = "model"

    def send(self, request, timeout):
        text = (request.messages or request.body["input"])[-1]["content"]
        with open("calls.txt", "a") as calls:
            calls.write(text + "\\n")
        message = {"role": "assistant", "content": f"Yes, {text}"}
        return {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

def ask(text, **settings):
    return Model(**settings).send_message(text, on_error="raise").content
"""


class Project:
    """Be a project in a folder, with ``market.ask`` to test."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.path = pytester.path
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        monkeypatch.setenv("LLMCALL_CACHE_MODE", "off")
        pytester.makefile(".ini", pytest="[pytest]\naddopts = --strict-markers\npythonpath = .\n")
        pytester.makepyfile(market=MARKET)

    def write(self, name: str, source: str, header: str = "import pytest\nfrom market import ask\n") -> None:
        """Write a file of the project; a test module with the usual imports."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header + source, encoding="utf-8")

    def run(self, *arguments: str, **outcomes: int) -> str:
        """Run the tests, check how many passed, failed …, and return what was printed."""
        return self.result(*arguments, **outcomes).stdout.str()

    def result(self, *arguments: str, **outcomes: int) -> pytest.RunResult:
        """Run the tests, and check how many passed, failed … where that is given."""
        found = self.pytester.runpytest_inprocess(*PLUGIN, *arguments)
        if outcomes:
            assert _counts(found) == outcomes, found.stdout.str()
        return found

    def cassettes(self) -> list[str]:
        """Return the files of cassettes."""
        return sorted(path.relative_to(self.path).as_posix() for path in self.path.rglob("*.jsonl"))

    def calls(self) -> list[str]:
        """Return what the model was asked since the last time."""
        file = self.path / "calls.txt"
        texts = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return texts

    def questions(self, cassette: str) -> list[str]:
        """Return the questions that a cassette holds, in the order of the file."""
        stored = lines.read(self.path / cassette, keys.key_of)
        return [record.request["messages"][-1]["content"] for record in stored]


def _counts(result: pytest.RunResult) -> dict[str, int]:
    return {name: count for name, count in result.parseoutcomes().items() if name not in ("warning", "warnings")}


def summary(printed: str) -> list[str]:
    """Return the plugin's lines of the summary."""
    return [line for line in printed.splitlines() if line.startswith("llmcall: ")]


def names_of(path: Path) -> list[Any]:
    """Return the names in a folder."""
    return sorted(each.name for each in path.iterdir()) if path.exists() else []
