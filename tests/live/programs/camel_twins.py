"""Visitors of a market by CAMEL, in threads and in tasks; three of them ask the same."""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor

from camel.agents import ChatAgent
from camel.models import ModelFactory
from camel.types import ModelPlatformType

VISITORS = ("Lisa", "Oscar", "anybody", "anybody", "anybody")


def agent(name: str) -> ChatAgent:
    """Return an agent that is such a visitor."""
    model = ModelFactory.create(
        model_platform=ModelPlatformType.OPENAI,
        model_type="gpt-4o-mini",
        model_config_dict={"temperature": 1.0},
    )
    return ChatAgent(f"You are {name}, at a market.", model=model)


def visit(name: str) -> list[str]:
    """Return what a visitor says in two rounds."""
    visitor = agent(name)
    today = " today" if "changed" in sys.argv and name == "Oscar" else ""
    questions = f"What do you buy{today}?", "And then?"
    return [visitor.step(question).msgs[0].content for question in questions]


async def avisit(name: str) -> str:
    """Return what a visitor says in a task."""
    return (await agent(name).astep("And tomorrow?")).msgs[0].content


async def main() -> list[str]:
    """Make all visit at once."""
    return await asyncio.gather(*map(avisit, VISITORS))


if __name__ == "__main__":
    with ThreadPoolExecutor(len(VISITORS)) as pool:
        in_threads = list(pool.map(visit, VISITORS))
    print(json.dumps({"threads": in_threads, "tasks": asyncio.run(main())}))
