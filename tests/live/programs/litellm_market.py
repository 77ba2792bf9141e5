"""Buyers at a market, each asking by LiteLLM in a thread of its own: words, a stream, an embedding."""

import os

from market import BUYERS

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = (
    "True"  # without it, it asks GitHub for a table of prices
)
import litellm


def visit(name: str) -> list[str]:
    """Return what a buyer says."""
    asked = {"model": "openai/gpt-4o-mini", "temperature": 1.0, "max_tokens": 30}
    messages = [
        {
            "role": "system",
            "content": f"You are {name}, {BUYERS[name]}, at a market. Answer in one short sentence.",
        },
        {"role": "user", "content": "Bread costs 3 coins. What do you say?"},
    ]
    texts = [
        litellm.completion(messages=messages, **asked).choices[0].message.content for _ in range(2)
    ]
    messages += [
        {"role": "assistant", "content": texts[-1]},
        {"role": "user", "content": "What else do you need?"},
    ]
    pieces = litellm.completion(messages=messages, stream=True, **asked)
    texts.append("".join(piece.choices[0].delta.content or "" for piece in pieces))
    near = litellm.embedding(model="openai/text-embedding-3-small", input=[name]).data[0][
        "embedding"
    ]
    return [*texts, f"{near[0]:.6f}"]
