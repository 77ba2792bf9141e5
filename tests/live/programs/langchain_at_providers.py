"""LangChain's models at the addresses of three providers: batches, streams, tasks of one event loop."""

import asyncio
import json

from langchain_anthropic import ChatAnthropic
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI

MODELS = (
    ChatOpenAI(model="gpt-4o-mini"),
    ChatOpenAI(model="gpt-4o-mini", use_responses_api=True),
    ChatAnthropic(model="claude-sonnet-4-5", max_tokens=20),
    ChatGoogleGenerativeAI(model="gemini-2.5-flash"),
)


async def in_tasks(model: object) -> list[str]:
    """Return two answers to one question, asked at once, and a streamed one."""
    answers = await asyncio.gather(model.ainvoke("Bread?"), model.ainvoke("Bread?"))
    return [
        *(answer.text for answer in answers),
        "".join([c.text async for c in model.astream("Milk?")]),
    ]


async def main() -> list[str]:
    """Return what all models say."""
    said = []
    for model in MODELS:
        said += [model.invoke("Fish?").text for _ in range(2)]
        said += [answer.text for answer in model.batch(["Salt?", "Salt?"])]
        said.append("".join(chunk.text for chunk in model.stream("Eggs?")))
        said += await in_tasks(model)
    return said


print(json.dumps({"said": asyncio.run(main())}))
