"""Print the answer to a question: ``inspect_model.py FOLDER BASE_URL SYSTEM QUESTION``."""

import asyncio
import os
import sys

folder, base_url, system, question = sys.argv[1:]
os.environ["INSPECT_CACHE_DIR"] = folder

from inspect_ai.model import ChatMessageSystem, ChatMessageUser, get_model  # noqa: E402 - it reads the variable

model = get_model(
    "openai/gpt-6-luna", api_key="sk-benchmark", base_url=base_url, responses_api=False
)
messages = [ChatMessageSystem(content=system), ChatMessageUser(content=question)]
print(asyncio.run(model.generate(messages, cache=True)).completion)
