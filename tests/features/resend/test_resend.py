"""``llmcall.resend``: a sample of recorded requests, sent once more."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import client_for
from commands import done
from pytest_httpserver import HTTPServer
from servers import Answer, ScriptedServer, completion, refusing

import llmcall
from llmcall.errors import EmptyAnswerError
from llmcall.testing import ScriptedClient

pytest.importorskip("pandas")
STUDY, AGAIN = "study.jsonl", "study.again.jsonl"


class Model:
    """A model that rates from 1 to 5. The n-th answer to the same messages is always the same one.

    :ivar answer: returns the answer to messages, with a source of chance.
    """

    def __init__(self, **settings: Any) -> None:
        self.answer: Callable[[list[Any], random.Random], Any] = lambda messages, chance: str(
            chance.randint(1, 5)
        )
        self._lock = threading.Lock()
        self._times: Counter[str] = Counter()
        self.client = ScriptedClient(self._drawn, model="gpt-6-luna", **settings)
        llmcall.register_client("scripted", self.client)
        llmcall.force_api_type("scripted")

    def _drawn(self, messages: list[Any]) -> Any:
        asked = json.dumps(messages)
        with self._lock:
            self._times[asked] += 1
            chance = random.Random(f"{self._times[asked]} {asked}")
        return self.answer(messages, chance)

    @property
    def asked(self) -> int:
        """Return how many requests it got."""
        return len(self.client.requests)


@pytest.fixture
def model() -> Iterator[Model]:
    """Return the model that this process asks."""
    yield Model()
    llmcall.reset()


def record(model: Model, persons: int = 10, draws: int = 1, **params: Any) -> None:
    """Record a survey: each person is asked one question, several times."""

    def ask(number: int) -> Any:
        asked = f"You are person {number}. How good is bread?"
        return model.client.send_message(asked, **{"temperature": 1, **params})

    with llmcall.cassette(STUDY):
        llmcall.map(ask, range(persons), key=str, scope="survey", repeats=draws, workers=1)


def samples(path: str = AGAIN) -> list[str]:
    """Return the samples on a cassette, sorted."""
    return sorted(str(record.sample) for record in llmcall.cassette(path).all_records())


def bodies(model: Model) -> list[dict[str, Any]]:
    """Return what its requests send."""
    return [dict(request.body) for request in model.client.requests]


# What is sent


def test_the_requests_are_sent_as_they_were_recorded(model: Model) -> None:
    """Messages, model and parameters are the recorded ones, whatever is configured now."""
    record(model, 3, max_tokens=5, stop="x")
    recorded = sorted(json.dumps(body, sort_keys=True) for body in bodies(model))
    with llmcall.configured(temperature=0, top_p=0.5, max_tokens=100, model="gpt-6.1-terra"):
        llmcall.resend(STUDY, share=1)
    again = [body | {"stop": "x"} for body in bodies(model)[3:]]
    assert sorted(json.dumps(body, sort_keys=True) for body in again) == recorded


def test_the_results_of_tools_are_sent_with_the_ids_of_their_calls(model: Model) -> None:
    """Of nine letters and digits, which every API takes."""
    call = {"type": "function", "function": {"name": "price_of", "arguments": "{}"}}
    calls = [{"id": f"c{n}", **call} for n in "12"]
    results = [{"role": "tool", "tool_call_id": f"c{n}", "content": n} for n in "21"]
    calling = {"role": "assistant", "content": None, "tool_calls": calls}
    with llmcall.cassette(STUDY), llmcall.scope("lisa"):
        messages = [{"role": "user", "content": "Bread?"}, calling, *results]
        model.client.send_message(messages, temperature=1)
    llmcall.resend(STUDY, calls=1)
    _, calling, second, first = bodies(model)[-1]["messages"]
    ids = [made["id"] for made in calling["tool_calls"]]  # type: ignore[attr-defined]
    assert [first["tool_call_id"], second["tool_call_id"]] == ids
    assert all(len(made) == 9 and made.isalnum() for made in ids)


def test_every_request_is_equally_likely(model: Model) -> None:
    """An actor with nine in ten of the requests has about as many of the calls, and not a third."""
    with llmcall.cassette(STUDY):
        for actor, questions in (("ann", 180), ("ben", 10), ("cleo", 10)):
            with llmcall.scope(actor):
                for number in range(questions):
                    model.client.send_message(f"{actor} {number}", temperature=1)
    frame = llmcall.resend(STUDY, calls=40)
    share = frame[frame["when"] == "now"]["scope"].eq("ann").mean()
    assert abs(share - 0.9) < 3 * (0.9 * 0.1 / 40) ** 0.5  # three standard errors


def test_a_request_of_several_actors_is_one_request(model: Model) -> None:
    """With the recorded answers of all."""
    with llmcall.cassette(STUDY):
        for actor in ("ann", "ben"):
            with llmcall.scope(actor):
                model.client.send_message("Rate bread.", temperature=1)
    frame = llmcall.resend(STUDY, share=1)
    assert frame["when"].tolist() == ["then", "then", "now"]
    assert frame["scope"].tolist() == ["ann", "ben", "ann"]


def test_a_larger_sample_contains_the_smaller_one(model: Model) -> None:
    """And another seed draws another."""
    record(model, 40)
    for to, options in (
        ("a", {"calls": 5}),
        ("b", {"calls": 9}),
        ("c", {"calls": 5, "seed": 1}),
    ):
        llmcall.resend(STUDY, to=to, **options)
    assert set(samples("a")) < set(samples("b"))
    assert samples("a") != samples("c")


def test_the_disk_cache_neither_supplies_nor_keeps_the_answers(tmp_path: Path) -> None:
    """A second file is answered anew, and the cache stays as it is."""
    model = Model(cache_mode="auto", cache_path=str(tmp_path / "cache"))
    record(model, 4)
    before = len(model.client.cache)
    for to in ("a", "b"):
        llmcall.resend(STUDY, share=1, to=to)
    assert model.asked == 4 + 4 + 4
    assert len(model.client.cache) == before


def test_the_recording_stays_as_it_is(model: Model) -> None:
    """Not a byte of it changes, and it cannot be the file of the new answers: these are draws below ``~again``, named
    by the scope path without repeats.
    """
    record(model, 2, 3)
    before = Path(STUDY).read_bytes()
    llmcall.resend(STUDY, share=1)
    assert Path(STUDY).read_bytes() == before
    assert samples() == ["~again/survey/0#0", "~again/survey/1#0"]
    for named in (STUDY, (STUDY, "survey"), llmcall.types.Cassette(STUDY)):
        with pytest.raises(ValueError, match="the recording itself"):
            llmcall.resend(named, share=1, to=STUDY)


def test_what_cannot_be_sent_as_recorded_is_left_out_and_counted(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests with normalized text, and those with an image of which only the digest is known."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    with llmcall.configured(cache_normalize=("times",)), llmcall.cassette(STUDY):
        for text in ("Rate bread.", "It is 10:15. Rate bread.", "It is 11:45. Rate cake."):
            model.client.send_message(text, temperature=1)
        model.client.send_message([{"role": "user", "content": [image]}], temperature=1)
    note = (
        "left out: 1 request with an image or sound recorded only as a digest, "
        "2 requests with normalized text"
    )
    assert llmcall.resend(STUDY, share=1, dry_run=True).notes == (note,)
    llmcall.resend(STUDY, share=1)
    assert note in caplog.messages
    assert samples() == ["~again#0"]


def test_where_selects_requests_and_not_the_answers_beside_them(model: Model) -> None:
    """The frame has all recorded answers to the request."""
    record(model, 3, 4)
    frame = llmcall.resend(STUDY, share=1, where=lambda record: record.sample == "survey/1#0")
    assert frame["when"].tolist() == ["then"] * 4 + ["now"]
    with pytest.raises(llmcall.CacheError, match=r"can be sent again: where= selects none"):
        llmcall.resend(STUDY, calls=1, where=lambda record: False)


# What comes back


def test_the_frame_has_a_row_for_each_answer(model: Model) -> None:
    """The recorded ones and the new ones of each sampled request, by the names of a cassette's frame."""
    record(model, 5, 2)
    frame = llmcall.resend(STUDY, calls=3)
    assert list(frame.columns) == [
        *("request", "scope", "when", "answer", "served", "finish_reason", "refusal")
    ]
    assert frame["when"].tolist() == ["then", "then", "now"] * 3
    recorded = llmcall.cassette(STUDY).to_frame()
    then = frame[frame["when"] == "then"]
    chosen = recorded[recorded["request"].isin(then["request"])]
    assert sorted(zip(then["request"], then["answer"], strict=True)) == sorted(
        zip(chosen["request"], chosen["answer"], strict=True)
    )
    new = llmcall.cassette(AGAIN).to_frame()
    now = frame[frame["when"] == "now"]
    assert dict(zip(new["request"], new["answer"], strict=True)) == dict(
        zip(now["request"], now["answer"], strict=True)
    )


def test_each_choice_of_an_answer_has_a_row(model: Model) -> None:
    """With its own refusal and finish reason."""
    choices = [
        {"message": {"role": "assistant", "content": "3"}, "finish_reason": "stop"},
        {"message": {"role": "assistant", "refusal": "No."}, "finish_reason": "length"},
    ]
    model.answer = lambda messages, chance: {"choices": choices}
    record(model, 1, n=2)
    frame = llmcall.resend(STUDY, share=1)
    assert frame["refusal"].fillna("").tolist() == ["", "No."] * 2
    assert frame["finish_reason"].tolist() == ["stop", "length"] * 2


# Replay


def test_the_new_answers_replay_byte_for_byte(httpserver: HTTPServer) -> None:
    """With the server dead: the same table, the same file."""
    chance = random.Random(1)
    answers = [Answer(200, completion(str(chance.randint(1, 5)))) for _ in range(25)]
    server = ScriptedServer(httpserver, *answers)
    client = client_for(server.base_url)
    llmcall.register_client("openai", client)
    with llmcall.cassette(STUDY):
        for actor in range(5):
            with llmcall.scope(actor):
                for _ in range(4):
                    client.send_message(f"You are {actor}.", temperature=1)
    first = llmcall.resend(STUDY, calls=5)
    written = Path(AGAIN).read_bytes()
    assert len(server.requests) == 25
    with refusing() as address:
        llmcall.register_client("openai", client_for(address))
        again = llmcall.resend(STUDY, calls=5)
    assert again.to_json() == first.to_json()
    assert Path(AGAIN).read_bytes() == written


def test_an_empty_answer_is_counted_and_asked_again(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """It stops nothing; the next time asks again for what is missing."""
    record(model, 10)
    model.answer = lambda messages, chance: (
        EmptyAnswerError("no") if "person 3" in str(messages) else "3"
    )
    assert len(llmcall.resend(STUDY, share=1)) == 10 + 9
    assert "1 request got no answer: filtered or empty" in caplog.text
    asked = model.asked
    model.answer = lambda messages, chance: "3"
    assert len(llmcall.resend(STUDY, share=1)) == 10 + 10
    assert model.asked == asked + 1


# Another model


def test_another_model_is_asked_and_said(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """Requests that differ in their model alone are then one, which has the recorded answers of all."""
    rate = llmcall.LLMCall(user="{{ name }}, rate the bread.", client=model.client)
    rows = [{"name": name} for name in "abcde"]
    with llmcall.cassette(STUDY):
        rate.table(rows, vary={"model": ["one", "two"]}, scope="survey", workers=1)
    frame = llmcall.resend(STUDY, share=1, model="three")
    assert {body["model"] for body in bodies(model)[10:]} == {"three"}
    assert frame["when"].tolist() == ["then", "then", "now"] * 5
    assert "ANOTHER MODEL: three is asked instead of one, two" in caplog.text
    [note] = llmcall.resend(STUDY, share=1, model="three", dry_run=True).notes
    assert note.startswith("ANOTHER MODEL")
    assert not llmcall.resend(STUDY, share=1, dry_run=True).notes


# The plan


def test_a_dry_run_says_what_is_recorded_and_what_the_rest_costs(httpserver: HTTPServer) -> None:
    """By the tokens of the recorded answers; unknown without a price."""
    server = ScriptedServer(httpserver, Answer(200, completion("3")))
    client = client_for(server.base_url, prices={"gpt-6-luna": (1.0, 2.0)})
    llmcall.register_client("openai", client)
    with llmcall.cassette(STUDY):
        for actor in range(4):
            with llmcall.scope(actor):
                client.send_message(f"You are {actor}.", temperature=1, max_tokens=16)
    plan = llmcall.resend(STUDY, share=1, dry_run=True)
    assert (plan.hits, plan.misses) == (0, 4)
    assert plan.expected_cost == pytest.approx(4 * (12 * 1 + 3 * 2) / 1e6)
    assert plan.cost is not None and plan.cost[0] <= plan.expected_cost <= plan.cost[1]
    assert llmcall.resend(STUDY, share=1, model="nobodys", dry_run=True).cost is None
    assert len(server.requests) == 4
    llmcall.resend(STUDY, calls=3)
    plan = llmcall.resend(STUDY, share=1, dry_run=True)
    assert (plan.hits, plan.misses) == (3, 1)
    assert "again ($0.0001)" in done("resend", STUDY, "--calls", 3)  # of $0.000054


# The command


def test_the_command_counts_the_requests_with_a_recorded_answer(model: Model) -> None:
    """Of ten persons, six give one of their two answers again; the models with their days."""
    said = {"days": 1_777_600_000, "served": "luna-2026-05-01"}  # 1 May 2026
    times: Counter[str] = Counter()

    def answer(messages: list[Any], chance: random.Random) -> dict[str, Any]:
        person = int(messages[0]["content"].split()[3].strip("."))
        times[str(person)] += 1
        changes = {1: False, 2: person >= 3, 3: person >= 6}[times[str(person)]]
        message = {"role": "assistant", "content": str(times[str(person)] if changes else 0)}
        return {
            "model": said["served"],
            "created": said["days"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }

    model.answer = answer
    record(model, 10, 2)
    said.update(days=1_795_320_000, served="luna-2026-10-01")  # 22 November 2026
    lines = done("resend", STUDY, "--share", 1).splitlines()
    assert lines == [
        "6 of 10 requests got one of their recorded answers again (cost unknown)",
        "answered then: luna-2026-05-01 (2026-05-01)",
        "answered now: luna-2026-10-01 (2026-11-22)",
        "to compare them: llmcall diff study.jsonl study.again.jsonl",
    ]
    compared = done(*lines[-1].split()[4:])
    assert compared.startswith(
        "20 calls: 0 the same, 10 changed, 0 added, 10 missing"
    )  # by the model


def test_the_answers_of_a_cache_are_beside_it(model: Model) -> None:
    """That of a directory's answers is beside it."""
    record(model, 3)
    cache = llmcall.ResponseCache("cache")
    cache.load(STUDY)
    cache.close()
    llmcall.resend("cache", calls=2)
    assert len(samples("cache.again")) == 2


@pytest.mark.feature("redis")
def test_the_answers_of_a_cache_on_a_server_need_the_name_of_a_file() -> None:
    """There is no folder beside it."""
    with pytest.raises(ValueError, match=r"to= \(--to\) is missing"):
        llmcall.resend("redis://127.0.0.1:1/0", calls=2, dry_run=True)


# Bad input


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"share": 0}, ValueError, "share is 0"),
        ({"share": 2}, ValueError, "share is 2"),
        ({"share": "half"}, TypeError, "share is 'half'; it must be a number or None"),
        ({"calls": 0}, ValueError, "calls is 0"),
        ({"calls": 1.5}, TypeError, "calls is 1.5"),
        ({"where": 3}, TypeError, "where is 3"),
        ({"calls": 4}, ValueError, "calls is 4, but the recording has 3 different requests"),
        ({"share": 0.5, "calls": 3}, ValueError, "give either share= or calls="),
        ({}, ValueError, "give either share= or calls="),
    ],
)
def test_a_wrong_argument_is_refused_before_any_call(
    model: Model, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    record(model, 3)
    with pytest.raises(kind, match=words):
        llmcall.resend(STUDY, **options)
    assert model.asked == 3


def test_a_run_without_chats_is_an_error(model: Model) -> None:
    with llmcall.cassette(STUDY):
        llmcall.recorded(lambda side: side, name="dice")(3)
    with pytest.raises(
        llmcall.CacheError,
        match=r"nothing in study.jsonl can be sent again: it holds no chat request",
    ):
        llmcall.resend(STUDY, share=1)


@pytest.mark.feature("importing")
def test_of_an_imported_run_what_was_converted_is_left_out(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """A completion cannot be asked again as it was."""
    answered = [{"role": "user", "content": "Ann?"}, {"role": "assistant", "content": "5"}]
    legacy = {"object": "text_completion", "choices": [{"text": "5", "finish_reason": "stop"}]}
    llmcall.import_answers(
        [
            {"scope": ("ann",), "messages": answered},
            {"scope": ("ben",), "messages": answered, "responses": [legacy]},
            {"scope": ("cleo",), "messages": answered[:1] + answered},
        ],
        STUDY,
        model="gpt-4",
        source="osf.io/abcde",
    )
    llmcall.resend(STUDY, share=1)
    assert "left out: 1 request converted from a legacy completion" in caplog.messages
    written = done("resend", STUDY, "--share", 1)
    assert "answered then: gpt-4 (days not recorded)" in written


@pytest.mark.parametrize(
    "arguments", [[STUDY, "--share", 3], ["no.jsonl", "--calls", 1], [STUDY, "--calls", 0]]
)
def test_the_command_exits_with_2_for_wrong_usage(model: Model, arguments: list[Any]) -> None:
    record(model, 3)
    done("resend", *arguments, code=2)
    assert model.asked == 3
