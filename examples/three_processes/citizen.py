"""Asks the question in its argument, and prints the response."""

import json
import sys

import openai

response = openai.OpenAI().chat.completions.create(**json.loads(sys.argv[1]))
print(response.model_dump_json())
