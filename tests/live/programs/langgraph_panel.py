"""A graph of LangGraph whose branches run at once, and a batch of LangChain: several ask the very same
question.
"""

from __future__ import annotations

import asyncio
import json
import operator
import random
import sys
import time
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

EXPERTS = ("judge", "judge", "judge", "critic")


class State(TypedDict):
    """The panel's conversation so far."""

    answers: Annotated[list[Any], operator.add]


def late(text: str) -> str:
    """Return a text after a while that chance decides."""
    time.sleep(random.SystemRandom().uniform(0, 0.03))
    return text


def build(changed: bool) -> Any:
    """Return the compiled graph."""
    model = ChatOpenAI(model="gpt-4o-mini", temperature=1)

    def question(who: str) -> str:
        return f"You are a {who}. Is it {'really ' if changed and who == 'critic' else ''}good?"

    def speak(task: dict[str, Any]) -> dict[str, Any]:
        answer = model.invoke(question(task["who"]))
        return {"answers": [[task["seat"], answer.content]]}

    async def aspeak(task: dict[str, Any]) -> dict[str, Any]:
        answer = await model.ainvoke(question(task["who"]))
        return {"answers": [[task["seat"], answer.content]]}

    graph = StateGraph(State)
    graph.add_node("speak", RunnableLambda(speak, aspeak))
    graph.add_conditional_edges(
        START,
        lambda _: [Send("speak", {"who": who, "seat": seat}) for seat, who in enumerate(EXPERTS)],
        ["speak"],
    )
    graph.add_edge("speak", END)
    return graph.compile()


if __name__ == "__main__":
    panel = build("changed" in sys.argv)
    in_threads = [panel.invoke({"answers": []})["answers"] for _ in range(2)]
    in_tasks = asyncio.run(panel.ainvoke({"answers": []}))["answers"]
    # Each part of a batch, and of a batch in it, runs in any of the contexts that were copied before.
    chain = RunnableLambda(late) | ChatOpenAI(model="gpt-4o-mini", temperature=1)
    batches = RunnableLambda(lambda texts: [message.content for message in chain.batch(texts)])
    in_batches = batches.batch([["hello"] * 6, ["hello"] * 3, ["hello"] * 3])
    print(json.dumps({"threads": in_threads, "tasks": in_tasks, "batches": in_batches}))
