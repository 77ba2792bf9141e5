"""Buyers at a market, each an agent of smolagents in a thread of its own: words, a stream, an
answer after steps.
"""

from market import BUYERS
from smolagents import LogLevel, OpenAIServerModel, ToolCallingAgent

QUESTION = "Bread costs 3 coins. What do you say?"


def visit(name: str) -> list[str]:
    """Return what a buyer says by its model, and as an agent whose steps the model may not find its
    way out of.
    """
    model = OpenAIServerModel("gpt-4o-mini", temperature=1.0, max_tokens=30)
    persona = f"You are {name}, {BUYERS[name]}, at a market. Answer in one short sentence."
    messages = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in (("system", persona), ("user", QUESTION))
    ]
    texts = [model.generate(messages).content for _ in range(2)]
    texts.append("".join(piece.content or "" for piece in model.generate_stream(messages)))
    agent = ToolCallingAgent(
        [], model, instructions=persona, max_steps=2, verbosity_level=LogLevel.OFF
    )
    return [*texts, str(agent.run(QUESTION))]
