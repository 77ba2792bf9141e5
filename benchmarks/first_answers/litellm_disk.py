"""Print the answer to a question: ``litellm_disk.py FOLDER BASE_URL SYSTEM QUESTION``."""

import sys

import litellm
from litellm.caching.caching import Cache

folder, base_url, system, question = sys.argv[1:]
litellm.cache = Cache(type="disk", disk_cache_dir=folder)
response = litellm.completion(
    model="openai/gpt-6-luna",
    api_key="sk-benchmark",
    api_base=base_url,
    caching=True,
    messages=[{"role": "system", "content": system}, {"role": "user", "content": question}],
)
print(response.choices[0].message.content)
