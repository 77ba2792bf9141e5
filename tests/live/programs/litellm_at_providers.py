"""LiteLLM at the addresses of three providers, by its transports of httpx."""

import asyncio
import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks GitHub for a table of prices
import litellm

litellm.disable_aiohttp_transport = True
MODELS = "anthropic/claude-sonnet-4-5", "openai/gpt-4o-mini", "gemini/gemini-2.5-flash"


def asked(model: str, text: str, **parameters: object) -> dict:
    """Return the arguments of a call."""
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "max_tokens": 20, **parameters}


def piece_of(chunk: object) -> str:
    """Return the text of a streamed piece."""
    return chunk.choices[0].delta.content or ""


async def in_tasks(model: str) -> list[str]:
    """Return a whole answer and a streamed one."""
    whole = await litellm.acompletion(**asked(model, "Bread?"))
    streamed = await litellm.acompletion(**asked(model, "Milk?", stream=True))
    return [
        whole.choices[0].message.content,
        "".join([piece_of(chunk) async for chunk in streamed]),
    ]


said = []
for name in MODELS:
    said += [
        litellm.completion(**asked(name, "Fish?")).choices[0].message.content for _ in range(2)
    ]
    said.append("".join(map(piece_of, litellm.completion(**asked(name, "Salt?", stream=True)))))
    said += asyncio.run(in_tasks(name))
print(json.dumps({"said": said}))
