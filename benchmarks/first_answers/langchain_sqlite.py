"""Print the answer to a question: ``langchain_sqlite.py FOLDER BASE_URL SYSTEM QUESTION``."""

import os
import sys

from langchain_community.cache import SQLiteCache
from langchain_core.globals import set_llm_cache
from langchain_openai import ChatOpenAI

folder, base_url, system, question = sys.argv[1:]
os.makedirs(folder, exist_ok=True)
set_llm_cache(SQLiteCache(database_path=f"{folder}/langchain.db"))
model = ChatOpenAI(model="gpt-6-luna", api_key="sk-benchmark", base_url=base_url)
print(
    model.invoke(
        [{"role": "system", "content": system}, {"role": "user", "content": question}]
    ).content
)
