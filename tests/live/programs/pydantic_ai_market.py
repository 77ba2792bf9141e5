"""Buyers at a market, each an agent of pydantic-ai in a task of its own: words, a stream, a typed
decision.
"""

from typing import Literal

from market import BUYERS
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel


class Decision(BaseModel):
    """A buyer's decision."""

    decision: Literal["buy", "wait", "leave"]


async def visit(name: str) -> list[str]:
    """Return what a buyer says and decides in four calls."""
    buyer = Agent(
        OpenAIChatModel("gpt-4o-mini"),
        system_prompt=f"You are {name}, {BUYERS[name]}, at a market. Answer in one short sentence.",
        model_settings={"temperature": 1.0, "max_tokens": 30},
    )
    texts, history = [], None
    for _ in range(2):
        result = await buyer.run("Bread costs 3 coins. What do you say?", message_history=history)
        texts.append(result.output)
        history = result.all_messages()
    async with buyer.run_stream("What else do you need?") as stream:
        texts.append("".join([piece async for piece in stream.stream_text(delta=True)]))
    decided = await buyer.run("Do you buy the bread?", output_type=NativeOutput(Decision))
    return [*texts, decided.output.model_dump_json()]
