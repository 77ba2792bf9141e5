"""Buyers who ask by LiteLLM's asynchronous calls, all at once; some of them ask the same."""

from __future__ import annotations

import asyncio
import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches a table of prices

import litellm

BUYERS = ("Lisa", "Oscar", "anybody", "anybody", "anybody")


async def visit(name: str, price: str) -> list[str]:
    """Return what a buyer says in two rounds, the second one streamed."""
    asked = {
        "model": "openai/gpt-4o-mini",
        "temperature": 1.0,
        "messages": [{"role": "user", "content": f"{name}: bread costs {price} coins."}],
    }
    answer = await litellm.acompletion(**asked)
    pieces = []
    async for chunk in await litellm.acompletion(stream=True, **asked):
        pieces.append(chunk.choices[0].delta.content or "")
    return [answer.choices[0].message.content, "".join(pieces)]


async def main() -> None:
    """Make all buyers visit at once."""
    prices = ["4" if "changed" in sys.argv and name == "Oscar" else "3" for name in BUYERS]
    texts = await asyncio.gather(*map(visit, BUYERS, prices))
    print(json.dumps(list(zip(BUYERS, texts, strict=True))))


if __name__ == "__main__":
    asyncio.run(main())
