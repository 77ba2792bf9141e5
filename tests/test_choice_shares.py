"""The shares of a closed question's options, against a model whose truth and biases are known."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from servers import Answer, ScriptedServer, client_for, completion, refusal

import llmcall
from llmcall.testing import ScriptedClient

pandas = pytest.importorskip("pandas")

TRUTH = {"tax": 0.5, "ban": 0.3, "label": 0.2}
OPTIONS = list(TRUTH)
TOWNS = [{"town": "Rye"}, {"town": "Ely"}]
DRAWS = 10_000


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


def policy(client: Any, options: Any = OPTIONS, **params: Any) -> llmcall.Choice:
    """Return a closed question about a town."""
    return llmcall.choice("What should {{ town }} do?", options, client=client, **params)


def share(found: Any, column: str) -> float:
    """Return a share of the first row."""
    return float(found[column][0])


# By log probabilities


def test_shares_are_averaged_over_all_rotations() -> None:
    """What a model adds for a place or a letter is gone from the shares of its options."""
    client = BiasedModel()
    found = policy(client, order="rotate").shares(TOWNS)
    assert list(found.columns) == ["town", "p_tax", "p_ban", "p_label", "p_other"]
    assert found["town"].tolist() == ["Rye", "Ely"]
    for option, truth in TRUTH.items():
        assert found[f"p_{option}"].tolist() == pytest.approx([truth, truth])
    assert len(client.requests) == 6


def test_shares_in_the_given_order_are_naive() -> None:
    """In the given order the shares are off by what the model adds for each place."""
    found = policy(BiasedModel()).shares(TOWNS[:1])
    assert [share(found, f"p_{option}") for option in OPTIONS] == pytest.approx([0.65, 0.25, 0.1])


def test_shares_of_reverse_are_averaged_over_both_directions() -> None:
    """A scale is read in both directions."""
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


def test_what_falls_on_no_option_is_other() -> None:
    """The share of other tokens, told or not, is ``p_other``, and not spread over the options."""
    found = policy(BiasedModel(other=0.2), order="rotate").shares(TOWNS[:1])
    assert share(found, "p_other") == pytest.approx(0.2)
    assert share(found, "p_tax") == pytest.approx(0.4)


def test_a_token_that_cannot_come_has_no_share() -> None:
    """Some servers give the logarithm of 0 as null; minus infinity is recorded as null, too."""
    answer = response({"role": "assistant", "content": "A"}, {"A": 0.6, "B": 0.4, "C": 0.0})
    [choice] = answer["choices"]
    top = choice["logprobs"]["content"][0]["top_logprobs"]
    for nothing in (None, -math.inf):
        top[2]["logprob"] = nothing
        found = policy(ScriptedClient(lambda messages: answer)).shares(TOWNS[:1])
        assert share(found, "p_tax") == pytest.approx(0.6)
        assert share(found, "p_label") == 0


def test_shares_of_codes_are_named_by_the_codes() -> None:
    """Of a dict of codes and texts the columns have the codes."""
    found = policy(BiasedModel(), {1: "tax", 2: "ban", 3: "label"}).shares(TOWNS[:1])
    assert list(found.columns) == ["town", "p_1", "p_2", "p_3", "p_other"]


def test_shares_equal_those_of_many_draws() -> None:
    """Shares by log probabilities are those of ten thousand draws, but for sampling error."""
    client = BiasedModel(other=0.1)
    by_logprobs = policy(client, order="rotate").shares(TOWNS[:1])
    counts: Counter[str] = Counter()
    for start in range(3):
        options = OPTIONS[start:] + OPTIONS[:start]
        shares = client.shares(options)
        drawn = client.chance.choices([*options, "other"], [*shares, client.other], k=DRAWS // 3)
        counts.update(drawn)
    for name in [*OPTIONS, "other"]:
        assert share(by_logprobs, f"p_{name}") == pytest.approx(counts[name] / DRAWS, abs=0.02)


def test_the_request_asks_for_the_first_token() -> None:
    """A call asks for one token and the twenty likeliest ones, in the same words as the question."""
    client = BiasedModel()
    choice = policy(client)
    choice.shares(TOWNS[:1])
    choice(town="Rye")
    first, second = client.requests
    assert first.messages == second.messages
    wanted = {"logprobs": True, "top_logprobs": 20, "max_tokens": 1}
    assert {name: first.body[name] for name in wanted} == wanted


def test_shares_are_recorded_and_replayed(tmp_path: Path) -> None:
    """Each rotation is a call like any: it is recorded, planned and replayed."""
    client = BiasedModel()
    with llmcall.configured(cache_mode="auto", cache_path=tmp_path):
        client = ScriptedClient(client.response, cache_mode="auto", cache_path=tmp_path)
        choice = policy(client, order="rotate")
        with llmcall.scope("survey"):
            assert choice.shares(TOWNS, dry_run=True).misses == 6
            before = choice.shares(TOWNS)
        with llmcall.scope("survey"):
            plan = choice.shares([*TOWNS, {"town": "Wells"}], dry_run=True)
            after = choice.shares(TOWNS)
    assert (plan.hits, plan.misses) == (6, 3)
    assert len(client.requests) == 6
    pandas.testing.assert_frame_equal(before, after)


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
def test_a_server_without_logprobs_is_told_before_the_second_call(answer: Any) -> None:
    """The error names the remedy, and only one call was made, whatever ``on_error`` says."""
    client = ScriptedClient(lambda messages: answer)
    with pytest.raises(llmcall.ConfigError, match="logprobs=False"):
        policy(client, order="rotate").shares(TOWNS, on_error="return")
    assert len(client.requests) == 1


@pytest.mark.parametrize(
    ("first", "usage"),
    [("<think>", {}), ("A", {"completion_tokens_details": {"reasoning_tokens": 9}})],
)
def test_a_model_that_reasons_is_told_before_the_second_call(
    first: str, usage: dict[str, Any]
) -> None:
    """A first token after reasoning, or of reasoning, tells nothing about the answers."""
    answer = response({"role": "assistant", "content": first}, {first: 1.0})
    answer["usage"] = {"prompt_tokens": 9, "completion_tokens": 10, **usage}
    client = ScriptedClient(lambda messages: answer)
    with pytest.raises(llmcall.ConfigError, match="reasons before it answers"):
        policy(client, order="rotate").shares(TOWNS)
    assert len(client.requests) == 1


def test_a_model_that_spends_its_token_on_reasoning_is_told() -> None:
    """An empty answer to the first call is the same error: the one token went into reasoning."""
    answer = completion(None, finish_reason="length")
    client = ScriptedClient(lambda messages: answer)
    with pytest.raises(llmcall.ConfigError, match="logprobs=False"):
        policy(client, order="rotate").shares(TOWNS)
    assert len(client.requests) == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [("unsupported_parameter", "Unsupported parameter: 'logprobs'"), (None, "logprobs: at most 5")],
)
def test_a_server_that_refuses_logprobs_is_told(
    httpserver: HTTPServer, code: str | None, message: str
) -> None:
    """Over HTTP, too, a refusal of the parameter is the error that names the remedy."""
    refused = refusal(400, message, param="logprobs", code=code)
    server = ScriptedServer(httpserver, refused, Answer(200, completion("A")))
    choice = policy(client_for(server.base_url), order="rotate")
    with pytest.raises(llmcall.ConfigError, match="logprobs=False"):
        choice.shares(TOWNS)
    assert len(server.requests) == (1 if code is None else 2)  # the second is without it


def test_shares_over_http(httpserver: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    """The SDK sends the parameters and gives the probabilities; nothing warns of the one token."""
    told = response({}, {"A": 0.7, "B": 0.2})["choices"][0]["logprobs"]
    body = completion("A", finish_reason="length")
    body["choices"][0]["logprobs"] = told
    server = ScriptedServer(httpserver, Answer(200, body))
    with client_for(server.base_url) as client:
        found = policy(client, ["tax", "ban"]).shares(TOWNS[:1])
    assert [share(found, name) for name in ("p_tax", "p_ban", "p_other")] == pytest.approx(
        [0.7, 0.2, 0.1]
    )
    [request] = server.requests
    assert (request.body["logprobs"], request.body["top_logprobs"]) == (True, 20)
    assert not [line for line in caplog.messages if "token limit" in line]


def test_a_model_that_takes_no_logprobs_is_told_before_the_first_call() -> None:
    """What is known of a model needs no call."""
    client = ScriptedClient(["A"])
    with pytest.raises(llmcall.ConfigError, match=r"'o3' takes no logprobs.*logprobs=False"):
        policy(client, model="o3").shares(TOWNS)
    assert client.requests == []


@pytest.mark.parametrize(
    ("options", "rows", "arguments", "words"),
    [
        (
            [f"option {number}" for number in range(21)],
            TOWNS,
            {},
            "there are 21 options, but the API gives the log probabilities of only 20",
        ),
        (["tax", "other"], TOWNS, {}, "'p_other'"),
        ({1: "tax", "1": "ban"}, TOWNS, {}, "'p_1'"),
        (OPTIONS, [{"town": "Rye", "p_tax": 1}], {}, "'p_tax'"),
        (OPTIONS, TOWNS, {"repeats": 3}, "logprobs=False"),
    ],
)
def test_bad_input_is_named(options: Any, rows: Any, arguments: dict[str, Any], words: str) -> None:
    """What is wrong is said before anything is asked, naming it."""
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
    assert isinstance(found["error"][1], llmcall.AuthenticationError)


# By draws


@pytest.mark.newest_only
def test_draws_are_counted_without_logprobs() -> None:
    """``logprobs=False`` counts each row's draws in the question's own orders."""
    client = BiasedModel(other=0.2)
    with llmcall.scope("survey"):
        found = policy(client, order="rotate").shares(TOWNS[:1], logprobs=False, repeats=600)
    for name, truth in {"tax": 0.4, "ban": 0.24, "label": 0.16, "other": 0.2}.items():
        assert share(found, f"p_{name}") == pytest.approx(truth, abs=0.06)
    assert not any("logprobs" in request.body for request in client.requests)


@pytest.mark.newest_only
def test_rotated_draws_are_right_where_given_ones_are_not() -> None:
    """Counted in the given order, shares are off by the model's bias; rotated, they are not."""
    given = policy(BiasedModel(), order="given")
    rotated = policy(BiasedModel(), order="rotate")
    with llmcall.scope("survey"):
        naive = given.table(TOWNS[:1], repeats=900)["value"].value_counts(normalize=True)
        fair = rotated.table(TOWNS[:1], repeats=900)["value"].value_counts(normalize=True)
    assert naive["tax"] == pytest.approx(0.65, abs=0.05)
    assert {option: fair[option] for option in OPTIONS} == pytest.approx(TRUTH, abs=0.05)


# Replies


def test_a_reply_has_the_log_probabilities() -> None:
    """``Reply.logprobs`` and each of ``.choices`` give what the API gave; else there are none."""
    given = response({"role": "assistant", "content": "A"}, {"A": 0.5})
    client = ScriptedClient([given, "A"])
    reply = client.send_message("A or B?", logprobs=True, top_logprobs=1, on_error="raise")
    assert reply.logprobs == given["choices"][0]["logprobs"]
    assert reply.choices[0]["logprobs"] == reply.logprobs
    plain = client.send_message("A or B?", on_error="raise")
    assert plain.logprobs is None
    assert plain.choices == [{"role": "assistant", "content": "A"}]


def test_shares_vary() -> None:
    """``vary`` crosses the rows with levels: each cell has the shares of a question of its own."""
    client = BiasedModel(other=0.2)
    levels = {"product": ["bread", "fish"]}
    question = llmcall.choice(
        "{{ town }}, {{ product }}: what to do?", OPTIONS, order="rotate", client=client
    )
    found = question.shares(TOWNS, vary=levels)
    assert list(found["product"]) == ["bread", "bread", "fish", "fish"]
    assert list(found["town"]) == ["Rye", "Ely"] * 2
    assert found["p_tax"].tolist() == pytest.approx([0.4] * 4)
    assert len(client.requests) == 4 * len(OPTIONS)


def test_shares_of_two_models_are_proven_for_each() -> None:
    """If one of the models that ``vary`` names gives no log probabilities, that is an error."""
    client = ScriptedClient(
        lambda messages: {"choices": [{"message": {"role": "assistant", "content": "A"}}]}
    )
    with pytest.raises(llmcall.ConfigError, match="logprobs=False"):
        policy(client).shares(TOWNS, vary={"model": ["gpt-4o", "gpt-4.1"]})
    assert 1 <= len(client.requests) <= 2


def test_levels_that_change_no_share_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Levels that make no difference to what is sent are told, as in a table."""
    client = BiasedModel()
    policy(client).shares(TOWNS[:1], vary={"system": {"one": "Be brief.", "two": "Be brief."}})
    assert "make no difference to what is sent" in caplog.text


def test_a_plan_of_counted_shares() -> None:
    """``dry_run`` plans the draws that ``logprobs=False`` counts."""
    client = BiasedModel()
    plan = policy(client).shares(TOWNS, logprobs=False, repeats=5, dry_run=True)
    assert plan.misses == 10
    assert not client.requests


def test_counted_shares_vary() -> None:
    """``vary`` crosses the rows with levels also if draws are counted."""
    client = BiasedModel()
    with llmcall.scope("survey"):
        found = policy(client).shares(
            TOWNS[:1], logprobs=False, repeats=3, vary={"temperature": [0.5, 1]}
        )
    assert list(found["temperature"]) == [0.5, 1]
    assert len(client.requests) == 6
