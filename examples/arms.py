"""A market with and without a tax on bread: eight repeats that share every answer before the tax.

    python examples/arms.py          replays arms.jsonl: no key, no model, no network

To record other repeats with the small model (the extra `local`), delete arms.jsonl.
"""

import pathlib
import random
import statistics
from typing import Literal

import llmcall

RECORDING = pathlib.Path(__file__).with_name("arms.jsonl")
BUYERS = {"Ada": "a nurse", "Cem": "a driver", "Dora": "a widow", "Gus": "a fisherman"}
ROUNDS, TAXED_FROM = 4, 2  # the tax begins in the third round
REPEATS = 8

client = llmcall.client("local")


@llmcall.llm(
    system="You are {{ trade }}. Bread normally costs 4 coins.", client=client, temperature=1
)
def buys(name: str, trade: str, price: int, tax: int) -> Literal["yes", "no"]:
    """{{ name }}, today bread costs {{ price }} coins{% if tax %}, because of a new tax. That is far too expensive
    {%- endif %}. Do you buy bread?"""
    raise NotImplementedError


def market(tax: int) -> list[int]:
    """Play a market, and return how many loaves are sold in each round."""
    chance = random.Random(llmcall.seed())  # the program's own: the same in both arms
    price = 4
    sold: list[int] = []
    for number in range(ROUNDS):
        price = max(1, price + chance.choice((-1, 0, 1)))
        added = tax if number >= TAXED_FROM else 0
        rows = [
            {"name": name, "trade": trade, "price": price + added, "tax": added}
            for name, trade in BUYERS.items()
        ]
        sold.append(buys.map(rows, key="name").count("yes"))
        price += 1 if sold[-1] > len(BUYERS) / 2 else -1
    return sold


def main() -> None:
    """Run both arms, and print what each repeat sold and how much the tax changes that."""
    arms = {"without": {"tax": 0}, "with": {"tax": 6}}
    runs = llmcall.arms(market, arms, scope="market", repeats=REPEATS)
    effects = []
    for repeat in range(REPEATS):
        without, taxed = runs["without", repeat], runs["with", repeat]
        effects.append(sum(taxed) - sum(without))
        print(f"repeat {repeat}: sold {without} without the tax, {taxed} with it: {effects[-1]:+}")
    mean, error = statistics.mean(effects), statistics.stdev(effects) / REPEATS**0.5
    print(f"The tax changes the sales by {mean:+.2f} loaves (standard error {error:.2f}).")
    print(f"{runs.calls} calls; {runs.shared} answers served both arms.")


if __name__ == "__main__":
    with llmcall.cassette(RECORDING):
        main()
