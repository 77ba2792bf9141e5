"""Three processes choose a place for a bench: this program, a child in Python, a shell script with curl.

Replay the recording beside it:

    llmcall run --cassette council.jsonl --mode none council.py

Both children ask at the same time. Neither they nor this program use llmcall.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import openai

HERE = Path(__file__).parent
MODEL = "SmolLM2-135M-Instruct.Q4_1"
PLACES = ["park", "market", "harbour"]
CHILDREN = {"Ada": [sys.executable, HERE / "citizen.py"], "Bela": ["sh", HERE / "citizen.sh"]}


def question(text: str) -> dict[str, object]:
    """Return the arguments of a call that chooses a place."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "temperature": 1,
        "max_tokens": 12,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "place", "schema": {"type": "string", "enum": PLACES}},
        },
    }


os.environ.setdefault("OPENAI_API_KEY", "none")
client = openai.OpenAI()
for number in (1, 2, 3):
    draft = client.chat.completions.create(
        **question("You are the mayor. Where does the bench stand?")
    )
    print(
        f"Bench {number}: the mayor says {json.loads(draft.choices[0].message.content or '')}",
        end="",
    )
    asked = question("You live here. Where does the bench stand?")
    started = {
        name: subprocess.Popen([*command, json.dumps(asked)], stdout=subprocess.PIPE, text=True)
        for name, command in CHILDREN.items()
    }
    for name, process in started.items():
        answer, _ = process.communicate()
        content = json.loads(answer)["choices"][0]["message"]["content"]
        print(f", {name} {json.loads(content)}", end="")
    print()
