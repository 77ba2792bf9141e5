"""A study's results have the same bytes in a recording and in its replays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pytest_httpserver import HTTPServer
from servers import ANY_PATH, completion
from werkzeug import Request, Response

import llmcall

pandas = pytest.importorskip("pandas")

PEOPLE = [{"name": name} for name in ("Ann", "Bea", "Cid", "Dot")]
SETTINGS = {"model": "gpt-4o-mini", "prices": {"gpt-4o-mini": (0.15, 0.6)}, "api_key": "none"}


class Offer(BaseModel):
    """How much somebody gives, and why."""

    coins: int
    reason: str


class Respondents:
    """A server whose respondents differ in what they answer, use, and need to be asked twice for.

    Ann answers well, Bea at her second try, Cid refuses, Dot never fits. The tokens of the first 16
    answers are powers of two, so that sums over tries are equal only if they're of the same answers,
    in whatever order concurrent requests come.
    """

    def __init__(self, server: HTTPServer) -> None:
        self.base_url = f"http://127.0.0.1:{server.port}/v1"
        self.asked = 0
        server.expect_request(ANY_PATH).respond_with_handler(self._respond)

    def _respond(self, request: Request) -> Response:
        body: Any = request.get_json()
        question = json.dumps(body["messages"])
        name = next(person["name"] for person in PEOPLE if person["name"] in question)
        self.asked += 1
        tokens = 2 ** (self.asked % 16)
        content, refusal, end = '{"coins": 3, "reason": "fair, \\u00e0 moi"}', None, "stop"
        if name == "Bea" and "assistant" not in question:
            content = "three, or so"
        elif name == "Cid":
            content, refusal = None, "I give nothing."
        elif name == "Dot":
            content, end = "no JSON", "length"
        if "yes or no" in question.lower():
            content, refusal = ("Yes" if self.asked % 2 else "No"), None
        message = {"role": "assistant", "content": content, "refusal": refusal}
        answer = completion(
            choices=[{"index": 0, "message": message, "finish_reason": end}],
            created=1_790_000_000 + 86_400 * self.asked,
            model=f"gpt-4o-mini-2024-07-1{self.asked % 2}",
            usage={"prompt_tokens": tokens, "completion_tokens": tokens},
        )
        return Response(json.dumps(answer), mimetype="application/json")


def write_results(folder: Path) -> None:
    """Run a study, and write each of its results to a file."""
    folder.mkdir()
    offer = llmcall.LLMCall(user="{{ name }}, how many coins?", output_type=Offer, temperature=1)
    agrees = llmcall.LLMCall(user="{{ name }}, yes or no? {{ question }}", output_type=bool)
    with llmcall.configured(**SETTINGS), llmcall.cassette("study.jsonl") as cassette:
        with llmcall.scope("offers"):
            table = offer.table(PEOPLE, repeats=2, on_error="return")
        with llmcall.scope("wordings"):
            wordings = {"question": ["Agree?", "Do you agree?"], "temperature": [0, 1]}
            varied = agrees.table(PEOPLE, vary=wordings)

        def play(question: str) -> float:
            return sum(agrees.call(name=person["name"], question=question) for person in PEOPLE)

        arms = {"plain": {"question": "Now?"}, "kind": {"question": "Please?"}}
        runs = llmcall.arms(play, arms, scope="arms", repeats=2)
        frames = {
            "table": table,
            "varied": varied,
            "arms": runs.table(lambda agreed: agreed),
            "effect": runs.effect(lambda agreed: agreed, "kind", "plain"),
            "records": cassette.to_frame(),
        }
        counts = {"calls": runs.calls, "shared": runs.shared, "cost": runs.cost}
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv")
        (folder / f"{name}.json").write_text(json.dumps(frame.attrs))
    (folder / "counts.json").write_text(json.dumps(counts))


def test_a_replayed_study_writes_the_files_of_its_recording(
    httpserver: HTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tables with costs, tries, misfits, refusals, errors and the model that served."""
    monkeypatch.chdir(tmp_path)
    server = Respondents(httpserver)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    write_results(Path("recorded"))
    asked = server.asked
    llmcall.reset()
    write_results(Path("replayed"))
    assert server.asked == asked
    recorded = {path.name: path.read_bytes() for path in Path("recorded").iterdir()}
    replayed = {path.name: path.read_bytes() for path in Path("replayed").iterdir()}
    assert recorded == replayed
    table = pandas.read_csv("recorded/table.csv")
    assert table["tries"].tolist() == [1, 1, 2, 2, 1, 1, 3, 3]
    assert table["cost"].nunique() == len(table)
    assert set(table["served"]) == {"gpt-4o-mini-2024-07-10", "gpt-4o-mini-2024-07-11"}
