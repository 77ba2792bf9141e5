"""Buyers at a market who ask by TinyTroupe's own client, with short prompts, in threads that
TinyTroupe starts.
"""

import contextlib
import sys
from typing import Literal

from market import BUYERS
from pydantic import BaseModel

with contextlib.redirect_stdout(sys.stderr):  # it prints as it goes
    from tinytroupe.clients import client
    from tinytroupe.utils.parallel import parallel_map


class Decision(BaseModel):
    """A buyer's decision."""

    decision: Literal["buy", "wait", "leave"]


def visit(name: str) -> list[str]:
    """Return what a buyer says and decides."""
    messages = [
        {
            "role": "system",
            "content": f"You are {name}, {BUYERS[name]}, at a market. Answer in one short sentence.",
        },
        {"role": "user", "content": "Bread costs 3 coins. What do you say?"},
    ]
    texts = [
        client().send_message(messages, temperature=1.0, max_completion_tokens=30)["content"]
        for _ in range(2)
    ]
    messages += [
        {"role": "assistant", "content": texts[-1]},
        {"role": "user", "content": "What do you do?"},
    ]
    return [
        *texts,
        client().send_message(messages, temperature=1.0, response_format=Decision)["content"],
    ]


def play(names: list[str]) -> list[list[str]]:
    """Return what each buyer said."""
    with contextlib.redirect_stdout(sys.stderr):
        return parallel_map(names, visit, max_workers=len(names))  # type: ignore[no-any-return]
