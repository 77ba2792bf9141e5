"""Pairs of buyer and seller, each two agents of CAMEL, which talk to one another in a thread of
their own.
"""

from camel.agents import ChatAgent
from camel.models import ModelFactory
from camel.types import ModelPlatformType
from market import BUYERS


def agent(persona: str) -> ChatAgent:
    """Return an agent that is such a person."""
    model = ModelFactory.create(
        model_platform=ModelPlatformType.OPENAI,
        model_type="gpt-4o-mini",
        model_config_dict={"temperature": 1.0, "max_tokens": 30},
    )
    return ChatAgent(f"You are {persona}, at a market. Answer in one short sentence.", model=model)


def visit(name: str) -> list[str]:
    """Return what a buyer and the seller say to one another."""
    buyer, seller = (
        agent(f"{name}, {BUYERS[name]}"),
        agent(f"a seller of bread who talks to {name}"),
    )
    texts = ["Good morning. How much is the bread?"]
    for _ in range(2):
        texts.append(seller.step(texts[-1]).msgs[0].content)
        texts.append(buyer.step(texts[-1]).msgs[0].content)
    return texts
