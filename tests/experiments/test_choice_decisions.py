"""Shares by OpenAI's Decisions API. Requests and answers have the SDK's own types (openai 3.57)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients import http
from commands import done
from files import read_records

import llmcall
from llmcall.testing import ScriptedClient

pandas = pytest.importorskip("pandas")

OPTIONS = ["tax", "ban", "label"]
TRUTH = {"tax": 0.5, "ban": 0.2, "label": 0.1}  # the rest falls on no option
BIAS = (0.06, 0.0, -0.06)  # of the first, the second and the third place
TOWNS = [{"town": "Rye"}, {"town": "Ely"}]
TAPE = "tape.jsonl"


def decided(probabilities: dict[str, float] | None) -> dict[str, Any]:
    """Return an answer of the API; ``None`` is a refusal."""
    answer: dict[str, Any] = {"type": "refusal", "name": None}
    if probabilities is not None:
        answer = {
            "type": "choice",
            "name": None,
            "choice": max(probabilities, key=probabilities.__getitem__),
            "confidence": max(probabilities.values()),
            "probabilities": [
                {"value": value, "probability": share} for value, share in probabilities.items()
            ],
        }
    usage = {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 1020,
    }
    return {"answers": [answer], "model": "gpt-6-luna", "usage": usage}


def biased(body: dict[str, Any]) -> dict[str, float]:
    """Return the true probability of each option, and what its place adds."""
    values = [option["value"] for option in body["questions"][0]["choices"]]
    return {value: TRUTH[value] + bias for value, bias in zip(values, BIAS, strict=True)}


class Api:
    """A transport that stands for OpenAI's server.

    :param answer: returns the status and the body of the answer to a decision's body.
    :ivar requests: the paths and bodies that it got.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], tuple[int, Any]] | None = None) -> None:
        self.answer = answer or (lambda body: (200, decided(biased(body))))
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.http_client = http.Client(transport=http.MockTransport(self._respond))

    def _respond(self, request: Any) -> Any:
        body = json.loads(request.content)
        self.requests.append((str(request.url), body))
        if request.url.path.endswith("/decisions"):
            status, answer = self.answer(body)
            return http.Response(status, json=answer)
        # Chat completions give log probabilities.
        top = [{"token": "A", "logprob": 0.0, "bytes": None}]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "A"},
            "finish_reason": "stop",
            "logprobs": {"content": [{**top[0], "top_logprobs": top}], "refusal": None},
        }
        return http.Response(200, json={"choices": [choice], "model": body["model"]})

    def client(self, **settings: Any) -> llmcall.OpenAIClient:
        """Return a client that asks it."""
        settings = {"api_key": "k", "model": "gpt-6-luna", "on_error": "raise", **settings}
        return llmcall.OpenAIClient(http_client=self.http_client, **settings)

    @property
    def paths(self) -> list[str]:
        """Return the ends of the addresses that were asked."""
        return [url.rpartition("/v1/")[2] for url, _ in self.requests]


def policy(client: Any, **params: Any) -> llmcall.types.Choice:
    """Return a closed question about a town."""
    return llmcall.choice("What should {{ town }} do?", OPTIONS, client=client, **params)


def test_a_decision_asks_for_one_choice_with_the_types_of_the_sdk() -> None:
    """One call a row; what a chat has beside its messages has no meaning there, and is not sent."""
    api = Api()
    with llmcall.configured(window="8h"):
        policy(api.client(), system="You are Ann.", temperature=1, max_tokens=3).shares(TOWNS[:1])
    [(url, body)] = api.requests
    assert url == "https://api.openai.com/v1/decisions"
    assert body == {
        "model": "gpt-6-luna",
        "input": [
            {"type": "message", "role": "system", "content": "You are Ann."},
            {"type": "message", "role": "user", "content": "What should Rye do?"},
        ],
        "questions": [
            {
                "type": "choice",
                "instructions": "What should Rye do?",
                "choices": [{"value": option} for option in OPTIONS],
            }
        ],
    }


@pytest.mark.newest_only
def test_a_decisions_body_has_the_fields_that_the_sdk_names() -> None:
    """Its own check of types finds nothing wrong, in the request and in the answer."""
    types = pytest.importorskip("openai.types.decision_create_params")
    from openai.types import Decision
    from pydantic import TypeAdapter

    api = Api()
    policy(api.client()).shares(TOWNS[:1])
    [(_, body)] = api.requests
    TypeAdapter(types.QuestionQuestionParamChoice).validate_python(body["questions"][0])
    assert body.keys() <= types.DecisionCreateParams.__annotations__.keys()
    Decision.model_validate(decided(TRUTH))


@pytest.mark.parametrize(("order", "calls"), [("given", 1), ("reverse", 2), ("rotate", 3)])
def test_decisions_are_averaged_over_the_orders(order: str, calls: int) -> None:
    """One call a row and order; where each option had each place, a liking for places is gone."""
    api = Api()
    found = policy(api.client(), order=order).shares(TOWNS)
    assert found.attrs["method"] == "decisions"
    assert api.paths == ["decisions"] * 2 * calls
    bias = (
        dict.fromkeys(OPTIONS, 0.0) if order != "given" else dict(zip(OPTIONS, BIAS, strict=True))
    )
    for option, truth in TRUTH.items():
        assert found[f"p_{option}"].tolist() == pytest.approx([truth + bias[option]] * 2)
    assert found["p_other"].tolist() == pytest.approx([0.2] * 2)
    assert found.filter(regex="low_|high_").isna().all(axis=None)


def test_decisions_vary_over_wordings() -> None:
    """The instructions are each wording; the model answers it with other probabilities."""
    loaded = {"tax": 0.7, "ban": 0.2, "label": 0.1}
    api = Api(
        lambda body: (
            200,
            decided(
                loaded if "Dear" in body["questions"][0]["instructions"] else biased(body),
            ),
        )
    )
    wordings = {"plain": "What should {{ town }} do?", "loaded": "Dear {{ town }}?"}
    found = policy(api.client(), order="rotate").shares(TOWNS[:1], vary={"user": wordings})
    assert found["p_tax"].tolist() == pytest.approx([TRUTH["tax"], 0.7])
    assert api.paths == ["decisions"] * 6


def test_a_refused_decision_falls_on_no_option() -> None:
    found = policy(Api(lambda body: (200, decided(None))).client()).shares(TOWNS[:1])
    assert found.loc[0, ["p_tax", "p_ban", "p_label", "p_other"]].tolist() == [0, 0, 0, 1]


def test_a_refused_decision_counts_as_a_refusal() -> None:
    """In the reporting checklist."""
    api = Api(lambda body: (200, decided(None if "Rye" in json.dumps(body) else biased(body))))
    with llmcall.cassette(TAPE), llmcall.scope("survey"):
        policy(api.client()).shares(TOWNS)
    report = Path("report.html")
    done("report", TAPE, "-o", str(report))
    assert "Of 2 answers, 0 were cut, 1 refused" in report.read_text(encoding="utf-8")


def test_the_texts_of_options_with_codes_are_the_choices() -> None:
    """As they are rendered with the row; the shares have the codes."""
    api = Api(lambda body: (200, decided({"a flat in Rye": 0.75, "none": 0.25})))
    options = {1: "a flat in {{ town }}", 2: "none"}
    found = llmcall.choice("Which?", options, client=api.client()).shares(TOWNS[:1])
    assert found.loc[0, ["p_1", "p_2"]].tolist() == [0.75, 0.25]


def test_decisions_are_recorded_replayed_planned_and_priced(tmp_path: Path) -> None:
    """A million tokens of input cost $0.10, output is free: OpenAI's price list."""
    api = Api()
    client = api.client(cache_mode="auto", cache_path=str(tmp_path / "cache"))
    choice = policy(client, order="rotate")
    plan = choice.shares(TOWNS, dry_run=True)
    assert (plan.hits, plan.misses, api.requests) == (0, 6, [])
    assert plan.cost is not None and 0 < plan.cost[1] < 6 * 200 * 0.1 / 1e6
    with llmcall.cassette(TAPE), llmcall.scope("survey"):
        first = choice.shares(TOWNS)
    with llmcall.cassette(TAPE, mode="none"), llmcall.scope("survey"):
        pandas.testing.assert_frame_equal(choice.shares(TOWNS), first)
    with llmcall.cassette(TAPE), llmcall.scope("survey"):
        plan = choice.shares([*TOWNS, {"town": "Wells"}], dry_run=True)
    assert (plan.hits, plan.misses, len(api.requests)) == (6, 3, 6)
    records = read_records(Path(TAPE))
    assert [record.cost for record in records] == pytest.approx([1000 * 0.1 / 1e6] * 6)
    assert client.usage.cost == pytest.approx(6e-4)
    assert {record.prompt for record in records} >= {"What should Rye do?"}
    assert {record.answer for record in records} <= {*OPTIONS}
    assert "What should Rye do?" in done("show", TAPE)


def test_a_budget_bounds_decisions() -> None:
    """Two cost $0.0001 each; what is left is less than the price of a third prompt's 50 tokens."""
    api = Api()
    with pytest.raises(llmcall.BudgetExceededError), llmcall.budget(0.000202):
        policy(api.client(), order="rotate").shares(TOWNS, workers=1)
    assert len(api.requests) == 2


def test_an_error_of_a_decision_is_tried_again() -> None:
    """As any call's is."""
    answers = iter([(500, {"error": {"message": "overloaded"}}), (200, decided(TRUTH))])
    api = Api(lambda body: next(answers))
    found = policy(api.client(retry_waiting_time=0)).shares(TOWNS[:1])
    assert float(found["p_tax"][0]) == 0.5


# Which method


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({}, "decisions"),
        ({"base_url": "https://eu.api.openai.com/v1"}, "decisions"),
        ({"model": "gpt-4.1"}, "logprobs"),
        ({"base_url": "https://my-server.example/v1"}, "logprobs"),
        ({"base_url": "https://api.openai.com.example/v1"}, "logprobs"),
        (
            {
                "base_url": "https://my-server.example/v1",
                "models": {"gpt-6-luna": {"decisions": True}},
            },
            "decisions",
        ),
        ({"models": {"gpt-6-luna": {"decisions": False}}}, "logprobs"),
    ],
)
def test_auto_takes_decisions_where_the_table_of_models_has_them(
    settings: dict[str, Any], method: str
) -> None:
    """Of a model at OpenAI's own address, or where a section says so."""
    api = Api()
    assert policy(api.client(**settings)).shares(TOWNS).attrs["method"] == method
    assert {*api.paths} == {"decisions" if method == "decisions" else "chat/completions"}


def test_auto_goes_on_with_log_probabilities_where_decisions_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It asks once, and says so; the run lacks nothing. A replay asks for none."""
    api = Api(lambda body: (404, {"error": {"message": "not in the beta"}}))
    choice = policy(api.client(), order="rotate")
    for mode in ("new", "none"):
        with llmcall.cassette(TAPE, mode=mode), llmcall.scope("survey"):
            assert choice.shares(TOWNS).attrs["method"] == "logprobs"
    assert api.paths == ["decisions", *["chat/completions"] * 6]
    assert "decisions are not available here" in caplog.text
    assert "failed" not in caplog.text


def test_auto_replays_what_was_recorded() -> None:
    """Shares by log probabilities from before decisions came."""
    api = Api()
    choice = policy(api.client())
    with llmcall.cassette(TAPE), llmcall.scope("survey"):
        choice.shares(TOWNS, method="logprobs")
    with llmcall.cassette(TAPE, mode="none"), llmcall.scope("survey"):
        assert choice.shares(TOWNS).attrs["method"] == "logprobs"


@pytest.mark.parametrize(
    "client",
    [
        lambda: ScriptedClient(["A"], model="gpt-6-luna"),
        lambda: Api().client(model="gpt-4.1"),
    ],
)
def test_decisions_that_nobody_gives_are_an_error_before_the_first_call(
    client: Callable[[], Any],
) -> None:
    with pytest.raises(llmcall.ConfigError, match=r"has no decisions with .*method='draws'"):
        policy(client()).shares(TOWNS, method="decisions")


def test_a_server_without_decisions_is_an_error_before_the_second_call() -> None:
    """Asked for by name, nothing else is taken."""
    api = Api(lambda body: (404, {"error": {"message": "not found"}}))
    with pytest.raises(llmcall.ConfigError, match=r"decisions are not available here.*not found"):
        policy(api.client(), order="rotate").shares(TOWNS, method="decisions")
    assert api.paths == ["decisions"]
