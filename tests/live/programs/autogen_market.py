"""Pairs of buyer and seller at a market, each pair a group chat of AutoGen in a task of its own."""

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_ext.models.openai import OpenAIChatCompletionClient
from market import BUYERS


async def visit(name: str) -> list[str]:
    """Return what a buyer and the seller say to one another; the buyer's words come as a stream."""
    model = OpenAIChatCompletionClient(model="gpt-4o-mini", temperature=1.0, max_tokens=30)
    persona = f"You are {name}, {BUYERS[name]}, at a market. Answer in one short sentence."
    buyer = AssistantAgent(name, model, system_message=persona, model_client_stream=True)
    selling = f"You sell bread to {name}. Answer in one short sentence."
    team = RoundRobinGroupChat(
        [buyer, AssistantAgent("Seller", model, system_message=selling)], max_turns=4
    )
    result = await team.run(task="Bread costs 3 coins. What do you say?")
    await model.close()
    return [message.to_text() for message in result.messages]
