"""Print the answer to a question: ``joblib_memory.py FOLDER BASE_URL SYSTEM QUESTION``."""

import sys

import joblib

folder, base_url, system, question = sys.argv[1:]


def complete(messages):
    import openai

    client = openai.OpenAI(api_key="sk-benchmark", base_url=base_url)
    response = client.chat.completions.create(model="gpt-6-luna", messages=messages)
    return response.choices[0].message.model_dump(exclude_unset=True)


complete = joblib.Memory(folder, verbose=0).cache(complete)
print(
    complete([{"role": "system", "content": system}, {"role": "user", "content": question}])[
        "content"
    ]
)
