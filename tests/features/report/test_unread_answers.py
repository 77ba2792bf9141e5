"""Answers that an ``LLMCall`` could not read, as its recording notes and its report counts them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest
from clients import Responding
from commands import done
from pydantic import BaseModel
from servers import completion

import llmcall
from llmcall.testing import ScriptedClient

pytestmark = pytest.mark.newest_only


class Deal(BaseModel):
    """What a buyer says."""

    good: str
    coins: int


# By type, answers of that form, and answers without it
ANSWERS: list[tuple[Any, list[str], list[str]]] = [
    (int, ["7", "**Answer:** 7.", '{"value": 7}'], ["seven", "about 5", "7.5"]),
    (Literal["buy", "sell"], ["buy", "**Sell**"], ["hold", "buy or sell"]),
    (Deal, ['{"good": "rye", "coins": 3}'], ['{"good": "rye"}', "rye for 3"]),
]


def unread_in(path: str) -> int:
    """Return how many answers a recording's report counts as unread."""
    done("report", path, "-o", "page.html")
    found = re.search(r"(\d+) answers? unread", Path("page.html").read_text(encoding="utf-8"))
    return 0 if found is None else int(found[1])


@pytest.mark.parametrize("is_structured", [True, False], ids=["schema", "sentence"])
@pytest.mark.parametrize(("output_type", "right", "wrong"), ANSWERS)
def test_answers_that_do_not_fit_their_type_are_counted_as_unread(
    output_type: Any, right: list[str], wrong: list[str], *, is_structured: bool
) -> None:
    """Whether a schema or a sentence in the prompt asked for the type; nobody asked for them again."""
    client = ScriptedClient([*right, *wrong], models={"m": {"structured_output": is_structured}})
    call = llmcall.LLMCall(
        user="{{ n }}?", output_type=output_type, output_retries=0, client=client, model="m"
    )
    answers = [*right, *wrong]
    with llmcall.cassette("a.jsonl"):
        rows = [{"n": number} for number in range(len(answers))]
        table = call.table(rows, workers=1, on_error="return")
    assert [*table["unread"].dropna()] == wrong  # the table above is right
    assert unread_in("a.jsonl") == len(wrong)


@pytest.mark.feature("closed_questions")
def test_answers_that_name_no_option_are_counted_as_unread() -> None:
    """A closed question is not asked again; its readers miss what is no option."""
    answers = ["A", "B.", "**a**", "tax", "C", "A or B", "I would rather not.", "It depends."]
    client = ScriptedClient(answers)
    question = llmcall.choice("What now, {{ n }}?", ["tax", "ban"], client=client)
    with llmcall.cassette("a.jsonl"):
        table = question.table([{"n": n} for n in range(8)])
    assert table["unread"].notna().sum() == 4
    assert unread_in("a.jsonl") == 4


def test_a_refusal_and_an_answer_that_was_asked_again_are_not_counted_as_unread_too() -> None:
    """Each answer counts once; the answer after the last correction is unread."""
    message = {"role": "assistant", "content": None, "refusal": "I cannot say."}
    refusal = completion(choices=[{"index": 0, "message": message, "finish_reason": "stop"}])
    client = Responding(completion("Lots."), completion("Many."), refusal)
    call = llmcall.LLMCall(user="{{ n }}?", output_type=int, output_retries=1, client=client)
    with llmcall.cassette("a.jsonl"):
        for number in range(2):
            with pytest.raises(llmcall.OutputError):
                call(n=number)
    done("report", "a.jsonl", "-o", "page.html")
    page = Path("page.html").read_text(encoding="utf-8")
    assert "1 answer refused; 1 answer asked again; 1 answer unread" in page


def test_what_a_cache_does_not_record_of_unread_answers_is_not_counted() -> None:
    """A cache has answers, not who asked; a recording has both."""
    client = ScriptedClient(["Lots."], cache_mode="auto", cache_path="cache")
    ask = llmcall.LLMCall(user="{{ n }}?", output_type=int, output_retries=0, client=client)
    with llmcall.cassette("a.jsonl"), llmcall.scope("Ann"), pytest.raises(llmcall.OutputError):
        ask(n=1)
    for run, words in (
        ("a.jsonl", "1 answer: none cut, none refused, none asked again, 1 unread."),
        ("cache", "Whether they could be read was not recorded."),
    ):
        done("report", run, "-o", "page.html")
        assert words in Path("page.html").read_text(encoding="utf-8")
