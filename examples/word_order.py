"""Nine people vote six times on what their village builds: does the order on the ballot decide?

    python examples/word_order.py          replays word_order.jsonl: no key, no model, no network

To record other votes with the small model (the extra `local`), delete word_order.jsonl.
"""

import pathlib
from collections import Counter
from itertools import permutations
from typing import Literal

import llmcall

RECORDING = pathlib.Path(__file__).with_name("word_order.jsonl")
VOTERS = {
    "Ada": "a nurse",
    "Bela": "a farmer",
    "Cem": "a driver",
    "Dora": "a baker",
    "Emil": "a teacher",
    "Fay": "a carpenter",
    "Gus": "a fisherman",
    "Hana": "a student",
    "Ivo": "a gardener",
}
WISHES = ("bus", "library", "pool")

client = llmcall.client("local")


@llmcall.llm(
    system='You are {{ trade }}. Answer in JSON: {"value": "..."}',
    client=client,
    temperature=1,
    max_tokens=24,
)
def vote(trade: str, ballot: tuple[str, ...]) -> Literal["bus", "library", "pool"]:
    """The village can pay for a {{ ballot[0] }}, a {{ ballot[1] }} or a {{ ballot[2] }}. Which one do you want?"""
    raise NotImplementedError


def main() -> None:
    """Run a vote for each order of the ballot, and count the votes by position on the ballot."""
    votes_by_position: Counter[int] = Counter()
    for ballot in permutations(WISHES):
        voters = [
            {"name": name, "trade": trade, "ballot": ballot} for name, trade in VOTERS.items()
        ]
        votes = Counter(vote.map(voters, key="name", scope="-".join(ballot)))
        votes_by_position.update({ballot.index(wish): count for wish, count in votes.items()})
        print(f"{', '.join(ballot):22}", "  ".join(f"{wish} {votes[wish]}" for wish in WISHES))
    first, second, third = (votes_by_position[position] for position in range(len(WISHES)))
    print(f"Votes for what is named first: {first}, second: {second}, third: {third}")


if __name__ == "__main__":
    with llmcall.cassette(RECORDING):
        main()
