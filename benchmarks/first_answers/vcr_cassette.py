"""Print the answer to a question: ``vcr_cassette.py FOLDER BASE_URL SYSTEM QUESTION``."""

import sys

import openai
import vcr

folder, base_url, system, question = sys.argv[1:]
with vcr.use_cassette(
    f"{folder}/cassette.yaml", match_on=["method", "uri", "body"], filter_headers=["authorization"]
):
    response = openai.OpenAI(api_key="sk-benchmark", base_url=base_url).chat.completions.create(
        model="gpt-6-luna",
        messages=[{"role": "system", "content": system}, {"role": "user", "content": question}],
    )
print(response.choices[0].message.content)
