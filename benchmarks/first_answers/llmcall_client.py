"""Print the answer to a question: ``llmcall_client.py FOLDER BASE_URL SYSTEM QUESTION``."""

import sys

import llmcall

folder, base_url, system, question = sys.argv[1:]
client = llmcall.OpenAIClient(
    model="gpt-6-luna",
    api_key="sk-benchmark",
    base_url=base_url,
    cache_path=folder,
    on_error="raise",
)
reply = client.send_message(
    [{"role": "system", "content": system}, {"role": "user", "content": question}]
)
print(reply["content"])
