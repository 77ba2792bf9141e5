"""Print the answer to a question: ``dspy_model.py FOLDER BASE_URL SYSTEM QUESTION``."""

import sys

import dspy

folder, base_url, system, question = sys.argv[1:]
dspy.configure_cache(disk_cache_dir=folder)
model = dspy.LM("openai/gpt-6-luna", api_key="sk-benchmark", api_base=base_url)
print(
    model(messages=[{"role": "system", "content": system}, {"role": "user", "content": question}])[
        0
    ]
)
