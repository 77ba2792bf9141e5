"""Print the answer to a question: ``plain_diskcache.py FOLDER BASE_URL SYSTEM QUESTION``."""

import hashlib
import json
import sys

import diskcache

folder, base_url, system, question = sys.argv[1:]
request = {
    "model": "gpt-6-luna",
    "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
}
key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
cache = diskcache.Cache(folder)
message = cache.get(key)
if message is None:
    import openai

    response = openai.OpenAI(api_key="sk-benchmark", base_url=base_url).chat.completions.create(
        **request
    )
    message = response.choices[0].message.model_dump(exclude_unset=True)
    cache.set(key, message)
print(message["content"])
