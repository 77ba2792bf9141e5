"""Print a recording: each call's scope, what was asked and what was answered.

    python read_cassette.py recordings/FILE

It needs Python 3.10 or newer and nothing else. A recording is JSON Lines: a header, then a record a
line. A text of more than 500 characters has a line of its own; this file puts it back in its places.
"""

import json
import sys
from typing import Any


def main(path: str) -> None:
    """Print all records of a file."""
    entries = []
    with open(path, encoding="utf-8-sig") as file:
        for line in file:
            if line.strip():
                entries.append(json.loads(line))
    texts = {entry["text"]: "\n".join(entry["lines"]) for entry in entries if "text" in entry}
    records = [entry for entry in entries if "kind" in entry]
    for record in records:
        print("=" * 72)
        print(record["kind"], record.get("sample") or "(outside any scope)")
        print_request(record["request"], texts)
        print("--- answer")
        print_response(resolved(record["response"], texts))


def print_request(request: Any, texts: dict[str, str]) -> None:
    """Print a request: its parameters, then its messages."""
    parameters = {name: value for name, value in request.items() if name != "messages"}
    print(json.dumps(resolved(parameters, texts), ensure_ascii=False))
    for message in resolved(request.get("messages", []), texts):
        print("--- " + str(message.get("role", "message")))
        content = message.get("content")
        print(content if isinstance(content, str) else json.dumps(message, ensure_ascii=False))


def print_response(response: Any) -> None:
    """Print the texts of an answer, or the whole answer if it has none."""
    for choice in response.get("choices") or [None]:
        message = (choice or {}).get("message") or {}
        content = message.get("content")
        print(content if isinstance(content, str) else json.dumps(response, ensure_ascii=False))


def resolved(value: Any, texts: dict[str, str]) -> Any:
    """Return data with the texts that it refers to."""
    if isinstance(value, list):
        return [resolved(item, texts) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"$text"}:
        return texts[value["$text"]]
    if set(value) == {"$data"}:
        return {name: resolved(item, texts) for name, item in value["$data"].items()}
    return {name: resolved(item, texts) for name, item in value.items()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    main(sys.argv[1])
