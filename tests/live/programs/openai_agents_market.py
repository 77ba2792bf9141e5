"""Buyers at a market, each an agent of openai-agents in a task of its own, by both of OpenAI's
APIs.
"""

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
)
from market import BUYERS
from openai import AsyncOpenAI


async def visit(name: str) -> list[str]:
    """Return what a buyer says in a conversation with itself, by one API and the other."""
    texts, client = [], AsyncOpenAI()
    for model in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        buyer = Agent(
            name=name,
            instructions=f"You are {name}, {BUYERS[name]}, at a market. Answer in one short sentence.",
            model=model("gpt-4o-mini", client),
            model_settings=ModelSettings(temperature=1.0, max_tokens=30),
        )
        quiet = RunConfig(tracing_disabled=True)
        asked = [{"role": "user", "content": "Bread costs 3 coins. What do you say?"}]
        for _ in range(2):
            result = await Runner.run(buyer, asked, run_config=quiet)
            texts.append(result.final_output)
        asked = [*result.to_input_list(), {"role": "user", "content": "And what else do you need?"}]
        streamed = Runner.run_streamed(buyer, asked, run_config=quiet)
        async for _ in streamed.stream_events():
            pass
        texts.append(streamed.final_output)
    await client.close()
    return texts
