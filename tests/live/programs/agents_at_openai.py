"""Two agents of openai-agents at OpenAI's own address, as the library asks by default."""

import asyncio
import json

from agents import Agent, RunConfig, Runner

QUIET = RunConfig(tracing_disabled=True)


async def visit(name: str) -> list[str]:
    """Return what a buyer says."""
    buyer = Agent(name=name, instructions=f"You are {name}.", model="gpt-4o-mini")
    said = [await Runner.run(buyer, "Bread?", run_config=QUIET) for _ in range(2)]
    streamed = Runner.run_streamed(buyer, "Milk?", run_config=QUIET)
    async for _ in streamed.stream_events():
        pass
    return [result.final_output for result in (*said, streamed)]


async def main() -> list[list[str]]:
    """Let two buyers speak at once."""
    return await asyncio.gather(visit("Ann"), visit("Ben"))


print(json.dumps({"said": asyncio.run(main())}))
