"""Buyers at a market, each a chain of langchain-openai in a thread of its own: words, a stream, a
typed decision.
"""

from typing import Literal

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from market import BUYERS
from pydantic import BaseModel


class Decision(BaseModel):
    """A buyer's decision."""

    decision: Literal["buy", "wait", "leave"]


def visit(name: str) -> list[str]:
    """Return what a buyer says and decides."""
    model = ChatOpenAI(model="gpt-4o-mini", temperature=1.0, max_tokens=30)
    messages = [
        SystemMessage(
            f"You are {name}, {BUYERS[name]}, at a market. Answer in one short sentence."
        ),
        HumanMessage("Bread costs 3 coins. What do you say?"),
    ]
    texts = [model.invoke(messages).text for _ in range(2)]
    messages += [model.invoke(messages), HumanMessage("What else do you need?")]
    texts.append("".join(chunk.text for chunk in model.stream(messages)))
    # a small model may put many blanks into its JSON
    decider = ChatOpenAI(model="gpt-4o-mini", temperature=0.2, max_tokens=300)
    decided = decider.with_structured_output(Decision, method="json_schema").invoke(messages)
    near = OpenAIEmbeddings(
        model="text-embedding-3-small", check_embedding_ctx_length=False
    ).embed_query(name)
    return [*texts, decided.decision, f"{near[0]:.6f}"]
