"""Make a small data set like those that studies publish: answers of the small model (the extra
``local``), in the layouts that an import reads. It needs PyYAML.

The documentation imports these files, so you need this only after a question has changed.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import yaml

import llmcall

FOLDER = Path(__file__).resolve().parent
TRADES = {"Ann": "baker", "Ben": "fisher", "Cleo": "gardener", "Dan": "tailor", "Eve": "potter"}
SYSTEM = "Answer with one short sentence."
PATH = "/v1/chat/completions"


def body_of(name: str) -> dict[str, Any]:
    """Return what is asked about a person."""
    return {
        "model": "SmolLM2-135M-Instruct.Q4_1",
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"What does {name}, a {TRADES[name]}, sell on the market?"},
        ],
        "temperature": 1,
        "max_tokens": 40,
    }


def response_to(name: str) -> dict[str, Any]:
    """Ask the model, and return the whole response."""
    with llmcall.scope(name):
        reply = llmcall.client("local").send_message(
            body_of(name)["messages"], temperature=1, max_tokens=40, on_error="raise"
        )
    return {**reply.raw, "id": f"chatcmpl-{name}"}


def main() -> None:
    """Write the files."""
    calls = [(name, body_of(name), response_to(name)) for name in TRADES]
    texts = [response["choices"][0]["message"]["content"] for _, _, response in calls]
    write_lines(
        "input.jsonl",
        [
            {"custom_id": f"market/{name}", "method": "POST", "url": PATH, "body": body}
            for name, body, _ in calls
        ],
    )
    write_lines(
        "output.jsonl",
        [
            {
                "id": f"batch_req_{name}",
                "custom_id": f"market/{name}",
                "response": {"status_code": 200, "request_id": name, "body": response},
                "error": None,
            }
            for name, _, response in reversed(calls)  # as a server may order them
        ],
    )
    with open(FOLDER / "market.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["scope", "model", "prompt", "answer"])
        for (name, body, _), text in zip(calls, texts, strict=True):
            table.writerow([f"market/{name}", body["model"], body["messages"][-1]["content"], text])
    chats = [
        {"messages": [*body["messages"], {"role": "assistant", "content": text}]}
        for (_, body, _), text in zip(calls, texts, strict=True)
    ]
    write_lines("chats.jsonl", chats)
    interactions = [
        {
            "request": {
                "method": "POST",
                "uri": f"http://localhost:8080{PATH}",
                "body": json.dumps(body),
            },
            "response": {
                "status": {"code": 200, "message": "OK"},
                "body": {"string": json.dumps(response)},
            },
        }
        for _, body, response in calls
    ]
    cassette = yaml.safe_dump({"interactions": interactions, "version": 1})
    (FOLDER / "run.yaml").write_text(cassette, encoding="utf-8")


def write_lines(name: str, entries: list[dict[str, Any]]) -> None:
    """Write JSON Lines."""
    text = "".join(f"{json.dumps(entry)}\n" for entry in entries)
    (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
