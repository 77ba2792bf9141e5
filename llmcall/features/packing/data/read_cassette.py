"""Print a recording: the scope, the question and the answer of each call.

    python read_cassette.py recordings/FILE

It needs Python 3.10 or newer and nothing else. A recording is JSON Lines: a header, then one record
per line. A text of more than 500 characters has its own line; this program puts it back.
"""

import json
import sys
from typing import Any


def main(path: str) -> None:
    """Print all records of a file."""
    with open(path, encoding="utf-8-sig") as file:
        entries = [json.loads(line) for line in file if line.strip()]
    texts = {entry["text"]: "\n".join(entry["lines"]) for entry in entries if "text" in entry}
    for record in entries:
        if "kind" not in record:
            continue
        request = resolved(record["request"], texts)
        messages = request.pop("messages", [])
        print("=" * 72)
        arms = "  in the arms " + ", ".join(record["arms"]) if "arms" in record else ""
        arms += "".join(f"  {name}" for name, noted in record.items() if noted is True)
        print(record["kind"], record.get("sample") or "(outside any scope)", end=f"{arms}\n")
        print(json.dumps(request, ensure_ascii=False))
        for message in messages:
            print("--- " + str(message.get("role", "message")))
            print_message(message)
        print("--- answer")
        response = resolved(record["response"], texts)
        for message in answers(response) or [response]:
            print_message(message)


def print_message(message: Any) -> None:
    """Print the text of a message, or the whole message if it has none."""
    content = message.get("content")
    print(content if isinstance(content, str) else json.dumps(message, ensure_ascii=False))


def answers(response: Any) -> list[Any]:
    """Return the messages of an answer, of chat completions or of the Responses API."""
    messages = [choice.get("message") or {} for choice in response.get("choices") or []]
    for item in response.get("output") or []:
        parts = item.get("content") or []
        text = "".join(part.get("text") or part.get("refusal") or "" for part in parts)
        messages.append({"content": text} if text else item)
    return messages


def resolved(value: Any, texts: dict[str, str]) -> Any:
    """Return data with its references to texts replaced by the texts."""
    if isinstance(value, list):
        return [resolved(item, texts) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"$text"}:
        return texts[value["$text"]]
    if set(value) == {"$data"}:
        value = value["$data"]
    return {name: resolved(item, texts) for name, item in value.items()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    main(sys.argv[1])
