"""The reporting checklist on a run's page."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from commands import done
from files import chat, conversation, embedding, record_of, write_cassette

import llmcall
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.newest_only


def items(path: str, *others: str) -> dict[str, str]:
    """Return the checklist on a recording's page: each item's text by its number."""
    done("report", path, *others, "-o", "page.html")
    page = Path("page.html").read_text(encoding="utf-8")
    found = re.findall(r"<h3>(.*?)</h3>(.*?)</ul>", page, re.DOTALL)
    return {
        title.split()[-1 if title.startswith("Optional") else 0]: " ".join(
            unescape(re.sub("<.*?>", " ", text)).split()
        )
        for title, text in found
    }


def test_parameters_and_repetitions_are_those_of_the_requests() -> None:
    """Each parameter's values, and how often each request was answered."""
    records = [
        chat("Bread?", "Yes.", f"trial#{draw}", temperature=draw % 2, seed=7) for draw in range(6)
    ]
    text = items(str(write_cassette("a.jsonl", records)))["B.3"]
    assert "temperature: 0 (3 calls), 1 (3 calls)." in text
    assert "seed: 7 (6 calls)." in text
    assert "6 answers to 2 different requests: 3 for each." in text


def test_calls_that_send_earlier_answers_are_counted() -> None:
    """Two conversations of three calls each: four calls know an earlier answer."""
    turns = [("Bread?", "Yes."), ("And cheese?", "No."), ("Why?", "Dear.")]
    records = [*conversation("lisa#0", turns), *conversation("ben#0", turns, "You are Ben.")]
    found = items(str(write_cassette("a.jsonl", records)))
    for item in ("B.2", "B.5"):
        assert "2 calls stood alone; 4 sent turns of an assistant" in found[item]
    assert "No call continued a conversation kept by the server." in found["B.5"]
    assert "6 of 6 calls contain system messages" in found["C.2"]
    assert "You are Ben." in found["C.2"] and "You are Ben." not in found["C.1"]


def test_the_models_of_all_apis_are_named_once() -> None:
    """A model in the body of a request to another API is no parameter: a chat's is none either."""
    body = {"model": "c", "max_tokens": 9, "messages": [{"role": "user", "content": "Tea?"}]}
    answer = {"type": "message", "role": "assistant", "model": "c-2026", "content": []}
    answer |= {"stop_reason": "end_turn", "usage": {"input_tokens": 20, "output_tokens": 6}}
    request = {"method": "POST", "path": "/messages", "body": body}
    value = {"status": 200, "content_type": "application/json", "body": json.dumps(answer)}
    records = [chat("Bread?", "Yes.", "a#0"), record_of("http", "b#0", request, {"value": value})]
    found = items(str(write_cassette("a.jsonl", records)))
    assert "Asked for: c, m." in found["B.1"]
    assert found["B.3"].startswith(
        "max_tokens of c: 9 (1 call). c: 1 answer to 1 different request"
    )


def test_prompts_of_one_template_are_shown_by_the_first() -> None:
    """A record names the template that asked; other prompts stand together where they are identical."""
    asked = llmcall.LLMCall(
        user="{{ name }}: bread?", client=ScriptedClient(lambda messages: "Yes")
    )
    plain = ScriptedClient(lambda messages: "No")
    with llmcall.cassette("a.jsonl"):
        for name in ("Ann", "Ben", "Cleo"):
            asked(name=name)
            with llmcall.scope(name):
                plain.send_message("Salt?")
    text = items("a.jsonl")["C.1"]
    assert 'A user prompt of "{{ name }}: bread?", sent 3 times; the first: Ann: bread?' in text
    assert "A user prompt, sent 3 times: Salt?" in text
    assert "Ben" not in text


EXAMPLES = [
    {"role": "user", "content": "Rain: bread?"},
    {"role": "assistant", "content": "No."},
]


def test_an_example_in_a_prompt_is_shown_with_its_answer() -> None:
    """The guideline asks for examples as a part of the prompt (C.1)."""
    asked = llmcall.LLMCall(
        system="You are {{ name }}.",
        history=EXAMPLES,
        user="Sun: bread?",
        client=ScriptedClient(lambda messages: "Yes."),
    )
    with llmcall.cassette("a.jsonl"):
        for name in ("Ann", "Ben"):
            with llmcall.scope(name):
                asked(name=name)
    found = items("a.jsonl")
    shown = "user: Rain: bread? assistant: No. user: Sun: bread?"
    assert f'A user prompt of "Sun: bread?", sent 2 times; the first: {shown}' in found["C.1"]
    for item in ("B.2", "B.5"):
        assert "0 calls stood alone; 2 sent turns of an assistant" in found[item]


def test_all_templates_are_shown_and_of_other_prompts_those_with_most_different_words() -> None:
    """Eight of 42: the two that say something else are among them, though each was sent once and last."""
    client = ScriptedClient(lambda messages: "Yes")
    with llmcall.cassette("a.jsonl"):
        for number in range(12):
            llmcall.LLMCall(user=f"Form {number}: {{{{ n }}}}?", client=client)(n=number)
        for number in range(40):
            with llmcall.scope(f"person-{number}"):
                client.send_message(f"In the rain, do you buy {number} loaves?")
        client.send_message("Who goes out when a storm is near?")
        client.send_message("Name one fish.")
    text = items("a.jsonl")["C.1"]
    assert all(f'of "Form {number}: ' in text for number in range(12))
    assert "Who goes out when a storm is near?" in text and "Name one fish." in text
    assert text.count("loaves?") == 6
    assert "34 other prompts of calls without a template" in text
    assert "These 8 have the most different words." in text


def test_answers_that_were_asked_again_are_no_further_requests() -> None:
    """Two rows, twice each; one answer could not be read, and was asked for again."""
    answers = iter(["5", "many", "6", "7", "8"])
    rate = llmcall.LLMCall(
        user="{{ name }}?", output_type=int, client=ScriptedClient(lambda messages: next(answers))
    )
    with llmcall.cassette("a.jsonl"):
        rate.table([{"name": "Ann"}, {"name": "Ben"}], key="name", scope="s", repeats=2, workers=1)
    found = items("a.jsonl")
    assert (
        "4 answers to 2 different requests: 2 for each; 1 more when an LLMCall asked again."
        in found["B.3"]
    )
    assert "5 answers: none cut, none refused, 1 asked again, none unread." in found["E.2"]


@pytest.mark.feature("overrides")
def test_what_no_model_answered_and_draws_that_the_program_named_are_said() -> None:
    """Results of recorded functions, answers of the author's own, and sample=."""

    @llmcall.recorded(name="market.price")
    def price(day: int) -> int:
        return day

    client = ScriptedClient(lambda messages: "Yes", cache_mode="auto", cache_path="cache")

    def play() -> None:
        for name in ("Ann", "Ben"):
            with llmcall.scope(name):
                price(1)
                client.send_message("Bread?", model="m")
                client.send_message("Bread?", model="m", sample="theta")

    with llmcall.cassette("before.jsonl"):
        play()
    with llmcall.cassette("a.jsonl"), llmcall.override({("Ben", 2): "no"}):
        play()
    found = items("a.jsonl")
    assert "2 draws named by the program (sample=): theta." in found["B.3"]
    assert "Overridden: 1 answer given by the author, not by a model." in found["E.2"]
    assert "functions, which are not models: market.price (2 results)." in found["E.2"]


@pytest.mark.feature("closed_questions")
def test_orders_of_one_question_are_repeats_of_one_request_by_model() -> None:
    """Three rotated orders of its options; and each model has its own count."""
    client = ScriptedClient(lambda messages: "A")
    policy = llmcall.choice(
        "What should {{ town }} do?", ["tax", "ban", "wait"], order="rotate", client=client
    )
    rows = [{"town": town} for town in ("Rye", "Ulm")]
    with llmcall.cassette("a.jsonl"), llmcall.scope("survey"):
        policy.table(rows, repeats=3, vary={"model": ["m-1", "m-2"]})
    text = items("a.jsonl")["B.3"]
    for model in ("m-1", "m-2"):
        assert f"{model}: 6 answers to 2 different requests: 3 for each." in text
    assert "in another order count as repeats" in text


def test_different_requests_of_one_template_are_no_repeats() -> None:
    """Neither those of other rows, nor what a recording abbreviates alike."""
    client = ScriptedClient(lambda messages: "Yes")
    asked = llmcall.LLMCall(user="{{ story }} Bread?", client=client)
    with llmcall.cassette("a.jsonl"), llmcall.scope("village"):
        for number in range(3):
            asked(story="Once upon a time. " * 9 + str(number))
    assert "3 answers to 3 different requests: 1 for each." in items("a.jsonl")["B.3"]


HI = chat("Bread?", "Yes.")
AUTHORS = ("fine-tuning", "retrieval", "prompt optimization", "agents")


@pytest.mark.parametrize(
    ("record", "item", "words"),
    [
        (HI, "transcripts", ["1 request with answers: the recording has each, whole."]),
        (HI, "cost", ["Calls: 1. Tokens in: 20. Tokens out: 5. Cost: "]),
        (embedding("Bread", [1.0]), "cost", ["Calls: 1. Tokens in: not recorded. Cost: "]),
        (HI, "B.2", ["TO FILL IN: where the model ran: on whose servers"]),
        (HI, "B.4", [f"TO FILL IN: {word}: " for word in AUTHORS]),
    ],
)
def test_an_item_has_what_a_recording_knows_and_blanks(
    record: Any, item: str, words: list[str]
) -> None:
    """The page names the guideline's version."""
    found = items(str(write_cassette("a.jsonl", [record])))
    assert [word for word in words if word not in found[item]] == []
    assert "`" not in "".join(found.values())
    assert "GUIDE-LLM 1.1" in Path("page.html").read_text(encoding="utf-8")


def test_tools_and_searches_that_requests_hold_are_named() -> None:
    tools = [{"type": "function", "function": {"name": "price"}}, {"type": "web_search"}]
    searches: list[Any] = [{"web_search_options": {}}, {"extra_body": {"search_parameters": {}}}]
    records = [chat("Hi", "Ho", tools=tools), *(chat("Search", "Ho", **held) for held in searches)]
    found = items(str(write_cassette("a.jsonl", records)))["B.4"]
    assert "tools (1 call), web_search_options (1 call), search_parameters (1 call)" in found


@pytest.mark.parametrize("again", [False, True])
def test_calls_that_got_no_answer_are_counted_until_they_are_answered(again: bool) -> None:
    """They leave no record; the checklist and the page say how many failed or were filtered."""
    errors = [llmcall.InvalidRequestError("no"), llmcall.ContentFilterError("no")]
    for answers in [["Yes", *errors], ["Yes", "No", "No"]][: 1 + again]:
        with llmcall.cassette("run.jsonl", mode="new"):
            client = ScriptedClient(answers if answers[1:] == errors else answers[1:])
            for question in ("Bread?", "Salt?", "Milk?"):
                client.send_message(question)
    words = "2 calls got no answer: failed or filtered"
    assert (words in items("run.jsonl")["E.2"]) == (not again)
    assert (words in Path("page.html").read_text(encoding="utf-8")) == (not again)


def test_a_page_of_two_runs_has_no_checklist() -> None:
    """It is one run's."""
    for path, answer in (("a.jsonl", "Yes."), ("b.jsonl", "No.")):
        write_cassette(path, [chat("Hi", answer)])
    assert items("a.jsonl", "--against", "b.jsonl") == {}


def test_prompts_and_names_of_a_checklist_are_escaped() -> None:
    """A prompt may hold HTML."""
    write_cassette("a.jsonl", [chat("<script>alert(1)</script> \x1b[31m```", "Ho", top="<b>")])
    items("a.jsonl")
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "<b>" not in page and "\x1b" not in page


WHOLE = {
    "object": "chat.completion",
    "choices": [{"message": {"role": "assistant", "content": "No"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
}
UNKNOWN = "Whether they were asked again or could be read was not recorded."
OF_TWO = "Whether 2 of 2 answers were cut or refused was not recorded."
OF_THREE = (
    "Whether 2 of 3 answers were cut or refused was not recorded. The others: 1 cut, none refused."
)


@pytest.mark.parametrize(
    ("answers", "item", "said"),
    [
        (["Yes"], "B.2", "1 call imported: how the model was accessed was not recorded"),
        (["Yes"], "B.3", "Parameters were not recorded."),
        (["Yes"], "B.4", "Whether requests held tools or a search was not recorded."),
        (["Yes"], "B.5", "Whether calls continued a conversation kept by the server was not"),
        (["Yes"], "C.2", "Whether requests held system messages was not recorded."),
        (["Yes"], "E.2", "Whether calls got no answer was not recorded."),
        (["Yes"], "cost", "Cost: not recorded."),
        (["Yes, because I", "No"], "E.2", f"{OF_TWO} {UNKNOWN}"),
        (["Yes, because I", "No", WHOLE], "E.2", f"{OF_THREE} {UNKNOWN}"),
        ([WHOLE], "E.2", f"1 answer: 1 cut, none refused. {UNKNOWN}"),
        (["Yes", "No", WHOLE], "cost", "Tokens in: 10, and 2 not recorded. Tokens out: 1, and 2 "),
        (["Yes", "No", WHOLE], "cost", "Cost: not recorded."),
    ],
)
@pytest.mark.feature("importing")
def test_what_published_answers_do_not_say_is_not_recorded(
    answers: list[object], item: str, said: str
) -> None:
    """A text alone does not say that it was cut, nor what it cost: no count of it is 0."""
    rows = [
        {"scope": str(number), "prompt": "Bread?", "answer": answer}
        for number, answer in enumerate(answers)
    ]
    llmcall.import_answers(rows, "published.jsonl", model="m", source="doi:10.1/x")
    assert said in items("published.jsonl")[item]
