"""Print the answer to a question: ``autogen_store.py FOLDER BASE_URL SYSTEM QUESTION``."""

import asyncio
import sys

from autogen_core.models import SystemMessage, UserMessage
from autogen_ext.cache_store.diskcache import DiskCacheStore
from autogen_ext.models.cache import ChatCompletionCache
from autogen_ext.models.openai import OpenAIChatCompletionClient
from diskcache import Cache

folder, base_url, system, question = sys.argv[1:]
inner = OpenAIChatCompletionClient(model="gpt-6-luna", api_key="sk-benchmark", base_url=base_url)
client = ChatCompletionCache(inner, DiskCacheStore(Cache(folder)))
messages = [SystemMessage(content=system), UserMessage(content=question, source="user")]
print(asyncio.run(client.create(messages)).content)
