"""Print a recording: each call's scope, what was asked and what was answered.

    python read_cassette.py recordings/FILE

It needs Python 3.10 or newer and nothing else. A recording is JSON Lines: a header, then a record a
line. A text of more than 500 characters has a line of its own, and messages that requests have in
common stand in one of them; this file puts both back in their places.
"""

import hashlib
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
    runs = runs_of_messages(records)
    for record in records:
        print("=" * 72)
        print(record["kind"], record.get("sample") or "(outside any scope)")
        print_request(record["request"], texts, runs)
        print("--- answer")
        print_response(resolved(record["response"], texts))


def print_request(request: Any, texts: dict[str, str], runs: dict[str, Any]) -> None:
    """Print a request: its parameters, then its messages."""
    parameters = {name: value for name, value in request.items() if name != "messages"}
    print(json.dumps(resolved(parameters, texts), ensure_ascii=False))
    for message in with_references(request.get("messages", []), runs):
        message = resolved(message, texts)
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


def runs_of_messages(records: Any) -> dict[str, Any]:
    """Return where the messages stand that others refer to: by their digest, the request's messages,
    the first and the last, and the digest of those that come before.
    """
    runs: dict[str, Any] = {}
    for record in records:
        messages = record["request"].get("messages")
        if isinstance(messages, list) and messages:
            for digest, first, end, before in runs_of(messages):
                runs.setdefault(digest, (messages, first, end, before))
    return runs


def runs_of(messages: Any) -> Any:
    """Yield each run of a request's messages that others may refer to."""
    begin = after_system(messages)
    reference = reference_in(messages[begin])
    starts = {(begin + 1, reference)} if reference else {(0, ""), (begin, "")}
    for first, before in sorted(starts):
        digest = before
        for end in range(first, len(messages)):
            text = digest + json.dumps(messages[end], sort_keys=True)
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
            yield digest, first, end + 1, before


def with_references(messages: Any, runs: dict[str, Any]) -> list[Any]:
    """Return a request's messages with those that it refers to."""
    if not isinstance(messages, list) or not messages:
        return []
    expanded = []
    for message in messages:
        digest = reference_in(message)
        if not digest:
            expanded.append(message)
            continue
        pieces = []
        while digest:
            request_messages, first, end, digest = runs[digest]
            pieces.append(request_messages[first:end])
        expanded += [each for piece in reversed(pieces) for each in piece]
    return expanded


def after_system(messages: Any) -> int:
    """Return where the first message stands that is not the system's."""
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ("system", "developer"):
            return index
    return 0


def reference_in(message: Any) -> Any:
    """Return the digest that stands in the place of messages, or None."""
    if isinstance(message, dict) and set(message) == {"$messages"}:
        return message["$messages"]
    return None


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    main(sys.argv[1])
