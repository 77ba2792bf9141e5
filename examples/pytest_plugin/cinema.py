"""A cinema in which a language model reads the reviews and greets the visitors."""

from __future__ import annotations

from typing import Literal

import llmcall

mood = llmcall.LLMCall(
    user="""
    Review: I loved it, the best day of my life. Mood: good
    Review: It was boring and too long. Mood: bad
    Review: {{ review }} Mood:
    """,
    output_type=Literal["good", "bad"],
    temperature=0,
)


def bad_reviews(reviews: list[str]) -> list[str]:
    """Return the bad reviews."""
    return [review for review in reviews if mood(review=review) == "bad"]


def greetings(visitor: str, count: int) -> list[str]:
    """Return several greetings for a visitor, each a new draw."""
    messages = [
        {
            "role": "system",
            "content": "You greet the visitors of a cinema. Answer with one short greeting.",
        },
        {"role": "user", "content": "Greet Ann."},
        {"role": "assistant", "content": "Good evening, Ann! Enjoy the film."},
        {"role": "user", "content": f"Greet {visitor}."},
    ]
    with llmcall.scope(visitor):
        replies = [
            llmcall.client().send_message(messages, temperature=1, max_tokens=30, on_error="raise")
            for _ in range(count)
        ]
    return [reply.content or "" for reply in replies]
