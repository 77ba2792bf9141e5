"""OpenAI's Decisions API: questions about an input, and their answers, as texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .message import as_text, object_in, objects_in

TIER = "decisions"  # its prices differ from those of the model's other answers
# The field that holds the answer, by its type.
VALUES = {"choice": "choice", "predicate": "probability", "score": "score"}
REFUSAL = "refusal"  # the type of an answer in which the model declined a question
OPTIONS = {"choices": "value", "levels": "label"}


def questions_in(body: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the questions of a body of this API, or of a chat request's body that goes to it; empty for
    another one.
    """
    if "input" in body:
        return objects_in(body.get("questions"))
    questions = object_in(body.get("extra_body")).get("questions")
    return questions if isinstance(questions, list) and all(map(_is_question, questions)) else []


def _is_question(question: object) -> bool:
    return isinstance(question, dict) and question.get("type") in VALUES


def probabilities(answer: Mapping[str, object]) -> dict[Any, float]:
    """Return the probability of each value of a choice; of a refusal, an empty dict."""
    return {
        entry["value"]: float(entry["probability"])
        for entry in objects_in(answer.get("probabilities"))
        if isinstance(entry.get("probability"), (int, float)) and "value" in entry
    }


def question_texts(body: Mapping[str, object]) -> list[str]:
    """Return the questions of a body, each with its options."""
    return [_question(question) for question in objects_in(body.get("questions"))]


def _question(question: Mapping[str, object]) -> str:
    options = [
        as_text(option.get(name))
        for field, name in OPTIONS.items()
        for option in objects_in(question.get(field))
    ]
    text = _named(question, question.get("instructions") or "")
    return f"{text} [{' | '.join(options)}]" if options else text


def is_decision(response: Mapping[str, object]) -> bool:
    """Return whether a response has the answers of this API."""
    answers = response.get("answers")
    return (
        isinstance(answers, list)
        and bool(answers)
        and all(
            isinstance(answer, dict) and answer.get("type") in (*VALUES, REFUSAL)
            for answer in answers
        )
    )


def is_refusal(answer: Mapping[str, object]) -> bool:
    """Return whether the model refused to answer a question."""
    return answer.get("type") == REFUSAL


def answer_text(answer: Mapping[str, object]) -> str:
    """Return an answer with the name of its question, if that has one."""
    kind = str(answer.get("type"))
    return _named(answer, answer.get(VALUES[kind]) if kind in VALUES else kind)


def _named(fields: Mapping[str, object], value: object) -> str:
    name = fields.get("name")
    return f"{name}: {as_text(value)}" if name else as_text(value)
