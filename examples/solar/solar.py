"""Five neighbours say on three days whether they want solar panels, and hear what the others said.

    llmcall run --cassette village.jsonl solar.py

replays the recording beside it: no key, no model, no network. With another cassette,
``Ben="a fisherman who lost money on solar panels"`` at the end of the command gives Ben a new description,
and asks a local model (the extra ``local``).
"""

import sys
from typing import Literal

import llmcall

PEOPLE = {
    "Ada": "a thrifty baker",
    "Ben": "a fisherman",
    "Cleo": "a retired teacher",
    "Dan": "a young carpenter",
    "Eve": "a doctor",
}


@llmcall.llm(
    system="You are {{ name }}, {{ who }}. Answer as {{ name }} would.",
    client=llmcall.client("local"),
    temperature=1,
)
def decides(name: str, who: str, day: int, heard: list[str]) -> Literal["yes", "no"]:
    """Day {{ day }}. The neighbours talk about buying solar panels together. {{ heard | join(" ") }} Do you join?"""
    raise NotImplementedError


def play(**changed: str) -> dict[str, str]:
    """Return what each says in the end; ``changed`` describes some people anew."""
    said: dict[str, str] = {}
    with llmcall.scope("village"):
        for day in (1, 2, 3):
            before, said = said, {}
            for name, who in {**PEOPLE, **changed}.items():
                heard = [f"{other} says {word}." for other, word in before.items() if other != name]
                with llmcall.scope(name):
                    said[name] = decides(name, who, day, heard)
    return said


if __name__ == "__main__":
    print(play(**dict(argument.split("=", 1) for argument in sys.argv[1:])))
