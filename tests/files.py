"""Files that tests write and read: cassettes without a call, settings, a cache's database; and disks
that fail.

Private imports: a cassette is written here that no run would record, and read as it stands.
"""

from __future__ import annotations

import array
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

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


DATABASE = "cache.db"


def in_database(folder: object, statement: str, *values: Any) -> list[Any]:
    """Run a statement on the database of a cache, as somebody else would who damages it; return
    what it finds.
    """
    with closing(sqlite3.connect(f"{folder}/{DATABASE}")) as connection, connection:
        return connection.execute(statement, values).fetchall()


def mount(folder: Path, *arguments: str) -> None:
    """Mount something at a folder, or skip the test where that is not allowed."""
    command = shutil.which("mount")
    if command is None or os.getuid():
        pytest.skip("only root mounts: run the tests as root, on Linux")
    done = subprocess.run([command, *arguments, str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(
            "root mounts nothing here, as in most containers: run the tests outside, or with "
            f"docker run --privileged ({done.stderr.decode().strip()})"
        )


@contextmanager
def small(folder: Path, size: str = "1m") -> Iterator[Path]:
    """Provide a disk of little size."""
    folder.mkdir()
    mount(folder, "-t", "tmpfs", "-o", f"size={size}", "none")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """Make a folder one that nobody can write to."""
    mount(folder, "--bind", str(folder))
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def written(name: str | Path, text: str | bytes) -> str:
    """Write a file that a command or the settings read, below the working directory, and return its
    path.
    """
    path = Path.cwd() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)
