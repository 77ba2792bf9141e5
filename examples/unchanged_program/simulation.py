"""Three colleagues vote on where to eat: a program that uses the OpenAI SDK and not llmcall.

Replay the recording beside it:

    llmcall run --cassette votes.jsonl --actor system --mode none simulation.py

Each colleague asks in a thread. Each has a system message, so each is an actor with its own draws.
"""

import collections
import concurrent.futures
import os

import openai

MODEL = "SmolLM2-135M-Instruct.Q4_1"
COLLEAGUES = {"Ada": "loves noodles", "Bela": "saves money", "Cem": "likes to sit outside"}
PLACES = ("noodle bar", "canteen", "terrace")

client = openai.OpenAI(api_key=os.environ.get("OPENAI_API_KEY", "none"))


def vote(name: str) -> str:
    """Ask a colleague where to eat."""
    messages = [
        {
            "role": "system",
            "content": f"You are {name}. {name} {COLLEAGUES[name]}. Answer with one of: {PLACES}.",
        },
        {"role": "user", "content": "Where do we eat?"},
    ]
    answer = client.chat.completions.create(
        model=MODEL,
        messages=messages,
        temperature=1,
        max_tokens=12,
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "place",
                "strict": True,
                "schema": {"type": "string", "enum": list(PLACES)},
            },
        },
    )
    return (answer.choices[0].message.content or "").strip(' \n"')


with concurrent.futures.ThreadPoolExecutor() as pool:
    for number in (1, 2, 3):
        votes = dict(zip(COLLEAGUES, pool.map(vote, COLLEAGUES), strict=True))
        [(winner, count)] = collections.Counter(votes.values()).most_common(1)
        print(
            f"Round {number}: {winner} ({count} of 3)  ",
            ", ".join(f"{name}: {choice}" for name, choice in votes.items()),
        )
