"""The shares of a closed question's options, against a model whose truth and biases are known."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pytest
from clients import client_for
from pytest_httpserver import HTTPServer
from servers import Answer, ScriptedServer, completion
from werkzeug import Request, Response

import llmcall
from llmcall.testing import ScriptedClient

pandas = pytest.importorskip("pandas")

TRUTH = {"tax": 0.5, "ban": 0.3, "label": 0.2}
OPTIONS = list(TRUTH)
TOWNS = [{"town": "Rye"}, {"town": "Ely"}]


def listed(messages: list[Any]) -> list[str]:
    """Return the options as the prompt lists them."""
    return re.findall(r"^[A-Z]\. (.*)$", messages[-1]["content"], re.MULTILINE)


class BiasedModel(ScriptedClient):
    """A model with a true share for each option, and a bias for places and letters.

    :param bias: is added to the share of each place, and of the letter at it; adds up to 0.
    :param other: what share of the answers is prose.
    """

    def __init__(self, bias: Sequence[float] = (0.15, -0.05, -0.1), other: float = 0.0) -> None:
        super().__init__(self.response)
        self.bias = bias
        self.other = other
        self.chance = random.Random(1)

    def shares(self, options: list[str]) -> list[float]:
        """Return the share of each letter, for options in an order."""
        plain = (TRUTH[option] + bias for option, bias in zip(options, self.bias, strict=True))
        return [share * (1 - self.other) for share in plain]

    def response(self, messages: list[Any]) -> dict[str, Any]:
        """Draw an answer, and tell the probabilities of its first token."""
        shares = self.shares(listed(messages))
        letters = ascii_uppercase[: len(shares)]
        drawn = self.chance.choices([*letters, "I"], [*shares, self.other])[0]
        message = {"role": "assistant", "content": drawn}
        tokens = {}
        for letter, share in zip(letters, shares, strict=True):
            tokens |= {letter: share / 2, f" {letter}": share / 4, letter.lower(): share / 4}
        return response(message, {**tokens, "I": self.other})


def response(message: dict[str, Any], tokens: dict[str, float]) -> dict[str, Any]:
    """Return a response whose first token has some probabilities."""
    top = [
        {"token": token, "logprob": math.log(share) if share else -9999.0, "bytes": None}
        for token, share in tokens.items()
    ]
    content = [{**top[0], "top_logprobs": top}]
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"choices": [{**choice, "logprobs": {"content": content, "refusal": None}}]}


def policy(client: Any, options: Any = OPTIONS, **params: Any) -> llmcall.types.Choice:
    """Return a closed question about a town."""
    return llmcall.choice("What should {{ town }} do?", options, client=client, **params)


def share(found: Any, column: str) -> float:
    """Return a share of the first row."""
    return float(found[column][0])


# By log probabilities


def test_shares_come_by_the_responses_api_too(httpserver: HTTPServer) -> None:
    """OpenAI refuses fewer than 16 tokens there; the first token's probabilities count."""
    tokens = [
        {"token": " A", "logprob": math.log(0.7), "bytes": []},
        {"token": " B", "logprob": math.log(0.3), "bytes": []},
    ]
    logprobs = [{**tokens[0], "top_logprobs": tokens}, {**tokens[1], "top_logprobs": tokens[:1]}]
    part = {"type": "output_text", "text": " A B", "annotations": [], "logprobs": logprobs}
    answer = {
        "object": "response",
        "status": "completed",
        "output": [{"type": "message", "role": "assistant", "content": [part]}],
    }
    message = "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16."

    def respond(request: Request) -> Response:
        is_refused = request.get_json()["max_output_tokens"] < 16
        body = {"error": {"message": message}} if is_refused else answer
        return Response(json.dumps(body), 400 if is_refused else 200, mimetype="application/json")

    httpserver.expect_request("/v1/responses").respond_with_handler(respond)
    client = llmcall.OpenAIClient(base_url=httpserver.url_for("/v1"), api="responses")
    found = policy(client, OPTIONS[:2], order="given").shares(TOWNS[:1])
    assert (share(found, "p_tax"), share(found, "p_ban")) == pytest.approx((0.7, 0.3))


def test_shares_are_averaged_over_all_rotations() -> None:
    """A model's liking for a place or a letter is gone from the shares of its options."""
    client = BiasedModel()
    found = policy(client, order="rotate").shares(TOWNS)
    for option, truth in TRUTH.items():
        assert found[f"p_{option}"].tolist() == pytest.approx([truth, truth])
    assert len(client.requests) == 6


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1, (0.6, 0.3, 0.1)),
        (0.5, (36 / 46, 9 / 46, 1 / 46)),
        (0, (1, 0, 0)),
        (0.0001, (1, 0, 0)),
        (None, (0.6, 0.3, 0.1)),
    ],
)
def test_shares_by_logprobs_are_those_at_the_questions_temperature(
    temperature: float | None, expected: tuple[float, ...]
) -> None:
    """Servers give the probabilities at 1; a sampler at T raises each to 1 / T (Ackley, Hinton and
    Sejnowski 1985).
    """
    answer = response({"role": "assistant", "content": "A"}, {"A": 0.6, "B": 0.3, "I": 0.1})
    client = ScriptedClient(lambda messages: answer)
    found = policy(client, OPTIONS[:2], temperature=temperature).shares(TOWNS[:1])
    shares = [share(found, f"p_{option}") for option in (*OPTIONS[:2], "other")]
    assert shares == pytest.approx(expected)


def test_shares_of_reverse_are_averaged_over_both_directions() -> None:
    """A scale is read in each."""
    client = BiasedModel()
    found = policy(client, order="reverse").shares(TOWNS[:1])
    assert share(found, "p_tax") == pytest.approx((0.65 + 0.4) / 2)
    assert share(found, "p_ban") == pytest.approx(0.25)
    assert [listed(request.messages) for request in client.requests] == [OPTIONS, OPTIONS[::-1]]


def test_only_options_that_move_are_rotated() -> None:
    """Options of ``last`` stay at the end in every call."""
    client = BiasedModel()
    policy(client, order="shuffle", last=["label"]).shares(TOWNS[:1])
    orders = sorted(listed(request.messages) for request in client.requests)
    assert orders == [["ban", "tax", "label"], ["tax", "ban", "label"]]


def test_the_share_of_other_tokens_is_p_other() -> None:
    """Told or not, it is not spread over the options."""
    found = policy(BiasedModel(other=0.2), order="rotate").shares(TOWNS[:1])
    assert share(found, "p_other") == pytest.approx(0.2)
    assert share(found, "p_tax") == pytest.approx(0.4)


def test_shares_ask_for_one_token_and_the_twenty_likeliest_ones() -> None:
    """No more is needed."""
    client = BiasedModel()
    policy(client).shares(TOWNS[:1])
    wanted = {"logprobs": True, "top_logprobs": 20, "max_completion_tokens": 1}
    assert {name: client.requests[0].body[name] for name in wanted} == wanted


@pytest.fixture
def recording(tmp_path: Path) -> tuple[ScriptedClient, llmcall.types.Choice]:
    """A question whose answers are recorded, and its client."""
    client = ScriptedClient(BiasedModel().response, cache_mode="auto", cache_path=tmp_path)
    return client, policy(client, order="rotate")


def test_shares_are_recorded_and_replayed(
    recording: tuple[ScriptedClient, llmcall.types.Choice],
) -> None:
    """Each rotation is a call like any."""
    client, choice = recording
    tables = []
    for _ in range(2):
        with llmcall.scope("survey"):
            tables.append(choice.shares(TOWNS))
    assert len(client.requests) == 6
    pandas.testing.assert_frame_equal(*tables)


def test_a_plan_of_shares_counts_each_rotation(
    recording: tuple[ScriptedClient, llmcall.types.Choice],
) -> None:
    """Recorded rotations are hits."""
    client, choice = recording
    with llmcall.scope("survey"):
        assert choice.shares(TOWNS, dry_run=True).misses == 6
        choice.shares(TOWNS)
    with llmcall.scope("survey"):
        plan = choice.shares([*TOWNS, {"town": "Wells"}], dry_run=True)
    assert (plan.hits, plan.misses) == (6, 3)
    assert len(client.requests) == 6


# Errors


@pytest.mark.parametrize(
    "answer",
    [
        "A",
        {"choices": [{"message": {"role": "assistant", "content": "A"}, "logprobs": None}]},
        {
            "choices": [
                {
                    "message": {"role": "assistant", "content": "A"},
                    "logprobs": {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": []}]},
                }
            ]
        },
    ],
)
def test_a_server_without_logprobs_is_an_error_before_the_second_call(answer: Any) -> None:
    """The error names the remedy, and only one call was made, whatever ``on_error`` says."""
    client = ScriptedClient(lambda messages: answer)
    with pytest.raises(llmcall.ConfigError, match="method='draws'"):
        policy(client, order="rotate").shares(TOWNS, on_error="return")
    assert len(client.requests) == 1


@pytest.mark.parametrize(
    ("first", "usage"),
    [("<think>", {}), ("A", {"completion_tokens_details": {"reasoning_tokens": 9}})],
)
def test_a_model_that_reasons_is_an_error_before_the_second_call(
    first: str, usage: dict[str, Any]
) -> None:
    """A first token after reasoning, or of reasoning, is no measure of the answers."""
    answer = response({"role": "assistant", "content": first}, {first: 1.0})
    answer["usage"] = {"prompt_tokens": 9, "completion_tokens": 10, **usage}
    client = ScriptedClient(lambda messages: answer)
    with pytest.raises(llmcall.ConfigError, match="reasons before it answers"):
        policy(client, order="rotate").shares(TOWNS)
    assert len(client.requests) == 1


def test_the_sdk_sends_the_parameters_of_shares_and_gives_the_probabilities(
    httpserver: HTTPServer,
) -> None:
    """The server is asked over HTTP."""
    body = completion("A", finish_reason="length")
    body["choices"][0]["logprobs"] = response({}, {"A": 0.7, "B": 0.2})["choices"][0]["logprobs"]
    server = ScriptedServer(httpserver, Answer(200, body))
    with client_for(server.base_url) as client:
        found = policy(client, ["tax", "ban"]).shares(TOWNS[:1])
    shares = [share(found, name) for name in ("p_tax", "p_ban", "p_other")]
    assert shares == pytest.approx([0.7, 0.2, 0.1])
    [request] = server.requests
    assert (request.body["logprobs"], request.body["top_logprobs"]) == (True, 20)


def test_a_model_that_takes_no_logprobs_is_an_error_before_the_first_call() -> None:
    """The table of models needs no call."""
    client = ScriptedClient(["A"])
    with pytest.raises(llmcall.ConfigError, match=r"'o3' takes no logprobs.*method='draws'"):
        policy(client, model="o3").shares(TOWNS)
    assert client.requests == []


@pytest.mark.parametrize(
    ("options", "rows", "arguments", "words"),
    [
        (
            [f"option {number}" for number in range(21)],
            TOWNS,
            {},
            "shares takes 20 options at most, not 21",
        ),
        (["tax", "other"], TOWNS, {}, "'p_other'"),
        ({1: "tax", "1": "ban"}, TOWNS, {}, "'p_1'"),
        (OPTIONS, [{"town": "Rye", "p_tax": 1}], {}, "'p_tax'"),
        (OPTIONS, [{"town": "Rye", "error": 1}], {"on_error": "return"}, "'error'"),
        (OPTIONS, TOWNS, {"repeats": 3, "method": "logprobs"}, "which method='logprobs' does not"),
        (OPTIONS, TOWNS, {"method": "draws"}, "repeats="),
        (OPTIONS, TOWNS, {"method": "logits"}, "must be one of auto, decisions, logprobs, draws"),
    ],
)
def test_wrong_arguments_of_shares_are_refused_before_anything_is_asked(
    options: Any, rows: Any, arguments: dict[str, Any], words: str
) -> None:
    """The error names what is wrong."""
    client = BiasedModel()
    with pytest.raises(ValueError, match=re.escape(words)):
        policy(client, options).shares(rows, **arguments)
    assert client.requests == []


def test_a_failed_row_has_missing_shares() -> None:
    """With ``on_error="return"`` a row that failed has no shares, and its error."""
    good = BiasedModel()

    def answer(messages: list[Any]) -> Any:
        is_ely = "Ely" in messages[-1]["content"]
        return llmcall.AuthenticationError("no") if is_ely else good.response(messages)

    found = policy(ScriptedClient(answer)).shares(TOWNS, on_error="return")
    assert found["p_tax"].isna().tolist() == [False, True]
    assert found["error"][1] == "AuthenticationError: no"


# By draws


@pytest.mark.newest_only
def test_draws_are_counted_without_logprobs() -> None:
    """``method="draws"`` counts each row's draws in the question's own orders."""
    client = BiasedModel(other=0.2)
    with llmcall.scope("survey"):
        found = policy(client, order="rotate").shares(TOWNS[:1], method="draws", repeats=600)
    for name, truth in {"tax": 0.4, "ban": 0.24, "label": 0.16, "other": 0.2}.items():
        assert share(found, f"p_{name}") == pytest.approx(truth, abs=0.06)
    assert not any("logprobs" in request.body for request in client.requests)


def no_logprobs(messages: list[Any]) -> str:
    """Answer without log probabilities."""
    return "A"


@pytest.mark.parametrize("model", ["my-model", "o3"])
@pytest.mark.parametrize("repeats", [3, 6])
def test_draws_are_counted_where_the_model_gives_no_log_probabilities(
    model: str, repeats: int, tmp_path: Path
) -> None:
    """If ``repeats`` says how many, whether the model is known or the first answer tells; a replay
    does the same.
    """
    client = ScriptedClient(
        no_logprobs, cache_mode="auto", cache_path=tmp_path, model=model, on_error="raise"
    )
    for _ in range(2):
        with llmcall.scope("survey"):
            found = policy(client, order="rotate").shares(TOWNS, repeats=repeats)
        assert found.attrs["method"] == "draws"
        assert found[["p_tax", "p_ban", "p_label"]].sum(axis=1).tolist() == [1.0, 1.0]
        assert len(client.requests) == 2 * repeats + (model == "my-model")


def test_log_probabilities_go_before_draws() -> None:
    """Where the model gives them, nothing is drawn."""
    client = BiasedModel()
    found = policy(client, order="rotate").shares(TOWNS, repeats=50)
    assert found.attrs["method"] == "logprobs"
    assert len(client.requests) == 6


def test_counted_shares_have_intervals() -> None:
    """Those of Newcombe (1998), table I, method 4: of 29 answers, 1 and 20 of 20."""
    client = ScriptedClient(["A", *["B"] * 28])
    with llmcall.scope("survey"):
        found = policy(client, OPTIONS[:2]).shares(TOWNS[:1], method="draws", repeats=29)
    assert list(found)[1:] == [
        *("p_tax", "p_ban", "p_other"),
        *("low_tax", "high_tax", "low_ban", "high_ban"),
    ]
    ends = [share(found, name) for name in ("low_tax", "high_tax")]
    assert ends == pytest.approx([0.0018, 0.1963], abs=6e-5)
    assert share(found, "low_ban") == pytest.approx(1 - 0.1963, abs=6e-5)


@pytest.mark.ci
def test_intervals_of_counted_shares_hold_the_truth() -> None:
    """In at least 92 % of 300 rows, each with 20 answers of known probabilities."""
    chance = random.Random(5)
    client = ScriptedClient(lambda messages: chance.choices("ABC", [0.05, 0.3, 0.65])[0])
    rows = [{"town": str(number)} for number in range(300)]
    with llmcall.scope("survey"):
        found = policy(client).shares(rows, method="draws", repeats=20)
    for option, truth in zip(OPTIONS, (0.05, 0.3, 0.65), strict=True):
        assert (
            found[f"low_{option}"].le(truth).mul(found[f"high_{option}"].ge(truth)).mean() >= 0.92
        )
        assert (found[f"high_{option}"] > found[f"low_{option}"]).all()


def test_shares_by_log_probabilities_have_no_interval_and_a_line_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = policy(BiasedModel(), order="rotate").shares(TOWNS)
    assert found.filter(regex="low_|high_").isna().all(axis=None)
    assert "have no 95 % interval" in caplog.text


WORDINGS = {
    "plain": "What should {{ town }} do?",
    "loaded": "Dear {{ town }}, what would save you?",
}


class FramedModel(BiasedModel):
    """A model whose share of "tax" is .2 higher under the loaded wording, and that of "ban" lower."""

    def shares(self, options: list[str]) -> list[float]:
        """Return the share of each letter."""
        loaded = {"tax": 0.2, "ban": -0.2} if self.is_loaded else {}
        plain = super().shares(options)
        return [share + loaded.get(option, 0) for option, share in zip(options, plain, strict=True)]

    def response(self, messages: list[Any]) -> dict[str, Any]:
        """Draw an answer to a wording."""
        self.is_loaded = messages[-1]["content"].startswith("Dear")
        return super().response(messages)


@pytest.mark.parametrize("method", ["logprobs", pytest.param("draws", marks=pytest.mark.ci)])
def test_shares_vary_over_wordings(method: str) -> None:
    """A row for each wording and row, with the share of that wording; an interval where draws are
    counted. A new wording asks only for itself.
    """
    client = FramedModel((0.0, 0.0, 0.0))
    choice = policy(client, order="rotate", on_error="raise")
    options: dict[str, Any] = {"method": method}
    options |= {"repeats": 300, "workers": 1} if method == "draws" else {}
    with llmcall.cassette("wordings.jsonl"), llmcall.scope("survey"):
        choice.shares(TOWNS, vary={"user": {"plain": WORDINGS["plain"]}}, **options)
    with llmcall.cassette("wordings.jsonl", mode="new"), llmcall.scope("survey"):
        plan = choice.shares(TOWNS, vary={"user": WORDINGS}, dry_run=True, **options)
        found = choice.shares(TOWNS, vary={"user": WORDINGS}, **options)
    assert plan.hits == plan.misses == len(client.requests) / 2
    assert found[["town", "user"]].to_numpy().tolist() == [
        *(["Rye", "plain"], ["Ely", "plain"]),
        *(["Rye", "loaded"], ["Ely", "loaded"]),
    ]
    close = 1e-9 if method == "logprobs" else 0.11  # four standard errors
    for option, shares in {"tax": [0.5, 0.5, 0.7, 0.7], "ban": [0.3, 0.3, 0.1, 0.1]}.items():
        assert found[f"p_{option}"].tolist() == pytest.approx(shares, abs=close)
        has_interval = found[f"low_{option}"] < found[f"high_{option}"]
        assert has_interval.tolist() == [method == "draws"] * 4


def test_shares_vary_keeps_the_index_of_a_frame() -> None:
    towns = pandas.DataFrame(TOWNS, index=["r", "e"])
    found = policy(FramedModel()).shares(towns, vary={"user": WORDINGS})
    assert found.index.tolist() == ["r", "e", "r", "e"]


def test_no_model_of_vary_is_asked_for_shares_that_one_does_not_give() -> None:
    client = BiasedModel()
    with pytest.raises(llmcall.ConfigError, match="'o3' takes no logprobs"):
        policy(client).shares(TOWNS, vary={"model": ["gpt-4o", "o3"]}, method="logprobs")
    assert client.requests == []


@pytest.mark.parametrize(("order", "given", "asked"), [("reverse", 3, 4), ("rotate", 4, 6)])
def test_draws_read_each_order_equally_often(order: str, given: int, asked: int) -> None:
    """So ``repeats`` is rounded up, and the plan says so; a model that takes what stands first takes each
    option of a direction, or of all rotations, equally often.
    """
    client = ScriptedClient(no_logprobs)
    choice = policy(client, order=order)
    options: dict[str, Any] = {"method": "draws", "repeats": given}
    with llmcall.scope("survey"):
        plan = choice.shares(TOWNS, dry_run=True, **options)
        found = choice.shares(TOWNS, **options)
    read = Counter(
        (request.sample.partition("/~")[2][:16], tuple(listed(request.messages)))
        for request in client.requests
        if request.sample
    )
    assert {*read.values()} == {2}
    assert plan.misses == len(client.requests) == 2 * asked
    assert f"repeats {given} rounded up to {asked}" in str(plan)
    first_share = 1 / 2 if order == "reverse" else 1 / 3
    assert found["p_tax"].tolist() == pytest.approx([first_share] * 2)


def test_draws_of_rotate_are_those_of_the_table() -> None:
    """So a table that was recorded needs no call."""
    client = ScriptedClient(no_logprobs, cache_mode="auto")
    choice = policy(client, order="rotate")
    with llmcall.scope("survey"):
        choice.table(TOWNS, repeats=3)
    with llmcall.scope("survey"):
        choice.shares(TOWNS, method="draws", repeats=3)
    assert len(client.requests) == 6


# Replies


def test_a_reply_has_the_log_probabilities_that_the_api_gave() -> None:
    """Each of its choices has them, too."""
    raw = response({"role": "assistant", "content": "A"}, {"A": 0.5})
    client = ScriptedClient([raw])
    reply = client.send_message("A or B?", logprobs=True, top_logprobs=1, on_error="raise")
    assert reply.logprobs == raw["choices"][0]["logprobs"]
    assert reply.choices[0]["logprobs"] == reply.logprobs
