"""Records of conversations, written down as a cassette holds them, without a call.

Private imports: a file is written here that no run would record, and read as it stands.
"""

from __future__ import annotations

import array
import sys
from pathlib import Path
from typing import Any

from llmcall.keys.keys import key_of
from llmcall.stores.records import reader, writer
from llmcall.stores.records.header import Header
from llmcall.types import Record

Message = dict[str, Any]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!--\x1b[31m\u202e\u200b{{ 7*7 }}"


def record_of(
    kind: str,
    sample: str | None,
    request: dict[str, Any],
    response: dict[str, Any],
    cost: Any = None,
) -> Record:
    """Return a record under its true key."""
    return Record(key_of(kind, request, sample), kind, sample, request, response, cost)


def chat(
    asked: list[Message] | str, answer: str | Message, sample: str | None = None, **more: Any
) -> Record:
    """Return the record of a chat; ``more`` are parameters."""
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    message = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": "tool_calls" if "tool_calls" in message else "stop",
    }
    response = {
        "choices": [choice],
        "model": "m-2026",
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
    }
    return record_of(
        "chat", sample, {"model": "m", "messages": messages, **more}, response, 0.00002
    )


def conversation(
    sample: str, turns: list[tuple[str, str]], system: str = "You are Lisa."
) -> list[Record]:
    """Return the records of a conversation whose history grows."""
    messages = [{"role": "system", "content": system}]
    records = []
    for question, answer in turns:
        messages = [*messages, {"role": "user", "content": question}]
        records.append(chat(messages, answer, sample))
        messages = [*messages, {"role": "assistant", "content": answer}]
    return records


def embedding(text: str, numbers: list[float]) -> Record:
    """Return the record of an embedding."""
    packed = array.array("f", numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return record_of(
        "embedding", None, {"model": "e", "input": text}, {"embedding": packed.tobytes()}, 1e-8
    )


def function(name: str, arguments: dict[str, Any], value: Any, sample: str | None = None) -> Record:
    """Return the record of a recorded function's result."""
    return record_of(
        "function",
        sample,
        {"function": name, "arguments": arguments, "version": 2},
        {"value": value},
    )


def write_cassette(
    name: str | Path,
    records: list[Record],
    settings: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
) -> Path:
    """Write a cassette with a header of some settings, and options of ``llmcall run``."""
    path = Path(name)
    writer.write(path, Header({"model": "m"} if settings is None else settings, run), records)
    return path


def read_records(path: Path) -> list[Record]:
    """Return the records of a cassette or an export."""
    return list(reader.read(path))
