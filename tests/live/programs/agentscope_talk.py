"""Agents of AgentScope that talk in turns, and two that ask alike at once; each prompt has the time."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys

from agentscope.agent import Agent
from agentscope.credential import OpenAICredential
from agentscope.message import UserMsg
from agentscope.model import OpenAIChatModel


def agent(name: str, persona: str = "") -> Agent:
    """Return an agent with the persona of a name."""
    credential = OpenAICredential(
        api_key=os.environ["OPENAI_API_KEY"], base_url=os.environ["OPENAI_BASE_URL"]
    )
    model = OpenAIChatModel(credential=credential, model="gpt-4o-mini", stream=False)
    return Agent(name=name, system_prompt=f"You are {name}{persona}.", model=model)


async def main() -> None:
    """Run two agents that answer each other, then twins that speak at once."""
    oscar = agent("Oscar", ", who is angry" if "changed" in sys.argv else "")
    word, texts = f"Say something about number {random.randrange(1000)}.", []
    for speaker in (agent("Lisa"), oscar):
        answer = await speaker.reply(UserMsg(name="user", content=word))
        texts.append([speaker.name, answer.get_text_content()])
    question = UserMsg(name="user", content="Who are you?")
    twins = await asyncio.gather(*(agent("Twin").reply(question) for _ in range(3)))
    texts += [["Twin", answer.get_text_content()] for answer in twins]
    print(json.dumps(texts))


if __name__ == "__main__":
    asyncio.run(main())
