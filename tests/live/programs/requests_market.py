"""Buyers who ask by a session of requests, in threads, whole and streamed; two of them ask the same."""

from __future__ import annotations

import json
import os
import sys
import threading

import requests

BUYERS = ("Lisa", "Oscar", "anybody", "anybody")
ADDRESS = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
HEADERS = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}


def visit(name: str, price: str, texts: list[str]) -> None:
    """Ask twice, and keep what is said."""
    body = {
        "model": "gpt-4o-mini",
        "temperature": 1,
        "messages": [{"role": "user", "content": f"{name}: bread costs {price} coins."}],
    }
    with requests.Session() as session:
        session.headers.update(HEADERS)
        answer = session.post(ADDRESS, json=body, timeout=60)
        answer.raise_for_status()
        texts.append(answer.json()["choices"][0]["message"]["content"])
        with session.post(ADDRESS, json={**body, "stream": True}, stream=True, timeout=60) as sent:
            for line in sent.iter_lines():
                if line.startswith(b"data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        texts.append(choice["delta"].get("content") or "")


if __name__ == "__main__":
    transcript: list[tuple[str, list[str]]] = [(name, []) for name in BUYERS]
    threads = [
        threading.Thread(
            target=visit,
            args=(name, "4" if "changed" in sys.argv and name == "Oscar" else "3", texts),
        )
        for name, texts in transcript
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps([[name, "".join(texts)] for name, texts in transcript]))
