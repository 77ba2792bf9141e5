"""A program on the OpenAI SDK, as ``run.jsonl`` recorded it."""

from __future__ import annotations

import os
import random
import time

import openai

client = openai.OpenAI(base_url=os.environ["MODEL_AT"], api_key="none", max_retries=0)
for name in ("Lisa", "Tom"):
    for _ in range(2):
        question = f"It is {time.strftime('%H:%M:%S')}. Have you {random.randrange(100)} coins?"
        answer = client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[
                {"role": "system", "content": f"You are {name}."},
                {"role": "user", "content": question},
            ],
        )
        print(name, answer.choices[0].message.content)
