"""Parse answers into types: a choice, a yes or no, a record. If an answer doesn't fit its type,
llmcall asks again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

import llmcall

mood = llmcall.LLMCall(
    user="""
    Review: I loved it, the best day of my life. Mood: good
    Review: It was boring and too long. Mood: bad
    Review: {{ text }} Mood:
    """,
    output_type=Literal["good", "bad"],
    temperature=0,
)


@llmcall.llm(system="You are {{ name }}, {{ trade }}.", temperature=1)
def would_buy(name: str, trade: str, product: str, price: float) -> bool:
    """Would you buy {{ product }} for {{ price }} coins?"""
    raise NotImplementedError


class Person(BaseModel):
    """Describe somebody whom a text mentions."""

    name: str
    age: int


person = llmcall.LLMCall(user="Who is this about? {{ text }}", output_type=Person, temperature=0)


def main() -> None:
    """Ask, and print the values."""
    for text in ("What a wonderful, funny film!", "Terrible food, rude staff, never again."):
        print(f"{mood(text=text)!r:7} {text}")
    with llmcall.scope("bread"):
        for name, trade in (
            ("Lisa", "a thrifty baker"),
            ("Omar", "a rich merchant"),
            ("Ana", "a poor student"),
        ):
            answers = [would_buy(name, trade, "bread", price) for price in (2, 30)]
            print(f"{name} would buy bread for 2 coins: {answers[0]}, for 30 coins: {answers[1]}")
    print(repr(person(text="Maria, who is 34 years old, sells apples.")))


if __name__ == "__main__":
    main()
