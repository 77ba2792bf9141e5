"""Two people haggle over a bicycle in three trials, each with a memory of their own.

    python examples/negotiation.py          replays negotiation.jsonl: no key, no model, no network

To record other trials with the small model (the extra `local`), delete negotiation.jsonl.
"""

import pathlib
from typing import Literal

import llmcall

RECORDING = pathlib.Path(__file__).with_name("negotiation.jsonl")
BUYER, SELLER = "Nora", "Sam"

client = llmcall.client("local")


@llmcall.llm(client=client, temperature=1)
def buyer_does(name: str, asking_price: int, memory: list[str]) -> Literal["haggles", "pays"]:
    """People haggle for a bicycle. Sam asks 100. Kim haggles. Sam asks 100. Tim haggles.
    {{ memory | join(" ") }} Sam asks {{ asking_price }}. {{ name }}"""
    raise NotImplementedError


@llmcall.llm(client=client, temperature=1)
def seller_does(name: str, offer: int, memory: list[str]) -> Literal["haggles", "agrees"]:
    """People haggle for a bicycle. Nora offers 30. Lea haggles. Nora offers 40. Tim haggles.
    {{ memory | join(" ") }} Nora offers {{ offer }}. {{ name }}"""
    raise NotImplementedError


def negotiate(turns: int = 6) -> list[str]:
    """Play one negotiation, and return what happened; each side remembers its own moves."""
    asking_price, offer = 100, 40
    story, buyer_memory, seller_memory = [], [], []
    for _ in range(turns):
        with llmcall.scope(BUYER):
            deed = buyer_does(BUYER, asking_price, buyer_memory)
        buyer_memory.append(f"Sam asks {asking_price}. {BUYER} {deed}.")
        if deed == "pays":
            return [*story, f"{BUYER} pays {asking_price}"]
        offer += 10
        story.append(f"{BUYER} offers {offer}")
        with llmcall.scope(SELLER):
            deed = seller_does(SELLER, offer, seller_memory)
        seller_memory.append(f"Nora offers {offer}. {SELLER} {deed}.")
        if deed == "agrees":
            return [*story, f"{SELLER} agrees"]
        asking_price -= 10
        story.append(f"{SELLER} asks {asking_price}")
    return [*story, "they part"]


if __name__ == "__main__":
    with llmcall.cassette(RECORDING):
        for trial in (1, 2, 3):
            with llmcall.scope(f"trial-{trial}"):
                print(f"Trial {trial}: " + ", ".join(negotiate()) + ".")
