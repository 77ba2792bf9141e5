"""Print a recording: the scope, the question and the answer of each call.

    python read_cassette.py recordings/FILE

It needs Python 3.10 or newer and nothing else. A recording is JSON Lines: a header, then one record
per line. A text of more than 500 characters has its own line; this program puts it back.
"""

import json
import re
import sys
from typing import Any

# Control characters, and those that turn the direction of text or are invisible
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


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
        show("=" * 72)
        arms = "  in the arms " + ", ".join(record["arms"]) if "arms" in record else ""
        arms += "".join(f"  {name}" for name, noted in record.items() if noted is True)
        show(f"{record['kind']} {record.get('sample') or '(outside any scope)'}{arms}")
        show(json.dumps(request, ensure_ascii=False))
        for message in messages:
            show("--- " + str(message.get("role", "message")))
            print_message(message)
        show("--- answer")
        response = resolved(record["response"], texts)
        for message in answers(response) or [response]:
            print_message(message)


def print_message(message: Any) -> None:
    """Print the text of a message, or the whole message if it has none."""
    content = message.get("content")
    show(content if isinstance(content, str) else json.dumps(message, ensure_ascii=False))


def show(text: str) -> None:
    """Print a text with unsafe characters escaped."""
    print(UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text))


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
