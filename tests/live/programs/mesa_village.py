"""Villagers of a Mesa model, each asked for a mood in every step; two of them have the same prompt."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import mesa
import openai

NAMES = ("Lisa", "Oscar", "Emma", "Twin", "Twin")


class Villager(mesa.Agent):  # type: ignore[misc]
    """Ask for a mood, and remember what was said."""

    def __init__(self, model: mesa.Model, name: str, prompt: str) -> None:
        super().__init__(model)
        self.name, self.prompt = name, prompt
        self.answers: list[str] = []

    def ask(self) -> None:
        """Ask how this villager feels today."""
        answer = self.model.client.chat.completions.create(
            model="gpt-4o-mini",
            temperature=1,
            messages=[{"role": "user", "content": f"{self.name}, {self.prompt}"}],
        )
        self.answers.append(answer.choices[0].message.content)


class Village(mesa.Model):  # type: ignore[misc]
    """Villagers who all speak at once, in an order that the model's own chance decides."""

    def __init__(self, prompts: dict[str, str]) -> None:
        super().__init__(seed=7)
        self.client = openai.OpenAI()
        for name in NAMES:
            Villager(self, name, prompts.get(name, "how do you feel?"))

    def step(self) -> None:
        """Ask every villager in a thread."""
        villagers = list(self.agents.shuffle())
        with ThreadPoolExecutor(len(villagers)) as pool:
            list(pool.map(Villager.ask, villagers))


if __name__ == "__main__":
    changed = {"Emma": "how do you really feel?"} if "changed" in sys.argv else {}
    village = Village(changed)
    for _ in range(3):
        village.step()
    print(
        json.dumps(
            {
                f"{villager.name} {villager.unique_id}": villager.answers
                for villager in village.agents
            }
        )
    )
